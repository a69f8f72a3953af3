//! Several streams of the same messages read as one, while what brings them is exchanged.
//!
//! A *leg* is the stream over one connection. While a new leg is being prepared both bring messages, each in the order
//! that it has from its publishers. What is read is the old leg, until the move is settled and nothing more is in it;
//! then the new one, less what the old one has brought already. So nothing is lost, doubled or reordered, as long as
//! - whoever settles the move knows that the old leg holds everything that will not come over the new one, and
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

/// The most messages of an old leg that are remembered, as many as wait in a new one. What comes on top may come twice.
const MARKS_MAX: usize = SUBSCRIPTION_MAX;

/// How long after a move a message of the old leg is recognized. No server is that late with what another one had.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What tells a message from others.
pub(super) trait Marked {
    /// The same for equal messages, and for no two others that are remembered together.
    fn mark(&self) -> u64;
}

/// A move of all subscriptions of a connection to another one, and what has become of it. Whoever has gone over lets go of
/// it.
#[derive(Debug)]
pub(in crate::nats) struct Move {
    to: u64,
    state: AtomicU8,
}

impl Move {
    const UNDER_WAY: u8 = 0;
    const SETTLED: u8 = 1;
    const WITHDRAWN: u8 = 2;

    /// A move to the line of this number.
    pub(in crate::nats) fn to(line: u64) -> Arc<Self> {
        Arc::new(Self {
            to: line,
            state: AtomicU8::new(Self::UNDER_WAY),
        })
    }

    /// What is not read yet of the old leg is everything that the new one will not bring.
    pub(in crate::nats) fn settle(&self) {
        self.state.store(Self::SETTLED, Ordering::SeqCst);
    }

    /// Everything stays as it was; `false` when it is settled already.
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

/// How often each of the old leg's messages came.
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

    /// Whether it came before. Each time it came counts once: who says the same again later is heard.
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
    /// The number of the line that the leg is of.
    line: u64,
    next: VecDeque<(S, Arc<Move>)>,
    /// What this leg has brought and the next one may bring, too.
    noted: Option<Box<Marks>>,
    /// What the leg before had brought.
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

    /// The line that brought what was read last.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }

    /// Takes what will be read next, once `its_move` is settled.
    pub(super) fn add(&mut self, leg: S, its_move: Arc<Move>) {
        self.next.push_back((leg, its_move));
    }

    /// The next message. `asked` counts the legs that were asked for and not yet added; it counts one before anything is
    /// sent for its sake.
    pub(super) fn poll(&mut self, asked: &AtomicUsize, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        loop {
            self.next.retain(|(_, its_move)| !its_move.is(Move::WITHDRAWN));
            // Looked at before the leg: when it was settled then, what is in the leg now is everything.
            let settled = matches!(self.next.front(), Some((_, its_move)) if its_move.is(Move::SETTLED));
            match self.poll_leg(settled, context) {
                Poll::Ready(Some(message)) => {
                    // Looked at after the message was taken: a leg that brings it again was asked for before.
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

    /// A leg that is to end says that it is empty only when it is, not when this task should let others run.
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
