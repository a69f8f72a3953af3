//! A protocol over a response: `GET /v1/feed?room=ROOM` is answered with a stream of events (`text/event-stream`) that a shard
//! writes. Everything of it is in this file, but for its registration; the routes that end at once are there for `limits`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use roomcast::error::CloseReason;
use roomcast::event::{Event, Payload};
use roomcast::gateway::Config;
use roomcast::proto::v1;
use roomcast::proto::v1::disconnect_request::Session;
use roomcast::session::{Command, Encoder, Frame, JoinOptions, Message, Request};
use roomcast::transport::carrier::Carrier;
use roomcast::transport::http::{Access, Answer, Call, HandOver, Route, chunked, text};
use roomcast::transport::protocol::{self, Decoded, Protocol};
use serde_json::json;

use crate::support::raw::Raw;
use crate::support::{Carries as _, Encoding, Node, TENANT, user};

/// The largest body of `POST /v1/said`, in bytes.
pub const BODY_BYTES_MAX: usize = 1000;
/// Longer than the kernel keeps for a peer that does not read.
pub const LARGE_BYTES: usize = 32 << 20;
/// How long the routes that are abused may take.
const SOON: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Events {
    /// How often `GET /v1/large` was carried out.
    pub large: Arc<AtomicU32>,
}

impl Protocol for Events {
    fn decode(&self, message: protocol::Message<'_>) -> Decoded {
        let protocol::Message::Text(room) = message else {
            return Decoded::Unsupported;
        };
        Decoded::Request(Request {
            id: 1,
            command: Command::Join {
                room: room.to_owned(),
                options: JoinOptions::default(),
            },
        })
    }

    fn carrier(&self) -> Carrier {
        Carrier::response_body()
    }

    fn is_upgraded_to(&self) -> bool {
        false
    }

    fn routes(&self) -> Vec<Route> {
        let shared = Access::Shared {
            headers: &["authorization", "x-asked"],
        };
        let (large, bytes) = (Arc::clone(&self.large), Bytes::from(vec![b'x'; LARGE_BYTES]));
        vec![
            Route::get("/v1/feed", |call| std::future::ready(open(&call))).access(shared.clone()),
            Route::new([Method::POST], "/v1/said", said)
                .access(shared)
                .body_bytes_max(BODY_BYTES_MAX)
                .deadline(SOON),
            Route::get("/v1/large", move |_| {
                large.fetch_add(1, Ordering::Relaxed);
                std::future::ready(text(StatusCode::OK, bytes.clone()).into())
            })
            .deadline(SOON),
            Route::get("/v1/never", |_| std::future::pending()).deadline(SOON),
        ]
    }

    fn farewell(&self, _: CloseReason, reason: &str) -> Frame {
        chunked::last_chunk(format!("event: closed\ndata: {reason}\n\n").as_bytes())
    }
}

fn open(call: &Call) -> Answer {
    let query = call.request.uri().query().unwrap_or_default();
    let rooms = query.split('&').filter_map(|pair| pair.strip_prefix("room="));
    let head = Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-store");
    Answer::Session(HandOver {
        head: head.body(()).unwrap(),
        protocol: call.protocol,
        // A stream cannot show one later.
        token: Some(call.token().unwrap_or_default()),
        engine: None,
        opening: rooms.collect::<Vec<_>>().join("\n").into_bytes(),
    })
}

async fn said(call: Call) -> Answer {
    text(StatusCode::OK, format!("{} bytes", call.request.body().len())).into()
}

impl Encoder for Events {
    fn name(&self) -> &'static str {
        "events"
    }

    fn message(&self, _: u32, message: &Message) -> Frame {
        match message {
            Message::Connected { user, .. } => event("connected", user.as_str()),
            Message::Joined(joined) => event("joined", joined.room.name()),
            Message::Error(refusal) => event("refused", &refusal.reason),
            _ => Frame::new(),
        }
    }

    fn heartbeat(&self) -> Frame {
        chunked::chunk(b":\n\n")
    }

    fn event(&self, said: &Event) -> Frame {
        match &said.payload {
            Payload::Json(json) => event(said.name.as_str(), json.as_str()),
            Payload::Binary(_) => Frame::new(),
        }
    }

    fn passed(&self, _: &Event) -> Option<Frame> {
        None
    }
}

fn event(name: &str, data: &str) -> Frame {
    chunked::chunk(format!("event: {name}\ndata: {data}\n\n").as_bytes())
}

/// Adds the protocol to a gateway's own.
pub fn with_events(config: &mut Config) {
    config.protocols = config.protocols.with(Events::default());
}

fn asking(method: &str, id: &str) -> String {
    let token = user(id).token();
    format!("{method} /v1/feed?room=r HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n")
}

/// A stream of what happens in the room `r`.
async fn listening(node: &Node, id: &str) -> Raw {
    let mut stream = node.raw().await;
    stream.send(asking("GET", id).as_bytes()).await;
    let (status, head) = stream.head().await;
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(stream.chunk().await, format!("event: connected\ndata: {id}\n\n"));
    assert_eq!(stream.chunk().await, "event: joined\ndata: r\n\n");
    stream
}

#[tokio::test]
async fn a_shard_writes_the_body_of_a_response() {
    let node = Node::with(Encoding::Json, with_events).await;
    let mut ada = listening(&node, "ada").await;
    let mut bob = node.connect(user("bob")).await;
    bob.join("r").await;
    node.backend().publish("r", "news", json!({"n": 1})).await;
    assert_eq!(ada.chunk().await, "event: news\ndata: {\"n\":1}\n\n");
    assert_eq!(bob.expect_event("r", "news").await.json(), json!({"n": 1}));
    // The end of the session is the end of the body.
    let request = v1::DisconnectRequest {
        tenant: TENANT.to_owned(),
        session: Some(Session::UserId("ada".to_owned())),
        reason: "moving".to_owned(),
        ..Default::default()
    };
    node.backend().connections.disconnect(request).await.unwrap();
    assert_eq!(ada.chunk().await, "event: closed\ndata: moving\n\n");
    assert_eq!(ada.chunk().await, "");
    assert_eq!(ada.until_closed().await, b"");
    // The end of the client is the end of the session.
    let mut cy = listening(&node, "cy").await;
    node.until_connections(2).await;
    cy.end_own_side().await;
    node.until_connections(1).await;
    node.finish().await;
}

#[tokio::test]
async fn a_stream_opens_no_session_for_head_nobody_or_an_old_version() {
    let node = Node::with(Encoding::Json, with_events).await;
    let mut raw = node.raw().await;
    raw.send(asking("HEAD", "ada").as_bytes()).await;
    let (status, head) = raw.head().await;
    assert!(
        status == 200 && head.contains("content-type: text/event-stream\r\n"),
        "{head}"
    );
    // The connection is still HTTP's.
    raw.send(asking("GET", "ada").replace("HTTP/1.1", "HTTP/1.0").as_bytes())
        .await;
    assert_eq!(raw.head().await.0, 505);
    assert_eq!(node.connections(), 0);
    let mut nobody = node.raw().await;
    nobody.send(b"GET /v1/feed?room=r HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(nobody.head().await.0, 200);
    assert_eq!(nobody.chunk().await, "event: refused\ndata: unauthenticated\n\n");
    assert_eq!(nobody.chunk().await, "event: closed\ndata: unauthenticated\n\n");
    assert_eq!(nobody.until_closed().await, b"0\r\n\r\n");
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn what_a_stream_does_not_read_is_bounded() {
    let small = |config: &mut Config| {
        with_events(config);
        config.sockets.outbox.outbox_bytes_max = 128 * 1024;
    };
    let node = Node::with(Encoding::Json, small).await;
    let mut ada = listening(&node, "ada").await;
    let padding = "x".repeat(16 * 1024);
    let (backend, mut count) = (node.backend(), 0);
    while node.connections() > 0 {
        assert!(count < 2000, "who does not read is still there");
        backend.publish("r", "n", json!(padding)).await;
        count += 1;
    }
    // It reads on: whole events, fewer than there were, and then why it has ended.
    let mut read = 0;
    loop {
        let chunk = ada.chunk().await;
        if chunk == "event: closed\ndata: slow_consumer\n\n" {
            break;
        }
        assert_eq!(chunk, format!("event: n\ndata: \"{padding}\"\n\n"));
        read += 1;
    }
    assert!(read < count, "{read} of {count}");
    assert_eq!(ada.until_closed().await, b"0\r\n\r\n");
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_never_sends_is_not_silent() {
    let quick = |config: &mut Config| {
        with_events(config);
        config.session.heartbeat_interval = Duration::from_secs(1);
        config.session.heartbeat_grace = Duration::from_secs(1);
    };
    let node = Node::with(Encoding::Json, quick).await;
    let mut ada = listening(&node, "ada").await;
    for _ in 0..4 {
        assert_eq!(ada.chunk().await, ":\n\n");
    }
    node.finish().await;
}

#[tokio::test]
async fn nothing_is_taken_behind_the_request_of_a_stream() {
    let node = Node::with(Encoding::Json, with_events).await;
    let mut later = listening(&node, "ada").await;
    later.send(asking("GET", "ada").as_bytes()).await;
    assert_eq!(later.chunk().await, "event: closed\ndata: policy_violation\n\n");
    assert_eq!(later.until_closed().await, b"0\r\n\r\n");
    // Also where the request has asked for nothing: its first bytes are no opening.
    let mut roomless = node.raw().await;
    roomless
        .send(asking("GET", "ada").replace("?room=r", "").as_bytes())
        .await;
    assert_eq!(roomless.head().await.0, 200);
    assert_eq!(roomless.chunk().await, "event: connected\ndata: ada\n\n");
    roomless.send(b"r\n").await;
    assert_eq!(roomless.chunk().await, "event: closed\ndata: policy_violation\n\n");
    let mut at_once = node.raw().await;
    at_once.send(asking("GET", "ada").repeat(2).as_bytes()).await;
    assert_eq!(at_once.head().await.0, 200);
    // Cut off: nothing of a body, not even its end.
    assert_eq!(at_once.until_closed().await, b"");
    node.until_connections(0).await;
    node.finish().await;
}
