//! Connection state recovery: a client that was cut off comes back to its session, and misses nothing, or is told that it is
//! another one.

mod claims;
mod nodes;
mod rooms;
mod stories;

use std::net::SocketAddr;
use std::time::Duration;

use roomcast::transport::socketio;
use serde_json::{Value, json};

use super::speakers::{Poller, Wire, command_packet, node_with};
use crate::support::{Node, User};

/// A client may be away for long.
pub fn recovering(settings: &mut socketio::Config) {
    settings.recovery = Some(Duration::from_secs(120));
}

pub async fn node() -> Node {
    node_with(recovering).await
}

/// What a client keeps of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub sid: String,
    pub pid: String,
    pub offset: Option<String>,
}

impl Kept {
    /// The data of the CONNECT by which a client comes back.
    pub fn claim(&self, token: &str) -> Value {
        match &self.offset {
            Some(offset) => json!({"pid": self.pid, "offset": offset, "token": token}),
            None => json!({"pid": self.pid, "token": token}),
        }
    }
}

/// An event as a client sees it, without the offset.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    pub name: String,
    pub payload: Value,
}

/// A client in one namespace, over a WebSocket or polls.
pub struct Person<'n> {
    carrier: Carrier<'n>,
    pub kept: Kept,
    /// What came before the answer to CONNECT.
    pub missed: Vec<Heard>,
    /// The answer gave back the session.
    pub recovered: bool,
}

pub enum Carrier<'n> {
    Wire(Wire),
    Poller(Poller<'n>, Vec<String>),
}

impl<'n> Carrier<'n> {
    pub async fn open(node: &'n Node, polls: bool) -> Self {
        if polls {
            Self::Poller(Poller::open(node).await, Vec::new())
        } else {
            Self::Wire(Wire::open(node).await)
        }
    }

    pub async fn say(&mut self, packet: &str) {
        match self {
            Self::Wire(wire) => wire.say(packet).await,
            Self::Poller(poller, _) => poller.post(packet).await,
        }
    }

    pub async fn hear(&mut self) -> String {
        match self {
            Self::Wire(wire) => wire.hear().await,
            Self::Poller(poller, packets) => {
                if packets.is_empty() {
                    packets.extend(poller.poll().await.split('\u{1e}').map(str::to_owned));
                }
                packets.remove(0)
            }
        }
    }
}

/// An event, and the offset behind it.
pub fn event(packet: &str) -> Option<(Heard, String)> {
    let arguments: Vec<Value> = serde_json::from_str(packet.strip_prefix("42")?).ok()?;
    let [Value::String(name), payload, Value::String(offset)] = &arguments[..] else {
        panic!("an event has a name, a payload and an offset: {packet}");
    };
    let heard = Heard {
        name: name.clone(),
        payload: payload.clone(),
    };
    Some((heard, offset.clone()))
}

impl<'n> Person<'n> {
    /// A client with a session of its own.
    pub async fn begin(node: &'n Node, user: &User) -> Self {
        Self::begin_by(Carrier::open(node, false).await, user).await
    }

    pub async fn begin_by(carrier: Carrier<'n>, user: &User) -> Self {
        Self::connect(carrier, &json!({"token": user.token()}), None).await
    }

    /// A client that comes back.
    pub async fn back(node: &'n Node, user: &User, kept: &Kept) -> Self {
        Self::back_by(Carrier::open(node, false).await, user, kept).await
    }

    pub async fn back_by(carrier: Carrier<'n>, user: &User, kept: &Kept) -> Self {
        Self::connect(carrier, &kept.claim(&user.token()), Some(kept)).await
    }

    async fn connect(mut carrier: Carrier<'n>, data: &Value, before: Option<&Kept>) -> Self {
        carrier.say(&format!("40{data}")).await;
        let mut offset = before.and_then(|kept| kept.offset.clone());
        let mut missed = Vec::new();
        let answer: Value = loop {
            let packet = carrier.hear().await;
            if let Some(answer) = packet.strip_prefix("40") {
                break serde_json::from_str(answer).unwrap();
            }
            let (heard, behind) = event(&packet).unwrap_or_else(|| panic!("{packet}"));
            missed.push(heard);
            offset = Some(behind);
        };
        let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let kept = Kept {
            sid: text("sid"),
            pid: text("pid"),
            offset,
        };
        let recovered = before.is_some_and(|before| before.pid == kept.pid);
        if let Some(before) = before {
            assert_eq!(before.sid == kept.sid, recovered, "both ids stay, or none");
            assert!(recovered || missed.is_empty(), "{missed:?}");
        }
        Self {
            carrier,
            kept,
            missed,
            recovered,
        }
    }

    /// A client of a gateway that is a process of its own.
    pub async fn begin_at(address: SocketAddr, user: &User) -> Person<'static> {
        Person::begin_by(Carrier::Wire(Wire::open_at(address).await), user).await
    }

    /// One that comes back.
    pub async fn back_at(address: SocketAddr, user: &User, kept: &Kept) -> Person<'static> {
        Person::back_by(Carrier::Wire(Wire::open_at(address).await), user, kept).await
    }

    /// The next event. The gateway's own are passed over; each has an offset.
    pub async fn event(&mut self) -> Heard {
        loop {
            let heard = self.any_event().await;
            if !heard.name.starts_with("roomcast:") {
                return heard;
            }
        }
    }

    pub async fn any_event(&mut self) -> Heard {
        let packet = self.carrier.hear().await;
        let (heard, offset) = event(&packet).unwrap_or_else(|| panic!("{packet}"));
        self.kept.offset = Some(offset);
        heard
    }

    /// Carries out a command; events come along.
    pub async fn command(&mut self, name: &str, data: &Value) -> Value {
        self.carrier.say(&command_packet(7, name, data)).await;
        loop {
            let packet = self.carrier.hear().await;
            if let Some(answer) = packet.strip_prefix("437") {
                let [answer] = &serde_json::from_str::<Vec<Value>>(answer).unwrap()[..] else {
                    panic!("an acknowledgement has one argument: {packet}");
                };
                assert_eq!(answer["ok"], true, "{packet}");
                return answer.clone();
            }
            let (_, offset) = event(&packet).unwrap_or_else(|| panic!("{packet}"));
            self.kept.offset = Some(offset);
        }
    }

    pub async fn join(&mut self, room: &str) {
        self.command("join", &json!({"room": room})).await;
    }

    /// Is cut off, and the gateway notices; what it has kept.
    pub async fn cut(self, node: &Node) -> Kept {
        let before = node.connections();
        let kept = self.drop_off().await;
        node.until_connections(before - 1).await;
        kept
    }

    /// Is cut off.
    pub async fn drop_off(self) -> Kept {
        match self.carrier {
            Carrier::Wire(wire) => wire.cut().await,
            // The end of a connection: a client that only stops to poll is away until its pings are missed.
            Carrier::Poller(poller, _) => poller.post("1").await,
        }
        self.kept
    }

    /// Is away, and nobody notices: what it has kept, and the transport that is still open.
    pub fn vanish(self) -> (Kept, Carrier<'n>) {
        (self.kept, self.carrier)
    }
}

/// The numbers of events that a test has published.
pub fn numbers(heard: &[Heard]) -> Vec<u64> {
    heard.iter().map(|heard| heard.payload["n"].as_u64().unwrap()).collect()
}

/// The same, and that nothing else came.
pub fn said(n: u64) -> Heard {
    Heard {
        name: "said".to_owned(),
        payload: json!({"n": n}),
    }
}
