//! The port of protocols: what a kind of client speaks, and the registry of those that a gateway speaks.
//!
//! A protocol reads messages and writes frames; it knows no socket and no session state. Adding one is a folder of its own
//! and one registration ([`Protocols::with`]). Its clients arrive in one of three ways: by a WebSocket upgrade that offers its
//! subprotocol, by a [`Route`] of its own on the client port, or by a byte stream that is given to
//! [`super::http::ClientPort::adopt`].

use std::fmt;
use std::sync::Arc;

use super::carrier::Carrier;
use super::http::Route;
use super::websocket::frame;
use crate::error::CloseReason;
use crate::session::{Encoder, Frame, ProtocolId, Refusal, Request};

/// A complete message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

/// The meaning of a client's message.
#[derive(Debug)]
pub enum Decoded {
    /// A command for the session.
    Request(Request),
    /// No command. The session answers, and counts it as misuse only if it was malformed.
    Refused {
        /// The number of the command, as far as it could be read; 0 if not.
        id: u32,
        /// The answer.
        refusal: Refusal,
    },
    /// A matter of the protocol alone, which this frame answers.
    Reply(Frame),
    /// A message of a kind that the protocol does not use; ends the connection.
    Unsupported,
}

/// A protocol that clients speak.
///
/// Its name is unique in a registry, and the subprotocol by which a WebSocket upgrade chooses it.
pub trait Protocol: Encoder + fmt::Debug {
    /// Reads one message.
    fn decode(&self, message: Message<'_>) -> Decoded;

    /// The framing of a new connection: by WebSocket frames unless the protocol has framing of
    /// its own, which then cannot be chosen by an upgrade.
    fn carrier(&self) -> Carrier {
        Carrier::default()
    }

    /// Reports whether a WebSocket upgrade may choose it.
    fn is_upgraded_to(&self) -> bool {
        true
    }

    /// The paths of the client port by which its clients come, beside the upgrade.
    fn routes(&self) -> Vec<Route> {
        Vec::new()
    }

    /// The last frame of a connection that the gateway ends; `reason` is at most 123 bytes long.
    fn farewell(&self, code: CloseReason, reason: &str) -> Frame {
        frame::close(code.code(), reason)
    }
}

/// The protocols of a gateway. Each is known by its place in the order of registration; the first one is spoken by clients
/// that ask for none.
#[derive(Debug, Clone)]
pub struct Protocols(Arc<[Arc<dyn Protocol>]>);

impl Protocols {
    /// A registry with these, the default one first.
    ///
    /// # Panics
    /// With no protocol, with more than [`ProtocolId::COUNT_MAX`], or with two of one name.
    #[must_use]
    pub fn new(protocols: impl IntoIterator<Item = Arc<dyn Protocol>>) -> Self {
        let protocols: Arc<[_]> = protocols.into_iter().collect();
        assert!(!protocols.is_empty(), "a gateway speaks a protocol");
        assert!(
            protocols.len() <= ProtocolId::COUNT_MAX,
            "each protocol has a slot in a delivery"
        );
        let is_unique = |(index, one): (usize, &Arc<dyn Protocol>)| {
            let others: &[Arc<dyn Protocol>] = &protocols[..index];
            others.iter().all(|other| other.name() != one.name())
        };
        assert!(
            protocols.iter().enumerate().all(is_unique),
            "each protocol has a name of its own"
        );
        Self(protocols)
    }

    /// The same and one more.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with(&self, protocol: impl Protocol) -> Self {
        let further: [Arc<dyn Protocol>; 1] = [Arc::new(protocol)];
        Self::new(self.0.iter().cloned().chain(further))
    }

    /// The protocol of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ProtocolId> {
        let index = self.0.iter().position(|protocol| protocol.name() == name)?;
        Some(ProtocolId::new(index))
    }

    /// The protocol that an upgrade chooses by this subprotocol.
    #[must_use]
    pub fn by_subprotocol(&self, name: &str) -> Option<ProtocolId> {
        self.find(name).filter(|id| self.get(*id).is_upgraded_to())
    }

    /// The protocol under an id of this registry.
    #[must_use]
    pub fn get(&self, id: ProtocolId) -> &dyn Protocol {
        &*self.0[id.index()]
    }

    /// The routes of all, each with its protocol.
    pub(super) fn routes(&self) -> impl Iterator<Item = (Route, ProtocolId)> {
        let numbered = self.0.iter().enumerate();
        numbered.flat_map(|(index, protocol)| {
            let of = move |route| (route, ProtocolId::new(index));
            protocol.routes().into_iter().map(of)
        })
    }

    /// The encoders, by [`ProtocolId::index`].
    #[must_use]
    pub fn encoders(&self) -> Arc<[Arc<dyn Encoder>]> {
        let encoder = |protocol: &Arc<dyn Protocol>| Arc::clone(protocol) as Arc<dyn Encoder>;
        self.0.iter().map(encoder).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::native::{self, json::JsonProtocol};

    #[test]
    fn protocols_are_found_by_name_in_order_of_registration() {
        let protocols = native::protocols();
        assert_eq!(protocols.by_subprotocol("roomcast.v1.json"), Some(ProtocolId::DEFAULT));
        assert_eq!(protocols.find("roomcast.v1.protobuf").map(ProtocolId::index), Some(1));
        assert_eq!(protocols.find("graphql-ws"), None);
        assert_eq!(protocols.encoders().len(), 2);
    }

    #[test]
    #[should_panic(expected = "a name of its own")]
    fn two_protocols_of_one_name_are_refused() {
        let _ = native::protocols().with(JsonProtocol);
    }
}
