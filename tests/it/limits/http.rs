//! Requests on the client port, one after another: what a connection may do before it has a session, or without ever having one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use roomcast::counters::ConnectionRefused;
use roomcast::gateway::Config;

use crate::protocols::events::{BODY_BYTES_MAX, Events, LARGE_BYTES, with_events};
use crate::support::raw::{FIN, PING, PONG, masked, upgrade};
use crate::support::{Encoding, Node, eventually};

const PAGE: &str = "<title>a page</title>";
const HOUR: Duration = Duration::from_secs(3600);

fn with_page(config: &mut Config) {
    with_events(config);
    config.client.page = Some(PAGE);
    config.client.idle_timeout = HOUR;
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn said(length: usize, body: &str) -> String {
    format!("POST /v1/said HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn requests_follow_each_other_and_an_upgrade_may_be_the_last() {
    let node = Node::with(Encoding::Json, with_page).await;
    let mut raw = node.raw().await;
    for _ in 0..3 {
        raw.send(get("/").as_bytes()).await;
        let (status, head) = raw.head().await;
        assert!(status == 200 && !head.contains("connection: close"), "{head}");
        assert_eq!(raw.text(PAGE.len()).await, PAGE);
    }
    raw.send(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (status, head) = raw.head().await;
    let length = format!("content-length: {}\r\n", PAGE.len());
    assert!(status == 200 && head.contains(&length), "{head}");
    raw.send(said(5, "hello").as_bytes()).await;
    assert_eq!(raw.head().await.0, 200);
    assert_eq!(raw.text(7).await, "5 bytes");
    raw.upgrade(&[]).await;
    raw.frame(FIN | PING, b"still there?").await;
    assert_eq!(raw.next_frame().await, (FIN | PONG, b"still there?".to_vec()));
    node.finish().await;
}

#[tokio::test]
async fn a_refusal_is_the_last_answer_of_a_connection() {
    let node = Node::with(Encoding::Json, with_page).await;
    for (request, status, line) in [
        (get("/nowhere"), 404, "content-length: 9\r\n"),
        (get("/v1/ws"), 426, "upgrade: websocket\r\n"),
        (get("/").replacen("GET", "DELETE", 1), 405, "allow: get, head\r\n"),
        (
            get("/").replacen("host: x\r\n", "host: x\r\ncontent-length: 1\r\n", 1),
            400,
            "",
        ),
        (said(BODY_BYTES_MAX + 1, ""), 413, ""),
    ] {
        let mut raw = node.raw().await;
        raw.send(request.as_bytes()).await;
        let (is, head) = raw.head().await;
        assert!(is == status && head.contains(line), "{request}{head}");
        assert!(head.contains("connection: close\r\n"), "{head}");
        raw.until_closed().await;
    }
    node.finish().await;
}

#[tokio::test]
async fn a_body_is_bounded_whether_or_not_its_length_is_told() {
    let node = Node::with(Encoding::Json, with_page).await;
    let chunked = |length: usize| {
        let body = "x".repeat(length);
        format!(
            "POST /v1/said HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        )
    };
    let known = |length: usize| said(length, &"x".repeat(length));
    for request in [known, chunked] as [fn(usize) -> String; 2] {
        let mut raw = node.raw().await;
        raw.send(request(BODY_BYTES_MAX).as_bytes()).await;
        assert_eq!(raw.head().await.0, 200);
        assert_eq!(raw.text(10).await, "1000 bytes");
        raw.send(request(BODY_BYTES_MAX + 1).as_bytes()).await;
        assert_eq!(raw.head().await.0, 413);
        raw.until_closed().await;
    }
    node.finish().await;
}

#[tokio::test]
async fn who_rests_or_is_slow_at_any_stage_is_cut_off() {
    let resting = |config: &mut Config| {
        with_page(config);
        config.client.idle_timeout = Duration::from_secs(1);
    };
    let node = Node::with(Encoding::Json, resting).await;
    let mut resting = node.raw().await;
    resting.send(get("/").as_bytes()).await;
    assert_eq!(resting.head().await.0, 200);
    assert_eq!(resting.until_closed().await, PAGE.as_bytes());
    node.finish().await;

    let hurried = |config: &mut Config| {
        with_page(config);
        config.client.head_timeout = Duration::from_secs(1);
    };
    let node = Node::with(Encoding::Json, hurried).await;
    let mut second_head = node.raw().await;
    second_head.send(get("/").as_bytes()).await;
    assert_eq!(second_head.head().await.0, 200);
    assert_eq!(second_head.text(PAGE.len()).await, PAGE);
    second_head.send(b"GET / HTTP/1.1\r\nx-slow: ").await;
    let mut body = node.raw().await;
    body.send(said(10, "half").as_bytes()).await;
    let mut handler = node.raw().await;
    handler.send(get("/v1/never").as_bytes()).await;
    for slow in [&mut second_head, &mut body, &mut handler] {
        assert_eq!(slow.until_closed().await, b"");
    }
    node.finish().await;
}

#[tokio::test]
async fn a_crowd_that_does_not_say_what_it_wants_keeps_nobody_out() {
    let few = |config: &mut Config| {
        with_page(config);
        config.client.handshakes_max = 4;
        config.client.head_timeout = HOUR;
    };
    let node = Node::with(Encoding::Json, few).await;
    let (mut crowd, one) = (Vec::new(), said(10, "half"));
    for start in ["", "G", "GET / HTTP/1.1\r\nx-slow: ", &one] {
        for _ in 0..8 {
            let mut raw = node.raw().await;
            raw.send(start.as_bytes()).await;
            crowd.push(raw);
        }
        let mut newcomer = node.raw().await;
        newcomer.upgrade(&[]).await;
    }
    // The oldest have made room, and are told to come back.
    let (status, head) = crowd[0].head().await;
    assert!(status == 503 && head.contains("retry-after: "), "{head}");
    crowd[0].until_closed().await;
    assert!(node.refused(ConnectionRefused::Busy) > 0);
    node.finish().await;
}

#[tokio::test]
async fn answers_that_are_not_read_hold_a_place_for_a_bounded_time() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let one = move |config: &mut Config| {
        let large = Arc::clone(&counted);
        config.protocols = config.protocols.with(Events { large });
        config.client.handshakes_max = 1;
    };
    let node = Node::with(Encoding::Json, one).await;
    let mut unread = node.raw().await;
    // Not one answer more is made than is read, however many are asked for.
    unread.send(get("/v1/large").repeat(50).as_bytes()).await;
    let probe = || async {
        let mut probe = node.raw().await;
        probe.send(get("/nowhere").as_bytes()).await;
        probe.head().await.0
    };
    assert_eq!(probe().await, 503, "its place is taken");
    eventually("its place to be free", || async {
        (probe().await == 404).then_some(())
    })
    .await;
    assert!(unread.until_closed().await.len() < LARGE_BYTES);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    node.finish().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_what_follows_an_upgrade_is_the_sessions() {
    let node = Node::with(Encoding::Json, with_page).await;
    let mut raw = node.raw().await;
    let mut all = [get("/"), said(2, "ab"), get("/"), upgrade(&[])].concat().into_bytes();
    all.extend(masked(FIN | PING, b"at once"));
    raw.send(&all).await;
    for body in [PAGE, "2 bytes", PAGE] {
        assert_eq!(raw.head().await.0, 200);
        assert_eq!(raw.text(body.len()).await, body);
    }
    assert_eq!(raw.head().await.0, 101);
    assert_eq!(raw.next_frame().await, (FIN | PONG, b"at once".to_vec()));
    // A request behind an upgrade is no frame (RFC 6455 section 5.1: it is not masked).
    let mut request = node.raw().await;
    request.send([upgrade(&[]), get("/")].concat().as_bytes()).await;
    assert_eq!(request.head().await.0, 101);
    assert_eq!(request.close_code().await, 1002);
    node.finish().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_thousandth_request() {
    let node = Node::with(Encoding::Json, with_page).await;
    let mut raw = node.raw().await;
    raw.send("HEAD / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1001).as_bytes())
        .await;
    for _ in 0..999 {
        let (status, head) = raw.head().await;
        assert!(status == 200 && !head.contains("connection: close"), "{head}");
    }
    let (status, head) = raw.head().await;
    assert!(status == 200 && head.contains("connection: close\r\n"), "{head}");
    assert_eq!(raw.until_closed().await, b"");
    node.finish().await;
}

#[tokio::test]
async fn connections_at_rest_leave_half_of_the_places_and_hold_up_no_end() {
    let two = |config: &mut Config| {
        with_page(config);
        config.client.handshakes_max = 2;
    };
    let mut node = Node::with(Encoding::Json, two).await;
    let mut resting = node.raw().await;
    resting.send(get("/").as_bytes()).await;
    let (_, head) = resting.head().await;
    assert!(!head.contains("connection: close"), "{head}");
    let mut second = node.raw().await;
    second.send(get("/").as_bytes()).await;
    let (status, head) = second.head().await;
    assert!(status == 200 && head.contains("connection: close\r\n"), "{head}");
    second.until_closed().await;
    // With it at rest for an hour, clients come and go.
    eventually("the place to be free", || async {
        let mut raw = node.raw().await;
        raw.send(upgrade(&[]).as_bytes()).await;
        (raw.head().await.0 == 101).then_some(())
    })
    .await;
    node.shut_down().await;
    assert_eq!(resting.until_closed().await, PAGE.as_bytes());
}
