//! The parts of the native protocol that a server may have or not have.

/// Features of this node, by name: the table in `docs/protocol.md`, which says since when.
///
/// Every client is told of all of them. A part that makes the server send what the first version did not have (a kind of
/// message, a value of an enum) is in force only for a client that names it in its `connect`. There is none such yet,
/// so no session keeps what its client named.
pub const FEATURES: &[&str] = &[
    "history",
    "last_values",
    "presence",
    "presence_counts",
    "presence_others",
    "refresh",
    "requests",
    "user_rooms",
];
