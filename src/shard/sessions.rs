//! The sessions of one shard, put together from its parts. The shard's transport drives it; it never blocks.
//!
//! Each part keeps its state to itself: who is connected ([`Clients`]), who is in which room ([`RoomMembers`]), whose command is
//! next ([`CommandTurns`]), what is due when ([`ShardTimers`]), what waits for somebody else ([`Effects`]). A completion of an effect
//! finds its session by key and generation, and finds nothing if the client has gone.

use std::future::Future;
use std::sync::Arc;

use super::asked::PendingAsks;
use super::clients::{Clients, Key};
use super::close::ClosedSession;
use super::commands::CommandContext;
use super::effects::{Completion, Effects};
use super::gate::LeaseGate;
use super::kept::KeptSessions;
use super::members::RoomMembers;
use super::orders::Orders;
use super::recheck::RecheckQueue;
use super::revocations::RevocationGuard;
use super::services::{Services, ShardEndpoint};
use super::timers::ShardTimers;
use super::turns::CommandTurns;
use crate::counters::Counters;
use crate::error::{CloseReason, ErrorCode};
use crate::hub::{Inbound, MailboxReceiver, ShardMessage};
use crate::session::link::Link;
use crate::session::{Command, Refusal, Request};

/// The most deliveries of the bus that are put in line before other work gets its turn.
const INBOUND_PER_TURN: usize = 128;

/// An event of a shard; see [`Sessions::next`].
pub struct ShardEvent<L>(Event<L>);

enum Event<L> {
    Completion(Completion<Sessions<L>>),
    Message(ShardMessage),
    Inbound(Inbound),
    LeaseRenewed,
}

/// The sessions of one shard.
pub struct Sessions<L> {
    pub(super) services: Services,
    pub(super) clients: Clients<L>,
    pub(super) members: RoomMembers,
    pub(super) turns: CommandTurns,
    pub(super) timers: ShardTimers,
    pub(super) effects: Effects<Self>,
    pub(super) gate: LeaseGate,
    pub(super) revocations: RevocationGuard,
    pub(super) orders: Orders,
    pub(super) recheck: RecheckQueue,
    pub(super) asked: PendingAsks,
    pub(super) kept: KeptSessions,
    /// Sessions that have ended, for the transport to take.
    pub(super) closed: Vec<ClosedSession<L>>,
    receiver: MailboxReceiver,
}

impl<L: Link> Sessions<L> {
    /// No sessions yet.
    #[must_use]
    pub fn new(services: Services, endpoint: ShardEndpoint) -> Self {
        let ShardEndpoint { mailbox, receiver } = endpoint;
        Self {
            clients: Clients::new(Arc::clone(&services.encoders)),
            members: RoomMembers::new(mailbox, services.rooms.clone(), services.encoders.len()),
            turns: CommandTurns::default(),
            timers: ShardTimers::default(),
            effects: Effects::default(),
            gate: LeaseGate::new(services.lease.clone(), Arc::clone(&services.counters)),
            revocations: RevocationGuard::new(Arc::clone(&services.policy)),
            orders: Orders::default(),
            recheck: RecheckQueue::default(),
            asked: PendingAsks::default(),
            kept: KeptSessions::default(),
            closed: Vec::new(),
            receiver,
            services,
        }
    }

    /// Milliseconds of the shard's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clients.now_ms()
    }

    /// The slot the next session gets.
    #[must_use]
    pub fn next_key(&self) -> Key {
        self.clients.next_key()
    }

    /// Opens a session. A `token` that came with the handshake is used at once.
    pub fn open(&mut self, link: L, token: Option<String>) -> Key {
        self.services.counters.connections_opened.add(link.protocol().index());
        let ticket = self.clients.open(link);
        self.timers.connected(self.now_ms(), ticket);
        if let Some(token) = token {
            CommandContext::new(self, ticket, 0).connect(token, Vec::new());
            self.go_on();
        }
        ticket.key
    }

    /// Reports whether a token has opened the session.
    #[must_use]
    pub fn is_open(&self, key: Key) -> bool {
        let session = self.clients.session(key);
        session.is_some_and(|session| session.identity().is_some() && !session.is_closing())
    }

    /// The counters of the node.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.services.counters
    }

    /// Reports whether the node drains.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.orders.draining
    }

    /// The connection in a slot.
    pub fn link(&mut self, key: Key) -> Option<&mut L> {
        self.clients.client(key).map(|client| &mut client.link)
    }

    /// The connections of all sessions.
    pub fn links(&self) -> impl Iterator<Item = &L> {
        self.clients.links()
    }

    /// Notes a sign of life of the client.
    pub fn seen(&mut self, key: Key) {
        let now_s = self.clients.now_s();
        if let Some(session) = self.clients.session_mut(key) {
            session.seen_s = now_s;
        }
    }

    /// Carries a command out, or queues it.
    pub fn command(&mut self, key: Key, request: Request) {
        // An answer waits for no command: the backend may have asked in the course of that very command.
        if matches!(request.command, Command::Answer { .. }) && self.clients.identity(key).is_some() {
            return self.start(key, request);
        }
        let waiting_max = self.services.config.load().commands_waiting_max;
        if let Some(request) = CommandTurns::admit(&mut self.clients, key, request, waiting_max) {
            self.start(key, request);
        }
    }

    fn start(&mut self, key: Key, request: Request) {
        if let Some(ticket) = self.clients.ticket(key) {
            CommandContext::new(self, ticket, request.id).start(request.command);
        }
        self.go_on();
    }

    /// Answers a message that is no command. Only a malformed one counts as misuse: a client of another version, or one that
    /// passes on what its user typed, must be able to go on.
    pub fn undecoded(&mut self, key: Key, id: u32, refusal: Refusal) {
        if refusal.code != ErrorCode::Malformed {
            let command = Command::Refused(refusal);
            return self.command(key, Request { id, command });
        }
        let max = self.services.config.load().malformed_max;
        let Some(session) = self.clients.session_mut(key) else {
            return;
        };
        let malformed = &mut session.rates.malformed;
        *malformed = malformed.saturating_add(1);
        let again = *malformed <= max;
        self.clients.refuse(key, id, refusal);
        if !again {
            self.clients.begin_close(key, CloseReason::Misuse);
        }
    }

    /// Resumes the commands of a connection whose outbox has drained.
    pub fn flushed(&mut self, key: Key) {
        self.turns.flushed(&self.clients, key);
        self.go_on();
    }

    /// Waits for the next event: a completed effect, a message of the API, or a delivery of the bus.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> ShardEvent<L> {
        let MailboxReceiver { inbound, messages } = &mut self.receiver;
        let (gate, lapsed) = (&self.gate, self.gate.is_lapsed());
        // What was waited for longest first; revocations, which come as messages, before the events they are to stop.
        ShardEvent(tokio::select! {
            biased;
            Some(completion) = self.effects.next() => Event::Completion(completion),
            Some(message) = messages.recv() => Event::Message(message),
            () = gate.regained(), if lapsed => Event::LeaseRenewed,
            Some(inbound) = inbound.recv(), if !lapsed => Event::Inbound(inbound),
            else => std::future::pending().await,
        })
    }

    /// Handles an event, and queues what else the bus has delivered meanwhile.
    pub fn handle(&mut self, happening: ShardEvent<L>) {
        match happening.0 {
            Event::Completion(completion) => completion(self),
            Event::Message(message) => self.message(message),
            Event::Inbound(inbound) => self.members.inbound(inbound),
            Event::LeaseRenewed => {
                self.gate.may_deliver();
            }
        }
        self.take_inbound();
        self.go_on();
    }

    /// Queues what the bus has delivered, up to a bound so that other work gets its turn.
    pub fn take_inbound(&mut self) {
        if self.gate.is_lapsed() {
            return;
        }
        for _ in 0..INBOUND_PER_TURN {
            let Ok(inbound) = self.receiver.inbound.try_recv() else {
                break;
            };
            self.members.inbound(inbound);
        }
    }

    /// Reports whether the lease holds, so that anything of a room may be written now.
    pub fn may_deliver(&mut self) -> bool {
        self.gate.may_deliver()
    }

    /// Reports whether items wait for the fan-out, or sessions for a recheck.
    #[must_use]
    pub fn has_work(&self) -> bool {
        (self.members.has_work() && !self.gate.is_lapsed()) || self.recheck.has_work()
    }

    /// Delivers queued items to some members, if the lease holds. The lease is checked after the items were dequeued from the
    /// mailbox.
    pub fn fan_out(&mut self) {
        if self.gate.may_deliver() {
            self.members.fan_out(&mut self.clients);
        }
    }

    /// Runs an effect. One that is ready at once completes at once.
    pub(super) fn run<C: FnOnce(&mut Self) + 'static>(&mut self, effect: impl Future<Output = C> + 'static) {
        self.run_then(effect, |completion| Box::new(completion));
    }

    /// Runs an effect; `complete` makes the completion of its output.
    pub(super) fn run_then<F: Future + 'static>(
        &mut self,
        effect: F,
        complete: impl FnOnce(F::Output) -> Completion<Self> + 'static,
    ) {
        if let Some(completion) = self.effects.start(effect, complete) {
            completion(self);
        }
    }

    /// Starts queued commands whose turn has come.
    fn go_on(&mut self) {
        while let Some((ticket, request)) = self.turns.next(&mut self.clients) {
            CommandContext::new(self, ticket, request.id).start(request.command);
        }
    }
}
