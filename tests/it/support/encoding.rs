//! The two encodings of the native protocol, as a client sees them. Both come to the protobuf types.

use prost::Message as _;
use roomcast::proto::client_v1::{ClientFrame, ServerFrame};
use tokio_tungstenite::tungstenite::Message;

use super::json;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "roomcast.v1.json",
            Self::Protobuf => "roomcast.v1.protobuf",
        }
    }

    pub fn encode(self, frame: &ClientFrame) -> Message {
        match self {
            Self::Json => Message::text(json::encode(frame)),
            Self::Protobuf => Message::binary(frame.encode_to_vec()),
        }
    }

    /// # Panics
    /// When the message is no frame of the contract.
    pub fn decode(self, message: &Message) -> ServerFrame {
        match (self, message) {
            (Self::Json, Message::Text(text)) => json::decode(text),
            (Self::Protobuf, Message::Binary(bytes)) => {
                ServerFrame::decode(bytes.clone()).expect("a binary message is a ServerFrame")
            }
            _ => panic!("a message of the wrong kind for {self:?}: {message:?}"),
        }
    }
}
