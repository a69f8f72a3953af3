//! A message that is not complete yet.

use crate::error::CloseReason;

/// Type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    Text,
    Binary,
}

/// The received part of a message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: MessageKind,
    pub(super) bytes: Vec<u8>,
    /// Frames begun, the first one included.
    pub(super) fragments: u32,
    /// Of a text: number of bytes known to be whole characters.
    characters_end: usize,
}

impl Message {
    pub(super) const fn new(kind: MessageKind) -> Self {
        Self {
            kind,
            bytes: Vec::new(),
            fragments: 1,
            characters_end: 0,
        }
    }

    /// Appends received bytes, and refuses the first octet of a text that cannot be UTF-8.
    pub(super) fn append(&mut self, part: &[u8]) -> Result<(), CloseReason> {
        self.bytes.extend_from_slice(part);
        if self.kind == MessageKind::Binary {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.characters_end..]) {
            Ok(_) => self.characters_end = self.bytes.len(),
            // A cut character, valid so far: the rest of it may follow.
            Err(error) if error.error_len().is_none() => self.characters_end += error.valid_up_to(),
            Err(_) => return Err(CloseReason::InvalidUtf8),
        }
        Ok(())
    }
}
