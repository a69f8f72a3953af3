//! What a client may say at most, in the contract's unit: just within it is accepted, one more is refused or, where the contract
//! says so, handled as the most. The texts are made of characters of two bytes, so that a bound in the other unit is seen.

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{Connect, ErrorReply, HistoryQuery, Join, Payload, Publish, Refresh, Request};
use serde_json::json;

use crate::support::{Encoding, InRoom as _, Node, ToRoom as _, User, over_encodings, user};

over_encodings! {
    a_command_is_bounded_in_the_units_of_the_contract,
    a_token_is_bounded_at_every_door,
    a_read_of_history_is_capped_not_refused,
}

/// The longest token, in bytes.
const TOKEN_BYTES: usize = 8 << 10;

/// The most events of a rewind or of a page of history.
const EVENTS: u32 = 300;

/// `len` bytes of text.
fn bytes(len: usize) -> String {
    "é".repeat(len / 2) + &"x".repeat(len % 2)
}

/// `len` characters of text, each of two bytes.
fn chars(len: usize) -> String {
    "é".repeat(len)
}

enum Say {
    Request(Request),
    Join(Join),
    Publish(Publish),
}

fn publish(room: &str, name: &str) -> Publish {
    Publish::to(room, name, json!({}))
}

fn request(method: &str, room: &str) -> Request {
    Request {
        method: method.to_owned(),
        room: room.to_owned(),
        payload: Some(Payload {
            content: Some(Content::Json("{}".to_owned())),
        }),
    }
}

/// A bound: what it is of, its size, a command that has `n` of it, and the reasons told within it and above it.
type Bound = (
    &'static str,
    usize,
    fn(usize) -> Say,
    Option<&'static str>,
    &'static str,
);

const BOUNDS: [Bound; 9] = [
    (
        "room to join",
        255,
        |n| Say::Join(Join::in_room(&bytes(n))),
        None,
        "invalid_room",
    ),
    (
        "room to publish to",
        255,
        |n| Say::Publish(publish(&bytes(n), "e")),
        None,
        "invalid_room",
    ),
    (
        "event name",
        128,
        |n| Say::Publish(publish("r", &bytes(n))),
        None,
        "invalid_event_name",
    ),
    (
        "idempotency key",
        64,
        |n| {
            Say::Publish(Publish {
                idempotency_key: chars(n),
                ..publish("r", "e")
            })
        },
        None,
        "invalid_argument",
    ),
    (
        "state",
        1024,
        |n| {
            Say::Join(Join {
                state_json: Some(format!("\"{}\"", bytes(n - 2))),
                ..Join::in_room("r")
            })
        },
        None,
        "presence_too_large",
    ),
    (
        "required features of a join",
        32,
        |n| {
            Say::Join(Join {
                required_features: vec![chars(65); n],
                ..Join::in_room("r")
            })
        },
        Some("unsupported"),
        "invalid_argument",
    ),
    (
        "required features of a publish",
        32,
        |n| {
            Say::Publish(Publish {
                required_features: vec![chars(65); n],
                ..publish("r", "e")
            })
        },
        Some("unsupported"),
        "invalid_argument",
    ),
    (
        "method",
        128,
        |n| Say::Request(request(&bytes(n), "r")),
        Some("no_backend"),
        "invalid_event_name",
    ),
    (
        "room of a request",
        255,
        |n| Say::Request(request("m", &bytes(n))),
        Some("no_backend"),
        "invalid_room",
    ),
];

async fn a_command_is_bounded_in_the_units_of_the_contract(encoding: Encoding) {
    let node = Node::start(encoding).await;
    for (what, max, say, within, above) in BOUNDS {
        for (n, expected) in [(max, within), (max + 1, Some(above))] {
            // Anew each time: what cannot be taken counts against a connection.
            let mut ada = node.connect(user("ada")).await;
            let answered: Result<(), ErrorReply> = match say(n) {
                Say::Join(join) => ada.try_join(join).await.map(drop),
                Say::Publish(publish) => ada.try_publish(publish).await.map(drop),
                Say::Request(request) => ada.ask(Command::Request(request)).await.map(drop),
            };
            let refused = answered.err().map(|refused| refused.reason);
            assert_eq!(refused.as_deref(), expected, "{n} of {what}");
            ada.close().await;
        }
    }
    node.finish().await;
}

/// A user whose token has this many bytes.
fn with_token_of(bytes: usize) -> User {
    // Three bytes of claims are four of the token.
    let shortest = (bytes - user("ada").token().len()) / 4 * 3 - 16;
    let padded = (shortest..).map(|padding| user("ada").claim("padding", "x".repeat(padding)));
    let mut longer = padded.skip_while(|user| user.token().len() < bytes);
    longer
        .next()
        .filter(|user| user.token().len() == bytes)
        .expect("claims of any length but one in four")
}

/// Every way to open a session with a token; the refusal of each that opens none.
async fn open_everywhere(node: &Node, encoding: Encoding, user: &User) -> Vec<(&'static str, Option<ErrorReply>)> {
    let token = user.token();
    let offered = format!("{}, bearer.{token}", encoding.subprotocol());
    let openings = [
        (
            "header",
            node.opening().header("authorization", &format!("Bearer {token}")),
        ),
        ("subprotocol", node.opening().header("sec-websocket-protocol", &offered)),
        ("query", node.opening().query(&format!("token={token}"))),
    ];
    let mut answers = Vec::new();
    for (door, opening) in openings {
        let mut client = opening.open().await.expect("the upgrade is accepted");
        answers.push((
            door,
            match client.push().await {
                Said::Connected(_) => None,
                Said::Error(refusal) => Some(refusal),
                other => panic!("{door}: {other:?}"),
            },
        ));
        client.crash();
    }
    let mut client = node.open().await;
    let connected = client.authenticate_with(user, Connect::default()).await;
    answers.push(("connect", connected.err()));
    client.crash();
    answers
}

async fn a_token_is_bounded_at_every_door(encoding: Encoding) {
    let node = Node::with(encoding, |config: &mut Config| config.client.token_in_query = true).await;
    let mut ada = node.connect(user("ada")).await;
    for (bytes, is_accepted) in [(TOKEN_BYTES, true), (TOKEN_BYTES + 1, false)] {
        let user = with_token_of(bytes);
        let mut answers = open_everywhere(&node, encoding, &user).await;
        let token = user.token();
        let refreshed = ada.ask(Command::Refresh(Refresh { token })).await;
        answers.push(("refresh", refreshed.err()));
        for (door, refused) in answers {
            let reason = refused.as_ref().map(|refusal| refusal.reason.as_str());
            assert_eq!(reason, (!is_accepted).then_some("unauthenticated"), "{bytes}: {door}");
            let told = refused.is_none_or(|refusal| refusal.message.contains("too long"));
            assert!(told, "{bytes}: {door}");
        }
    }
    // A refusal of a refresh ends nothing.
    ada.join("r").await;
    node.finish().await;
}

async fn a_read_of_history_is_capped_not_refused(encoding: Encoding) {
    let longer = |config: &mut Config| {
        let limits = HistoryLimits {
            events_max: 400,
            ..Default::default()
        };
        config.bus.history = HistoryRules::new([], limits);
    };
    let node = Node::with(encoding, longer).await;
    let backend = node.backend();
    for n in 0..=EVENTS {
        backend.publish("r", "n", json!(n)).await;
    }
    for (asked, replayed) in [
        (EVENTS - 1, EVENTS - 1),
        (EVENTS, EVENTS),
        (EVENTS + 1, EVENTS),
        (u32::MAX, EVENTS),
    ] {
        let mut ada = node.connect(user("ada")).await;
        let join = Join {
            rewind: asked,
            ..Join::in_room("r")
        };
        assert_eq!(
            ada.try_join(join).await.unwrap().replayed,
            replayed,
            "rewind of {asked}"
        );
        ada.events(replayed as usize).await;
        ada.close().await;
    }
    let mut ada = node.connect(user("ada")).await;
    for (asked, returned) in [
        (0, 100),
        (EVENTS - 1, EVENTS - 1),
        (EVENTS, EVENTS),
        (EVENTS + 1, EVENTS),
        (u32::MAX, EVENTS),
    ] {
        let query = HistoryQuery {
            room: "r".to_owned(),
            anchor: None,
            limit: asked,
        };
        let Ok(Said::History(page)) = ada.ask(Command::HistoryQuery(query)).await else {
            panic!("no history")
        };
        assert_eq!(
            (page.events.len(), page.more),
            (returned as usize, true),
            "page of {asked}"
        );
    }
    node.finish().await;
}
