//! Reads live messages: one task reads the subscriptions of all rooms with members here, and passes each message to its
//! room.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_nats::Message;
use async_nats::header::{NATS_LAST_SEQUENCE, NATS_SEQUENCE};
use futures_util::stream::{AbortHandle, Abortable, SelectAll, abortable};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use super::live::{Arrival, LiveRoom};
use super::senders::StaleSenderFilter;
use super::shared::NatsBusInner;
use super::wire;
use crate::event::{Event, Retention};
use crate::nats::request::RequestFailed;
use crate::nats::{Live, Subjects, Subscription};
use crate::position::Offset;

/// The bound of the queue of subscriptions that were made and are not yet read. The reader takes them first, so it is short;
/// a join waits while it is full.
const FEEDS_MAX: usize = 1024;

/// The way of live messages into this node.
pub(super) struct Intake {
    feeds: mpsc::Sender<Feed>,
    /// The newest connection of each sender of ephemeral events.
    senders: StaleSenderFilter,
    /// Messages on rooms' subjects that no node has written.
    foreign: AtomicU64,
}

impl Intake {
    /// Creates an intake, and the queue of subscriptions for [`run`].
    pub(super) fn new() -> (Self, mpsc::Receiver<Feed>) {
        let (feeds, added) = mpsc::channel(FEEDS_MAX);
        let intake = Self {
            feeds,
            senders: StaleSenderFilter::default(),
            foreign: AtomicU64::new(0),
        };
        (intake, added)
    }

    /// Has a subscription read.
    pub(super) async fn add(&self, feed: Feed) -> Result<(), RequestFailed> {
        let added = self.feeds.send(feed).await;
        added.map_err(|_| RequestFailed::unavailable("the bus has ended"))
    }

    /// Returns the number of messages on rooms' subjects that no node has written.
    pub(super) fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    fn count_foreign(&self) {
        self.foreign.fetch_add(1, Ordering::Relaxed);
    }

    fn is_current(&self, sender: u64, connection: u64) -> bool {
        self.senders.is_current(sender, connection)
    }
}

/// A message received for a room.
enum Incoming {
    Reliable {
        seq: u64,
        prev: u64,
        arrival: Arrival,
    },
    Ephemeral {
        arrival: Arrival,
        sender: u64,
        connection: u64,
    },
    Nudge(u64),
}

/// The subscription of one room.
pub(super) struct Feed {
    live: Arc<LiveRoom>,
    messages: Abortable<Subscription>,
}

impl Feed {
    pub(super) fn new(live: Arc<LiveRoom>, messages: Subscription) -> (Self, AbortHandle) {
        let (messages, abort) = abortable(messages);
        (Self { live, messages }, abort)
    }
}

impl Stream for Feed {
    type Item = (Arc<LiveRoom>, Message);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = self.messages.poll_next_unpin(context);
        message.map(|message| message.map(|message| (Arc::clone(&self.live), message)))
    }
}

/// Reads until the last sender of feeds is gone.
pub(super) async fn run(shared: &NatsBusInner, mut added: mpsc::Receiver<Feed>) {
    let mut feeds = SelectAll::new();
    loop {
        tokio::select! {
            // New subscriptions first: a busy node must not leave a joining room unread.
            biased;
            feed = added.recv() => match feed {
                Some(feed) => feeds.push(feed),
                None => return,
            },
            Some((live, message)) = feeds.next(), if !feeds.is_empty() => take(shared, &live, message).await,
        }
    }
}

async fn take(shared: &NatsBusInner, live: &Arc<LiveRoom>, message: Message) {
    let Some(incoming) = read(shared, live, message) else {
        shared.intake.count_foreign();
        return;
    };
    let mut permits = shared.deliveries.take(1).await;
    let partition = shared.partitions.at(live.partition);
    let mut state = live.lock();
    let mut alone = false;
    match incoming {
        Incoming::Ephemeral {
            arrival: Arrival { event, traceparent },
            sender,
            connection,
        } => {
            if shared.intake.is_current(sender, connection) {
                state.hand_out(Arc::new(event), &traceparent, &mut permits);
            }
        }
        Incoming::Nudge(head) => state.chain.told(head),
        Incoming::Reliable { seq, prev, arrival } => {
            // An event may follow none, or one from before our last. It then proves nothing of what the stream has
            // dropped since the last sweep, which must not be long ago.
            let doubtful = !partition.is_verified_for(shared.connects())
                || is_another(state.ring.at(Offset(seq)), &arrival.event)
                || (prev < state.chain.last() && partition.unswept() > shared.trusted_age());
            if doubtful && !state.chain.is_suspect() {
                state.chain.suspect();
                partition.doubt();
                shared.health.check_soon();
            }
            // Concerns this room only: finds out whether an event that was purged before it arrived was missed.
            if prev < state.chain.last() && state.has_lost_its_last(shared.trusted_age(), shared.now()) {
                state.chain.suspect();
                alone = true;
            }
            state.heard = true;
            let mut out = Vec::new();
            state.chain.live(seq, prev, arrival, &mut out);
            state.apply(live, out, &mut permits, &shared.budget);
            // Only what was delivered: a held event may belong to a stream that no longer exists.
            partition.has(state.chain.last());
        }
    }
    // A doubt about the whole partition is verified by the sweep, once for all its rooms.
    if alone || !state.chain.is_suspect() {
        shared.repairs.add_if_needed(live, &mut state);
    }
}

/// Reports whether the same sequence was given to another event: then the stream is another one.
fn is_another(known: Option<&Arc<Event>>, event: &Event) -> bool {
    known.is_some_and(|known| known.id != event.id)
}

fn read(shared: &NatsBusInner, live: &LiveRoom, message: Message) -> Option<Incoming> {
    match Subjects::kind_of_live(message.subject.as_str())? {
        Live::Reliable => {
            let headers = message.headers?;
            let event = wire::event(&live.room, message.payload, wire::time(&headers)?)?;
            let (seq, prev) = (
                wire::number(&headers, NATS_SEQUENCE)?,
                wire::number(&headers, NATS_LAST_SEQUENCE)?,
            );
            let in_order = prev < seq && event.retention != Retention::Ephemeral;
            let traceparent = wire::traceparent(Some(&headers));
            let arrival = Arrival { event, traceparent };
            in_order.then_some(Incoming::Reliable { seq, prev, arrival })
        }
        Live::Ephemeral => {
            let traceparent = wire::traceparent(message.headers.as_ref());
            let (event, sender, connection) = wire::passed_on(&live.room, message.payload, shared.now())?;
            Some(Incoming::Ephemeral {
                arrival: Arrival { event, traceparent },
                sender,
                connection,
            })
        }
        Live::Nudge => Some(Incoming::Nudge(
            std::str::from_utf8(&message.payload).ok()?.parse().ok()?,
        )),
    }
}
