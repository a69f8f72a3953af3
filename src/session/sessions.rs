//! The sessions of one shard, and the rooms they are in. The shard's transport drives it; it never blocks.
//!
//! What has to wait for somebody else (an authorizer, a backend, a bus) runs as an effect: a future whose completion comes
//! back here. A completion finds its session by key and generation, and finds nothing if the client has gone.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tokio::time::Instant;

use super::emit::Application;
use super::expiring::Expiring;
use super::index::Index;
use super::link::Link;
use super::recheck::Rechecking;
use super::state::{Phase, Session};
use super::tenants::Tenants;
use super::{Command, Config, Encoder, Frame, Refusal, Request};
use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::error::{CloseReason, ErrorCode};
use crate::hub::local::{Key, Local, Target};
use crate::hub::{Inbound, Letters, Mailbox, ShardMessage};
use crate::identity::{ConnectionId, Expiry, Identity, TokenId, UserId};
use crate::lease::Lease;
use crate::policy::Policy;
use crate::presence::Change;
use crate::room::Tenant;
use crate::rooms::Rooms;

/// What sessions need of the gateway. Shared by all shards.
#[derive(Clone)]
pub struct Services {
    /// Verifies tokens.
    pub auth: Arc<dyn Authenticator>,
    /// Decides.
    pub policy: Arc<dyn Policy>,
    /// Publishes and reads.
    pub rooms: Rooms,
    /// The application behind the gateway, and the way to where it emits events.
    pub application: Arc<Application>,
    /// Without it nothing of a room is handed to anybody.
    pub lease: Lease,
    /// Counts connections.
    pub admission: Arc<Admission>,
    /// The writing halves of the protocols, by [`super::ProtocolId::index`].
    pub encoders: Arc<[Arc<dyn Encoder>]>,
    /// The bounds. Each is looked at when it is needed, so other ones hold for what comes next.
    pub config: Arc<ArcSwap<Config>>,
}

/// The shard's place in the hub: what the bus and the API reach it by, and its own end of that.
#[derive(Debug)]
pub struct Post {
    /// Handed to the bus and to presence.
    pub mailbox: Arc<Mailbox>,
    /// Read by the shard.
    pub letters: Letters,
}

/// Something that concerns the shard's sessions; see [`Sessions::next`].
pub struct Happening<L>(Event<L>);

enum Event<L> {
    Completion(Completion<L>),
    Message(ShardMessage),
    Inbound(Inbound),
    Renewed,
}

/// Names a session for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub key: Key,
    pub generation: u32,
}

/// What is due at a time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// Of a token that ends then.
    ExpiryNotice(Expiry),
    /// The same.
    Expiry(Expiry),
    Drain,
}

pub(super) struct Conn<L> {
    pub link: L,
    pub session: Session,
}

/// What an effect comes back with.
pub(super) type Completion<L> = Box<dyn FnOnce(&mut Sessions<L>)>;

/// The sessions of one shard.
pub struct Sessions<L> {
    pub(super) services: Services,
    pub(super) mailbox: Arc<Mailbox>,
    letters: Letters,
    pub(super) local: Local,
    pub(super) conns: Slab<Conn<L>>,
    pub(super) timers: BTreeMap<u64, Vec<(Ticket, Due)>>,
    /// Who has connected, and when, until the time for a token is over.
    pub(super) newcomers: VecDeque<(u64, Ticket)>,
    pub(super) swept_s: u32,
    /// Whether deliveries are interrupted behind the node, as clients were told.
    pub(super) degraded: bool,
    /// The lease was found not to hold; see [`Self::may_deliver`].
    pub(super) lapsed: bool,
    /// It has held before.
    pub(super) leased: bool,
    effects: FuturesUnordered<LocalBoxFuture<'static, Completion<L>>>,
    /// By tenant and user.
    pub(super) users: Index,
    /// By the id of the token, those whose token has one.
    pub(super) tokens: Index,
    pub(super) tenants: Tenants,
    pub(super) expiring: Expiring,
    /// Whose next command may start.
    pub(super) ready: Vec<Ticket>,
    /// Who is to be taken out, why, and what the client is told.
    pub(super) doomed: Vec<(Ticket, CloseReason, Box<str>)>,
    generation: u32,
    pub(super) targets: Vec<Target>,
    pub(super) encoded_change: Vec<Option<(Arc<Change>, Frame)>>,
    pub(super) rechecking: Rechecking,
    clock: Instant,
}

impl<L: Link> Sessions<L> {
    /// No sessions yet.
    #[must_use]
    pub fn new(services: Services, post: Post) -> Self {
        let Post { mailbox, letters } = post;
        let encoded_change = vec![None; services.encoders.len()];
        let leased = services.lease.holds();
        Self {
            services,
            mailbox,
            letters,
            local: Local::default(),
            conns: Slab::new(),
            timers: BTreeMap::new(),
            newcomers: VecDeque::new(),
            swept_s: 0,
            degraded: false,
            lapsed: false,
            leased,
            effects: FuturesUnordered::new(),
            users: Index::default(),
            tokens: Index::default(),
            tenants: Tenants::default(),
            expiring: Expiring::default(),
            ready: Vec::new(),
            doomed: Vec::new(),
            generation: 0,
            targets: Vec::new(),
            encoded_change,
            rechecking: Rechecking::default(),
            clock: Instant::now(),
        }
    }

    /// Milliseconds of the shard's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn now_s(&self) -> u32 {
        u32::try_from(self.clock.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// The slot the next session gets.
    #[must_use]
    pub fn next_key(&self) -> Key {
        Key::try_from(self.conns.vacant_key()).expect("a shard has fewer than 2^32 connections")
    }

    /// Opens a session. A `token` that came with the handshake is used at once.
    pub fn open(&mut self, link: L, token: Option<String>) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let session = Session::new(ConnectionId::for_slot(self.next_key()), self.generation, self.now_ms());
        let key =
            Key::try_from(self.conns.insert(Conn { link, session })).expect("a shard has fewer than 2^32 connections");
        let ticket = Ticket {
            key,
            generation: self.generation,
        };
        self.newcomers.push_back((self.now_ms(), ticket));
        if let Some(token) = token {
            self.authenticate(key, 0, token, Vec::new());
            self.go_on();
        }
        key
    }

    /// The connection in a slot.
    pub fn link(&mut self, key: Key) -> Option<&mut L> {
        self.conns.get_mut(key as usize).map(|conn| &mut conn.link)
    }

    /// The connections of all sessions.
    pub fn links(&self) -> impl Iterator<Item = &L> {
        self.conns.iter().map(|(_, conn)| &conn.link)
    }

    /// The session in a slot was given by this generation of [`Self::open`].
    #[must_use]
    pub fn generation(&self, key: Key) -> Option<u32> {
        self.conns.get(key as usize).map(|conn| conn.session.generation)
    }

    /// The client gave a sign of life.
    pub fn seen(&mut self, key: Key) {
        let now_s = self.now_s();
        if let Some(conn) = self.conns.get_mut(key as usize) {
            conn.session.seen_s = now_s;
        }
    }

    /// The client sent what is no command. Only what could not be read counts as misuse: a client of another version, or
    /// one that passes on what its user typed, must be able to go on.
    pub fn undecoded(&mut self, key: Key, id: u32, refusal: Refusal) {
        if refusal.code != ErrorCode::Malformed {
            let command = Command::Refused(refusal);
            return self.command(key, Request { id, command });
        }
        let max = self.services.config.load().malformed_max;
        let Some(session) = self.session(key) else { return };
        let malformed = &mut session.conduct.malformed;
        *malformed = malformed.saturating_add(1);
        let again = *malformed <= max;
        self.refuse(key, id, refusal);
        if !again {
            self.doom(key, CloseReason::Misuse);
        }
    }

    /// Waits for the next thing that concerns the sessions: something from the bus or the API, or an effect that is done.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Happening<L> {
        let Letters { inbound, messages } = &mut self.letters;
        let (lease, lapsed) = (&self.services.lease, self.lapsed);
        Happening(tokio::select! {
            biased;
            Some(completion) = self.effects.next() => Event::Completion(completion),
            Some(message) = messages.recv() => Event::Message(message),
            () = lease.held(), if lapsed => Event::Renewed,
            Some(inbound) = inbound.recv(), if !lapsed => Event::Inbound(inbound),
            else => std::future::pending().await,
        })
    }

    /// Carries out what has happened, and puts in line what else the bus has delivered meanwhile.
    pub fn handle(&mut self, happening: Happening<L>) {
        match happening.0 {
            Event::Completion(completion) => completion(self),
            Event::Message(message) => self.message(message),
            Event::Inbound(inbound) => self.inbound(inbound),
            Event::Renewed => {
                self.may_deliver();
            }
        }
        self.take_inbound();
        self.go_on();
    }

    /// Puts in line what the bus has delivered, up to a bound so that other work gets its turn.
    pub fn take_inbound(&mut self) {
        const AT_ONCE_MAX: usize = 128;
        if self.lapsed {
            return;
        }
        for _ in 0..AT_ONCE_MAX {
            let Ok(inbound) = self.letters.inbound.try_recv() else {
                break;
            };
            self.inbound(inbound);
        }
    }

    pub(super) fn session(&mut self, key: Key) -> Option<&mut Session> {
        self.conns.get_mut(key as usize).map(|conn| &mut conn.session)
    }

    /// The session a ticket names, unless it has gone or is about to.
    pub(super) fn alive(&mut self, ticket: Ticket) -> Option<&mut Session> {
        let session = self.session(ticket.key)?;
        (session.generation == ticket.generation && !session.is_doomed()).then_some(session)
    }

    pub(super) fn ticket(&self, key: Key) -> Option<Ticket> {
        self.generation(key).map(|generation| Ticket { key, generation })
    }

    /// The identity of an open session.
    pub(super) fn identity(&self, key: Key) -> Option<Arc<Identity>> {
        match &self.conns.get(key as usize)?.session.phase {
            Phase::Open(identity) => Some(Arc::clone(identity)),
            Phase::Anonymous | Phase::Authenticating | Phase::Doomed(_) => None,
        }
    }

    /// Runs an effect. One that need not wait takes effect at once.
    pub(super) fn run<C: FnOnce(&mut Self) + 'static>(&mut self, effect: impl Future<Output = C> + 'static) {
        let mut effect: LocalBoxFuture<'static, Completion<L>> =
            Box::pin(async move { Box::new(effect.await) as Completion<L> });
        match Pin::new(&mut effect).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(completion) => completion(self),
            Poll::Pending => self.effects.push(effect),
        }
    }

    pub(super) fn schedule(&mut self, after: std::time::Duration, ticket: Ticket, due: Due) {
        let at_ms = self
            .now_ms()
            .saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        self.timers.entry(at_ms).or_default().push((ticket, due));
    }

    /// The open sessions of a user.
    pub(super) fn sessions_of(&self, tenant: &Tenant, user: &UserId) -> Vec<Key> {
        let of_user = |key: &Key| {
            let identity = self.conns.get(*key as usize).and_then(|conn| conn.session.identity());
            identity.is_some_and(|identity| identity.tenant == *tenant && identity.user == *user)
        };
        self.users.candidates(&(tenant, user)).filter(of_user).collect()
    }

    /// Makes a session be found by its user and its token.
    pub(super) fn index(&mut self, key: Key, identity: &Identity) {
        self.users.insert(&(&identity.tenant, &identity.user), key);
        if let Some(token) = TokenId::of(identity) {
            self.tokens.insert(&token, key);
        }
    }

    /// Undoes [`Self::index`].
    pub(super) fn unindex(&mut self, key: Key, identity: &Identity) {
        self.users.remove(&(&identity.tenant, &identity.user), key);
        if let Some(token) = TokenId::of(identity) {
            self.tokens.remove(&token, key);
        }
    }
}
