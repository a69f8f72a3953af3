//! The native protocol: its golden frames, its documentation, and what holds for any frame.

mod commands;
mod docs;
mod golden;
pub mod mapping;
mod messages;
mod properties;

use roomcast::event::{Event, EventId, EventName, Except, Payload, Retention, Timestamp};
use roomcast::identity::{ConnectionId, UserId};
use roomcast::json::Json;
use roomcast::position::{ChainLink, Epoch, Offset, Position};
use roomcast::room::{Room, Tenant};

const EPOCH: Epoch = Epoch::from_bits(0x7d1e_5c0a_93f2_4b86);

fn at(offset: u64) -> Position {
    Position {
        epoch: EPOCH,
        offset: Offset(offset),
    }
}

fn room(name: &str) -> Room {
    Room::parse(&Tenant::parse("acme").unwrap(), name).unwrap()
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn connection() -> ConnectionId {
    "2f6c1d0e9a8b47c5b3d2e1f0a9b8c7d6".parse().unwrap()
}

fn json(text: &'static str) -> Json {
    Json::parse(text.as_bytes()).unwrap()
}

/// An event as a backend would publish it for ada.
fn event(offset: u64, previous: u64) -> Event {
    Event {
        room: room("project:7"),
        id: EventId::from_bits(0x0192_f0a1_b2c3_4d5e_8f90_a1b2_c3d4_e5f6),
        name: EventName::parse("task:created").unwrap(),
        retention: Retention::Reliable,
        link: Some(ChainLink {
            position: at(offset),
            prev: Offset(previous),
        }),
        time: Timestamp(1_767_225_600_000),
        actor: Some(user("ada")),
        except: Except::NOBODY,
        payload: Payload::Json(json(r#"{"task":42,"title":"Paint the fence"}"#)),
    }
}

/// The message in a server's WebSocket frame: whether it is text, and its bytes.
fn unframed(frame: &[u8]) -> (bool, &[u8]) {
    let (len, head) = match frame[1] {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (
            usize::try_from(u64::from_be_bytes(frame[2..10].try_into().unwrap())).unwrap(),
            10,
        ),
        len => (usize::from(len), 2),
    };
    assert_eq!(frame.len(), head + len, "one whole frame");
    assert!(matches!(frame[0], 0x81 | 0x82), "one whole message");
    (frame[0] == 0x81, &frame[head..])
}
