//! Mutated requests to the port for clients. What is behind single parsers has targets in `fuzz/`; here the whole port is asked.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roomcast::gateway::Config;
use roomcast::rate::Rate;
use roomcast::transport::socketio;

use crate::support::raw::{FIN, TEXT, masked, upgrade};
use crate::support::{Encoding, Node, user};

const REQUESTS: usize = 400;

/// Pieces that mean something to HTTP or to a route.
const PIECES: [&str; 18] = [
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\0",
    " ",
    "GET http://x/v1/events?room=r HTTP/1.1\r\n",
    "transfer-encoding: chunked\r\n",
    "content-length: 5\r\n",
    "content-length: 99999999999999999999\r\n",
    "host: y\r\n",
    "upgrade: websocket\r\n",
    "connection: upgrade\r\n",
    "origin: null\r\n",
    "HTTP/1.0",
    "%zz",
    "&sid=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "0\r\n\r\n",
    "\u{fffd}",
];

fn seeds() -> Vec<Vec<u8>> {
    let token = user("ada").token();
    let request = |method: &str, target: &str, headers: &str, body: &str| {
        let length = body.len();
        format!("{method} {target} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
    };
    let bearer = format!("authorization: Bearer {token}\r\nlast-event-id: AQA\r\n");
    let mut websocket = upgrade(&[("sec-websocket-protocol", "roomcast.v1.json")]).into_bytes();
    websocket.extend(masked(FIN | TEXT, br#"{"id":1,"connect":{"token":"x"}}"#));
    let socketio = upgrade(&[]).replace("/v1/ws", "/socket.io/?EIO=4&transport=websocket");
    let mut socketio = socketio.into_bytes();
    socketio.extend(masked(FIN | TEXT, format!("40{{\"token\":\"{token}\"}}").as_bytes()));
    vec![
        request("GET", "/v1/events?room=r&rewind=3&envelope=1", &bearer, ""),
        request("GET", "/socket.io/?EIO=4&transport=polling", "", ""),
        request(
            "POST",
            "/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "",
            "40\u{1e}6",
        ),
        request(
            "OPTIONS",
            "/socket.io/",
            "origin: https://a.example\r\naccess-control-request-method: POST\r\n",
            "",
        ),
        request("HEAD", "/", "", ""),
        websocket,
        socketio,
    ]
}

fn mutate(input: &mut Vec<u8>, random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    let to = (at + random.random_range(0..20)).min(input.len());
    match random.random_range(0..4) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 => drop(input.drain(at..to)),
        2 => {
            let again = input[at..to].to_vec();
            input.splice(at..at, again);
        }
        _ => {
            let piece = PIECES[random.random_range(0..PIECES.len())];
            input.splice(at..at, piece.bytes());
        }
    }
}

#[tokio::test]
async fn mutated_requests_are_answered_or_closed_and_harm_nobody() {
    let open = |config: &mut Config| {
        config.protocols = socketio::register(&config.protocols, &config.sockets.socketio);
        config.client.connect_rate = Rate {
            per_second: 100_000,
            burst: 100_000,
        };
    };
    let node = Node::with(Encoding::Json, open).await;
    let mut witness = node.connect(user("bob")).await;
    witness.join("r").await;
    let (seeds, mut random) = (seeds(), StdRng::seed_from_u64(7));
    for number in 0..REQUESTS {
        let mut input = seeds[number % seeds.len()].clone();
        for _ in 0..random.random_range(0..4) {
            mutate(&mut input, &mut random);
        }
        let mut raw = node.raw().await;
        raw.send(&input).await;
        // A request that is not whole is not waited for. A reset is an end as well.
        raw.try_end_own_side().await;
        let answered = raw.until_closed().await;
        assert!(
            answered.is_empty() || answered.starts_with(b"HTTP/1."),
            "{} is answered {}",
            input.escape_ascii(),
            answered.escape_ascii()
        );
    }
    node.backend().publish("r", "end", serde_json::json!({})).await;
    witness.expect_nothing_before("end").await;
    witness.close().await;
    node.finish().await;
}
