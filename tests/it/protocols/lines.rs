//! A third protocol: JSON arrays, a line each, over plain TCP. Everything of it is in this file, but for its registration.
//!
//! | from the client | from the gateway |
//! |---|---|
//! | `["connect", TOKEN]` | `["connected", USER]` |
//! | `["join", ROOM]` | `["joined", ROOM]` |
//! | `["publish", ROOM, NAME, PAYLOAD]` | `["published"]`; `["event", ROOM, NAME, PAYLOAD]` to members |
//! | anything else | `["refused", REASON]` |

use std::net::Ipv4Addr;

use roomcast::error::{CloseReason, ErrorCode};
use roomcast::event::{Event, Payload, Retention};
use roomcast::json::Json;
use roomcast::session::{Command, Encoder, Frame, JoinOptions, Message, Refusal, Request};
use roomcast::transport::carrier::{Carrier, Framing, Limits};
use roomcast::transport::protocol::{self, Decoded, Protocol};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Carries as _, Encoding, Node, user, within};

#[derive(Debug)]
struct Lines;

impl Protocol for Lines {
    fn decode(&self, message: protocol::Message<'_>) -> Decoded {
        let protocol::Message::Text(line) = message else {
            return Decoded::Unsupported;
        };
        match command(line) {
            // Replies come in the order of commands, so there are no numbers.
            Some(command) => Decoded::Request(Request { id: 1, command }),
            None => Decoded::Refused {
                id: 1,
                refusal: Refusal::new(ErrorCode::Malformed, "no such command"),
            },
        }
    }

    fn carrier(&self) -> Carrier {
        Carrier::Stream(Box::<Cutter>::default())
    }

    fn is_upgraded_to(&self) -> bool {
        false
    }

    fn farewell(&self, _: CloseReason, reason: &str) -> Frame {
        line(&json!(["closed", reason]))
    }
}

fn command(line: &str) -> Option<Command> {
    let parts: Vec<Value> = serde_json::from_str(line).ok()?;
    let text = |index: usize| parts.get(index).and_then(Value::as_str).map(str::to_owned);
    Some(match text(0)?.as_str() {
        "connect" => Command::Connect {
            token: text(1)?,
            client: String::new(),
            resume: Vec::new(),
            features: Vec::new(),
        },
        "join" => Command::Join {
            room: text(1)?,
            options: JoinOptions::default(),
        },
        "publish" => Command::Publish {
            room: text(1)?,
            event_name: text(2)?,
            payload: Payload::Json(Json::from(parts.get(3)?)),
            retention: Retention::Reliable,
            key: String::new(),
        },
        _ => return None,
    })
}

impl Encoder for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn message(&self, _: u32, message: &Message) -> Frame {
        match message {
            Message::Connected { user, .. } => line(&json!(["connected", user.as_str()])),
            Message::Joined(joined) => line(&json!(["joined", joined.room.name()])),
            Message::Published { .. } => line(&json!(["published"])),
            Message::Error(refusal) => line(&json!(["refused", refusal.reason])),
            // Nothing else can be said in this protocol.
            _ => Frame::new(),
        }
    }

    fn heartbeat(&self) -> Frame {
        line(&json!(["alive?"]))
    }

    fn event(&self, event: &Event) -> Frame {
        let payload = match &event.payload {
            Payload::Json(json) => serde_json::from_str(json.as_str()).unwrap(),
            Payload::Binary(_) => Value::Null,
        };
        line(&json!(["event", event.room.name(), event.name.as_str(), payload]))
    }

    fn passed(&self, _: &Event) -> Option<Frame> {
        None
    }
}

fn line(value: &Value) -> Frame {
    format!("{value}\n").into()
}

/// Cuts lines.
#[derive(Debug, Default)]
struct Cutter {
    partial: Vec<u8>,
    since_ms: Option<u64>,
}

impl Framing for Cutter {
    fn feed(
        &mut self,
        input: &[u8],
        limits: &Limits,
        now_ms: u64,
        on: &mut dyn FnMut(protocol::Message<'_>),
    ) -> Result<(), CloseReason> {
        self.partial.extend_from_slice(input);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = std::str::from_utf8(&line[..end]).map_err(|_| CloseReason::InvalidUtf8)?;
            on(protocol::Message::Text(line));
            self.since_ms = None;
        }
        if self.partial.len() > limits.message_bytes_max {
            return Err(CloseReason::MessageTooBig);
        }
        self.since_ms = (!self.partial.is_empty()).then(|| self.since_ms.unwrap_or(now_ms));
        Ok(())
    }

    fn partial_since_ms(&self) -> Option<u64> {
        self.since_ms
    }

    fn stop_clock(&mut self) {
        self.since_ms = None;
    }
}

/// Somebody who speaks it.
struct Speaker(BufStream<TcpStream>);

impl Speaker {
    async fn dial(node: &Node) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        node.adopt(accepted.into_std().unwrap(), peer.ip(), "lines").await;
        Self(BufStream::new(stream))
    }

    async fn say(&mut self, value: Value) {
        self.0.write_all(&line(&value)).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let mut text = String::new();
        within("a line", self.0.read_line(&mut text)).await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn ask(&mut self, value: Value) -> Value {
        self.say(value).await;
        self.hear().await
    }
}

#[tokio::test]
async fn a_third_protocol_takes_one_registration() {
    let node = Node::with(Encoding::Json, |config| config.protocols = config.protocols.with(Lines)).await;
    let mut nobody = Speaker::dial(&node).await;
    nobody.say(json!(["join", "r"])).await;
    assert_eq!(nobody.hear().await, json!(["refused", "unauthenticated"]));
    assert_eq!(nobody.hear().await, json!(["closed", "unauthenticated"]));
    assert_eq!(nobody.hear().await, Value::Null, "the connection has ended");
    let mut ada = Speaker::dial(&node).await;
    let token = user("ada").token();
    assert_eq!(ada.ask(json!(["connect", token])).await, json!(["connected", "ada"]));
    assert_eq!(ada.ask(json!(["join", "r"])).await, json!(["joined", "r"]));
    assert_eq!(ada.ask(json!(["fly"])).await, json!(["refused", "malformed"]));
    let mut bob = node.connect(user("bob")).await;
    bob.join("r").await;
    // What either says in its own protocol, both hear in their own.
    ada.say(json!(["publish", "r", "said", {"n": 1}])).await;
    let event = json!(["event", "r", "said", {"n": 1}]);
    let heard = [ada.hear().await, ada.hear().await];
    assert!(
        heard.contains(&event) && heard.contains(&json!(["published"])),
        "{heard:?}"
    );
    assert_eq!(bob.expect_event("r", "said").await.json(), json!({"n": 1}));
    node.backend().publish("r", "news", json!(2)).await;
    assert_eq!(ada.hear().await, json!(["event", "r", "news", 2]));
    // A line that never ends is bounded like any message, and half of one is not read.
    let mut endless = Speaker::dial(&node).await;
    let too_long = "x".repeat(Limits::default().message_bytes_max + 1);
    endless.0.write_all(too_long.as_bytes()).await.unwrap();
    endless.0.flush().await.unwrap();
    assert_eq!(endless.hear().await, json!(["closed", "message_too_big"]));
    drop(ada);
    node.finish().await;
}
