//! Connection state recovery: the secret by which a client comes back to its session, and the proof of what it has received.
//!
//! It lives with the connection's carrier, as the cursor does, so it costs other connections nothing. How it is written is the
//! protocol's matter, where it is kept that of `recovery`.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Cursor, RoomTag};
use crate::position::Position;

/// The secret that names a session to its client alone: 128 random bits, written as 22 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pid(u128);

impl Pid {
    /// Draws a secret.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Parses a secret as it was written; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (read == bytes.len()).then(|| Self(u128::from_be_bytes(bytes)))
    }

    /// Returns the hash under which the session is kept: a reader of the store cannot come back with it.
    #[must_use]
    pub fn hash(self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.0.to_be_bytes()).as_ref());
        hash
    }

    /// Returns the mark of the session in its offsets. A client keeps an offset longer than its session, and shows it for the
    /// next one.
    #[must_use]
    pub fn mark(self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.hash();
        [a, b, c, d]
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pid(..)")
    }
}

/// An offset that a client shows: the positions behind the last event that it has received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownOffset {
    /// The mark of the session that sent it.
    pub mark: [u8; 4],
    /// The version of the session's rooms by which it was written.
    pub version: u64,
    /// The positions, by room.
    pub positions: Vec<(RoomTag, Position)>,
}

/// The claim of a client to a session that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The session's secret.
    pub pid: Pid,
    /// The last offset; `None` if it received none, or shows something else.
    pub offset: Option<ShownOffset>,
    /// A digest of the offset's text, whatever it is: a client that shows the same one again has received nothing since.
    pub digest: u64,
}

/// The mark of a session that can be recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryTicket {
    /// The secret.
    pub pid: Pid,
    /// [`Pid::mark`] of it.
    pub mark: [u8; 4],
}

impl From<Pid> for RecoveryTicket {
    fn from(pid: Pid) -> Self {
        Self { pid, mark: pid.mark() }
    }
}

/// The recovery of one session, on the side of its connection.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The progress in each room.
    pub cursor: Cursor,
    /// Set once the session is kept; without it nothing can be recovered, and clients are sent no offsets.
    pub ticket: Option<RecoveryTicket>,
    /// The version of the rooms that the cursor is of.
    pub version: u64,
    /// The claim with which the client has come.
    pub claim: Option<Box<Claim>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_back_and_shown_by_no_debug_text() {
        let pid = Pid::random();
        let text = pid.to_string();
        assert_eq!((text.len(), Pid::parse(&text)), (22, Some(pid)));
        assert_eq!(format!("{pid:?}"), "Pid(..)");
        for text in ["", "a", &text[1..], &format!("{text}A"), "é"] {
            assert_eq!(Pid::parse(text), None, "{text}");
        }
        assert_ne!(pid.hash(), Pid::random().hash());
    }
}
