//! The tap: the live events of all rooms, for followers of rooms by a pattern.
//!
//! A room is one token of a subject, so no wildcard of NATS selects the rooms of a tenant. While there is a follower, this
//! node subscribes to the events of all rooms, once. A stream republishes every message it stores: so the sequences of a
//! partition come without a gap, whatever their rooms, and a missing one shows at the next message. The tap repairs
//! nothing: it detaches the partition's followers, and each reads the stream from its own position on
//! ([`super::follow`]). A lost last message, which no later one reveals, is found by comparing with the streams at the
//! interval of the sweeps.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::Message;
use async_nats::header::{NATS_LAST_SEQUENCE, NATS_SEQUENCE, NATS_SUBJECT};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::shared::NatsBusInner;
use super::wire;
use crate::bus::parts::Follower;
use crate::event::Event;
use crate::nats::{Subjects, Subscription};
use crate::position::{ChainLink, Epoch, Offset, Position};
use crate::sync::lock;

/// The pause after the subscription failed.
const RETRY: Duration = Duration::from_millis(250);

/// A follower of a partition.
struct Attached {
    follower: Arc<dyn Follower>,
    /// The beginning of the tokens of its tenant's rooms.
    prefix: String,
    /// It has read everything through this sequence.
    through: u64,
}

/// One partition, as the tap has seen it.
#[derive(Default)]
struct TapPart {
    /// Set with the first attachment.
    epoch: Option<Epoch>,
    /// The newest sequence that was received.
    last: u64,
    /// The stream's newest sequence at the last comparison.
    expected: u64,
    followers: Vec<Attached>,
}

impl TapPart {
    /// Detaches every follower: something may have been missed.
    fn detach_all(&mut self, part: u16) {
        for attached in self.followers.drain(..) {
            attached.follower.detach(part);
        }
    }

    /// Begins another epoch, if it is another one.
    fn begin(&mut self, part: u16, epoch: Epoch) {
        if self.epoch != Some(epoch) {
            self.detach_all(part);
            *self = Self {
                epoch: Some(epoch),
                ..Self::default()
            };
        }
    }
}

/// The followers of this node, and the state of each partition.
pub(super) struct Tap {
    parts: Box<[Mutex<TapPart>]>,
    /// Followers that have not ended.
    followers: Mutex<HashSet<u16>>,
    /// There is a follower.
    wanted: watch::Sender<bool>,
    /// The subscription is made.
    listening: watch::Sender<bool>,
}

impl Tap {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            parts: (0..partitions).map(|_| Mutex::default()).collect(),
            followers: Mutex::default(),
            wanted: watch::channel(false).0,
            listening: watch::channel(false).0,
        }
    }

    fn part(&self, part: u16) -> MutexGuard<'_, TapPart> {
        lock(&self.parts[usize::from(part)])
    }

    /// Registers a follower, and waits until the subscription is made.
    pub(super) async fn open(&self, follower_id: u16) {
        lock(&self.followers).insert(follower_id);
        self.wanted.send_replace(true);
        // The sender lives as long as this.
        let _ = self.listening.subscribe().wait_for(|listening| *listening).await;
    }

    /// Attaches a follower that has read everything through a sequence; `false` if later ones were received since.
    /// Without a sequence it begins at the newest that is known. Returns the sequence.
    pub(super) fn attach(
        &self,
        part: u16,
        epoch: Epoch,
        through: Option<u64>,
        newest: u64,
        follower: &Arc<dyn Follower>,
    ) -> (u64, bool) {
        let mut state = self.part(part);
        state.begin(part, epoch);
        state
            .followers
            .retain(|attached| attached.follower.id() != follower.id());
        let through = through.unwrap_or_else(|| newest.max(state.last));
        if through < state.last {
            return (through, false);
        }
        // Others may still wait for messages that this one has read.
        if state.followers.is_empty() {
            state.last = through;
        }
        state.followers.push(Attached {
            prefix: Subjects::tokens_of(&follower.rooms().tenant),
            follower: Arc::clone(follower),
            through,
        });
        (through, true)
    }

    /// Returns the sequence through which everything was delivered to an attached follower.
    pub(super) fn followed(&self, part: u16, follower_id: u16) -> Option<Position> {
        let state = self.part(part);
        let attached = state
            .followers
            .iter()
            .find(|attached| attached.follower.id() == follower_id)?;
        Some(Position {
            epoch: state.epoch?,
            offset: Offset(state.last.max(attached.through)),
        })
    }

    pub(super) fn close(&self, follower_id: u16) {
        for part in &self.parts {
            lock(part)
                .followers
                .retain(|attached| attached.follower.id() != follower_id);
        }
        let mut followers = lock(&self.followers);
        followers.remove(&follower_id);
        if followers.is_empty() {
            self.wanted.send_replace(false);
        }
    }

    /// Reports whether the subscription is made.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        *self.listening.borrow()
    }

    fn detach_all(&self) {
        for (part, state) in (0..).zip(&self.parts) {
            lock(state).detach_all(part);
        }
    }

    fn is_followed(&self, part: u16) -> bool {
        !self.part(part).followers.is_empty()
    }
}

/// Listens while there is a follower.
pub(super) async fn run(shared: &NatsBusInner) {
    let tap = &shared.tap;
    let mut wanted = tap.wanted.subscribe();
    // The sender lives as long as the bus.
    while wanted.wait_for(|wanted| *wanted).await.is_ok() {
        let subject = shared.server.nats.subjects().all_reliable();
        let Ok(messages) = shared.server.nats.fanout().subscribe(subject).await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        tap.listening.send_replace(true);
        tokio::select! {
            () = read(shared, messages) => {}
            () = compare(shared) => {}
            _ = wanted.wait_for(|wanted| !*wanted) => {}
        }
        tap.listening.send_replace(false);
        tap.detach_all();
    }
}

async fn read(shared: &NatsBusInner, mut messages: Subscription) {
    let mut connects = shared.connects();
    while let Some(message) = messages.next().await {
        // Something may have been missed in between, or the stream be another one.
        if std::mem::replace(&mut connects, shared.connects()) != connects {
            shared.tap.detach_all();
        }
        take(shared, &message);
    }
}

/// Compares with the streams: a message that is not followed by another shows no gap.
async fn compare(shared: &NatsBusInner) {
    let mut turn = interval(shared.server.nats.config().sweep_interval);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        for partition in shared.partitions.iter() {
            let number = partition.number;
            if !shared.tap.is_followed(number) {
                continue;
            }
            // Without an answer nothing is known; the next comparison asks again.
            let Ok(state) = shared.state(partition).await else {
                continue;
            };
            let mut part = shared.tap.part(number);
            part.begin(number, partition.epoch());
            // Not come although it was there at the last comparison.
            if part.last < part.expected && part.followers.iter().any(|attached| attached.through < part.expected) {
                part.detach_all(number);
            }
            part.expected = state.last;
        }
    }
}

/// Takes a live message.
fn take(shared: &NatsBusInner, message: &Message) {
    let Some(received) = Received::read(shared, message) else {
        return;
    };
    let Received { part, token, seq, prev } = received;
    let epoch = shared.partitions.at(part).epoch();
    let mut state = shared.tap.part(part);
    if state.followers.is_empty() {
        state.last = state.last.max(seq);
        return;
    }
    state.begin(part, epoch);
    if seq <= state.last {
        return;
    }
    if seq != state.last + 1 {
        state.detach_all(part);
    }
    state.last = seq;
    let mut event: Option<Arc<Event>> = None;
    for attached in &state.followers {
        if seq <= attached.through || !token.starts_with(&attached.prefix) {
            continue;
        }
        let link = ChainLink {
            position: Position {
                epoch,
                offset: Offset(seq),
            },
            prev: Offset(prev),
        };
        if event.is_none() {
            event = decode(message, token, link);
        }
        // A message that no node has written is no event.
        let Some(event) = &event else { break };
        if attached.follower.rooms().contains(&event.room) {
            attached.follower.deliver(part, Arc::clone(event));
        }
    }
}

/// The place of a live message in its stream.
struct Received<'m> {
    part: u16,
    token: &'m str,
    seq: u64,
    prev: u64,
}

impl<'m> Received<'m> {
    fn read(shared: &NatsBusInner, message: &'m Message) -> Option<Self> {
        let headers = message.headers.as_ref()?;
        let subject = headers.get(NATS_SUBJECT)?.as_str();
        let (part, token) = shared.server.nats.subjects().partition_and_token(subject)?;
        (usize::from(part) < shared.tap.parts.len()).then_some(())?;
        Some(Self {
            part,
            token,
            seq: wire::number(headers, NATS_SEQUENCE)?,
            prev: wire::number(headers, NATS_LAST_SEQUENCE)?,
        })
    }
}

fn decode(message: &Message, token: &str, link: ChainLink) -> Option<Arc<Event>> {
    let room = Subjects::room_of(token)?;
    let time = wire::time(message.headers.as_ref()?)?;
    let event = wire::event(&room, message.payload.clone(), time)?;
    Some(Arc::new(Event {
        link: Some(link),
        ..event
    }))
}
