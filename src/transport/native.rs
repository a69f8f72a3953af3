//! The native protocol: what `proto/roomcast/client/v1/client.proto` says, as JSON text and as protobuf.
//!
//! Each encoding decodes a message of a client into a [`Request`] and is a [`crate::session::Wire`] that writes complete
//! WebSocket frames. Both say the same. They differ in one thing: JSON refuses fields it does not know, because there a
//! misspelt field is a mistake of somebody's hand; protobuf skips them, because there they are a newer schema.
//!
//! Knows no socket and no session state. Names stay text; sizes of whole messages are the frame reader's matter.

mod content;
mod error_code;
pub mod json;
pub mod protobuf;

use crate::error::ErrorCode;
use crate::session::{Refusal, Request};
use crate::transport::prefix;

/// How a connection of the native protocol writes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON in text messages; what a client gets that asks for no subprotocol.
    Json,
    /// Protobuf in binary messages.
    Protobuf,
}

impl Encoding {
    /// Every encoding, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    /// The name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "roomcast.v1.json",
            Self::Protobuf => "roomcast.v1.protobuf",
        }
    }

    /// The slot of the encoding's frames in [`crate::bus::Delivery::frame`].
    #[must_use]
    pub const fn format(self) -> usize {
        match self {
            Self::Json => 0,
            Self::Protobuf => 1,
        }
    }
}

/// Why a message of a client is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The id of the command, as far as it could be read; 0 if not.
    pub id: u32,
    /// [`ErrorCode::Malformed`] if the message could not be read; [`ErrorCode::InvalidArgument`] if it could but says
    /// something that is not acceptable; [`ErrorCode::Unsupported`] if it is a command of another version.
    pub code: ErrorCode,
    /// For a developer to read; at most [`Self::MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
}

impl DecodeError {
    /// The longest message, in bytes: it may quote what the client sent.
    pub const MESSAGE_BYTES_MAX: usize = 200;

    fn new(id: u32, flaw: Flaw) -> Self {
        let (code, mut message) = (flaw.code, flaw.message);
        message.truncate(prefix(&message, Self::MESSAGE_BYTES_MAX).len());
        Self { id, code, message }
    }

    /// What the client is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.code, self.message.clone())
    }
}

/// What is wrong with a message, without its id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flaw {
    code: ErrorCode,
    message: String,
}

impl Flaw {
    fn malformed(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Malformed,
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::InvalidArgument,
            message: message.into(),
        }
    }

    fn unsupported(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Unsupported,
            message: message.into(),
        }
    }
}

/// Puts the number of a request to its command.
fn request(id: u32, command: Result<crate::session::Command, Flaw>) -> Result<Request, DecodeError> {
    let command = command.map_err(|flaw| DecodeError::new(id, flaw))?;
    if id == 0 {
        return Err(DecodeError::new(0, Flaw::malformed("the id is missing or 0")));
    }
    Ok(Request { id, command })
}
