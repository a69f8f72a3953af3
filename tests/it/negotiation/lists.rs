//! Nodes with lists of features other than this version's, as their clients see them.
//!
//! The native protocol stands behind, so what a node refuses is refused by the real decoder and the real session: what the
//! list lacks is renamed before it is decoded, to what this version does not know either.

use std::sync::Arc;

use prost::Message as _;
use roomcast::event::Event;
use roomcast::proto::client_v1::ClientFrame;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::session::{Encoder, FEATURES, Frame, Message};
use roomcast::transport::native::json::JsonProtocol;
use roomcast::transport::native::protobuf::ProtobufProtocol;
use roomcast::transport::protocol::{self, Decoded, Protocol, Protocols};
use serde_json::Value;

/// Follows the name of what is renamed.
const MARK: &str = "'";

/// The commands that a feature stands for: its name, the command's in JSON, and the command's number.
const COMMANDS: [(&str, &str, u32); 3] = [
    ("history", "historyQuery", 10),
    ("requests", "request", 6),
    ("user_rooms", "userRoomsQuery", 9),
];

/// The native protocol of a node with this list.
pub fn protocols(features: &'static [&'static str]) -> Protocols {
    let both: [Arc<dyn Protocol>; 2] = [
        Arc::new(With {
            features,
            protocol: JsonProtocol,
        }),
        Arc::new(With {
            features,
            protocol: ProtobufProtocol,
        }),
    ];
    Protocols::new(both)
}

#[derive(Debug)]
struct With<P> {
    features: &'static [&'static str],
    protocol: P,
}

impl<P> With<P> {
    /// Whether this version has the feature and the node does not.
    fn lacks(&self, feature: &str) -> bool {
        FEATURES.contains(&feature) && !self.features.contains(&feature)
    }

    /// A command's JSON, with what the node lacks under other names.
    fn renamed_json(&self, text: &str) -> String {
        let Ok(Value::Object(mut frame)) = serde_json::from_str(text) else {
            return text.to_owned();
        };
        for (feature, command, _) in COMMANDS {
            if self.lacks(feature)
                && let Some(fields) = frame.remove(command)
            {
                frame.insert(format!("{command}{MARK}"), fields);
            }
        }
        for command in frame.values_mut() {
            let required = command.get_mut("requiredFeatures").and_then(Value::as_array_mut);
            for name in required.into_iter().flatten() {
                if let Value::String(name) = name {
                    self.rename(name);
                }
            }
        }
        Value::Object(frame).to_string()
    }

    /// The same of protobuf. A command that the node lacks gets a number that is not taken.
    fn renamed_protobuf(&self, bytes: &[u8]) -> Vec<u8> {
        let Ok(mut frame) = ClientFrame::decode(bytes) else {
            return bytes.to_vec();
        };
        match &mut frame.command {
            Some(Command::Join(join)) => join.required_features.iter_mut().for_each(|name| self.rename(name)),
            Some(Command::Publish(publish)) => publish.required_features.iter_mut().for_each(|name| self.rename(name)),
            _ => {}
        }
        let feature = match frame.command {
            Some(Command::HistoryQuery(_)) => "history",
            Some(Command::Request(_)) => "requests",
            Some(Command::UserRoomsQuery(_)) => "user_rooms",
            _ => return frame.encode_to_vec(),
        };
        if !self.lacks(feature) {
            return frame.encode_to_vec();
        }
        let id = ClientFrame {
            id: frame.id,
            command: None,
        };
        let mut bytes = id.encode_to_vec();
        prost::encoding::message::encode(unknown_number(feature), &(), &mut bytes);
        bytes
    }

    fn rename(&self, feature: &mut String) {
        if self.lacks(feature) {
            feature.push_str(MARK);
        }
    }
}

fn unknown_number(feature: &str) -> u32 {
    let known = COMMANDS.iter().find(|(name, ..)| *name == feature);
    1_000 + known.expect("a feature with a command").2
}

/// What names a feature's command in the refusal of a node that lacks it: to a client of JSON, and to one of protobuf.
pub fn refused_names(feature: &str) -> (String, String) {
    let known = COMMANDS.iter().find(|(name, ..)| *name == feature);
    let (_, command, _) = known.expect("a feature with a command");
    (format!("`{command}{MARK}`"), unknown_number(feature).to_string())
}

/// The same of a required feature, to any client.
pub fn required_name(feature: &str) -> String {
    format!("`{feature}{MARK}`")
}

impl<P: Protocol> Protocol for With<P> {
    fn decode(&self, message: protocol::Message<'_>) -> Decoded {
        match message {
            protocol::Message::Text(text) => {
                let text = self.renamed_json(text);
                self.protocol.decode(protocol::Message::Text(&text))
            }
            protocol::Message::Binary(bytes) => {
                let bytes = self.renamed_protobuf(bytes);
                self.protocol.decode(protocol::Message::Binary(&bytes))
            }
        }
    }
}

impl<P: Protocol> Encoder for With<P> {
    fn name(&self) -> &'static str {
        self.protocol.name()
    }

    fn message(&self, id: u32, message: &Message) -> Frame {
        let mut message = message.clone();
        if let Message::Connected { features, .. } = &mut message {
            *features = self.features;
        }
        self.protocol.message(id, &message)
    }

    fn heartbeat(&self) -> Frame {
        self.protocol.heartbeat()
    }

    fn event(&self, event: &Event) -> Frame {
        self.protocol.event(event)
    }

    fn passed(&self, event: &Event) -> Option<Frame> {
        self.protocol.passed(event)
    }
}
