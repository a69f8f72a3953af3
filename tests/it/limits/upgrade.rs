//! Before there is a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use roomcast::counters::ConnectionRefused;
use roomcast::gateway::Config;
use roomcast::proto::client_v1::ErrorCode;
use roomcast::rate::Rate;
use roomcast::transport::http::{ForwardedHeader, Origins};

use crate::support::raw::{Raw, upgrade};
use crate::support::{Encoding, Gateway, GatewayOptions, Node, eventually, user};

async fn status_of(node: &Node, request: &str) -> (u16, String) {
    let mut raw = node.raw().await;
    raw.send(request.as_bytes()).await;
    raw.head().await
}

#[tokio::test]
async fn who_connects_and_says_nothing_or_says_it_slowly_is_cut_off() {
    let hurried = |config: &mut Config| config.client.head_timeout = Duration::from_secs(2);
    let node = Node::with(Encoding::Json, hurried).await;
    let mut silent = node.raw().await;
    let mut slow = node.raw().await;
    slow.send(b"GET /v1/ws HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    assert_eq!(silent.until_closed().await, b"");
    slow.until_closed().await;
    // Others are not held up meanwhile, and a WebSocket outlives the time for its request.
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let mut silent = node.raw().await;
    silent.until_closed().await;
    ada.join("s").await;
    node.finish().await;
}

#[tokio::test]
async fn too_large_and_too_many_headers_are_refused() {
    let node = Node::start(Encoding::Json).await;
    let large = "x".repeat(17 * 1024);
    assert_eq!(status_of(&node, &upgrade(&[("x-large", &large)])).await.0, 431);
    let names: Vec<String> = (0..65).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(status_of(&node, &upgrade(&many)).await.0, 431);
    let fine = "x".repeat(8 * 1024);
    assert_eq!(status_of(&node, &upgrade(&[("x-fine", &fine)])).await.0, 101);
    node.finish().await;
}

#[tokio::test]
async fn a_wrong_upgrade_is_told_what_is_wrong() {
    let node = Node::start(Encoding::Json).await;
    let (status, head) = status_of(&node, &upgrade(&[("sec-websocket-version", "8")])).await;
    assert!(status == 426 && head.contains("sec-websocket-version: 13"), "{head}");
    for (headers, expected) in [
        ([("upgrade", "h2c")], 426),
        ([("upgrade", "")], 426),
        ([("sec-websocket-version", "")], 426),
        ([("sec-websocket-key", "")], 400),
        ([("sec-websocket-key", "c2hvcnQ=")], 400),
        ([("sec-websocket-key", "not base64, but it has 24")], 400),
        ([("connection", "keep-alive")], 400),
        ([("sec-websocket-protocol", "unknown")], 400),
    ] {
        let (status, head) = status_of(&node, &upgrade(&headers)).await;
        assert_eq!(status, expected, "{headers:?}: {head}");
    }
    let post = upgrade(&[]).replacen("GET", "POST", 1);
    assert_eq!(status_of(&node, &post).await.0, 405);
    let elsewhere = upgrade(&[]).replacen("/v1/ws", "/v1/ws/../x", 1);
    assert_eq!(status_of(&node, &elsewhere).await.0, 404);
    let mut junk = node.raw().await;
    junk.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello, perhaps\r\n\r\n")
        .await;
    junk.until_closed().await;
    node.connect(user("ada")).await.join("r").await;
    node.finish().await;
}

#[tokio::test]
async fn an_upgrade_is_read_over_all_lines_and_tokens() {
    let node = Node::start(Encoding::Json).await;
    for headers in [
        &[("connection", "keep-alive"), ("connection", "Upgrade")][..],
        &[("connection", "Upgrade"), ("connection", "keep-alive")],
        &[("connection", "keep-alive,\tupgrade")],
        &[("upgrade", "websocket, h2c")],
        &[("upgrade", "h2c"), ("upgrade", "WebSocket")],
        // Printed in RFC 6455 section 4.1: bits are set behind the sixteen bytes.
        &[("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4PEC==")],
        &[
            ("sec-websocket-protocol", "x"),
            ("sec-websocket-protocol", "y,roomcast.v1.json"),
        ],
        &[("content-length", "0")],
    ] {
        let (status, head) = status_of(&node, &upgrade(headers)).await;
        assert_eq!(status, 101, "{headers:?}: {head}");
    }
    node.connect(user("ada")).await.join("r").await;
    node.finish().await;
}

#[tokio::test]
async fn a_request_with_two_hosts_or_a_body_is_no_upgrade() {
    let node = Node::start(Encoding::Json).await;
    for headers in [
        &[("host", "a.example"), ("host", "b.example")][..],
        &[("host", "a.example"), ("host", "a.example")],
        &[("host", "")],
        &[("host", "a b")],
        &[("content-length", "5")],
        &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
        &[("transfer-encoding", "chunked")],
        &[
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    ] {
        let (status, head) = status_of(&node, &upgrade(headers)).await;
        assert_eq!(status, 400, "{headers:?}: {head}");
    }
    let elsewhere = "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    assert_eq!(status_of(&node, elsewhere).await.0, 400);
    node.connect(user("ada")).await.join("r").await;
    node.finish().await;
}

#[tokio::test]
async fn a_token_alone_among_the_subprotocols_is_refused_in_words() {
    let node = Node::start(Encoding::Json).await;
    let ada = user("ada");
    let token = format!("bearer.{}", ada.token());
    let mut raw = node.raw().await;
    raw.send(upgrade(&[("sec-websocket-protocol", &token)]).as_bytes())
        .await;
    let answer = String::from_utf8(raw.until_closed().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        answer.contains("`roomcast.v1.json`") && !answer.contains(&ada.token()),
        "{answer}"
    );
    // Beside a protocol the token counts, and the answer names the protocol.
    let both = format!("{token}, roomcast.v1.json");
    let (status, head) = status_of(&node, &upgrade(&[("sec-websocket-protocol", &both)])).await;
    assert!(
        status == 101 && head.contains("sec-websocket-protocol: roomcast.v1.json\r\n"),
        "{head}"
    );
    node.finish().await;
}

#[tokio::test]
async fn only_listed_origins_connect_from_a_browser() {
    let listed = |config: &mut Config| {
        config.client.origins = Origins::Listed(vec!["https://app.example".to_owned()]);
    };
    let node = Node::with(Encoding::Json, listed).await;
    for (origin, expected) in [
        ("https://app.example", 101),
        ("null", 403),
        ("https://app.example.evil", 403),
        ("https://evil-app.example", 403),
        ("https://app.example:8443", 403),
        ("http://app.example", 403),
        ("https://APP.example", 403),
    ] {
        let status = status_of(&node, &upgrade(&[("origin", origin)])).await.0;
        assert_eq!(status, expected, "{origin}");
    }
    // Before anything else is looked at: a foreign page learns nothing.
    let foreign = upgrade(&[("origin", "https://evil.example"), ("sec-websocket-version", "8")]);
    assert_eq!(status_of(&node, &foreign).await.0, 403);
    node.connect(user("ada")).await.join("r").await;
    node.finish().await;
}

#[tokio::test]
async fn a_user_with_too_many_connections_gets_no_further_one() {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        Box::pin(one_connection_too_many(encoding)).await;
    }
}

async fn one_connection_too_many(encoding: Encoding) {
    let few = |config: &mut Config| config.connections.per_user_max = 3;
    let node = Node::with(encoding, few).await;
    let mut own = Vec::new();
    for _ in 0..3 {
        own.push(node.connect(user("ada")).await);
    }
    let mut fourth = node.open().await;
    let refusal = fourth.authenticate(&user("ada"), Vec::new()).await.unwrap_err();
    // Both say that coming back does not help.
    assert_eq!(
        (refusal.code(), refusal.reason.as_str(), refusal.retry_after_ms),
        (ErrorCode::LimitReached, "connection_limit", 0)
    );
    assert_eq!(fourth.expect_close(4504).await, "connection_limit");
    assert_eq!(node.refused(ConnectionRefused::UserFull), 1);
    // Nobody else is hit, not even of the same name elsewhere; and one that goes makes room for another.
    node.connect(user("ben")).await.join("r").await;
    node.connect(user("ada").tenant("other")).await.join("r").await;
    own.pop().unwrap().close().await;
    node.until_connections(2).await;
    node.connect(user("ada")).await.join("r").await;
    for client in &mut own {
        client.join("r").await;
    }
    node.finish().await;
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_told_to_come_back() {
    let few = |config: &mut Config| config.connections.per_address_max = 2;
    let node = Node::with(Encoding::Json, few).await;
    let one = node.connect(user("one")).await;
    let mut two = node.connect(user("two")).await;
    let (status, head) = status_of(&node, &upgrade(&[])).await;
    assert!(status == 429 && head.contains("retry-after: "), "{head}");
    assert_eq!(node.refused(ConnectionRefused::AddressFull), 1);
    two.join("r").await;
    one.close().await;
    node.until_connections(1).await;
    node.connect(user("three")).await.join("r").await;
    node.finish().await;
}

#[tokio::test]
async fn a_full_node_and_a_storm_are_told_to_come_back() {
    let full = |config: &mut Config| config.connections.connections_max = 1;
    let node = Node::with(Encoding::Json, full).await;
    let mut ada = node.connect(user("ada")).await;
    let (status, head) = status_of(&node, &upgrade(&[])).await;
    assert!(status == 503 && head.contains("retry-after: "), "{head}");
    assert_eq!(node.refused(ConnectionRefused::NodeFull), 1);
    ada.join("r").await;
    node.finish().await;

    let slow = |config: &mut Config| {
        config.client.connect_rate = Rate {
            per_second: 1,
            burst: 3,
        };
    };
    let node = Node::with(Encoding::Json, slow).await;
    assert_eq!(status_of(&node, &upgrade(&[])).await.0, 101);
    // All at once: one by one, a slow machine would make no storm.
    let request = upgrade(&[]);
    let storm = join_all((0..50).map(|_| status_of(&node, &request))).await;
    let (_, head) = storm
        .iter()
        .find(|(status, _)| *status == 503)
        .expect("a storm is turned away");
    assert!(head.contains("retry-after: "), "{head}");
    assert!(node.refused(ConnectionRefused::Busy) > 0);
    node.finish().await;
}

#[tokio::test]
async fn a_forged_forwarded_address_counts_only_from_a_trusted_proxy() {
    let one_each = |config: &mut Config| config.connections.per_address_max = 1;
    let node = Node::with(Encoding::Json, one_each).await;
    let _first = node.connect(user("ada")).await;
    let forged = upgrade(&[("x-forwarded-for", "10.9.8.7")]);
    assert_eq!(status_of(&node, &forged).await.0, 429);
    node.finish().await;

    let behind_a_proxy = |config: &mut Config| {
        config.connections.per_address_max = 1;
        config.client.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    };
    let node = Node::with(Encoding::Json, behind_a_proxy).await;
    let mut first = node.raw().await;
    first.upgrade(&[("x-forwarded-for", "10.9.8.7")]).await;
    assert_eq!(
        status_of(&node, &upgrade(&[("x-forwarded-for", "10.9.8.8")])).await.0,
        101
    );
    // What a client puts in front of the proxy's own entry is not believed.
    let forged = upgrade(&[("x-forwarded-for", "10.1.1.1, 10.9.8.7")]);
    assert_eq!(status_of(&node, &forged).await.0, 429);
    node.finish().await;
}

/// Connections that a proxy on this machine forwards, one for each address.
async fn behind_a_proxy(trusted: &str, header: ForwardedHeader) -> Node {
    let trusted = trusted.parse().unwrap();
    Node::with(Encoding::Json, move |config: &mut Config| {
        config.connections.per_address_max = 1;
        config.client.trusted_proxies = vec![trusted];
        config.client.forwarded_header = header;
    })
    .await
}

#[tokio::test]
async fn clients_behind_a_proxy_are_counted_apart_however_it_writes_their_addresses() {
    let spelled = |header: ForwardedHeader, address: &str| match header {
        ForwardedHeader::XForwardedFor => address.to_owned(),
        ForwardedHeader::Forwarded => format!("proto=https;for=\"{address}\""),
    };
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let node = behind_a_proxy("::ffff:127.0.0.0/104", header).await;
        let mut open = Vec::new();
        for (address, expected) in [
            ("10.9.0.3:4711", 101),
            ("10.9.0.3:4712", 429),
            ("10.9.0.3", 429),
            ("[::ffff:10.9.0.3]:80", 429),
            ("10.9.0.4:4711", 101),
            ("[2001:db8::1]:4711", 101),
            ("2001:db8::1", 429),
            ("unknown", 400),
            ("_hidden", 400),
        ] {
            let mut raw = node.raw().await;
            let forwarded = spelled(header, address);
            raw.send(upgrade(&[(header.name(), &forwarded)]).as_bytes()).await;
            assert_eq!(raw.head().await.0, expected, "{forwarded}");
            open.push(raw);
        }
        // What names nobody is the proxy's own connection, and so is the other header, which a client may have written.
        let other = match header {
            ForwardedHeader::XForwardedFor => ("forwarded", "for=10.9.0.5"),
            ForwardedHeader::Forwarded => ("x-forwarded-for", "10.9.0.5"),
        };
        let mut own = node.raw().await;
        own.upgrade(&[other]).await;
        assert_eq!(status_of(&node, &upgrade(&[])).await.0, 429);
        drop((open, own));
        node.finish().await;
    }
}

/// A wrong proxy is found in the log: it names no client, or names one in a way that cannot be read.
#[tokio::test]
async fn a_proxy_that_forwards_no_readable_address_is_logged() {
    let gateway = Gateway::start(GatewayOptions {
        name: "behind-a-proxy".to_owned(),
        through: vec![
            "env".to_owned(),
            "ROOMCAST_CLIENT__TRUSTED_PROXIES=[\"127.0.0.0/8\"]".to_owned(),
        ],
        ..GatewayOptions::default()
    })
    .await;
    for (headers, expected, line) in [
        (
            &[][..],
            101,
            "trusted proxy names no client, its connections count as one address",
        ),
        (
            &[("x-forwarded-for", "_hidden")],
            400,
            "forwarded address unreadable, upgrade refused",
        ),
    ] {
        assert!(!gateway.log().contains(line), "{}", gateway.log());
        let mut raw = Raw::connect(gateway.clients(), &Arc::default()).await;
        raw.send(upgrade(headers).as_bytes()).await;
        assert_eq!(raw.head().await.0, expected, "{headers:?}");
        eventually("it to be logged", async || {
            let log = gateway.log();
            let found = log.lines().find(|found| found.contains(line));
            found.map(|found| assert!(found.contains("WARN") && found.contains("x-forwarded-for"), "{found}"))
        })
        .await;
    }
    assert!(!gateway.log().contains("_hidden"), "addresses are not logged");
}
