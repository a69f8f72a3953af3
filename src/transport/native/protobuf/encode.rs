//! Encodes the server's messages as protobuf, by the generated types.

use std::time::Duration;

use crate::error::CloseReason;
use crate::event::{Event, EventName, Payload, Retention, Timestamp};
use crate::identity::Expiry;
use crate::json::Json;
use crate::notice::Notice;
use crate::position::Position;
use crate::presence::{Change, Present, Roster};
use crate::proto::client_v1::{self as wire, payload, server_frame};
use crate::room::Room;
use crate::session::{HistoryPage, Joined, Message, Refusal, RoomChange};
use crate::transport::native::{content, error_code};

pub(super) fn message(id: u32, message: &Message) -> wire::ServerFrame {
    wire::ServerFrame {
        id,
        message: Some(frame_message(message)),
    }
}

fn frame_message(message: &Message) -> server_frame::Message {
    use server_frame::Message as Wire;
    match message {
        Message::Error(refusal) => Wire::Error(error(refusal)),
        Message::Connected {
            connection,
            user,
            expiry,
            heartbeat,
            time,
            rooms,
            features,
            server_version,
        } => Wire::Connected(wire::Connected {
            connection_id: connection.to_string(),
            user_id: user.as_str().to_owned(),
            expires_at_ms: expires_at_ms(*expiry),
            heartbeat_interval_ms: content::millis(*heartbeat),
            server_time_ms: time_ms(*time),
            rooms: rooms.iter().map(joined).collect(),
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
            server_version: (*server_version).to_owned(),
        }),
        Message::Joined(room) => Wire::Joined(joined(room)),
        Message::Left { room } => Wire::Left(wire::Left { room: name(room) }),
        Message::Published {
            position: at,
            duplicate,
            reached,
            reply,
        } => Wire::Published(wire::Published {
            position: at.as_ref().map(position),
            duplicate: *duplicate,
            reached: *reached,
            reply: reply.as_ref().map(|content| wire::Reply {
                payload: Some(payload(content)),
            }),
        }),
        Message::Reply(content) => Wire::Reply(wire::Reply {
            payload: Some(payload(content)),
        }),
        Message::Presence { room, roster } => Wire::Presence(presence(room, roster)),
        Message::StateSet { room } => Wire::PresenceUpdated(wire::PresenceUpdated { room: name(room) }),
        Message::UserRooms { user, rooms, partial } => Wire::UserRooms(wire::UserRooms {
            user_id: user.as_str().to_owned(),
            rooms: rooms.iter().map(name).collect(),
            partial: *partial,
        }),
        Message::History(page) => Wire::History(history(page)),
        Message::Refreshed { expiry } => Wire::Refreshed(wire::Refreshed {
            expires_at_ms: expires_at_ms(*expiry),
        }),
        Message::Pong { time } => Wire::Pong(wire::Pong {
            server_time_ms: time_ms(*time),
        }),
        Message::Answered { accepted } => Wire::Answered(wire::Answered { accepted: *accepted }),
        Message::Asked { ask, method, payload } => Wire::Ask(asked(*ask, method, payload)),
        Message::RoomJoined { joined: room, change } => Wire::RoomJoined(wire::RoomJoined {
            joined: Some(joined(room)),
            cause: cause(*change).into(),
        }),
        Message::RoomLeft { room, change, notice } => Wire::RoomLeft(room_left(room, *change, notice)),
        Message::Disconnected { reason, notice } => Wire::Disconnected(disconnected(*reason, notice)),
        Message::PresenceChanged(change) => Wire::PresenceDelta(presence_delta(change)),
        Message::Degraded { active } => Wire::Degraded(wire::Degraded { active: *active }),
        Message::Resync { room, head } => Wire::Resync(wire::Resync {
            room: name(room),
            head: Some(position(head)),
        }),
        Message::ReconnectAdvice { delay, jitter } => Wire::ReconnectAdvice(advice(*delay, *jitter)),
        Message::Expiring { expiry } => Wire::SessionExpiring(wire::SessionExpiring {
            expires_at_ms: expires_at_ms(*expiry),
        }),
    }
}

fn asked(ask: u32, method: &EventName, content: &Payload) -> wire::Ask {
    wire::Ask {
        ask_id: ask,
        method: method.as_str().to_owned(),
        payload: Some(payload(content)),
    }
}

fn advice(delay: Duration, jitter: Duration) -> wire::ReconnectAdvice {
    wire::ReconnectAdvice {
        delay_ms: content::millis(delay),
        jitter_ms: content::millis(jitter),
        reason: CloseReason::Draining.as_str().to_owned(),
        message: content::DRAINING.to_owned(),
    }
}

fn error(refusal: &Refusal) -> wire::ErrorReply {
    wire::ErrorReply {
        code: error_code::kind(refusal.code).into(),
        reason: refusal.reason.clone(),
        message: refusal.message.clone(),
        retry_after_ms: refusal.retry_after.map_or(0, content::millis),
    }
}

fn joined(joined: &Joined) -> wire::Joined {
    wire::Joined {
        room: name(&joined.room),
        head: Some(position(&joined.head)),
        recovered: joined.recovered,
        replayed: joined.replayed,
        presence: joined.roster.as_ref().map(|roster| presence(&joined.room, roster)),
    }
}

fn room_left(room: &Room, change: RoomChange, notice: &Notice) -> wire::RoomLeft {
    wire::RoomLeft {
        room: name(room),
        cause: cause(change).into(),
        reason: notice.reason_or(content::change_word(change)).to_owned(),
        message: notice.message().to_owned(),
    }
}

fn disconnected(reason: CloseReason, notice: &Notice) -> wire::Disconnected {
    wire::Disconnected {
        code: reason.code().into(),
        reason: notice.reason_or(reason.as_str()).to_owned(),
        message: notice.message().to_owned(),
    }
}

fn presence(room: &Room, roster: &Roster) -> wire::Presence {
    wire::Presence {
        room: name(room),
        members: roster.members.iter().flatten().map(member).collect(),
        member_count: roster.counts.users,
        counts_only: roster.members.is_none(),
        partial: roster.partial,
    }
}

fn presence_delta(change: &Change) -> wire::PresenceDelta {
    wire::PresenceDelta {
        room: name(&change.room),
        joined: change.joined.iter().map(member).collect(),
        left_user_ids: change.left.iter().map(|user| user.as_str().to_owned()).collect(),
        updated: change.updated.iter().map(member).collect(),
        member_count: change.counts.users,
        counts_only: change.counts_only,
        present: change.present.iter().map(member).collect(),
    }
}

fn member(present: &Present) -> wire::Member {
    wire::Member {
        user_id: present.user.as_str().to_owned(),
        connection_count: present.connections,
        state_json: present.state.as_ref().map(text),
    }
}

fn history(page: &HistoryPage) -> wire::History {
    wire::History {
        room: name(&page.room),
        events: page.events.iter().map(|kept| event(kept)).collect(),
        head: Some(position(&page.head)),
        complete: page.complete,
        more: page.more,
    }
}

fn event(event: &Event) -> wire::Event {
    let retention = match event.retention {
        Retention::Ephemeral => wire::Retention::Ephemeral,
        Retention::Reliable => wire::Retention::Reliable,
        Retention::LastValue => wire::Retention::LastValue,
    };
    wire::Event {
        room: name(&event.room),
        id: event.id.to_string(),
        event_name: event.name.as_str().to_owned(),
        epoch: event
            .link
            .map_or_else(String::new, |link| link.position.epoch.to_string()),
        offset: event.link.map_or(0, |link| link.position.offset.0),
        previous_offset: event.link.map_or(0, |link| link.prev.0),
        time_ms: time_ms(event.time),
        actor_user_id: event
            .actor
            .as_ref()
            .map_or_else(String::new, |actor| actor.as_str().to_owned()),
        retention: retention.into(),
        payload: Some(payload(&event.payload)),
    }
}

fn payload(payload: &Payload) -> wire::Payload {
    let content = match payload {
        Payload::Json(json) => payload::Content::Json(text(json)),
        Payload::Binary(bytes) => payload::Content::Binary(bytes.clone()),
    };
    wire::Payload { content: Some(content) }
}

fn position(position: &Position) -> wire::Position {
    wire::Position {
        epoch: position.epoch.to_string(),
        offset: position.offset.0,
    }
}

fn name(room: &Room) -> String {
    room.name().to_owned()
}

fn text(json: &Json) -> String {
    json.as_str().to_owned()
}

const fn cause(change: RoomChange) -> wire::RoomChangeCause {
    match change {
        RoomChange::Backend => wire::RoomChangeCause::Backend,
        RoomChange::Revoked => wire::RoomChangeCause::Revoked,
        RoomChange::TokenChanged => wire::RoomChangeCause::TokenChanged,
        RoomChange::Expired => wire::RoomChangeCause::Expired,
    }
}

fn expires_at_ms(expiry: Expiry) -> i64 {
    i64::try_from(content::expires_at_ms(expiry)).unwrap_or(0)
}

fn time_ms(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}
