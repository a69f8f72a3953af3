//! Subscriptions of a link that survive its moves to other servers.

mod splice;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use tokio::time::timeout;

pub(super) use self::splice::Move;
use self::splice::{Marked, Splice};

use crate::sync::lock;

/// The time a connection may take to accept a subscription: its queue of commands is full only while it is being made anew.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(1);

/// Random hash keys of this process, so that no publisher can craft messages that are taken for others.
static MARKS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Marked for Message {
    fn mark(&self) -> u64 {
        MARKS.hash_one((self.subject.as_str(), self.reply.as_deref(), &self.payload))
    }
}

/// The messages of one subject or pattern, in the order of the connection; see
/// [`ManagedConnection::subscribe`](super::ManagedConnection::subscribe). Ends with the link.
pub struct Subscription {
    messages: Splice<Subscriber>,
    slot: Arc<Slot>,
    registry: Arc<Registry>,
    number: u64,
}

impl Subscription {
    /// Returns the number of the line that brought the last message.
    pub(super) const fn line(&self) -> u64 {
        self.messages.line()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        this.slot.waker.register(context.waker());
        if this.slot.has_offers.swap(false, Ordering::SeqCst) {
            for (leg, its_move) in lock(&this.slot.offers).drain(..) {
                this.messages.add(leg, its_move);
                this.slot.asked.fetch_sub(1, Ordering::SeqCst);
            }
        }
        this.messages.poll(&this.slot.asked, context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.registry.all).remove(&self.number);
    }
}

/// The place where a subscription is offered its next legs.
#[derive(Debug, Default)]
struct Slot {
    waker: AtomicWaker,
    /// Legs that were requested and are not taken yet.
    asked: AtomicUsize,
    has_offers: AtomicBool,
    /// One for each move that the subscription has not noticed yet.
    offers: Mutex<Vec<(Subscriber, Arc<Move>)>>,
}

/// A requested leg. Until it is taken, or given up, the subscription notes what it reads.
struct Asked<'a> {
    slot: &'a Slot,
    is_open: bool,
}

impl<'a> Asked<'a> {
    fn of(slot: &'a Slot) -> Self {
        slot.asked.fetch_add(1, Ordering::SeqCst);
        Self { slot, is_open: true }
    }

    fn answered_with(mut self, leg: Subscriber, its_move: Arc<Move>) {
        self.is_open = false;
        lock(&self.slot.offers).push((leg, its_move));
        self.slot.has_offers.store(true, Ordering::SeqCst);
        self.slot.waker.wake();
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.slot.asked.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// A subscription, and the last move in which it was offered another connection.
#[derive(Debug)]
struct Registered {
    subject: Box<str>,
    slot: Arc<Slot>,
    offered_in: u64,
}

/// All subscriptions of a link.
#[derive(Debug, Default)]
pub(super) struct Registry {
    all: Mutex<HashMap<u64, Registered>>,
    numbers: AtomicU64,
}

impl Registry {
    /// Registers a subscription.
    pub(super) fn register(self: &Arc<Self>, subject: &str, messages: Subscriber, line: u64) -> Subscription {
        let (slot, number) = (Arc::new(Slot::default()), self.numbers.fetch_add(1, Ordering::Relaxed));
        let registered = Registered {
            subject: subject.into(),
            slot: Arc::clone(&slot),
            offered_in: 0,
        };
        lock(&self.all).insert(number, registered);
        Subscription {
            messages: Splice::new(messages, line),
            slot,
            registry: Arc::clone(self),
            number,
        }
    }

    /// Subscribes over another connection to every subject not yet subscribed to in this move, and offers the new legs.
    /// Each move has its own `number`. `false` when the connection does not accept a subscription.
    pub(super) async fn offer(&self, client: &Client, number: u64, its_move: &Arc<Move>) -> bool {
        for (subject, slot) in self.not_offered_in(number) {
            let asked = Asked::of(&slot);
            let subscribing = timeout(SUBSCRIBE_WITHIN, client.subscribe(subject.into_string()));
            let Ok(Ok(leg)) = subscribing.await else {
                return false;
            };
            asked.answered_with(leg, Arc::clone(its_move));
        }
        true
    }

    fn not_offered_in(&self, number: u64) -> Vec<(Box<str>, Arc<Slot>)> {
        let mut all = lock(&self.all);
        let wanted = all.values_mut().filter(|registered| registered.offered_in != number);
        wanted
            .map(|registered| {
                registered.offered_in = number;
                (registered.subject.clone(), Arc::clone(&registered.slot))
            })
            .collect()
    }

    /// Wakes every subscription, to look for its next leg.
    pub(super) fn wake_all(&self) {
        for registered in lock(&self.all).values() {
            registered.slot.waker.wake();
        }
    }
}
