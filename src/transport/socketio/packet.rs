//! Packets of the Engine.IO protocol (version 4) and, inside its messages, of the Socket.IO protocol (version 5), as text.
//!
//! Sources: the protocol documents `engine.io-protocol` and `socket.io-protocol`. This module knows no connection.

use crate::error::CloseReason;

/// Separates the packets of a polling body (Engine.IO protocol, "HTTP long-polling").
pub(super) const SEPARATOR: u8 = 0x1e;

/// Marks a binary message in a polling body; base64 follows.
pub(super) const BINARY_MARK: u8 = b'b';

/// A packet of Engine.IO. Binary messages have no packet type and are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine<'t> {
    /// The end of the connection.
    Close,
    /// A ping, which clients send only to probe a WebSocket, with its data.
    Ping(&'t str),
    /// The answer to a ping.
    Pong,
    /// A packet of Socket.IO.
    Message(&'t str),
    /// The end of polling.
    Upgrade,
    /// Nothing. Swift clients post one while they probe.
    Noop,
}

impl<'t> Engine<'t> {
    /// Parses a packet.
    ///
    /// # Errors
    /// [`CloseReason::ProtocolError`] for an unknown type, an empty packet, and an open packet, which only servers send.
    pub(super) fn parse(text: &'t str) -> Result<Self, CloseReason> {
        let Some((kind, data)) = text.split_at_checked(1) else {
            return Err(CloseReason::ProtocolError);
        };
        Ok(match kind {
            "1" => Self::Close,
            "2" => Self::Ping(data),
            "3" => Self::Pong,
            "4" => Self::Message(data),
            // Some clients send data with it, which means nothing.
            "5" => Self::Upgrade,
            "6" => Self::Noop,
            _ => return Err(CloseReason::ProtocolError),
        })
    }
}

/// The type of a Socket.IO packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
}

/// A Socket.IO packet, its attachments aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'t> {
    pub kind: Kind,
    /// The number of binary messages that follow.
    pub attachments: usize,
    /// The namespace; `/` where the packet names none.
    pub namespace: &'t str,
    /// The number under which the sender waits for an acknowledgement, or acknowledges.
    pub ack: Option<u32>,
    /// The JSON text; may be empty.
    pub data: &'t str,
}

/// The largest acknowledgement id. Clients count from 0, one for each event, so none of them gets there.
pub(super) const ACK_MAX: u32 = u32::MAX - 2;

impl<'t> Packet<'t> {
    /// The most attachments of one packet.
    pub(super) const ATTACHMENTS_MAX: usize = 10;

    /// Parses `<type>[<attachments>-][/namespace,][ack][data]`. The JSON is not looked at.
    ///
    /// # Errors
    /// [`CloseReason::ProtocolError`]: a type that clients do not send, a number that is missing or out of bounds.
    pub(super) fn parse(text: &'t str) -> Result<Self, CloseReason> {
        const MALFORMED: CloseReason = CloseReason::ProtocolError;
        let (kind, rest) = text.split_at_checked(1).ok_or(MALFORMED)?;
        let (kind, is_binary) = match kind {
            "0" => (Kind::Connect, false),
            "1" => (Kind::Disconnect, false),
            "2" => (Kind::Event, false),
            "3" => (Kind::Ack, false),
            "5" => (Kind::Event, true),
            "6" => (Kind::Ack, true),
            // 4 is the refusal of a namespace, which only servers send.
            _ => return Err(MALFORMED),
        };
        let (attachments, rest) = if is_binary {
            let (count, rest) = rest.split_once('-').ok_or(MALFORMED)?;
            let count = number(count).filter(|count| (1..=Self::ATTACHMENTS_MAX).contains(count));
            (count.ok_or(MALFORMED)?, rest)
        } else {
            (0, rest)
        };
        let (namespace, rest) = if rest.starts_with('/') {
            rest.split_once(',').unwrap_or((rest, ""))
        } else {
            ("/", rest)
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, data) = rest.split_at(digits);
        let ack = match digits {
            "" => None,
            digits => Some(number(digits).filter(|ack| *ack <= ACK_MAX).ok_or(MALFORMED)?),
        };
        Ok(Self {
            kind,
            attachments,
            namespace,
            ack,
            data,
        })
    }
}

/// Parses a decimal number; `None` when it has a sign, other characters or too many digits.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(
        kind: Kind,
        attachments: usize,
        namespace: &'static str,
        ack: Option<u32>,
        data: &'static str,
    ) -> Packet<'static> {
        Packet {
            kind,
            attachments,
            namespace,
            ack,
            data,
        }
    }

    #[test]
    fn packets_are_read_as_the_protocol_documents_write_them() {
        for (text, expected) in [
            ("0", packet(Kind::Connect, 0, "/", None, "")),
            (
                "0{\"token\":\"123\"}",
                packet(Kind::Connect, 0, "/", None, "{\"token\":\"123\"}"),
            ),
            // Swift names the main namespace.
            ("0/,{}", packet(Kind::Connect, 0, "/", None, "{}")),
            ("0/admin,{}", packet(Kind::Connect, 0, "/admin", None, "{}")),
            ("0/admin", packet(Kind::Connect, 0, "/admin", None, "")),
            ("1/admin,", packet(Kind::Disconnect, 0, "/admin", None, "")),
            ("1/admin", packet(Kind::Disconnect, 0, "/admin", None, "")),
            ("2[\"foo\"]", packet(Kind::Event, 0, "/", None, "[\"foo\"]")),
            (
                "2/admin,12[\"foo\"]",
                packet(Kind::Event, 0, "/admin", Some(12), "[\"foo\"]"),
            ),
            ("3/admin,13[]", packet(Kind::Ack, 0, "/admin", Some(13), "[]")),
            ("51-[\"b\"]", packet(Kind::Event, 1, "/", None, "[\"b\"]")),
            (
                "52-/admin,7[\"b\"]",
                packet(Kind::Event, 2, "/admin", Some(7), "[\"b\"]"),
            ),
            ("61-/admin,15[]", packet(Kind::Ack, 1, "/admin", Some(15), "[]")),
        ] {
            assert_eq!(Packet::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn packets_of_no_client_are_refused() {
        for text in [
            "",
            "4{}",
            "7",
            "x",
            "é",
            "5[\"b\"]",
            "50-[\"b\"]",
            "511-[\"b\"]",
            "5-[\"b\"]",
            "5+1-[\"b\"]",
            "5 1-[\"b\"]",
            "24294967294[\"a\"]",
            "299999999999999999999[\"a\"]",
        ] {
            assert_eq!(Packet::parse(text), Err(CloseReason::ProtocolError), "{text}");
        }
        for text in ["", "0{}", "7", "b", "é"] {
            assert_eq!(Engine::parse(text), Err(CloseReason::ProtocolError), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "[0-9/,{}\\[\\]\"aé-]{0,24}") {
            let _ = Engine::parse(&text);
            let _ = Packet::parse(&text);
        }
    }
}
