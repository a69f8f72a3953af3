use super::*;
use crate::error::ErrorCode;
use crate::event::{EventId, EventName, Except, Retention, Timestamp};
use crate::json::Json;
use crate::notice::Notice;
use crate::position::{ChainLink, Epoch, Offset, Position};
use crate::room::{Room, Tenant};
use crate::session::{Joined, Refusal, RoomChange};

fn streams(is_envelope: bool) -> EventStreams {
    EventStreams {
        config: Config::default(),
        is_envelope,
    }
}

fn position() -> Position {
    Position {
        epoch: Epoch::from_bits(0xe),
        offset: Offset(7),
    }
}

fn room() -> Room {
    Room::parse(&Tenant::default(), "r").unwrap()
}

fn event(name: &str, payload: Payload) -> Event {
    Event {
        room: room(),
        id: EventId::from_bits(5),
        name: EventName::parse(name).unwrap(),
        retention: Retention::Reliable,
        link: Some(ChainLink {
            position: position(),
            prev: Offset(6),
        }),
        time: Timestamp(9),
        actor: None,
        except: Except::NOBODY,
        payload,
    }
}

fn json(text: &str) -> Payload {
    Payload::Json(Json::parse(text.to_owned()).unwrap())
}

/// The content of one chunk.
fn content(frame: &Frame) -> String {
    let text = std::str::from_utf8(frame).unwrap();
    let (size, rest) = text.split_once("\r\n").unwrap();
    let size = usize::from_str_radix(size, 16).unwrap();
    rest[..size].to_owned()
}

#[test]
fn a_payload_goes_out_as_it_was_published() {
    for (name, payload, block) in [
        (
            "n",
            json(r#"{"b":1.0000000000000000001,"a":-0e9}"#),
            "event: n\ndata: {\"b\":1.0000000000000000001,\"a\":-0e9}\n\n",
        ),
        ("n", json("[1,\r\n 2]"), "event: n\ndata: [1,\ndata:  2]\n\n"),
        (
            "n",
            Payload::Binary(Bytes::from_static(b"\0\xff")),
            "event: n\ndata: \"AP8=\"\n\n",
        ),
        // No event of the application passes for one of the gateway.
        (
            "roomcast:closing",
            json("1"),
            "event: roomcast:roomcast:closing\ndata: 1\n\n",
        ),
    ] {
        assert_eq!(content(&streams(false).event(&event(name, payload))), block);
    }
}

#[test]
fn an_envelope_is_the_native_event() {
    let block = content(&streams(true).event(&event("n", json("{ }"))));
    assert_eq!(
        block,
        "event: n\ndata: {\"room\":\"r\",\"id\":\"00000000000000000000000000000005\",\"eventName\":\"n\",\
         \"epoch\":\"000000000000000e\",\"offset\":7,\"previousOffset\":6,\"timeMs\":9,\"retention\":\"reliable\",\
         \"payload\":{ }}\n\n"
    );
}

#[test]
fn messages_are_events_with_reserved_names() {
    let joined = Joined {
        room: room(),
        head: position(),
        recovered: false,
        replayed: 0,
        roster: None,
    };
    let (room, change) = (room(), RoomChange::Revoked);
    let lines = [
        (0, Message::Joined(joined.clone())),
        (0, Message::RoomJoined { joined, change }),
        (3, Message::Error(Refusal::new(ErrorCode::Forbidden, "not allowed"))),
        (1, Message::Error(Refusal::new(ErrorCode::TokenExpired, "expired"))),
        (
            0,
            Message::RoomLeft {
                room: room.clone(),
                change,
                notice: Notice::default(),
            },
        ),
        (0, Message::Degraded { active: false }),
        (0, Message::Resync { room, head: position() }),
    ]
    .map(|(id, message)| content(&streams(false).message(id, &message)));
    insta::assert_snapshot!(lines.concat(), @r#"
    event: roomcast:joined
    data: {"room":"r","head":{"epoch":"000000000000000e","offset":7},"recovered":false,"replayed":0}

    event: roomcast:joined
    data: {"room":"r","head":{"epoch":"000000000000000e","offset":7},"recovered":false,"replayed":0,"cause":"revoked"}

    event: roomcast:refused
    data: {"index":1,"code":"forbidden","reason":"forbidden","message":"not allowed"}

    event: roomcast:refused
    data: {"code":"unauthenticated","reason":"token_expired","message":"expired"}

    event: roomcast:roomLeft
    data: {"room":"r","cause":"revoked","reason":"revoked"}

    event: roomcast:degraded
    data: {"active":false}

    event: roomcast:resync
    data: {"room":"r","head":{"epoch":"000000000000000e","offset":7}}
    "#);
}

#[test]
fn only_a_stream_that_may_come_back_ends_without_the_end_id() {
    for reason in CloseReason::ALL {
        let block = content(&streams(false).farewell(reason, "a \"word\""));
        assert_eq!(block.starts_with("id: !\n"), !reason.may_reconnect(), "{block}");
        assert!(
            block.ends_with(&format!(",\"reconnect\":{}}}\n\n", reason.may_reconnect())),
            "{block}"
        );
    }
}

#[test]
fn the_page_on_streams_names_every_event() {
    let page = include_str!("../../../docs/sse.md");
    for name in [
        "connected",
        "joined",
        "refused",
        "roomLeft",
        "disconnected",
        "presence",
        "degraded",
        "resync",
        "reconnectAdvice",
        "expiring",
        "closing",
    ] {
        assert!(page.contains(&format!("| `roomcast:{name}` |")), "{name}");
    }
}
