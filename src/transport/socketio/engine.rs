//! The Engine.IO connections of one shard, and their deadlines.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::time::{Instant, Sleep};

use super::connection::{Connection, EngineId};
use super::deadlines::Line;
use super::inbox::Namespaces;
use super::sid::Sid;
use super::{Config, protocol_name};
use crate::admission::Place;
use crate::error::CloseReason;
use crate::transport::carrier::Limits;
use crate::transport::protocol::Protocols;
use crate::transport::socket::SocketShared;
use crate::units::millis;

/// A connection, shared by its sessions.
pub(in crate::transport) type Shared = Rc<RefCell<Connection>>;

/// A deadline that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Due {
    /// The connection is to be pinged.
    Ping(EngineId),
    /// The connection is to end.
    Close(EngineId, CloseReason),
    /// A WebSocket was probed and no upgrade followed.
    EndProbe(EngineId),
    /// The connection is to have had an open session by now.
    Connected(EngineId),
}

/// The connections of one shard.
#[derive(Debug)]
pub(in crate::transport) struct EngineConnections {
    config: Arc<Config>,
    namespaces: Namespaces,
    limits: Limits,
    node: u64,
    shard: u16,
    connections: Slab<Shared>,
    serial: u32,
    pings: Line,
    pongs: Line,
    connects: Line,
    upgrades: Line,
    alarm: Option<Pin<Box<Sleep>>>,
    shared: Rc<SocketShared>,
}

impl EngineConnections {
    /// No connections yet.
    pub(in crate::transport) fn new(
        config: Arc<Config>,
        protocols: &Protocols,
        (node, shard): (u64, u16),
        shared: Rc<SocketShared>,
    ) -> Self {
        let known = config.namespaces.iter().filter_map(|namespace| {
            let protocol = protocols.find(&protocol_name(namespace))?;
            Some((namespace.as_str().into(), protocol))
        });
        let namespaces = Namespaces {
            list: known.collect(),
            prefix: config.event_prefix.as_str().into(),
            application: config.application,
        };
        Self {
            namespaces,
            limits: Limits {
                message_bytes_max: config.payload_bytes_max,
                ..shared.frames
            },
            node,
            shard,
            connections: Slab::new(),
            serial: 0,
            pings: Line::after(config.ping_interval),
            pongs: Line::after(config.ping_timeout),
            connects: Line::after(config.connect_timeout),
            upgrades: Line::after(config.upgrade_timeout),
            alarm: None,
            config,
            shared,
        }
    }

    pub(in crate::transport) const fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The bounds of a WebSocket's messages.
    pub(in crate::transport) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(in crate::transport) fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a connection without a carrier; its first ping and its first CONNECT have their deadlines.
    pub(in crate::transport) fn open(&mut self, place: Place, now_ms: u64) -> Shared {
        self.serial = self.serial.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let key = u32::try_from(entry.key()).expect("a shard has fewer than 2^32 connections");
        let id = EngineId {
            key,
            serial: self.serial,
        };
        let sid = Sid::draw(self.node, self.shard, key);
        let connection = Connection::new(id, sid, place, now_ms, Rc::clone(&self.shared));
        let connection = Rc::new(RefCell::new(connection));
        entry.insert(Rc::clone(&connection));
        self.pings.set(id, now_ms);
        self.connects.set(id, now_ms);
        connection
    }

    /// The packet that opens a connection: exactly these five keys (Engine.IO protocol, "Handshake").
    pub(in crate::transport) fn open_packet(&self, connection: &Connection) -> String {
        let upgrades = if connection.polling.is_some() {
            "\"websocket\""
        } else {
            ""
        };
        format!(
            r#"0{{"sid":"{}","upgrades":[{upgrades}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            connection.sid,
            millis(self.config.ping_interval),
            millis(self.config.ping_timeout),
            self.config.payload_bytes_max,
        )
    }

    /// The connection in a slot, whichever it is.
    pub(in crate::transport) fn in_slot(&self, key: u32) -> Option<Shared> {
        self.connections.get(key as usize).cloned()
    }

    /// The connection that an id names, unless it has ended.
    pub(in crate::transport) fn get(&self, id: EngineId) -> Option<Shared> {
        self.in_slot(id.key).filter(|connection| connection.borrow().id == id)
    }

    /// The connection with this secret, to be used with this `Authorization` only.
    pub(in crate::transport) fn find(&self, sid: Sid, credential: Option<u64>) -> Option<Shared> {
        let found = self.in_slot(sid.key)?;
        let is_it = {
            let connection = found.borrow();
            connection.sid == sid && connection.credential == credential
        };
        is_it.then_some(found)
    }

    /// The connection with this secret, for a WebSocket.
    pub(in crate::transport) fn find_to_upgrade(&self, sid: Sid, credential: Option<u64>) -> Option<Shared> {
        if credential.is_some() {
            return self.find(sid, credential);
        }
        // Browsers send the headers of an application with polls, and cannot with a WebSocket.
        self.in_slot(sid.key).filter(|found| found.borrow().sid == sid)
    }

    /// All connections.
    pub(in crate::transport) fn iter(&self) -> impl Iterator<Item = &Shared> {
        self.connections.iter().map(|(_, connection)| connection)
    }

    /// Takes a connection out of its slot.
    pub(in crate::transport) fn remove(&mut self, id: EngineId) -> Option<Shared> {
        let connection = self.get(id)?;
        self.connections.remove(id.key as usize);
        if self.connections.is_empty() {
            // Memory goes back after a wave of clients has left.
            self.connections.shrink_to_fit();
        }
        Some(connection)
    }

    /// The ping has been written: its answer has a deadline.
    pub(in crate::transport) fn pinged(&mut self, connection: &mut Connection, now_ms: u64) {
        connection.pinged_ms = Some(now_ms);
        self.pongs.set(connection.id, now_ms);
    }

    /// The ping has been answered: the next one comes an interval from now.
    pub(in crate::transport) fn ponged(&mut self, connection: &mut Connection, now_ms: u64) {
        if connection.pinged_ms.take().is_some() {
            self.pings.set(connection.id, now_ms);
        }
    }

    /// A WebSocket has come to be probed.
    pub(in crate::transport) fn probed(&mut self, id: EngineId, now_ms: u64) {
        let Some(connection) = self.get(id) else { return };
        if let Some(polling) = &mut connection.borrow_mut().polling {
            polling.probing_since_ms = Some(now_ms);
            self.upgrades.set(id, now_ms);
        }
    }

    /// Takes the next deadline that is over.
    pub(in crate::transport) fn take_due(&mut self, now_ms: u64) -> Option<Due> {
        if let Some((_, id)) = self.pings.take_due(now_ms) {
            return Some(Due::Ping(id));
        }
        while let Some((due_ms, id)) = self.pongs.take_due(now_ms) {
            let Some(connection) = self.get(id) else { continue };
            let (pinged_ms, is_paused) = {
                let connection = connection.borrow();
                (connection.pinged_ms, connection.is_paused())
            };
            let is_unanswered = pinged_ms.is_some_and(|pinged| pinged + millis(self.config.ping_timeout) <= due_ms);
            if is_unanswered && is_paused {
                // It is not read: its silence is ours.
                self.pongs.set(id, now_ms);
            } else if is_unanswered {
                return Some(Due::Close(id, CloseReason::HeartbeatTimeout));
            }
        }
        while let Some((_, id)) = self.connects.take_due(now_ms) {
            if self
                .get(id)
                .is_some_and(|connection| !connection.borrow().has_connected)
            {
                return Some(Due::Connected(id));
            }
        }
        let timeout_ms = millis(self.config.upgrade_timeout);
        while let Some((due_ms, id)) = self.upgrades.take_due(now_ms) {
            // Not one that came after the one whose time is over.
            let began_ms = self
                .get(id)
                .and_then(|connection| connection.borrow().polling.as_ref()?.probing_since_ms);
            if began_ms.is_some_and(|began_ms| began_ms + timeout_ms == due_ms) {
                return Some(Due::EndProbe(id));
            }
        }
        None
    }

    /// The time of the next deadline, by the shard's clock.
    pub(in crate::transport) fn next_ms(&self) -> Option<u64> {
        let lines = [&self.pings, &self.pongs, &self.connects, &self.upgrades];
        lines.iter().filter_map(|line| line.next_ms()).min()
    }

    /// Waits for a deadline that is so many milliseconds away; for ever where there is none.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(in crate::transport) async fn due(&mut self, due_in_ms: Option<u64>) {
        let Some(due_in_ms) = due_in_ms else {
            return std::future::pending().await;
        };
        let at = Instant::now() + Duration::from_millis(due_in_ms);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        // Moved only when it is wrong by more than a clock's tick: most turns of a shard change nothing.
        if alarm.deadline() > at || alarm.deadline() + Duration::from_millis(1) < at || alarm.is_elapsed() {
            alarm.as_mut().reset(at);
        }
        alarm.as_mut().await;
    }
}
