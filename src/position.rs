//! Positions: the places of events in a room's history.
//!
//! A position is an epoch and an offset. Within one room and epoch offsets strictly increase but may be sparse. Every
//! event names the offset of the room's previous event, so a reader detects any gap. Positions of two epochs cannot be
//! compared: a new epoch means that history was lost (a restart of the in-process bus, a recreated stream).

use std::fmt;
use std::str::FromStr;

/// One incarnation of a bus's history (a fencing generation): 64 random bits, written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Draws a new epoch.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Returns the epoch with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the epoch's bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error for a text that no bus has written as an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is 16 lowercase hexadecimal digits")]
pub struct EpochError;

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical {
            return Err(EpochError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| EpochError)
    }
}

/// The place of an event within its room and epoch. The first event of an epoch has an offset of at least 1; 0 precedes
/// all events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset before every event.
    pub const ZERO: Self = Self(0);
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A place in a room's history: the head of a room, or the progress of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The incarnation of the history.
    pub epoch: Epoch,
    /// The offset within it.
    pub offset: Offset,
}

/// A link of a room's sequence chain: an event's own position and the offset of the room's previous event
/// ([`Offset::ZERO`] for the first).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainLink {
    /// The event's position.
    pub position: Position,
    /// The offset of the room's previous event.
    pub prev: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_read_back_as_it_was_written() {
        for bits in [0, 1, u64::MAX, 0xdead_beef] {
            let epoch = Epoch::from_bits(bits);
            assert_eq!(epoch.to_string().parse(), Ok(epoch));
        }
    }

    #[test]
    fn what_no_bus_has_written_is_no_epoch() {
        for text in [
            "",
            "-1",
            "0",
            "00000000000000zz",
            "+000000000000001",
            "DEADBEEFDEADBEEF",
            "00000000000000000",
        ] {
            assert_eq!(text.parse::<Epoch>(), Err(EpochError), "{text}");
        }
    }
}
