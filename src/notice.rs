//! The notice of a backend to a client: a code word for its program and a text for people.

/// The reason why a notice was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// The reason is no code word.
    #[error("is not 1 to 64 lower case letters, digits and underscores")]
    Reason,
    /// The message is longer than [`Notice::MESSAGE_BYTES_MAX`].
    #[error("is longer than 100 bytes")]
    MessageTooLong,
    /// The message holds a control character.
    #[error("contains a control character")]
    MessageControlCharacter,
}

impl NoticeError {
    /// Returns the wrong field, by its name in the contract.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Reason => "reason",
            Self::MessageTooLong | Self::MessageControlCharacter => "message",
        }
    }
}

/// A reason and a message, each of which may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notice {
    reason: Box<str>,
    message: Box<str>,
}

impl Notice {
    /// The longest reason, in bytes.
    pub const REASON_BYTES_MAX: usize = 64;

    /// The longest message, in bytes.
    pub const MESSAGE_BYTES_MAX: usize = 100;

    /// Parses a notice. Empty texts mean that there is none.
    ///
    /// # Errors
    /// Every variant of [`NoticeError`].
    pub fn parse(reason: &str, message: &str) -> Result<Self, NoticeError> {
        if !reason.is_empty() && !is_word(reason) {
            return Err(NoticeError::Reason);
        }
        if message.len() > Self::MESSAGE_BYTES_MAX {
            return Err(NoticeError::MessageTooLong);
        }
        if message.chars().any(char::is_control) {
            return Err(NoticeError::MessageControlCharacter);
        }
        Ok(Self {
            reason: reason.into(),
            message: message.into(),
        })
    }

    /// Returns the code word; empty for none.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the code word, or `word` where there is none.
    #[must_use]
    pub fn reason_or<'a>(&'a self, word: &'a str) -> &'a str {
        if self.reason.is_empty() { word } else { &self.reason }
    }

    /// Returns the text for people; empty for none.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Reports whether a text is a code word: 1 to 64 lower case letters, digits and underscores.
#[must_use]
pub fn is_word(text: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    (1..=Notice::REASON_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_a_word_and_message_is_bounded() {
        let notice = Notice::parse("plan_ended_2", "Your plan has ended.").unwrap();
        assert_eq!(
            (notice.reason(), notice.message()),
            ("plan_ended_2", "Your plan has ended.")
        );
        assert_eq!(Notice::parse("", ""), Ok(Notice::default()));
        assert_eq!(Notice::default().reason_or("kicked"), "kicked");
        for reason in ["Plan", "plan ended", "plan-ended", "é", &"a".repeat(65)] {
            assert_eq!(Notice::parse(reason, ""), Err(NoticeError::Reason), "{reason}");
        }
        assert!(Notice::parse(&"a".repeat(64), &"é".repeat(50)).is_ok());
        assert_eq!(Notice::parse("", &"é".repeat(51)), Err(NoticeError::MessageTooLong));
        assert_eq!(Notice::parse("", "a\nb"), Err(NoticeError::MessageControlCharacter));
    }
}
