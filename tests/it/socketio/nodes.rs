//! Clients that poll, and reach another node with each request.

mod ends;

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::StreamExt as _;
use roomcast::counters::RelayOutcome;
use roomcast::gateway::Config;
use roomcast::transport::socketio;
use serde_json::{Value, json};

use super::speakers::{POLLING, WEBSOCKET, Wire, answer, command_packet, connect_packet, send_request, with_socketio};
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::proxy::{Proxy, Way};
use crate::support::raw::{Raw, upgrade};
use crate::support::{Encoding, Node, User, user, within};

/// Gateways over a server, with pings that do not fall due.
async fn several(count: usize, server: &NatsServer) -> Node {
    let url = server.url();
    Node::several(Encoding::Json, count, move |config| over(config, &url)).await
}

fn over(config: &mut Config, url: &str) {
    over_with(config, url, |_| {});
}

fn over_with(config: &mut Config, url: &str, change: fn(&mut socketio::Config)) {
    with_socketio(config, |settings| {
        settings.ping_interval = std::time::Duration::from_secs(600);
        change(settings);
    });
    config.nats.as_mut().unwrap().servers = vec![url.to_owned()];
}

/// A client that polls; each request says which address it goes to.
struct Caller {
    sid: String,
}

impl Caller {
    async fn open(at: SocketAddr) -> Self {
        let (status, body) = request(at, "GET", POLLING, "").await;
        assert_eq!(status, 200, "{body}");
        let sid = body.split('"').nth(3).unwrap().to_owned();
        Self { sid }
    }

    /// A client with a session, in the room `r`. Its connection is of the first node, and the others had a part in it.
    async fn member(at: &[SocketAddr], user: &User) -> Self {
        let client = Self::open(at[0]).await;
        let post = async |turn: usize, packet: String| {
            let (status, body) = client.post(at[turn % at.len()], &packet).await;
            assert_eq!((status, &*body), (200, "ok"), "{packet}");
        };
        post(1, connect_packet(user)).await;
        let (status, connected) = client.get(at[0]).await;
        assert!(status == 200 && connected.starts_with("40{\"sid\":"), "{connected}");
        post(2, command_packet(1, "join", &json!({"room": "r"}))).await;
        let (status, joined) = client.get(at[at.len() - 1]).await;
        assert!(status == 200 && joined.starts_with("431[{\"ok\":true"), "{joined}");
        client
    }

    fn query(&self) -> String {
        format!("{POLLING}&sid={}", self.sid)
    }

    async fn get(&self, at: SocketAddr) -> (u16, String) {
        request(at, "GET", &self.query(), "").await
    }

    async fn post(&self, at: SocketAddr, body: &str) -> (u16, String) {
        request(at, "POST", &self.query(), body).await
    }

    /// A poll whose answer is still to be read.
    async fn waiting(&self, at: SocketAddr) -> Raw {
        let mut raw = Raw::connect(at, &Arc::default()).await;
        send_request(&mut raw, "GET", &self.query(), "", "").await;
        raw
    }

    /// The same; it has been relayed when this returns.
    async fn relayed(&self, at: SocketAddr, server: &NatsServer) -> Raw {
        let observer = async_nats::connect(server.url()).await.unwrap();
        let mut requests = observer.subscribe("roomcast.n.*.q").await.unwrap();
        // What is said to oneself comes back when the subscription before it holds.
        let mut echo = observer.subscribe("observer").await.unwrap();
        observer.publish("observer", "".into()).await.unwrap();
        within("an echo", echo.next()).await;
        let raw = self.waiting(at).await;
        within("the request to be relayed", requests.next()).await;
        raw
    }
}

async fn request(at: SocketAddr, method: &str, query: &str, body: &str) -> (u16, String) {
    let mut raw = Raw::connect(at, &Arc::default()).await;
    send_request(&mut raw, method, query, "", body).await;
    let (status, body, _) = answer(&mut raw).await;
    (status, body)
}

/// What the reference server says of an id that it does not know.
fn unknown() -> (u16, String) {
    (400, r#"{"code":1,"message":"Session ID unknown"}"#.to_owned())
}

fn addresses(node: &Node, count: usize) -> Vec<SocketAddr> {
    (0..count)
        .map(|number| node.of_several(number).client_address())
        .collect()
}

/// Polls by turns until so many events have come.
async fn events(client: &Caller, at: &[SocketAddr], count: usize) -> Vec<Value> {
    let (mut heard, mut turn) = (Vec::new(), 0);
    while heard.len() < count {
        let (status, body) = client.get(at[turn % at.len()]).await;
        assert_eq!(status, 200, "{body}");
        turn += 1;
        let events = body
            .split('\u{1e}')
            .filter_map(|packet| packet.strip_prefix("42[\"news\","));
        heard.extend(events.map(|event| serde_json::from_str::<Value>(event.trim_end_matches(']')).unwrap()));
    }
    heard
}

#[tokio::test]
async fn clients_by_turns_on_three_nodes_get_everything_once_in_order() {
    const EVENTS: usize = 300;
    let server = NatsServer::start().await;
    let node = several(3, &server).await;
    let mut at = addresses(&node, 3);
    let mut clients = Vec::new();
    for number in 0..9 {
        at.rotate_left(1);
        let member = Caller::member(&at, &user(&format!("user {number}"))).await;
        clients.push((member, at.clone()));
    }
    let publishing = async {
        for number in 0..EVENTS {
            let backend = node.of_several(number % 3).backend();
            backend.publish("r", "news", json!(number)).await;
        }
    };
    let polling = clients.iter().map(|(client, at)| events(client, at, EVENTS));
    let (heard, ()) = tokio::join!(futures_util::future::join_all(polling), publishing);
    let expected: Vec<Value> = (0..EVENTS).map(|number| json!(number)).collect();
    for heard in heard {
        assert_eq!(heard, expected);
    }
    for (client, at) in &clients {
        assert_eq!(client.post(at[1], "1").await, (200, "ok".to_owned()));
    }
    let relayed: u64 = (0..3)
        .map(|number| node.of_several(number).relayed(RelayOutcome::Answered))
        .sum();
    assert!(relayed > 9 * 3, "{relayed}");
    node.finish().await;
}

#[tokio::test]
async fn a_connection_of_an_unknown_node_is_unknown() {
    let server = NatsServer::start().await;
    let node = several(2, &server).await;
    let alone = Node::with(Encoding::Json, |config| with_socketio(config, |_| {})).await;
    let client = Caller::open(addresses(&node, 1)[0]).await;
    // The node is what the id begins with.
    let forged = |sid: &str| format!("AAAA{}", &sid[4..]);
    let forged = Caller {
        sid: forged(&client.sid),
    };
    for at in addresses(&node, 2) {
        assert_eq!(forged.get(at).await, unknown());
        assert_eq!(forged.post(at, "40").await, unknown());
    }
    assert_eq!(client.get(alone.client_address()).await, unknown());
    // The node is known, and the secret is not.
    let mut guessed = client.sid.clone();
    guessed.replace_range(30.., "AAAAAAAAAA");
    let guessed = Caller { sid: guessed };
    assert_eq!(guessed.get(addresses(&node, 2)[1]).await, unknown());
    assert_eq!(client.post(addresses(&node, 2)[1], "1").await.0, 200);
    alone.finish().await;
    node.finish().await;
}

#[tokio::test]
async fn a_websocket_at_another_node_is_refused_and_polling_goes_on() {
    let server = NatsServer::start().await;
    let node = several(2, &server).await;
    let at = addresses(&node, 2);
    let client = Caller::member(&at, &user("ada")).await;
    let mut raw = Raw::connect(at[1], &Arc::default()).await;
    let path = format!("/socket.io/?{WEBSOCKET}&sid={}", client.sid);
    raw.send(upgrade(&[]).replace("/v1/ws", &path).as_bytes()).await;
    let (status, body, _) = answer(&mut raw).await;
    assert_eq!((status, body), unknown());
    node.of_several(1).backend().publish("r", "news", json!(1)).await;
    assert_eq!(events(&client, &at[1..], 1).await, [json!(1)]);
    assert_eq!(client.post(at[1], "1").await.0, 200);
    node.finish().await;
}

#[tokio::test]
async fn an_upgrade_at_the_connections_node_loses_nothing_of_polls_elsewhere() {
    let server = NatsServer::start().await;
    let node = several(2, &server).await;
    let at = addresses(&node, 2);
    let client = Caller::member(&at, &user("ada")).await;
    let mut waiting = client.relayed(at[1], &server).await;
    let raw = Raw::connect(at[0], &Arc::default()).await;
    let mut wire = Wire::over(raw, &format!("{WEBSOCKET}&sid={}", client.sid)).await;
    wire.say("2probe").await;
    assert_eq!(wire.hear().await, "3probe");
    // Polls are released with nothing, the one that waits and those that follow.
    assert_eq!(answer(&mut waiting).await.1, "6");
    let backend = node.of_several(1).backend();
    backend.publish("r", "news", json!(1)).await;
    assert_eq!(client.get(at[1]).await, (200, "6".to_owned()));
    wire.say("5").await;
    assert_eq!(wire.hear().await, "42[\"news\",1]");
    // A request that was under way meanwhile is still carried out.
    let ping = command_packet(3, "ping", &json!({}));
    let (status, _) = client.post(at[1], &ping).await;
    if status == 200 {
        assert!(wire.hear().await.starts_with("433[{\"ok\":true"));
    }
    assert_eq!(client.get(at[1]).await.0, 400);
    wire.close().await;
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn bodies_larger_than_a_message_of_nats_arrive_whole() {
    let server = NatsServer::start_with(NatsOptions {
        config: "max_payload: 65536".to_owned(),
        ..NatsOptions::default()
    })
    .await;
    let node = several(2, &server).await;
    let at = addresses(&node, 2);
    let client = Caller::member(&at, &user("ada")).await;
    // Nobody handles it, and the end of the body is a command.
    let large = format!("42[\"chat\",\"{}\"]", "x".repeat(99_000));
    let ping = command_packet(7, "ping", &json!({}));
    assert_eq!(client.post(at[1], &format!("{large}\u{1e}{ping}")).await.0, 200);
    let (_, packets) = client.get(at[1]).await;
    assert!(
        packets.contains("unhandled_event") && packets.contains("437[{\"ok\":true"),
        "{packets}"
    );
    // Sixteen packets of ten kilobytes are one answer.
    let padding = "y".repeat(10_000);
    for _ in 0..16 {
        node.backend().publish("r", "news", json!(padding)).await;
    }
    let mut bytes = 0;
    while bytes < 16 * 10_000 {
        let (status, body) = client.get(at[1]).await;
        assert_eq!(status, 200);
        bytes += body.matches('y').count();
    }
    assert_eq!(bytes, 16 * 10_000);
    // Larger ones are refused before they are relayed, and the connection goes on.
    assert_eq!(client.post(at[1], &"x".repeat(103_126)).await.0, 413);
    assert_eq!(client.post(at[1], "1").await.0, 200);
    node.finish().await;
}

#[tokio::test]
async fn an_answer_that_a_broken_connection_has_lost_is_sent_again() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let (direct, through) = (server.url(), proxy.url());
    let node = Node::several(Encoding::Json, 2, move |config| {
        let url = if config.node_id == "node-0" { &through } else { &direct };
        over(config, url);
    })
    .await;
    let at = addresses(&node, 2);
    let client = Caller::member(&at, &user("ada")).await;
    let mut witness = node.of_several(0).connect(user("witness")).await;
    witness.join("r").await;
    let mut waiting = client.relayed(at[1], &server).await;
    // What the node says from here on gets as far as the proxy, and is lost there.
    proxy.freeze(Way::ToServer);
    node.of_several(1).backend().publish("r", "news", json!(1)).await;
    witness.expect_event("r", "news").await;
    proxy.reset();
    proxy.mend();
    let (status, body, _) = answer(&mut waiting).await;
    assert_eq!((status, &*body), (200, "42[\"news\",1]"));
    node.of_several(1).backend().publish("r", "news", json!(2)).await;
    assert_eq!(events(&client, &at[1..], 1).await, [json!(2)]);
    assert_eq!(client.post(at[1], "1").await.0, 200);
    node.finish().await;
}
