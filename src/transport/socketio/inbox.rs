//! The reading half of a connection: from packets to steps. Knows no socket and no session.

use std::sync::Arc;

use bytes::Bytes;

use super::packet::{Engine, Kind, Packet};
use super::payload::{self, Part};
use super::{Application, decode};
use crate::error::CloseReason;
use crate::session::recovery::Claim;
use crate::session::{Frame, ProtocolId};
use crate::transport::protocol::Decoded;
use crate::transport::websocket::frame::{binary_frame, text_frame};

/// The namespaces of a gateway, each with its protocol.
#[derive(Debug, Clone)]
pub(in crate::transport) struct Namespaces {
    pub list: Arc<[(Box<str>, ProtocolId)]>,
    /// Begins the names of commands.
    pub prefix: Arc<str>,
    pub application: Application,
}

impl Namespaces {
    /// The name of a namespace as it stands in packets.
    pub(super) fn mark(&self, protocol: ProtocolId) -> String {
        let mut list = self.list.iter();
        let found = list.find(|(_, known)| *known == protocol);
        found.map_or_else(String::new, |(name, _)| super::encode::mark(name))
    }

    fn find(&self, name: &str) -> Option<ProtocolId> {
        let mut list = self.list.iter();
        list.find(|(known, _)| **known == *name).map(|(_, protocol)| *protocol)
    }
}

/// A thing that a client's packet asks for.
#[derive(Debug)]
pub(in crate::transport) enum Step {
    /// A session in a namespace, with a token if the packet has one.
    Connect(ProtocolId, Option<String>),
    /// The same, with a claim to a session that the client had.
    Recover(ProtocolId, Option<String>, Claim),
    /// A session in a namespace that there is not.
    ConnectNowhere(Box<str>),
    /// The end of the session in a namespace.
    Disconnect(ProtocolId),
    /// A command to the session in a namespace.
    Command(ProtocolId, Decoded),
    /// A ping, with its data: the probe of an upgrade.
    Ping(Box<str>),
    /// The answer to a ping.
    Pong,
    /// The end of polling.
    Upgrade,
    /// The end of the connection.
    Close,
    /// A frame that comes back as it is.
    Echo(Frame),
}

/// The received part of a packet with attachments.
#[derive(Debug)]
struct Partial {
    text: Box<str>,
    attachments: Vec<Bytes>,
    bytes: usize,
    /// The time since which the rest is waited for.
    since_ms: Option<u64>,
}

/// Packets of one connection on their way to steps. At rest it is one empty pointer.
#[derive(Debug, Default)]
pub(in crate::transport) struct Inbox {
    partial: Option<Box<Partial>>,
}

impl Inbox {
    /// Reads the body of a polling request: at most `packets_max` packets, each of at most `bytes_max` bytes with its attachments.
    ///
    /// # Errors
    /// As [`Self::text`] and [`Self::binary`], and as [`payload::parts`].
    pub(in crate::transport) fn packets(
        &mut self,
        body: &[u8],
        (packets_max, bytes_max): (usize, usize),
        namespaces: &Namespaces,
    ) -> Result<Vec<Step>, CloseReason> {
        let mut steps = Vec::new();
        for part in payload::parts(body, packets_max)? {
            steps.extend(match part {
                Part::Text(text) => self.text(text, namespaces)?,
                Part::Binary(bytes) => self.binary(&bytes, bytes_max, namespaces)?,
            });
        }
        Ok(steps)
    }

    /// Notes the time at which a packet has begun to wait for its attachments; returns whether it is one that has just begun.
    pub(in crate::transport) fn note_partial(&mut self, now_ms: u64) -> bool {
        let begun = self.partial.as_mut().filter(|partial| partial.since_ms.is_none());
        begun.map(|partial| partial.since_ms = Some(now_ms)).is_some()
    }

    /// Since when a packet waits for its attachments.
    pub(in crate::transport) fn partial_since_ms(&self) -> Option<u64> {
        self.partial.as_ref()?.since_ms
    }

    /// Lets the time of a packet that waits for its attachments start anew: the gateway does not read.
    pub(in crate::transport) fn restart_clock(&mut self, now_ms: u64) {
        if let Some(partial) = &mut self.partial {
            partial.since_ms = Some(now_ms);
        }
    }

    /// Reads an Engine.IO packet; `None` where there is nothing to do.
    ///
    /// # Errors
    /// [`CloseReason::ProtocolError`]: a packet that cannot be read, or any but a pong while attachments are owed.
    pub(in crate::transport) fn text(
        &mut self,
        text: &str,
        namespaces: &Namespaces,
    ) -> Result<Option<Step>, CloseReason> {
        let packet = Engine::parse(text)?;
        if self.partial.is_some() && !matches!(packet, Engine::Pong | Engine::Close) {
            return Err(CloseReason::ProtocolError);
        }
        Ok(Some(match packet {
            Engine::Close => Step::Close,
            Engine::Ping(data) => Step::Ping(data.into()),
            Engine::Pong => Step::Pong,
            Engine::Upgrade => Step::Upgrade,
            Engine::Noop => return Ok(None),
            Engine::Message(_) if namespaces.application == Application::Echo => Step::Echo(text_frame(text)),
            Engine::Message(text) => return self.message(text, namespaces),
        }))
    }

    fn message(&mut self, text: &str, namespaces: &Namespaces) -> Result<Option<Step>, CloseReason> {
        let packet = Packet::parse(text)?;
        if packet.attachments == 0 {
            return step(&packet, &[], namespaces).map(Some);
        }
        self.partial = Some(Box::new(Partial {
            text: text.into(),
            attachments: Vec::with_capacity(packet.attachments),
            bytes: text.len(),
            since_ms: None,
        }));
        Ok(None)
    }

    /// Reads an attachment; the step when it is the last one. A packet has at most `bytes_max` bytes with all of them.
    ///
    /// # Errors
    /// [`CloseReason::ProtocolError`] where none is owed, [`CloseReason::MessageTooBig`].
    pub(in crate::transport) fn binary(
        &mut self,
        bytes: &[u8],
        bytes_max: usize,
        namespaces: &Namespaces,
    ) -> Result<Option<Step>, CloseReason> {
        if namespaces.application == Application::Echo {
            return Ok(Some(Step::Echo(binary_frame(bytes))));
        }
        let partial = self.partial.as_mut().ok_or(CloseReason::ProtocolError)?;
        partial.bytes += bytes.len();
        if partial.bytes > bytes_max {
            return Err(CloseReason::MessageTooBig);
        }
        partial.attachments.push(Bytes::copy_from_slice(bytes));
        if Packet::parse(&partial.text)?.attachments > partial.attachments.len() {
            return Ok(None);
        }
        let Some(whole) = self.partial.take() else {
            return Ok(None);
        };
        step(&Packet::parse(&whole.text)?, &whole.attachments, namespaces).map(Some)
    }

    /// The bytes of a packet whose attachments have not all come.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.bytes)
    }
}

/// The step that a complete packet asks for.
fn step(packet: &Packet<'_>, attachments: &[Bytes], namespaces: &Namespaces) -> Result<Step, CloseReason> {
    let known = namespaces.find(packet.namespace);
    let namespace = known.ok_or(CloseReason::ProtocolError);
    Ok(match packet.kind {
        Kind::Connect => {
            let (token, claim) = decode::connect(packet.data)?;
            match (known, claim) {
                (Some(namespace), Some(claim)) => Step::Recover(namespace, token, claim),
                (Some(namespace), None) => Step::Connect(namespace, token),
                (None, _) => Step::ConnectNowhere(packet.namespace.into()),
            }
        }
        Kind::Disconnect => Step::Disconnect(namespace?),
        Kind::Event | Kind::Ack => {
            let namespace = namespace?;
            Step::Command(namespace, decode::event(packet, attachments, &namespaces.prefix)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces() -> Namespaces {
        Namespaces {
            list: [("/".into(), ProtocolId::new(2)), ("/custom".into(), ProtocolId::new(3))].into(),
            prefix: "roomcast:".into(),
            application: Application::SocketIo,
        }
    }

    fn read(texts: &[&str]) -> Result<Vec<String>, CloseReason> {
        let (mut inbox, namespaces, mut steps) = (Inbox::default(), namespaces(), Vec::new());
        for text in texts {
            let step = match text.strip_prefix('b') {
                Some(bytes) => inbox.binary(bytes.as_bytes(), 100, &namespaces)?,
                None => inbox.text(text, &namespaces)?,
            };
            steps.extend(step.map(|step| format!("{step:?}")));
        }
        Ok(steps)
    }

    #[test]
    fn packets_become_steps_of_their_namespace() {
        let steps = read(&[
            "40",
            "40/custom,{\"token\":\"t\"}",
            "40/nope",
            "41/custom",
            "3",
            "2probe",
            "5",
            "6",
            "1",
        ])
        .unwrap();
        let expected = [
            "Connect(ProtocolId(2), None)",
            "Connect(ProtocolId(3), Some(\"t\"))",
            "ConnectNowhere(\"/nope\")",
            "Disconnect(ProtocolId(3))",
            "Pong",
            "Ping(\"probe\")",
            "Upgrade",
            "Close",
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn attachments_follow_their_packet_and_nothing_else_does() {
        let header = "452-[\"e\",{\"_placeholder\":true,\"num\":0}]";
        let steps = read(&[header, "bone", "3", "b", "42[\"e\"]"]).unwrap();
        assert_eq!(steps.len(), 3, "{steps:?}");
        for wrong in [
            &[header, "42[\"e\"]"][..],
            &[header, "2"],
            &[header, "bone", "40"],
            &["b"],
            &[header, "bone", "btwo", "bthree"],
        ] {
            assert_eq!(read(wrong), Err(CloseReason::ProtocolError), "{wrong:?}");
        }
        let large = format!("b{}", "x".repeat(90));
        assert_eq!(read(&[header, &large]), Err(CloseReason::MessageTooBig));
    }

    #[test]
    fn packets_of_unknown_namespaces_and_broken_ones_end_the_connection() {
        for wrong in [
            "41/nope",
            "42/nope,[\"e\"]",
            "40[]",
            "40{",
            "42{}",
            "44{}",
            "0",
            "",
            "7",
            "4",
        ] {
            assert_eq!(read(&[wrong]), Err(CloseReason::ProtocolError), "{wrong}");
        }
    }
}
