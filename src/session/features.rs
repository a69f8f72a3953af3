//! The parts of the native protocol that a server may have or not have.

/// The feature of a client that answers the asks of backends.
pub const ASKS: &str = "asks";

/// Features of this node, by name: the table in `docs/protocol.md`, which says since when.
///
/// Every client is told of all of them. A part that makes the server send what the first version did not have (a kind of
/// message, a value of an enum) is in force only for a client that names it in its `connect`: [`ASKS`] is the only one, so
/// a session keeps one bit of what its client named.
pub const FEATURES: &[&str] = &[
    ASKS,
    "history",
    "last_values",
    "presence",
    "presence_counts",
    "presence_others",
    "refresh",
    "requests",
    "user_rooms",
];
