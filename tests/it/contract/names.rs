//! One thing has one name in all of the contract, and one name is one thing. What differs stands here with its reason.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::messages;

/// Names of more than one type: their types, and why both stay.
const NAMES_OF_SEVERAL_TYPES: [(&str, &[&str], &str); 9] = [
    (
        "code",
        &["ErrorCode", "int32", "uint32"],
        "of a refusal, of gRPC, and of a close frame",
    ),
    (
        "error",
        &["AnswerError", "ErrorReply", "ItemStatus"],
        "a refusal, of an ask, of a command and of one item of many",
    ),
    ("id", &["string", "uint32"], "of an event, and of a frame"),
    (
        "joined",
        &["Joined", "[Member]"],
        "a room by the client, and members by their joining",
    ),
    (
        "presence",
        &["Presence", "PresenceMode"],
        "what is told, and what is asked for",
    ),
    (
        "reply",
        &["Payload", "Reply"],
        "a backend's, as it says it and as the client is told",
    ),
    (
        "request",
        &["PublishRequest", "Request"],
        "of a stream, and of a client to a backend",
    ),
    (
        "results",
        &["[PublishBatchResult]", "[PublishResult]"],
        "each of its own call",
    ),
    (
        "rooms",
        &["[Joined]", "[UserRoom]", "[string]"],
        "each tells more of a room than the next",
    ),
];

/// Other names of one thing, each with the reason.
const OTHER_NAMES: [(&str, &str, &str); 4] = [
    (
        "publish_time",
        "time_ms",
        "a Timestamp has no unit; in every event's frame, each byte is paid for per delivery",
    ),
    (
        "expire_time",
        "expires_at_ms",
        "a Timestamp has no unit; `expire_time_ms` would read as a duration beside `retry_after_ms`",
    ),
    (
        "page_size",
        "limit",
        "a query of a client is no page: there is no token, it names its own position",
    ),
    (
        "state_json",
        "presence_state_json",
        "a decision is not about presence: there the name has to say whose state it is",
    ),
];

/// Messages that are of one thing, and what the second has that the first has not.
const TWINS: [(&str, &str, &[&str]); 17] = [
    ("v1.Event", "client.v1.Event", &[]),
    ("client.v1.Event", "client.v1.Passed", &[]),
    ("v1.Payload", "client.v1.Payload", &[]),
    ("v1.Position", "client.v1.Position", &[]),
    ("v1.Member", "client.v1.Member", &[]),
    ("v1.PublishRequest", "client.v1.Publish", &[]),
    ("v1.PublishRequest", "backend.v1.HandleRequest", &["subject"]),
    ("v1.PublishRequest", "backend.v1.EmittedEvent", &["exclude_sender"]),
    ("v1.PublishResult", "client.v1.Published", &["reply"]),
    ("v1.ListMembersResponse", "client.v1.Presence", &["room"]),
    ("v1.ListHistoryRequest", "client.v1.HistoryQuery", &[]),
    (
        "v1.ListHistoryResponse",
        "client.v1.History",
        &["complete", "more", "room"],
    ),
    ("v1.ListUserRoomsResponse", "client.v1.UserRooms", &["user_id"]),
    (
        "v1.RevokeRequest",
        "v1.Revocation",
        &["create_time", "expire_time", "revocation_id"],
    ),
    ("v1.ExplainRequest", "backend.v1.AuthorizeRequest", &[]),
    ("backend.v1.AuthorizeResponse", "client.v1.Refreshed", &[]),
    (
        "v1.Member",
        "backend.v1.AuthorizeResponse",
        &[
            "cache_ttl",
            "decision",
            "expire_time",
            "join_rooms",
            "message",
            "reason",
        ],
    ),
];

/// Counts and amounts that say so without the ending.
const AMOUNTS: [&str; 9] = [
    "ask_id",
    "code",
    "id",
    "limit",
    "page_size",
    "reached",
    "replayed",
    "rewind",
    "sequence",
];

/// Places in the order of a room, by what they are to it.
const POSITIONS: [&str; 7] = [
    "after",
    "before",
    "expected_head",
    "head",
    "oldest",
    "position",
    "since",
];

/// The type of a field without its package: twins of two packages are one type.
fn type_of(field: &FieldDescriptor) -> String {
    let name = match field.kind() {
        Kind::Message(message) => message.name().to_owned(),
        Kind::Enum(values) => values.name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    if field.is_list() { format!("[{name}]") } else { name }
}

fn fields() -> impl Iterator<Item = FieldDescriptor> {
    messages().flat_map(|message| message.fields().collect::<Vec<_>>())
}

#[test]
fn one_name_has_one_type() {
    let mut types: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for field in fields() {
        types
            .entry(field.name().to_owned())
            .or_default()
            .insert(type_of(&field));
    }
    types.retain(|_, types| types.len() > 1);
    let several = NAMES_OF_SEVERAL_TYPES.map(|(name, types, _)| {
        let types = types.iter().map(ToString::to_string);
        (name.to_owned(), types.collect())
    });
    assert_eq!(types, BTreeMap::from(several));
}

#[test]
fn every_name_says_what_its_type_leaves_open() {
    for field in fields() {
        let name = field.name();
        let ends_with = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let is_right = match &*type_of(&field) {
            "Timestamp" => ends_with(&["_time"]) || name == "issued_before",
            "Duration" => ends_with(&["ttl", "timeout"]),
            "int64" => ends_with(&["_ms"]),
            "int32" | "uint32" | "uint64" => {
                ends_with(&["_count", "_ms", "_bytes", "offset"]) || AMOUNTS.contains(&name)
            }
            "Position" => POSITIONS.contains(&name),
            "Payload" => ["payload", "reply"].contains(&name),
            "Retention" => name == "retention",
            _ => true,
        };
        assert!(is_right, "{}", field.full_name());
    }
}

/// The names of a message's fields, with those of the targets and positions it holds.
fn names_in(message: &MessageDescriptor) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for field in message.fields() {
        if let Kind::Message(inner) = field.kind()
            && ["Position", "Target"].contains(&inner.name())
        {
            names.extend(inner.fields().map(|field| field.name().to_owned()));
        }
        names.insert(field.name().to_owned());
    }
    names
}

#[test]
fn one_thing_has_one_name() {
    let named = |name: &str| {
        let name = format!("roomcast.{name}");
        let message = messages().find(|message| message.full_name() == name);
        message.unwrap_or_else(|| panic!("there is no {name}"))
    };
    let mut used = BTreeSet::new();
    for (one, other, more) in TWINS {
        let one_message = named(one);
        let mut known = names_in(&one_message);
        // What is a choice in one may be a message in the other.
        known.extend(one_message.oneofs().map(|oneof| oneof.name().to_owned()));
        let mut unknown = Vec::new();
        for name in names_in(&named(other)).difference(&known) {
            let accepted = OTHER_NAMES
                .iter()
                .find(|(first, second, _)| second == name && known.contains(*first));
            match accepted {
                Some((_, second, _)) => drop(used.insert(*second)),
                None => unknown.push(name.clone()),
            }
        }
        assert_eq!(unknown, more, "{one} and {other}");
    }
    assert_eq!(
        used,
        OTHER_NAMES.map(|(_, second, _)| second).into(),
        "one that is used no more"
    );
}
