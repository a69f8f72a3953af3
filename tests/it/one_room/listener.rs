//! A client of any protocol, in one room.

use roomcast::proto::client_v1;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::entering::{Mark, Start, native, socketio, stream};
use super::heard::{Heard, Kind};
use super::told::{Told, of_native, of_packet, of_stream};
use crate::support::event_stream::EventStream;
use crate::support::socketio::{Gone, Packet, SocketIo, Way};
use crate::support::{Client, Encoding, Ended, OneOf, User, within};

/// After so many packets a client that polls goes over to a WebSocket.
const POLLED: usize = 12;

/// What a client was told of its join.
#[derive(Debug, Clone, PartialEq)]
pub struct Entered {
    pub recovered: bool,
    pub replayed: u64,
    /// Users, and how many connections each has.
    pub roster: Vec<(String, u64)>,
}

/// The connection of a client.
#[derive(Debug)]
pub(super) enum Link {
    Native(Box<Client>),
    SocketIo(Box<SocketIo>),
    Stream(Box<EventStream>),
}

/// A client in a room.
#[derive(Debug)]
pub struct Listener {
    pub kind: Kind,
    room: String,
    link: Link,
    /// Where its room was when it joined.
    head: client_v1::Position,
    packets: usize,
}

impl Listener {
    /// Joins a room at one node; the reason if it is refused.
    pub async fn enter(
        at: &OneOf<'_>,
        kind: Kind,
        user: &User,
        room: &str,
        start: Start,
    ) -> Result<(Self, Entered), String> {
        let entering = async {
            match kind {
                Kind::Json => native(at, Encoding::Json, user, room, start).await,
                Kind::Protobuf => native(at, Encoding::Protobuf, user, room, start).await,
                Kind::WebSocket => socketio(at, Way::WebSocket, user, room, start).await,
                Kind::Polling | Kind::Upgraded => socketio(at, Way::Polling, user, room, start).await,
                Kind::Payloads => stream(at, "", user, room, start).await,
                Kind::Envelopes => stream(at, "&envelope=1", user, room, start).await,
            }
        };
        let (link, joined) = within(format!("{kind:?} to join"), entering).await?;
        let listener = Self {
            kind,
            room: room.to_owned(),
            link,
            head: joined.head.expect("a join tells the head"),
            packets: 0,
        };
        let members = joined.presence.map(|presence| presence.members).unwrap_or_default();
        let entered = Entered {
            recovered: joined.recovered,
            replayed: joined.replayed.into(),
            roster: members
                .into_iter()
                .map(|member| (member.user_id, member.connection_count.into()))
                .collect(),
        };
        Ok((listener, entered))
    }

    /// What it is told next.
    pub async fn next(&mut self) -> Told {
        let what = format!("something that {:?} is told", self.kind);
        within(what, async {
            loop {
                if let Some(told) = self.read().await {
                    return told;
                }
            }
        })
        .await
    }

    /// The next event. Nothing but events that are not for it comes before.
    pub async fn event(&mut self) -> Heard {
        loop {
            match self.next().await {
                Told::Event(event) => return event,
                Told::Passed(_) => {}
                other => panic!("{:?} waits for an event and is told {other:?}", self.kind),
            }
        }
    }

    /// The next events.
    pub async fn events(&mut self, count: usize) -> Vec<Heard> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }

    /// The next push of the gateway of this name; nothing else comes before.
    pub async fn expect_notice(&mut self, name: &str) -> Value {
        match self.next().await {
            Told::Notice(told, fields) if told == name => fields,
            other => panic!("{:?} waits for {name} and is told {other:?}", self.kind),
        }
    }

    /// Its place, to go on from.
    pub fn mark(&self) -> Mark {
        match &self.link {
            Link::Native(client) => Mark::Position(client.position(&self.room)),
            // Events carry no position for a stock client.
            Link::SocketIo(_) => Mark::Position(self.head.clone()),
            Link::Stream(stream) => Mark::Id(stream.read.id.clone()),
        }
    }

    /// Ends as a client does that is done.
    pub async fn close(self) {
        match self.link {
            // It may have ended already.
            Link::Native(mut client) => {
                client.say_raw(Message::Close(None)).await;
                client.end().await;
            }
            Link::SocketIo(client) => within("a client to close", client.close()).await,
            Link::Stream(stream) => drop(stream),
        }
    }

    async fn read(&mut self) -> Option<Told> {
        match &mut self.link {
            Link::Native(client) => match client.push_or_end().await {
                Ok(said) => of_native(said),
                Err(Ended::Closed { code, .. }) => Some(Told::Ended {
                    comes_back: (4000..4500).contains(&code),
                }),
                Err(Ended::Gone) => Some(Told::Ended { comes_back: true }),
            },
            Link::SocketIo(client) => {
                self.packets += 1;
                if self.kind == Kind::Upgraded && self.packets == POLLED && client.upgrade().await.is_err() {
                    return Some(Told::Ended { comes_back: true });
                }
                match client.next().await {
                    Ok(Packet::Disconnected) => Some(Told::Ended { comes_back: false }),
                    Ok(packet) => of_packet(packet),
                    Err(Gone(_)) => Some(Told::Ended { comes_back: true }),
                }
            }
            Link::Stream(stream) => match stream.next().await {
                Some(event) => of_stream(self.kind, event),
                None => Some(Told::Ended { comes_back: true }),
            },
        }
    }
}
