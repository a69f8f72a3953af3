//! Decodes a client's commands from protobuf.

use prost::Message as _;
use prost::encoding::{self, DecodeContext};

use crate::event::{Payload, Retention};
use crate::proto::client_v1::{self as wire, answer, client_frame, history_query, payload};
use crate::session::{Answer, Command, JoinOptions, PresenceMode, Request, Since};
use crate::transport::native::{DecodeError, Flaw, content, request};

/// Decodes one command. Unknown fields are skipped, except one in place of the command.
///
/// # Errors
/// [`DecodeError`]; its id is 0 if the bytes are no frame.
pub fn decode(bytes: &[u8]) -> Result<Request, DecodeError> {
    let frame =
        wire::ClientFrame::decode(bytes).map_err(|error| DecodeError::new(0, Flaw::malformed(error.to_string())))?;
    request(
        frame.id,
        frame.command.ok_or_else(|| no_command(bytes)).and_then(command),
    )
}

/// Distinguishes a command of another version from none: the generated types drop unknown fields.
fn no_command(mut frame: &[u8]) -> Flaw {
    const ID: u32 = 1;
    while let Ok((field, kind)) = encoding::decode_key(&mut frame) {
        if field != ID {
            return Flaw::unsupported(format!("there is no command with the field number {field}"));
        }
        if encoding::skip_field(kind, field, &mut frame, DecodeContext::default()).is_err() {
            break;
        }
    }
    Flaw::malformed("there is no command")
}

fn command(command: client_frame::Command) -> Result<Command, Flaw> {
    use client_frame::Command as Wire;
    Ok(match command {
        Wire::Connect(connect) => Command::Connect {
            token: connect.token,
            client: content::client(connect.client),
            resume: content::resume(connect.resume.into_iter().map(resume).collect())?,
            features: content::features(connect.features)?,
        },
        Wire::Join(join) => {
            content::required(&join.required_features)?;
            Command::Join {
                room: join.room,
                options: JoinOptions {
                    since: join.since.as_ref().map(since),
                    rewind: join.rewind,
                    presence: presence_mode(join.presence)?,
                    state: content::state(join.state_json)?,
                },
            }
        }
        Wire::Leave(leave) => Command::Leave { room: leave.room },
        Wire::Publish(publish) => {
            content::required(&publish.required_features)?;
            Command::Publish {
                retention: retention(publish.retention)?,
                room: publish.room,
                event_name: publish.event_name,
                payload: payload(publish.payload)?,
                key: publish.idempotency_key,
            }
        }
        Wire::Request(request) => Command::Ask {
            method: request.method,
            room: request.room,
            payload: payload(request.payload)?,
        },
        Wire::PresenceQuery(query) => Command::Presence { room: query.room },
        Wire::PresenceUpdate(update) => Command::SetState {
            room: update.room,
            state: content::state(update.state_json)?,
        },
        Wire::UserRoomsQuery(query) => Command::UserRooms { user: query.user_id },
        Wire::HistoryQuery(query) => history(query)?,
        Wire::Refresh(refresh) => Command::Refresh { token: refresh.token },
        Wire::Ping(wire::Ping {}) => Command::Ping,
        Wire::Answer(answer) => Command::Answer {
            ask: answer.ask_id,
            answer: match answer.answer {
                Some(answer::Answer::Payload(content)) => Answer::Payload(payload(Some(content))?),
                Some(answer::Answer::Error(error)) => content::answer_error(&error.reason, &error.message)?,
                None => return Err(Flaw::invalid("neither payload nor error")),
            },
        },
    })
}

fn history(query: wire::HistoryQuery) -> Result<Command, Flaw> {
    let (after, before) = match &query.anchor {
        None => (None, None),
        Some(history_query::Anchor::After(position)) => (Some(since(position)), None),
        Some(history_query::Anchor::Before(position)) => (None, Some(since(position))),
    };
    Ok(Command::History {
        room: query.room,
        from: content::history_from(after, before)?,
        limit: query.limit,
    })
}

fn since(position: &wire::Position) -> Since {
    content::since(&position.epoch, position.offset)
}

/// Converts a room to resume. A room without a position has an unreadable one.
fn resume(at: wire::RoomPosition) -> (String, Since) {
    (at.room, at.position.as_ref().map_or(Since::Unreadable, since))
}

fn payload(payload: Option<wire::Payload>) -> Result<Payload, Flaw> {
    match payload.and_then(|payload| payload.content) {
        Some(payload::Content::Json(text)) => content::json("the payload", text).map(Payload::Json),
        Some(payload::Content::Binary(bytes)) => Ok(Payload::Binary(bytes)),
        None => Err(Flaw::invalid("neither json nor binary")),
    }
}

fn presence_mode(number: i32) -> Result<PresenceMode, Flaw> {
    match wire::PresenceMode::try_from(number) {
        Ok(wire::PresenceMode::Unspecified | wire::PresenceMode::None) => Ok(PresenceMode::None),
        Ok(wire::PresenceMode::Counts) => Ok(PresenceMode::Counts),
        Ok(wire::PresenceMode::Members) => Ok(PresenceMode::Members),
        Ok(wire::PresenceMode::Others) => Ok(PresenceMode::Others),
        Err(_) => Err(Flaw::unsupported(format!("the presence mode {number} is not known"))),
    }
}

fn retention(number: i32) -> Result<Retention, Flaw> {
    match wire::Retention::try_from(number) {
        Ok(wire::Retention::Unspecified | wire::Retention::Reliable) => Ok(Retention::Reliable),
        Ok(wire::Retention::Ephemeral) => Ok(Retention::Ephemeral),
        Ok(wire::Retention::LastValue) => Ok(Retention::LastValue),
        Err(_) => Err(Flaw::unsupported(
            "the retention is none of ephemeral, reliable, last_value",
        )),
    }
}
