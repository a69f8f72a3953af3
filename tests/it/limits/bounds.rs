//! What a client may say at most, in the contract's unit: just within it is accepted, one more is refused. The texts are made
//! of characters of two bytes, so that a bound in the other unit is seen.

use roomcast::proto::client_v1::{ErrorReply, Join, Publish};
use serde_json::json;

use crate::support::{Encoding, InRoom as _, Node, ToRoom as _, over_encodings, user};

over_encodings! {
    a_command_is_bounded_in_the_units_of_the_contract,
}

/// `len` bytes of text.
fn bytes(len: usize) -> String {
    "é".repeat(len / 2) + &"x".repeat(len % 2)
}

/// `len` characters of text, each of two bytes.
fn chars(len: usize) -> String {
    "é".repeat(len)
}

enum Say {
    Join(Join),
    Publish(Publish),
}

fn publish(room: &str, name: &str) -> Publish {
    Publish::to(room, name, json!({}))
}

/// A bound: what it is of, its size, a command that has `n` of it, and the reasons told within it and above it.
type Bound = (
    &'static str,
    usize,
    fn(usize) -> Say,
    Option<&'static str>,
    &'static str,
);

const BOUNDS: [Bound; 7] = [
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
            };
            let refused = answered.err().map(|refused| refused.reason);
            assert_eq!(refused.as_deref(), expected, "{n} of {what}");
            ada.close().await;
        }
    }
    node.finish().await;
}
