//! A client of any protocol, in one room.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{self, Join, Joined, PresenceMode};
use roomcast::proto::v1;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::event_stream::{Dispatched, EventStream};
use crate::support::socketio::{Gone, Packet, SocketIo, Way};
use crate::support::{Client, Encoding, Ended, InRoom as _, OneOf, User, user, within};

/// A protocol and the way it is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Protobuf,
    WebSocket,
    Polling,
    /// Begins to poll, and goes over to a WebSocket after some events.
    Upgraded,
    /// An event stream of payloads.
    Payloads,
    /// An event stream of whole events.
    Envelopes,
}

/// After so many packets a client that polls goes over to a WebSocket.
const POLLED: usize = 12;

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Json,
        Self::Protobuf,
        Self::WebSocket,
        Self::Polling,
        Self::Upgraded,
        Self::Payloads,
        Self::Envelopes,
    ];

    /// A user whose name is the kind's.
    pub fn user(self) -> User {
        user(&format!("{self:?}"))
    }

    /// Whether its events say their positions.
    pub fn tells_positions(self) -> bool {
        matches!(self, Self::Json | Self::Protobuf | Self::Envelopes)
    }
}

/// The content of an event, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    Json(String),
    Binary(Vec<u8>),
}

/// An event as it was told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Heard {
    /// Epoch and offset.
    pub position: Option<(String, u64)>,
    pub name: String,
    pub content: Content,
}

impl Heard {
    /// The same as a client of this kind is told it.
    pub fn told_to(mut self, kind: Kind) -> Self {
        if !kind.tells_positions() {
            self.position = None;
        }
        // The data of such a stream is always JSON.
        if let (Kind::Payloads, Content::Binary(bytes)) = (kind, &self.content) {
            self.content = Content::Json(json!(STANDARD.encode(bytes)).to_string());
        }
        self
    }

    /// The event that a subscriber got, or that stands in a history.
    pub fn of_backend(event: v1::Event) -> Self {
        let content = event.payload.and_then(|payload| payload.content);
        Self {
            position: event.position.map(|position| (position.epoch, position.offset)),
            name: event.event_name,
            content: match content.expect("an event has a payload") {
                v1::payload::Content::Json(text) => Content::Json(text),
                v1::payload::Content::Binary(bytes) => Content::Binary(bytes.to_vec()),
            },
        }
    }

    fn of_native(event: client_v1::Event) -> Self {
        let content = event.payload.and_then(|payload| payload.content);
        Self {
            position: (!event.epoch.is_empty()).then_some((event.epoch, event.offset)),
            name: event.event_name,
            content: match content.expect("an event has a payload") {
                client_v1::payload::Content::Json(text) => Content::Json(text),
                client_v1::payload::Content::Binary(bytes) => Content::Binary(bytes.to_vec()),
            },
        }
    }

    fn of_envelope(data: &str) -> Self {
        // By hand: a payload may be null.
        let fields: BTreeMap<String, &RawValue> =
            serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        let text = |key: &str| -> Option<String> { serde_json::from_str(fields.get(key)?.get()).ok() };
        let offset = fields.get("offset").and_then(|offset| offset.get().parse().ok());
        Self {
            position: text("epoch").zip(offset),
            name: text("eventName").expect("an event has a name"),
            content: match (fields.get("payload"), text("binary")) {
                (Some(json), None) => Content::Json(json.get().to_owned()),
                (None, Some(text)) => Content::Binary(STANDARD.decode(text).expect("binary is base64")),
                _ => panic!("a payload or binary: {data}"),
            },
        }
    }
}

/// A hash of events in their order.
pub fn digest(events: &[Heard]) -> u64 {
    let mut hasher = DefaultHasher::new();
    events.hash(&mut hasher);
    hasher.finish()
}

/// A thing that a client is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Event(Heard),
    /// The offset of an event that is not for this client.
    Passed(u64),
    /// A push of the gateway by its native name, with some of its fields.
    Notice(&'static str, Value),
    /// The end, and whether a client comes back by itself then.
    Ended {
        comes_back: bool,
    },
}

/// The start of a client in its room.
#[derive(Debug, Clone, Default)]
pub enum Start {
    #[default]
    Now,
    Rewind(u32),
    /// With the roster of its members.
    Watching,
    /// Where another one was.
    After(Mark),
}

/// The place of a client in its room, as its protocol lets it say so.
#[derive(Debug, Clone)]
pub enum Mark {
    Position(client_v1::Position),
    Id(String),
}

/// What a client was told of its join.
#[derive(Debug, Clone, PartialEq)]
pub struct Entered {
    pub recovered: bool,
    pub replayed: u64,
    /// Users, and how many connections each has.
    pub roster: Vec<(String, u64)>,
}

#[derive(Debug)]
enum Link {
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

fn of_native(said: Said) -> Option<Told> {
    Some(match said {
        Said::Event(event) => Told::Event(Heard::of_native(event)),
        Said::Passed(passed) => Told::Passed(passed.offset),
        Said::RoomLeft(left) => {
            let cause = left.cause().as_str_name().to_lowercase();
            let cause = cause.trim_start_matches("room_change_cause_");
            Told::Notice(
                "roomLeft",
                json!({"room": left.room, "cause": cause, "reason": left.reason}),
            )
        }
        Said::ReconnectAdvice(advice) => Told::Notice("reconnectAdvice", json!({"reason": advice.reason})),
        Said::SessionExpiring(_) => Told::Notice("sessionExpiring", json!({})),
        Said::Disconnected(told) => Told::Notice("disconnected", json!({"reason": told.reason})),
        Said::PresenceDelta(delta) => {
            let users = |members: Vec<client_v1::Member>| -> Vec<String> {
                members.into_iter().map(|member| member.user_id).collect()
            };
            presence_told(&users(delta.joined), &delta.left_user_ids)?
        }
        // Why the connection ends next.
        Said::Error(_) => return None,
        other => panic!("a push that no test asks for: {other:?}"),
    })
}

/// A change of presence, if somebody came or went: not where a user's connections are counted anew.
fn presence_told(joined: &[String], left: &[String]) -> Option<Told> {
    (!joined.is_empty() || !left.is_empty())
        .then(|| Told::Notice("presenceDelta", json!({"joined": joined, "left": left})))
}

fn of_packet(packet: Packet) -> Option<Told> {
    let (name, mut arguments, attachments) = match packet {
        Packet::Event {
            name,
            arguments,
            attachments,
        } => (name, arguments, attachments),
        other => panic!("a packet that no test asks for: {other:?}"),
    };
    assert_eq!(arguments.len(), 1, "{name}: {arguments:?}");
    let argument = arguments.remove(0);
    if let Some(name) = name.strip_prefix("roomcast:") {
        return notice(name, &argument);
    }
    let content = match &attachments[..] {
        [] => Content::Json(argument),
        [bytes] => {
            assert_eq!(argument, r#"{"_placeholder":true,"num":0}"#);
            Content::Binary(bytes.to_vec())
        }
        more => panic!("{name} has {} attachments", more.len()),
    };
    Some(Told::Event(Heard {
        position: None,
        name,
        content,
    }))
}

fn of_stream(kind: Kind, event: Dispatched) -> Option<Told> {
    let reserved = event.name.strip_prefix("roomcast:");
    match reserved {
        Some("expiring") => notice("sessionExpiring", &event.data),
        Some("presence") => notice("presenceDelta", &event.data),
        Some("closing") => Some(Told::Ended {
            comes_back: event.json()["reconnect"] == true,
        }),
        // The end of a stream says it once more.
        Some("refused") => None,
        Some(name) => notice(name, &event.data),
        None if kind == Kind::Envelopes => {
            let heard = Heard::of_envelope(&event.data);
            assert_eq!(heard.name, event.name);
            Some(Told::Event(heard))
        }
        None => Some(Told::Event(Heard {
            position: None,
            name: event.name,
            content: Content::Json(event.data),
        })),
    }
}

/// A push of the gateway in JSON.
fn notice(name: &str, fields: &str) -> Option<Told> {
    let fields: Value = serde_json::from_str(fields).unwrap_or_else(|error| panic!("{error}: {fields}"));
    let reason = || json!({"reason": fields["reason"].as_str().unwrap_or_default()});
    Some(match name {
        "roomLeft" => Told::Notice(
            "roomLeft",
            json!({"room": fields["room"], "cause": fields["cause"], "reason": fields["reason"].as_str().unwrap_or_default()}),
        ),
        "reconnectAdvice" => Told::Notice("reconnectAdvice", reason()),
        "sessionExpiring" => Told::Notice("sessionExpiring", json!({})),
        "disconnected" => Told::Notice("disconnected", reason()),
        // The home rooms of a session, and why its connection ends next.
        "connected" | "error" => return None,
        "presenceDelta" => {
            let users = |list: &Value, key: Option<&str>| -> Vec<String> {
                let of = |entry: &Value| key.map_or(entry, |key| &entry[key]).as_str().map(str::to_owned);
                list.as_array().into_iter().flatten().filter_map(of).collect()
            };
            presence_told(
                &users(&fields["joined"], Some("userId")),
                &users(&fields["leftUserIds"], None),
            )?
        }
        other => panic!("a push that no test asks for: {other} {fields}"),
    })
}

async fn native(
    at: &OneOf<'_>,
    encoding: Encoding,
    user: &User,
    room: &str,
    start: Start,
) -> Result<(Link, Joined), String> {
    let mut client = at
        .opening()
        .speaking(encoding)
        .open()
        .await
        .expect("the upgrade is accepted");
    client
        .authenticate(user, Vec::new())
        .await
        .map_err(|error| error.reason)?;
    let mut join = Join::in_room(room);
    match start {
        Start::Now => {}
        Start::Rewind(count) => join.rewind = count,
        Start::Watching => join.presence = PresenceMode::Members.into(),
        Start::After(Mark::Position(position)) => join.since = Some(position),
        Start::After(Mark::Id(id)) => panic!("an id of another protocol: {id}"),
    }
    let joined = client.try_join(join).await.map_err(|error| error.reason)?;
    Ok((Link::Native(Box::new(client)), joined))
}

async fn socketio(at: &OneOf<'_>, way: Way, user: &User, room: &str, start: Start) -> Result<(Link, Joined), String> {
    let mut client = SocketIo::open(at.client_address(), way, false)
        .await
        .expect("a connection");
    let connected = client
        .connect(&json!({"token": user.token()}))
        .await
        .expect("an answer");
    if let Err(refused) = connected {
        client.close().await;
        return Err(refused["data"]["code"].as_str().unwrap().to_owned());
    }
    let mut join = json!({"room": room});
    match start {
        Start::Now => {}
        Start::Rewind(count) => join["rewind"] = json!(count),
        Start::Watching => join["presence"] = json!("members"),
        Start::After(Mark::Position(position)) => {
            join["since"] = json!({"epoch": position.epoch, "offset": position.offset});
        }
        Start::After(Mark::Id(id)) => panic!("an id of another protocol: {id}"),
    }
    let joined = client.command("join", &join).await.expect("an answer");
    if let Some(error) = joined.get("error") {
        client.close().await;
        return Err(error["reason"].as_str().or(error["code"].as_str()).unwrap().to_owned());
    }
    Ok((Link::SocketIo(Box::new(client)), joined_of(&joined)))
}

async fn stream(at: &OneOf<'_>, more: &str, user: &User, room: &str, start: Start) -> Result<(Link, Joined), String> {
    let (mut query, mut after) = (format!("?room={room}{more}"), String::new());
    match start {
        Start::Now => {}
        Start::Rewind(count) => query = format!("{query}&rewind={count}"),
        Start::Watching => query += "&presence=members",
        Start::After(Mark::Id(id)) => after = id,
        Start::After(Mark::Position(position)) => panic!("a position of another protocol: {position:?}"),
    }
    let opened = EventStream::open(at.client_address(), &query, &user.token(), &after, false).await;
    let mut stream = opened.expect("a stream");
    loop {
        let event = stream.next().await.expect("the answer to a join");
        let fields = event.json();
        match &*event.name {
            "roomcast:connected" => {}
            "roomcast:joined" if fields["room"] != room => {}
            "roomcast:joined" => return Ok((Link::Stream(Box::new(stream)), joined_of(&fields))),
            "roomcast:refused" => return Err(fields["reason"].as_str().unwrap().to_owned()),
            other => panic!("{other} before the join is answered"),
        }
    }
}

/// A join in JSON.
fn joined_of(fields: &Value) -> Joined {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let member = |member: &Value| client_v1::Member {
        user_id: member["userId"].as_str().unwrap().to_owned(),
        connection_count: u32::try_from(number(&member["connectionCount"])).unwrap(),
        state_json: None,
    };
    let members = fields["presence"]["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(member);
    Joined {
        room: fields["room"].as_str().unwrap().to_owned(),
        head: Some(client_v1::Position {
            epoch: fields["head"]["epoch"].as_str().unwrap().to_owned(),
            offset: number(&fields["head"]["offset"]),
        }),
        recovered: fields["recovered"] == true,
        replayed: u32::try_from(number(&fields["replayed"])).unwrap(),
        presence: Some(client_v1::Presence {
            members: members.collect(),
            ..Default::default()
        }),
    }
}
