//! Reads several streams of the same messages as one, while their connection is exchanged.
//!
//! A *leg* is the stream over one connection. While a new leg is being prepared both bring messages, each in the order
//! of its publishers. The old leg is read until the move is settled and the leg is empty; then the new one, without the
//! messages that the old one has brought already. So nothing is lost, doubled or reordered, as long as
//! - the move is settled only when the old leg holds everything that will not arrive over the new one, and
//! - equal messages mean one and the same, or may be doubled as well as read once.

use std::collections::{HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use crate::nats::SUBSCRIPTION_MAX;

/// The most messages of an old leg that are remembered, as many as can wait in a new one. Messages beyond it may be
/// delivered twice.
const MARKS_MAX: usize = SUBSCRIPTION_MAX;

/// The time after a move for which messages of the old leg are remembered. No server lags that far behind another one.
const REMEMBERED: Duration = Duration::from_secs(10);

/// A message that can be recognized.
pub(super) trait Marked {
    /// Returns a mark that is the same for equal messages, and different for any two others that are remembered
    /// together.
    fn mark(&self) -> u64;
}

/// A move of all subscriptions of a connection to another one, and its state. Each subscription drops its reference
/// once it has moved.
#[derive(Debug)]
pub(in crate::nats) struct Move {
    to: u64,
    state: AtomicU8,
}

impl Move {
    const UNDER_WAY: u8 = 0;
    const SETTLED: u8 = 1;
    const WITHDRAWN: u8 = 2;

    /// Creates a move to the line of this number.
    pub(in crate::nats) fn to(line: u64) -> Arc<Self> {
        Arc::new(Self {
            to: line,
            state: AtomicU8::new(Self::UNDER_WAY),
        })
    }

    /// Settles the move: the unread rest of the old leg is everything that the new one will not bring.
    pub(in crate::nats) fn settle(&self) {
        self.state.store(Self::SETTLED, Ordering::SeqCst);
    }

    /// Withdraws the move, which leaves everything as it was; `false` when it is settled already.
    pub(in crate::nats) fn withdraw(&self) -> bool {
        let (under_way, withdrawn) = (Self::UNDER_WAY, Self::WITHDRAWN);
        self.state
            .compare_exchange(under_way, withdrawn, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::SeqCst) == state
    }
}

/// The count of each of the old leg's messages.
#[derive(Debug)]
struct Marks {
    times: HashMap<u64, u32>,
    since: Instant,
}

impl Marks {
    fn new() -> Self {
        Self {
            times: HashMap::new(),
            since: Instant::now(),
        }
    }

    fn note(&mut self, mark: u64) {
        if self.times.len() < MARKS_MAX || self.times.contains_key(&mark) {
            *self.times.entry(mark).or_default() += 1;
        }
    }

    /// Reports whether the message was read before. Each reading counts once: the same message published again later is
    /// delivered.
    fn take(&mut self, mark: u64) -> bool {
        let Some(times) = self.times.get_mut(&mark) else {
            return false;
        };
        *times -= 1;
        if *times == 0 {
            self.times.remove(&mark);
        }
        true
    }

    fn is_spent(&self) -> bool {
        self.times.is_empty() || self.since.elapsed() > REMEMBERED
    }
}

/// The legs of one subscription, the one that is read first.
#[derive(Debug)]
pub(super) struct Splice<S> {
    leg: S,
    /// The number of the leg's line.
    line: u64,
    next: VecDeque<(S, Arc<Move>)>,
    /// Messages that this leg has brought and the next one may bring, too.
    noted: Option<Box<Marks>>,
    /// Messages that the previous leg has brought.
    before: Option<Box<Marks>>,
}

impl<S: Stream<Item: Marked> + Unpin> Splice<S> {
    pub(super) const fn new(leg: S, line: u64) -> Self {
        Self {
            leg,
            line,
            next: VecDeque::new(),
            noted: None,
            before: None,
        }
    }

    /// Returns the line that brought the last message.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }

    /// Adds the leg that is read once `its_move` is settled.
    pub(super) fn add(&mut self, leg: S, its_move: Arc<Move>) {
        self.next.push_back((leg, its_move));
    }

    /// Returns the next message. `asked` counts the legs that were requested and not yet added; it counts one before
    /// anything is sent for it.
    pub(super) fn poll(&mut self, asked: &AtomicUsize, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        loop {
            self.next.retain(|(_, its_move)| !its_move.is(Move::WITHDRAWN));
            // Read before the leg: if it was settled then, the leg now holds everything.
            let settled = matches!(self.next.front(), Some((_, its_move)) if its_move.is(Move::SETTLED));
            match self.poll_leg(settled, context) {
                Poll::Ready(Some(message)) => {
                    // Read after the message was taken: a leg that brings it again was requested before.
                    self.note(&message, asked);
                    if !self.is_double(&message) {
                        return Poll::Ready(Some(message));
                    }
                }
                Poll::Ready(None) if self.next.is_empty() => return Poll::Ready(None),
                Poll::Pending if !settled => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => self.go_over(),
            }
        }
    }

    /// Polls the leg without the task's budget when it is about to end: it must be pending only when it is empty, not
    /// when the task should yield.
    fn poll_leg(&mut self, settled: bool, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if !settled {
            return Pin::new(&mut self.leg).poll_next(context);
        }
        let leg = &mut self.leg;
        let reading = std::future::poll_fn(|context| Pin::new(&mut *leg).poll_next(context));
        pin!(unconstrained(reading)).poll(context)
    }

    fn is_double(&mut self, message: &S::Item) -> bool {
        let Some(before) = &mut self.before else { return false };
        if before.is_spent() {
            self.before = None;
            return false;
        }
        before.take(message.mark())
    }

    fn note(&mut self, message: &S::Item, asked: &AtomicUsize) {
        if asked.load(Ordering::SeqCst) > 0 || !self.next.is_empty() {
            let noted = self.noted.get_or_insert_with(|| Box::new(Marks::new()));
            noted.note(message.mark());
        } else if self.noted.is_some() {
            self.noted = None;
        }
    }

    fn go_over(&mut self) {
        if let Some((leg, its_move)) = self.next.pop_front() {
            (self.leg, self.line) = (leg, its_move.to);
            self.before = self.noted.take();
            if let Some(before) = &mut self.before {
                before.since = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests;
