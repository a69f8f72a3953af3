//! One of every message a server sends, and every shape it can have.

use std::sync::Arc;
use std::time::Duration;

use roomcast::error::{CloseReason, ErrorCode};
use roomcast::event::{Event, EventName, Payload, Retention, Timestamp};
use roomcast::identity::Expiry;
use roomcast::notice::Notice;
use roomcast::presence::{Change, Counts, Detail, Present, Roster};
use roomcast::room::{Room, Tenant};
use roomcast::session::{Encoder, HistoryPage, Joined, Message, Refusal, RoomChange};

use super::{at, connection, event, json, room, user};

/// What an encoder is given to write.
pub enum Pushed {
    Message(u32, Message),
    Event(Event),
    Passed(Event),
}

impl Pushed {
    pub fn write(&self, encoder: &dyn Encoder) -> bytes::Bytes {
        match self {
            Self::Message(id, message) => encoder.message(*id, message),
            Self::Event(event) => encoder.event(event),
            Self::Passed(event) => encoder.passed(event).unwrap(),
        }
    }
}

pub fn messages() -> Vec<(&'static str, Pushed)> {
    let messages = [
        session_messages(),
        room_messages(),
        query_messages(),
        pushes(),
        ask_messages(),
    ];
    let messages = messages.concat();
    let mut all: Vec<_> = messages
        .into_iter()
        .map(|(name, id, message)| (name, Pushed::Message(id, message)))
        .collect();
    all.extend(events());
    all
}

fn ask_messages() -> Vec<(&'static str, u32, Message)> {
    let asked = |payload| Message::Asked {
        ask: 3,
        method: EventName::parse("seat:confirm").unwrap(),
        payload,
    };
    vec![
        ("ask", 0, asked(Payload::Json(json(r#"{"seat":4}"#)))),
        ("ask_with_bytes", 0, asked(Payload::Binary(vec![0, 1, 2, 255].into()))),
        ("answered", 14, Message::Answered { accepted: true }),
        ("answered_too_late", 14, Message::Answered { accepted: false }),
    ]
}

const EXPIRY: Expiry = Expiry(1_767_229_200);
const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn joined() -> Joined {
    Joined {
        room: room("project:7"),
        head: at(44),
        recovered: false,
        replayed: 0,
        roster: None,
    }
}

fn present(id: &str, state: Option<&'static str>, connections: u32) -> Present {
    Present {
        user: user(id),
        state: state.map(json),
        connections,
        since: NOW,
    }
}

fn roster() -> Roster {
    Roster {
        version: 9,
        counts: Counts {
            users: 2,
            connections: 3,
        },
        members: Some(vec![
            present("ada", Some(r#"{"cursor":[3,14]}"#), 2),
            present("bob", None, 1),
        ]),
        partial: false,
    }
}

fn large_roster() -> Roster {
    Roster {
        version: 9,
        counts: Counts {
            users: 2_500,
            connections: 2_600,
        },
        members: None,
        partial: false,
    }
}

fn connected(rooms: Vec<Joined>) -> Message {
    Message::Connected {
        connection: connection(),
        user: user("ada"),
        expiry: EXPIRY,
        heartbeat: Duration::from_secs(25),
        time: NOW,
        rooms,
        features: &["presence_counts"],
        server_version: "1.2.3",
    }
}

fn session_messages() -> Vec<(&'static str, u32, Message)> {
    let own_room = Joined {
        room: room("user:ada"),
        head: at(19),
        recovered: true,
        replayed: 2,
        roster: None,
    };
    let refusal = Refusal::new(ErrorCode::Forbidden, "not allowed to join this room");
    let limited = Refusal::new(ErrorCode::RateLimited, "too many publishes").retry_after(Duration::from_millis(50));
    vec![
        ("connected", 1, connected(vec![own_room])),
        ("connected_by_the_upgrade", 0, connected(vec![])),
        ("refreshed", 12, Message::Refreshed { expiry: EXPIRY }),
        ("pong", 13, Message::Pong { time: NOW }),
        ("error", 2, Message::Error(refusal)),
        ("error_with_a_time_to_wait", 5, Message::Error(limited)),
        (
            "error_for_what_could_not_be_read",
            0,
            Message::Error(Refusal::new(ErrorCode::Malformed, "expected value at line 1 column 1")),
        ),
    ]
}

fn room_messages() -> Vec<(&'static str, u32, Message)> {
    let recovered = Joined {
        recovered: true,
        replayed: 3,
        ..joined()
    };
    let with_roster = |roster| Joined {
        replayed: 20,
        roster: Some(roster),
        ..joined()
    };
    vec![
        ("joined", 2, Message::Joined(joined())),
        ("joined_and_recovered", 2, Message::Joined(recovered)),
        (
            "joined_with_rewind_and_presence",
            3,
            Message::Joined(with_roster(roster())),
        ),
        ("joined_a_large_room", 3, Message::Joined(with_roster(large_roster()))),
        (
            "left",
            4,
            Message::Left {
                room: room("project:7"),
            },
        ),
        (
            "published",
            5,
            Message::Published {
                position: Some(at(45)),
                duplicate: false,
                reached: Some(3),
                reply: None,
            },
        ),
        (
            "published_before",
            5,
            Message::Published {
                position: Some(at(45)),
                duplicate: true,
                reached: None,
                reply: None,
            },
        ),
        (
            "published_to_nobody",
            5,
            Message::Published {
                position: Some(at(45)),
                duplicate: false,
                reached: Some(0),
                reply: None,
            },
        ),
        (
            "published_and_handled_with_a_reply",
            5,
            Message::Published {
                position: None,
                duplicate: false,
                reached: None,
                reply: Some(Payload::Json(json(r#"{"seat":4}"#))),
            },
        ),
        (
            "published_ephemeral",
            6,
            Message::Published {
                position: None,
                duplicate: false,
                reached: Some(3),
                reply: None,
            },
        ),
    ]
}

fn query_messages() -> Vec<(&'static str, u32, Message)> {
    let page = |events, complete, more| HistoryPage {
        room: room("project:7"),
        events,
        head: at(44),
        complete,
        more,
    };
    let presence = |roster| Message::Presence {
        room: room("project:7"),
        roster,
    };
    vec![
        ("reply", 7, Message::Reply(Payload::Json(json(r#"{"closed":true}"#)))),
        (
            "reply_with_bytes",
            7,
            Message::Reply(Payload::Binary(vec![0, 1, 2, 255].into())),
        ),
        ("presence", 8, presence(roster())),
        ("presence_of_a_large_room", 8, presence(large_roster())),
        (
            "presence_that_is_partial",
            8,
            presence(Roster {
                partial: true,
                ..roster()
            }),
        ),
        (
            "presence_updated",
            9,
            Message::StateSet {
                room: room("project:7"),
            },
        ),
        (
            "user_rooms",
            10,
            Message::UserRooms {
                user: user("ada"),
                rooms: vec![room("project:7"), room("user:ada")],
                partial: false,
            },
        ),
        (
            "user_rooms_that_are_partial",
            10,
            Message::UserRooms {
                user: user("ada"),
                rooms: vec![room("project:7")],
                partial: true,
            },
        ),
        (
            "history",
            11,
            Message::History(page(vec![Arc::new(event(43, 42)), Arc::new(event(44, 43))], true, true)),
        ),
        (
            "history_that_is_not_kept",
            11,
            Message::History(page(vec![], false, false)),
        ),
    ]
}

fn presence_pushes() -> Vec<(&'static str, u32, Message)> {
    let change = Change {
        room: room("project:7"),
        version: 10,
        known: 0..10,
        detail: Detail::Members,
        counts: Counts {
            users: 3,
            connections: 4,
        },
        joined: vec![present("eve", None, 1)],
        present: vec![],
        updated: vec![present("ada", Some(r#"{"cursor":[1,5]}"#), 2)],
        left: vec![user("bob")],
        counts_only: false,
    };
    let counts = Change {
        counts: Counts {
            users: 2_501,
            connections: 2_600,
        },
        joined: vec![],
        updated: vec![],
        left: vec![],
        counts_only: true,
        ..change.clone()
    };
    let completed = Change {
        joined: vec![],
        present: vec![present("fay", None, 1)],
        updated: vec![],
        left: vec![],
        ..change.clone()
    };
    let push = |name, change| (name, 0, Message::PresenceChanged(Arc::new(change)));
    vec![
        push("presence_delta", change),
        push("presence_delta_of_a_large_room", counts),
        push("presence_delta_that_completes_a_roster", completed),
    ]
}

fn pushes() -> Vec<(&'static str, u32, Message)> {
    let room_joined = Message::RoomJoined {
        joined: joined(),
        change: RoomChange::Backend,
    };
    let room_left = |change, reason: &str, message: &str| Message::RoomLeft {
        room: room("project:7"),
        change,
        notice: Notice::parse(reason, message).unwrap(),
    };
    let disconnected = |reason, word: &str, message: &str| Message::Disconnected {
        reason,
        notice: Notice::parse(word, message).unwrap(),
    };
    let advice = Message::ReconnectAdvice {
        delay: Duration::from_millis(500),
        jitter: Duration::from_secs(10),
    };
    let resync = Message::Resync {
        room: room("project:7"),
        head: at(52),
    };
    let mut pushes = presence_pushes();
    pushes.extend([
        ("room_joined", 0, room_joined),
        (
            "room_left",
            0,
            room_left(RoomChange::Revoked, "project_left", "You are no longer in the project."),
        ),
        (
            "room_left_after_a_refresh",
            0,
            room_left(RoomChange::TokenChanged, "", ""),
        ),
        (
            "room_left_when_its_time_is_over",
            0,
            room_left(RoomChange::Expired, "", ""),
        ),
        (
            "disconnected",
            0,
            disconnected(CloseReason::Kicked, "account_closed", "Your account was closed."),
        ),
        (
            "disconnected_without_a_word",
            0,
            disconnected(CloseReason::Disconnected, "", ""),
        ),
        ("degraded", 0, Message::Degraded { active: true }),
        ("degraded_no_more", 0, Message::Degraded { active: false }),
        ("resync", 0, resync),
        ("reconnect_advice", 0, advice),
        ("session_expiring", 0, Message::Expiring { expiry: EXPIRY }),
    ]);
    pushes
}

fn events() -> Vec<(&'static str, Pushed)> {
    let ephemeral = Event {
        name: EventName::parse("cursor").unwrap(),
        retention: Retention::Ephemeral,
        link: None,
        payload: Payload::Binary(vec![0, 1, 2, 255].into()),
        ..event(0, 0)
    };
    let direct = Event {
        room: Room::nameless(&Tenant::parse("acme").unwrap()),
        retention: Retention::Ephemeral,
        link: None,
        ..event(0, 0)
    };
    let first = Event {
        name: EventName::parse("price").unwrap(),
        retention: Retention::LastValue,
        actor: None,
        payload: Payload::Json(json("null")),
        ..event(1, 0)
    };
    vec![
        ("event", Pushed::Event(event(45, 44))),
        ("event_ephemeral", Pushed::Event(ephemeral)),
        ("event_to_one_connection", Pushed::Event(direct)),
        ("event_first_of_a_room", Pushed::Event(first)),
        ("passed", Pushed::Passed(event(46, 45))),
    ]
}
