//! The names of subjects and streams in NATS. A deployment `d` has:
//!
//! | subject | content | publisher |
//! |---|---|---|
//! | `d.h.P.ROOM` | a room's reliable events, captured by the stream `d-h-P` | nodes |
//! | `d.l.ROOM.r` | the same, republished by the stream | the stream only |
//! | `d.l.ROOM.e` | ephemeral events | nodes |
//! | `d.l.ROOM.n` | "the room's head is at least here" | nodes |
//! | `d.v.ROOM.NAME` | last values, captured by the stream `d-v` | nodes |
//! | `d.m.P`, `d.m.v` | the epochs of a partition and of the stream of last values, captured by the stream `d-m` | nodes |
//! | `d.m.settings` | the settings that all nodes share, captured by the stream `d-m` | nodes |
//! | `d.c.r.ID`, `d.c.u.ID` | a revocation, and its withdrawal; captured by the stream `d-c` | nodes |
//! | `d.c.l.NODE`, `d.c.s.NODE` | a node's lease, and its report of a lost log; captured by the stream `d-c` | nodes |
//! | `d.s.HASH` | a session to which a Socket.IO client may come back, captured by the stream `d-s` | nodes |
//! | `d.p.ROOM` | presence of a room | nodes |
//! | `d.n.hb` | heartbeats of nodes; one with a reply subject requests answers | nodes |
//! | `d.n.NODE` | to one node, `NODE` its incarnation | nodes |
//! | `d.n.all` | to all nodes | nodes |
//! | `d.n.NODE.q` | requests of clients that the node serves, from the nodes they have reached | nodes |
//! | `d.n.NODE.p`, `d.n.all.p` | about presence, to one node and to all | nodes |
//! | `d.n.all.r` | request to all nodes for the number of connections that events reach | nodes |
//! | `d.n.records` | "read the records again, and write back what is lost"; with a reply subject when it is done | nodes |
//! | `d.n.activity` | joins and leaves, for watchers | nodes |
//! | `d.i.>` | replies | the responder |
//!
//! A room is one token, tenant and name together: `A-Z a-z 0-9 - _` as they are, every other byte as `=` and two
//! hexadecimal digits, a zero byte between the two. So two rooms never share a token, and no name is a wildcard.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::digest::Digest;
use crate::event::EventName;
use crate::room::{Room, Tenant};

/// The kind of a message on a room's live subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// A reliable event, republished by the stream.
    Reliable,
    /// An ephemeral event.
    Ephemeral,
    /// A hint: the room's head is at least there.
    Nudge,
}

/// The names of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    deployment: String,
    inbox: String,
}

impl Subjects {
    /// The longest name of a deployment, in bytes.
    pub const DEPLOYMENT_BYTES_MAX: usize = 32;

    /// Creates the names of a deployment, with an inbox of this process alone.
    ///
    /// # Errors
    /// The reason why the deployment's name is invalid.
    pub fn new(deployment: &str) -> Result<Self, String> {
        let fits = (1..=Self::DEPLOYMENT_BYTES_MAX).contains(&deployment.len()) && deployment.bytes().all(is_plain);
        if !fits {
            return Err("a name of 1 to 32 of A-Z a-z 0-9 - _ is needed".to_owned());
        }
        Ok(Self {
            inbox: format!("{deployment}.i.{:016x}", rand::random::<u64>()),
            deployment: deployment.to_owned(),
        })
    }

    /// Returns the deployment's name.
    #[must_use]
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Returns the prefix of this process's reply subjects.
    #[must_use]
    pub fn inbox(&self) -> &str {
        &self.inbox
    }

    /// Returns the partition of a room out of `partitions`, by the mixed digest of its token: every node and every version
    /// agrees.
    #[must_use]
    pub fn partition(room: &Room, partitions: u16) -> u16 {
        let mut digest = Digest::default();
        for byte in room.key() {
            if is_plain(*byte) {
                digest.add(&[*byte]);
            } else {
                digest.add(&escaped(*byte));
            }
        }
        u16::try_from(digest.mixed() % u64::from(partitions.max(1))).expect("a remainder is below its divisor")
    }

    /// Returns the subject of a room's reliable events.
    #[must_use]
    pub fn history(&self, partition: u16, room: &Room) -> String {
        format!("{}.h.{partition}.{}", self.deployment, token(room))
    }

    /// Returns the subjects of a partition's reliable events, as a pattern.
    #[must_use]
    pub fn histories(&self, partition: u16) -> String {
        format!("{}.h.{partition}.*", self.deployment)
    }

    /// Returns a subject of a partition's stream that is no room's, for publishes that are to be refused.
    #[must_use]
    pub fn barrier(&self, partition: u16) -> String {
        format!("{}.h.{partition}.-", self.deployment)
    }

    /// Returns the republish destination of a stream, as a template of [`Self::histories`].
    #[must_use]
    pub fn republished(&self) -> String {
        format!("{}.l.{{{{wildcard(1)}}}}.r", self.deployment)
    }

    /// Returns the pattern of all live messages of a room: one subscription.
    #[must_use]
    pub fn live(&self, room: &Room) -> String {
        format!("{}.l.{}.*", self.deployment, token(room))
    }

    /// Returns the pattern of the reliable events of all rooms, as the streams republish them.
    #[must_use]
    pub fn all_reliable(&self) -> String {
        format!("{}.l.*.r", self.deployment)
    }

    /// Returns the partition and the room's token of a stored event's subject; `None` for a foreign one.
    #[must_use]
    pub fn partition_and_token<'s>(&self, subject: &'s str) -> Option<(u16, &'s str)> {
        let rest = subject.strip_prefix(&*self.deployment)?.strip_prefix(".h.")?;
        let (partition, token) = rest.split_once('.')?;
        Some((partition.parse().ok()?, token))
    }

    /// Returns the beginning of the tokens of a tenant's rooms, which no other tenant's have.
    #[must_use]
    pub fn tokens_of(tenant: &Tenant) -> String {
        encode(&[tenant.as_str().as_bytes(), b"\0"].concat())
    }

    /// Returns the room of a token; `None` for one that is not a room's.
    #[must_use]
    pub fn room_of(token: &str) -> Option<Room> {
        let key = decode(token)?;
        let (tenant, name) = key.split_once('\0')?;
        let room = Room::parse(&Tenant::parse(tenant).ok()?, name).ok()?;
        // Another spelling of a token is not a room's: no node writes it.
        (self::token(&room) == token).then_some(room)
    }

    /// Returns the subject of one kind of live message of a room.
    #[must_use]
    pub fn live_of(&self, room: &Room, live: Live) -> String {
        let kind = match live {
            Live::Reliable => 'r',
            Live::Ephemeral => 'e',
            Live::Nudge => 'n',
        };
        format!("{}.l.{}.{kind}", self.deployment, token(room))
    }

    /// Returns the kind of the live messages of this subject; `None` for a foreign one.
    #[must_use]
    pub fn kind_of_live(subject: &str) -> Option<Live> {
        match subject.rsplit_once('.')?.1 {
            "r" => Some(Live::Reliable),
            "e" => Some(Live::Ephemeral),
            "n" => Some(Live::Nudge),
            _ => None,
        }
    }

    /// Returns the subject of the last value of an event name in a room.
    #[must_use]
    pub fn last_value(&self, room: &Room, name: &EventName) -> String {
        format!(
            "{}.v.{}.{}",
            self.deployment,
            token(room),
            encode(name.as_str().as_bytes())
        )
    }

    /// Returns the last values of a room, as a pattern.
    #[must_use]
    pub fn last_values(&self, room: &Room) -> String {
        format!("{}.v.{}.*", self.deployment, token(room))
    }

    /// Returns the record of a partition's epoch.
    #[must_use]
    pub fn epoch(&self, partition: u16) -> String {
        format!("{}.m.{partition}", self.deployment)
    }

    /// Returns the record of the epoch of the stream of last values.
    #[must_use]
    pub fn values_epoch(&self) -> String {
        format!("{}.m.v", self.deployment)
    }

    /// Returns the record of the settings that all nodes share.
    #[must_use]
    pub fn settings(&self) -> String {
        format!("{}.m.settings", self.deployment)
    }

    /// Returns the subject that requests nodes to read the records again, and to write back what is lost.
    #[must_use]
    pub fn records(&self) -> String {
        format!("{}.n.records", self.deployment)
    }

    /// Returns the subject of the control log's records of one kind, which every node obeys.
    #[must_use]
    pub fn command(&self, kind: &str) -> String {
        format!("{}.c.{kind}", self.deployment)
    }

    /// Returns the subject of a room's presence.
    #[must_use]
    pub fn presence(&self, room: &Room) -> String {
        format!("{}.p.{}", self.deployment, token(room))
    }

    /// Returns the subject about presence to one node, by its incarnation.
    #[must_use]
    pub fn presence_of_node(&self, incarnation: u64) -> String {
        format!("{}.p", self.node(incarnation))
    }

    /// Returns the subject about presence to all nodes.
    #[must_use]
    pub fn presence_of_all(&self) -> String {
        format!("{}.p", self.all_nodes())
    }

    /// Returns the subject that requests from all nodes the number of connections that events reach.
    #[must_use]
    pub fn reach_of_all(&self) -> String {
        format!("{}.r", self.all_nodes())
    }

    /// Returns the subject of joins and leaves, for watchers.
    #[must_use]
    pub fn activity(&self) -> String {
        format!("{}.n.activity", self.deployment)
    }

    /// Returns the subject of nodes' heartbeats.
    #[must_use]
    pub fn heartbeats(&self) -> String {
        format!("{}.n.hb", self.deployment)
    }

    /// Returns the subject to all nodes.
    #[must_use]
    pub fn all_nodes(&self) -> String {
        format!("{}.n.all", self.deployment)
    }

    /// Returns the subject to one node, by its incarnation.
    #[must_use]
    pub fn node(&self, incarnation: u64) -> String {
        format!("{}.n.{incarnation:016x}", self.deployment)
    }

    /// Returns the subject of requests that are relayed to one node, by its incarnation.
    #[must_use]
    pub fn relay(&self, incarnation: u64) -> String {
        format!("{}.q", self.node(incarnation))
    }

    /// Returns the pattern of all subjects of one letter.
    #[must_use]
    pub fn all_of(&self, letter: char) -> String {
        format!("{}.{letter}.>", self.deployment)
    }

    /// Returns the subject of the record of a session.
    #[must_use]
    pub fn session(&self, hash: &[u8]) -> String {
        format!("{}.s.{}", self.deployment, URL_SAFE_NO_PAD.encode(hash))
    }

    /// Returns the stream of a partition.
    #[must_use]
    pub fn stream_of_partition(&self, partition: u16) -> String {
        format!("{}-h-{partition}", self.deployment)
    }

    /// Returns the stream of one letter's subjects.
    #[must_use]
    pub fn stream_of(&self, letter: char) -> String {
        format!("{}-{letter}", self.deployment)
    }
}

/// Encodes a room as one token of a subject.
#[must_use]
pub fn token(room: &Room) -> String {
    encode(room.key())
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Returns the escaped form of a byte that is not plain.
const fn escaped(byte: u8) -> [u8; 3] {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    [b'=', DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// Reverses [`encode`]; `None` for a text that it has not written.
fn decode(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'=' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

fn encode(text: &[u8]) -> String {
    let mut token = String::with_capacity(text.len() + 8);
    for &byte in text {
        if is_plain(byte) {
            token.push(char::from(byte));
        } else {
            token.extend(escaped(byte).map(char::from));
        }
    }
    token
}

#[cfg(test)]
mod tests;
