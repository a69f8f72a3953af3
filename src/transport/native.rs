//! The native protocol of `proto/roomcast/client/v1/client.proto`, as JSON text and as protobuf.
//!
//! Each encoding is a [`Protocol`]: it decodes a client's message into a [`Request`] and writes complete WebSocket frames.
//! Both are equivalent, with one difference. JSON refuses an unknown field and names it, because there it is mostly
//! misspelt; protobuf skips it, because there it belongs to a newer schema.
//!
//! A message that is no command has one of three flaws. It is **malformed** when it cannot be parsed, **invalid** when a
//! value is not acceptable, and **unsupported** when it is a command, or has a field, of another version. Only a broken
//! client sends the first, and only that counts against it.
//!
//! This module knows no socket and no session state. Names stay text; the frame reader bounds the size of messages.

pub(super) mod content;
mod error_code;
pub mod json;
pub mod protobuf;

use std::sync::Arc;

use self::json::JsonProtocol;
use self::protobuf::ProtobufProtocol;
use crate::error::ErrorCode;
use crate::json::WrongField;
use crate::session::{Refusal, Request};
use crate::transport::prefix;
use crate::transport::protocol::{Decoded, Protocol, Protocols};

/// The native protocol in both encodings, JSON first.
#[must_use]
pub fn protocols() -> Protocols {
    let both: [Arc<dyn Protocol>; 2] = [Arc::new(JsonProtocol), Arc::new(ProtobufProtocol)];
    Protocols::new(both)
}

/// Reason why a client's message is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The id of the command, as far as it could be parsed; 0 if not.
    pub id: u32,
    /// [`ErrorCode::Malformed`] if the message cannot be parsed; [`ErrorCode::InvalidArgument`] if a value is not
    /// acceptable; [`ErrorCode::Unsupported`] if it is a command of another version.
    pub code: ErrorCode,
    /// The text for a developer; at most [`Self::MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
}

impl DecodeError {
    /// The longest message, in bytes: it may quote the client's text.
    pub const MESSAGE_BYTES_MAX: usize = 200;

    fn new(id: u32, flaw: Flaw) -> Self {
        let (code, mut message) = (flaw.code, flaw.message);
        message.truncate(prefix(&message, Self::MESSAGE_BYTES_MAX).len());
        Self { id, code, message }
    }

    /// Returns the refusal for the client.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.code, self.message.clone())
    }
}

impl From<Result<Request, DecodeError>> for Decoded {
    fn from(decoded: Result<Request, DecodeError>) -> Self {
        match decoded {
            Ok(request) => Self::Request(request),
            Err(error) => Self::Refused {
                id: error.id,
                refusal: error.refusal(),
            },
        }
    }
}

impl From<WrongField> for Flaw {
    fn from(wrong: WrongField) -> Self {
        Self::invalid(wrong.to_string())
    }
}

/// Flaw of a message, without its id.
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

/// Adds the id of a request to its command. Without an id no reply is possible, whatever else is wrong.
fn request(id: u32, command: Result<crate::session::Command, Flaw>) -> Result<Request, DecodeError> {
    match command {
        Err(flaw) if id != 0 || flaw.code == ErrorCode::Malformed => Err(DecodeError::new(id, flaw)),
        Ok(command) if id != 0 => Ok(Request { id, command }),
        Ok(_) | Err(_) => {
            let flaw = Flaw::malformed("the id is missing or is no integer from 1 to 4294967295");
            Err(DecodeError::new(0, flaw))
        }
    }
}
