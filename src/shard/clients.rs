//! The clients of one shard: connections and sessions by slot, indexed by user and token.

mod index;
mod state;
mod tenants;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;
use tokio::time::Instant;

use self::index::KeyIndex;
use self::tenants::TenantNames;
use super::services::Principal;
use crate::error::CloseReason;
use crate::identity::{ConnectionId, Identity, TokenId, UserId};
use crate::room::Tenant;
use crate::session::link::Link;
use crate::session::recovery::Recovery;
use crate::session::{Cursor, Encoder};
use crate::units::millis;

pub(super) use self::state::{ClientFacts, Membership, MembershipRight, Phase, Session};

/// A connection's slot in its shard.
pub type Key = u32;

/// Names a session for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub key: Key,
    pub generation: u32,
}

/// A connection and its session.
pub(super) struct Client<L> {
    pub link: L,
    pub session: Session,
}

/// A session that is about to be closed.
#[derive(Debug)]
pub(super) struct Closing {
    pub ticket: Ticket,
    pub reason: CloseReason,
    /// The backend's reason; empty for none.
    pub why: Box<str>,
}

/// All clients of the shard.
pub(super) struct Clients<L> {
    slots: Slab<Client<L>>,
    generation: u32,
    /// By tenant and user.
    users: KeyIndex,
    /// By the id of the token, those whose token has one.
    tokens: KeyIndex,
    tenants: TenantNames,
    /// The slots of connections that have the id of an earlier one.
    renamed: HashMap<ConnectionId, Key>,
    /// Clients whose rooms have changed, of those that are kept.
    changed: Vec<Key>,
    closing: Vec<Closing>,
    /// Clients that never send and were refused a command.
    refused: Vec<Ticket>,
    encoders: Arc<[Arc<dyn Encoder>]>,
    clock: Instant,
}

impl<L: Link> Clients<L> {
    /// No clients yet. Encoders by [`crate::session::ProtocolId::index`].
    pub fn new(encoders: Arc<[Arc<dyn Encoder>]>) -> Self {
        Self {
            slots: Slab::new(),
            generation: 0,
            users: KeyIndex::default(),
            tokens: KeyIndex::default(),
            tenants: TenantNames::default(),
            renamed: HashMap::new(),
            changed: Vec::new(),
            closing: Vec::new(),
            refused: Vec::new(),
            encoders,
            clock: Instant::now(),
        }
    }

    /// Milliseconds of the shard's clock.
    pub fn now_ms(&self) -> u64 {
        millis(self.clock.elapsed())
    }

    /// Seconds of the shard's clock.
    pub fn now_s(&self) -> u32 {
        u32::try_from(self.clock.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// The slot the next client gets.
    pub fn next_key(&self) -> Key {
        Key::try_from(self.slots.vacant_key()).expect("a shard has fewer than 2^32 connections")
    }

    /// Opens a session for a connection.
    pub fn open(&mut self, link: L) -> Ticket {
        self.generation = self.generation.wrapping_add(1);
        let (key, generation) = (self.next_key(), self.generation);
        let session = Session::new(ConnectionId::for_slot(key), generation, self.now_ms());
        self.slots.insert(Client { link, session });
        Ticket { key, generation }
    }

    pub fn client(&mut self, key: Key) -> Option<&mut Client<L>> {
        self.slots.get_mut(key as usize)
    }

    pub fn session(&self, key: Key) -> Option<&Session> {
        self.slots.get(key as usize).map(|client| &client.session)
    }

    pub fn session_mut(&mut self, key: Key) -> Option<&mut Session> {
        self.client(key).map(|client| &mut client.session)
    }

    /// The cursor of a client whose protocol keeps one.
    pub fn cursor(&mut self, key: Key) -> Option<&mut Cursor> {
        self.client(key)?.link.cursor_mut()
    }

    /// The recovery of a client whose protocol has one.
    pub fn recovery(&mut self, key: Key) -> Option<&mut Recovery> {
        self.client(key)?.link.recovery_mut()
    }

    pub fn link(&self, key: Key) -> Option<&L> {
        self.slots.get(key as usize).map(|client| &client.link)
    }

    /// The connections of all clients.
    pub fn links(&self) -> impl Iterator<Item = &L> {
        self.slots.iter().map(|(_, client)| &client.link)
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.slots.iter().filter_map(|(key, _)| Key::try_from(key).ok())
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The end of the slots, of which some may be empty.
    pub fn end(&self) -> Key {
        Key::try_from(self.slots.capacity()).unwrap_or(Key::MAX)
    }

    /// The session a ticket names, unless it has gone or is about to.
    pub fn alive(&mut self, ticket: Ticket) -> Option<&mut Session> {
        let session = self.session_mut(ticket.key)?;
        (session.generation == ticket.generation && !session.is_closing()).then_some(session)
    }

    pub fn ticket(&self, key: Key) -> Option<Ticket> {
        let generation = self.session(key)?.generation;
        Some(Ticket { key, generation })
    }

    /// The identity of an open session.
    pub fn identity(&self, key: Key) -> Option<Arc<Identity>> {
        match &self.session(key)?.phase {
            Phase::Open(identity) => Some(Arc::clone(identity)),
            Phase::Anonymous | Phase::Authenticating | Phase::Closing(_) => None,
        }
    }

    /// The client of an open session, as the policy is asked about it.
    pub fn principal(&self, key: Key) -> Option<Principal> {
        Some(Principal {
            identity: self.identity(key)?,
            connection: self.session(key)?.connection,
        })
    }

    /// Replaces the identity's tenant by the copy that all sessions share.
    pub fn share_tenant(&mut self, identity: &mut Identity) {
        identity.tenant = self.tenants.shared(identity.tenant.clone());
    }

    /// Indexes a session by its user and its token.
    pub fn index(&mut self, key: Key, identity: &Identity) {
        self.users.insert(&(&identity.tenant, &identity.user), key);
        if let Some(token) = TokenId::of(identity) {
            self.tokens.insert(&token, key);
        }
    }

    /// Undoes [`Self::index`].
    pub fn unindex(&mut self, key: Key, identity: &Identity) {
        self.users.remove(&(&identity.tenant, &identity.user), key);
        if let Some(token) = TokenId::of(identity) {
            self.tokens.remove(&token, key);
        }
    }

    /// The sessions of a user.
    pub fn of_user(&self, tenant: &Tenant, user: &UserId) -> Vec<Key> {
        let is_of_user = |key: &Key| {
            let identity = self.session(*key).and_then(Session::identity);
            identity.is_some_and(|identity| identity.tenant == *tenant && identity.user == *user)
        };
        self.users.candidates(&(tenant, user)).filter(is_of_user).collect()
    }

    /// Gives a connection the id of an earlier one, or one of its own again.
    pub fn rename(&mut self, key: Key, connection: ConnectionId) {
        let Some(session) = self.session_mut(key) else { return };
        let former = std::mem::replace(&mut session.connection, connection);
        self.renamed.remove(&former);
        if connection.slot() != key {
            self.renamed.insert(connection, key);
        }
    }

    /// The slot of a connection. The caller must still compare the connection there.
    pub fn slot_of(&self, connection: ConnectionId) -> Key {
        self.renamed.get(&connection).copied().unwrap_or(connection.slot())
    }

    /// Notes that the rooms of a client have changed, where it is kept.
    pub fn rooms_changed(&mut self, key: Key) {
        if self.recovery(key).is_some() {
            self.changed.push(key);
        }
    }

    /// Takes the kept clients whose rooms have changed.
    pub fn take_changed(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.changed)
    }

    /// The session of a connection.
    pub fn of_connection(&self, tenant: &Tenant, connection: ConnectionId) -> Option<Key> {
        let key = self.slot_of(connection);
        let is_it = self
            .session(key)
            .is_some_and(|session| session.connection == connection);
        let is_open = self.identity(key).is_some_and(|identity| identity.tenant == *tenant);
        (is_it && is_open).then_some(key)
    }

    /// The sessions whose token has this id, and perhaps others.
    pub fn of_token(&self, token: &TokenId) -> Vec<Key> {
        self.tokens.candidates(token).collect()
    }

    /// Begins to close a session: it does nothing more, and is removed when the transport reaps.
    pub fn begin_close(&mut self, key: Key, reason: CloseReason) {
        self.begin_close_with(key, reason, "");
    }

    /// Begins to close a session with a backend's reason; empty for none.
    pub fn begin_close_with(&mut self, key: Key, reason: CloseReason, why: &str) {
        let Some(session) = self.session_mut(key) else { return };
        if session.is_closing() {
            return;
        }
        session.phase = Phase::Closing(session.identity().cloned());
        let generation = session.generation;
        let ticket = Ticket { key, generation };
        let why = why.into();
        self.closing.push(Closing { ticket, reason, why });
    }

    /// Takes the sessions that began to close since the last call.
    pub fn take_closing(&mut self) -> Vec<Closing> {
        if !self.refused.is_empty() {
            self.close_refused();
        }
        std::mem::take(&mut self.closing)
    }

    /// Removes a client from its slot and from the indexes.
    pub fn remove(&mut self, key: Key) -> Client<L> {
        let client = self.slots.remove(key as usize);
        if !self.renamed.is_empty() {
            self.renamed.remove(&client.session.connection);
        }
        if let Some(identity) = client.session.identity().cloned() {
            self.unindex(key, &identity);
        }
        if self.slots.is_empty() {
            // Memory goes back after a wave of clients has left.
            self.slots.shrink_to_fit();
        }
        client
    }
}
