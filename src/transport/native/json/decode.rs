//! Commands of a client from JSON.
//!
//! The envelope is read strictly: a field that is unknown or comes twice is an error, so that no reader behind or beside
//! us can see another command in the same text. What is relayed, payloads and states, is kept as it was written and
//! checked by [`crate::json::Json`].

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::binary;
use crate::event::{Payload, Retention};
use crate::session::{Command, JoinOptions, Request, Since};
use crate::transport::native::{DecodeError, Flaw, content, request};

/// Reads one command.
///
/// # Errors
/// [`DecodeError`], with the id of the command wherever it came before the error.
pub fn decode(text: &str) -> Result<Request, DecodeError> {
    let mut envelope = Envelope::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = envelope.read(&mut reader).and_then(|()| reader.end());
    let id = envelope.id.unwrap_or(0);
    match read {
        Ok(()) => request(id, envelope.into_command()),
        Err(error) => request(id, Err(Flaw::malformed(error.to_string()))),
    }
}

/// What has been read of a command. Filled from outside, so that the id outlives an error.
#[derive(Default)]
struct Envelope {
    id: Option<u32>,
    command: Option<Result<Command, Flaw>>,
    unknown: Option<String>,
}

impl Envelope {
    fn read<'de, D: Deserializer<'de>>(&mut self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }

    fn into_command(self) -> Result<Command, Flaw> {
        match (self.command, self.unknown) {
            (Some(command), None) => command,
            (None, None) => Err(Flaw::malformed("there is no command")),
            (None, Some(key)) => Err(Flaw::unsupported(format!("there is no command `{key}`"))),
            (Some(_), Some(key)) => Err(Flaw::malformed(format!("unknown field `{key}` beside the command"))),
        }
    }

    fn command<'de, T, A>(&mut self, entries: &mut A, command: fn(T) -> Result<Command, Flaw>) -> Result<(), A::Error>
    where
        T: Deserialize<'de>,
        A: MapAccess<'de>,
    {
        let fields = entries.next_value()?;
        match self.command.replace(command(fields)) {
            Some(_) => Err(de::Error::custom("more than one command")),
            None => Ok(()),
        }
    }
}

impl<'de> Visitor<'de> for &mut Envelope {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with an id and a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<String>()? {
            let entries = &mut entries;
            match key.as_str() {
                "id" if self.id.is_some() => return Err(de::Error::duplicate_field("id")),
                "id" => self.id = Some(entries.next_value()?),
                "connect" => self.command(entries, Connect::command)?,
                "join" => self.command(entries, Join::command)?,
                "leave" => self.command(entries, |Named { room }| Ok(Command::Leave { room }))?,
                "publish" => self.command(entries, Publish::command)?,
                "request" => self.command(entries, Ask::command)?,
                "presenceQuery" => self.command(entries, |Named { room }| Ok(Command::Presence { room }))?,
                "presenceUpdate" => self.command(entries, PresenceUpdate::command)?,
                "userRoomsQuery" => {
                    self.command(entries, |UserRooms { user_id: user }| Ok(Command::UserRooms { user }))?;
                }
                "historyQuery" => self.command(entries, HistoryQuery::command)?,
                "refresh" => self.command(entries, |Refresh { token }| Ok(Command::Refresh { token }))?,
                "ping" => self.command(entries, |Ping {}| Ok(Command::Ping))?,
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                    self.unknown = Some(key);
                }
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Connect<'a> {
    token: String,
    client: String,
    #[serde(borrow)]
    resume: Vec<RoomPosition<'a>>,
    features: Vec<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomPosition<'a> {
    room: String,
    #[serde(borrow)]
    position: Lenient<'a>,
}

impl Connect<'_> {
    fn command(self) -> Result<Command, Flaw> {
        let resume = self.resume.into_iter().map(|at| (at.room, at.position.since()));
        Ok(Command::Connect {
            token: self.token,
            client: content::client(self.client),
            resume: content::resume(resume.collect())?,
            features: content::features(self.features)?,
        })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Join<'a> {
    room: String,
    #[serde(borrow)]
    since: Option<Lenient<'a>>,
    rewind: u32,
    presence: String,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
    required_features: Vec<String>,
}

impl Join<'_> {
    fn command(self) -> Result<Command, Flaw> {
        content::required(self.required_features)?;
        Ok(Command::Join {
            room: self.room,
            options: JoinOptions {
                since: self.since.map(|since| since.since()),
                rewind: self.rewind,
                presence: content::presence_mode(&self.presence)?,
                state: content::state(self.state.map(bytes))?,
            },
        })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Publish<'a> {
    room: String,
    event_name: String,
    #[serde(borrow, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    binary: Option<String>,
    retention: String,
    idempotency_key: String,
    required_features: Vec<String>,
}

impl Publish<'_> {
    fn command(self) -> Result<Command, Flaw> {
        content::required(self.required_features)?;
        Ok(Command::Publish {
            room: self.room,
            event_name: self.event_name,
            payload: payload(self.payload, self.binary)?,
            retention: retention(&self.retention)?,
            key: self.idempotency_key,
        })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Ask<'a> {
    method: String,
    room: String,
    #[serde(borrow, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    binary: Option<String>,
}

impl Ask<'_> {
    fn command(self) -> Result<Command, Flaw> {
        Ok(Command::Ask {
            method: self.method,
            room: self.room,
            payload: payload(self.payload, self.binary)?,
        })
    }
}

/// A command that says a room and nothing else.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Named {
    room: String,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PresenceUpdate<'a> {
    room: String,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
}

impl PresenceUpdate<'_> {
    fn command(self) -> Result<Command, Flaw> {
        Ok(Command::SetState {
            room: self.room,
            state: content::state(self.state.map(bytes))?,
        })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct UserRooms {
    user_id: String,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct HistoryQuery<'a> {
    room: String,
    #[serde(borrow)]
    after: Option<Lenient<'a>>,
    #[serde(borrow)]
    before: Option<Lenient<'a>>,
    limit: u32,
}

impl HistoryQuery<'_> {
    fn command(self) -> Result<Command, Flaw> {
        let (after, before) = (self.after.map(|at| at.since()), self.before.map(|at| at.since()));
        Ok(Command::History {
            room: self.room,
            from: content::history_from(after, before)?,
            limit: self.limit,
        })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Refresh {
    token: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {}

/// A position as a client gives it: any JSON value, because one that is not ours is an answer and not an error.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Lenient<'a>(#[serde(borrow)] &'a RawValue);

#[derive(serde::Deserialize)]
struct Position {
    epoch: String,
    #[serde(default)]
    offset: u64,
}

impl Lenient<'_> {
    fn since(&self) -> Since {
        match serde_json::from_str::<Position>(self.0.get()) {
            Ok(position) => content::since(&position.epoch, position.offset),
            Err(_) => Since::Unreadable,
        }
    }
}

/// A value that may be `null` and still be there.
fn present<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(reader).map(Some)
}

fn bytes(value: &RawValue) -> Bytes {
    Bytes::copy_from_slice(value.get().as_bytes())
}

fn payload(json: Option<&RawValue>, binary: Option<String>) -> Result<Payload, Flaw> {
    match (json, binary) {
        (Some(value), None) => content::json("the payload", bytes(value)).map(Payload::Json),
        (None, Some(text)) => binary::decode(&text)
            .map(Payload::Binary)
            .map_err(|error| Flaw::invalid(format!("binary {error}"))),
        (None, None) => Err(Flaw::invalid("neither payload nor binary")),
        (Some(_), Some(_)) => Err(Flaw::invalid("both payload and binary")),
    }
}

fn retention(word: &str) -> Result<Retention, Flaw> {
    match word {
        "" | "reliable" => Ok(Retention::Reliable),
        "ephemeral" => Ok(Retention::Ephemeral),
        "last_value" => Ok(Retention::LastValue),
        _ => Err(Flaw::invalid(
            "the retention is none of ephemeral, reliable, last_value",
        )),
    }
}
