//! The counters of a node, in plain cells: whoever does a thing counts it, and exporters read.
//!
//! A cell costs one relaxed addition and has no lock. A counter only grows, from the start of the process. Rooms, users and
//! addresses are never labels, so the number of cells is fixed.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::CloseReason;

/// One counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one.
    pub fn add(&self) {
        self.add_many(1);
    }

    /// Counts several.
    pub fn add_many(&self, count: u64) {
        // Relaxed: a reader needs no order between counters.
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the count.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A closed set of names that a thing is counted under.
pub trait Label: Copy + PartialEq + Sized + 'static {
    /// All names, each at its [`Self::index`].
    const ALL: &'static [Self];

    /// Returns the place in [`Self::ALL`].
    fn index(self) -> usize;

    /// Returns the name as exporters write it.
    fn name(self) -> &'static str;
}

/// A counter for each name of a set.
#[derive(Debug)]
pub struct Tally<L> {
    /// In the order of the labels.
    counts: Box<[Count]>,
    labels: PhantomData<fn(L)>,
}

impl<L: Label> Default for Tally<L> {
    fn default() -> Self {
        Self {
            counts: L::ALL.iter().map(|_| Count::default()).collect(),
            labels: PhantomData,
        }
    }
}

impl<L: Label> Tally<L> {
    /// Counts one under this name.
    pub fn add(&self, label: L) {
        self.counts[label.index()].add();
    }

    /// Returns the count under this name.
    #[must_use]
    pub fn of(&self, label: L) -> u64 {
        self.counts[label.index()].total()
    }

    /// Returns every name with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = L::ALL.iter().zip(&self.counts);
        counts.map(|(label, count)| (label.name(), count.total()))
    }
}

/// A counter for each protocol, by [`crate::session::ProtocolId::index`].
#[derive(Debug)]
pub struct ByProtocol(Box<[Count]>);

impl Default for ByProtocol {
    fn default() -> Self {
        Self((0..Self::PROTOCOLS_MAX).map(|_| Count::default()).collect())
    }
}

impl ByProtocol {
    /// The most protocols that are counted apart.
    pub const PROTOCOLS_MAX: usize = 16;

    /// Counts one of the protocol at this index.
    pub fn add(&self, index: usize) {
        self.0[index].add();
    }

    /// Returns the count of the protocol at this index.
    #[must_use]
    pub fn of(&self, index: usize) -> u64 {
        self.0[index].total()
    }
}

/// One fan-out, once the last member has got the event.
#[derive(Debug, Clone, Copy)]
pub struct FanoutFacts {
    /// The members of this node that got it.
    pub members: u32,
    /// The time from its acceptance at a gateway.
    pub latency: Duration,
}

/// The exporter's record of distributions, if there is an exporter.
#[derive(Default)]
pub struct FanoutRecord(OnceLock<Box<dyn Fn(FanoutFacts) + Send + Sync>>);

impl FanoutRecord {
    /// Records every fan-out from now on. The first call wins.
    pub fn record_by(&self, record: impl Fn(FanoutFacts) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(record));
    }

    /// Reports whether fan-outs are recorded.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.get().is_some()
    }
}

impl fmt::Debug for FanoutRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FanoutRecord").field(&self.is_recorded()).finish()
    }
}

/// Declares an enum whose variants are labels.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

labels! {
    /// The reason why a connection of a client was refused.
    ConnectionRefused {
        /// The node has as many as it may have.
        NodeFull = "node_full",
        /// The address has as many as it may have.
        AddressFull = "address_full",
        /// The user has as many as they may have.
        UserFull = "user_full",
        /// Connections arrived faster than `client.connect_rate`, or too many had not become a session.
        Busy = "busy",
    }
}

labels! {
    /// The outcome of a publish, of a backend or a client, that had its permit.
    PublishOutcome {
        /// Stored or, if ephemeral, sent.
        Accepted = "accepted",
        /// Already stored under its idempotency key.
        Duplicate = "duplicate",
        /// The room's head was not the expected one.
        VersionConflict = "version_conflict",
        /// The idempotency key was used with another event.
        KeyReused = "key_reused",
        /// Larger than the bus accepts.
        TooLarge = "too_large",
        /// Not stored: the bus was full or unavailable.
        NotStored = "not_stored",
        /// Not acknowledged: perhaps stored.
        Unknown = "unknown",
    }
}

impl Label for CloseReason {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        self.as_str()
    }
}

labels! {
    /// The outcome of a join that asked to go on from a position.
    Recovery {
        /// Everything since the position followed.
        Recovered = "recovered",
        /// The client was told to load its state anew.
        NotRecovered = "not_recovered",
    }
}

labels! {
    /// The outcome of a client's request that was relayed to the node that serves the client.
    RelayOutcome {
        /// The node has answered.
        Answered = "answered",
        /// The node is unknown, or has ended.
        NoNode = "no_node",
        /// The request or its answer was lost, or there were too many under way.
        Failed = "failed",
    }
}

/// The counters of a node.
#[derive(Debug, Default)]
pub struct Cells {
    /// Connections of clients that were accepted.
    pub connections_accepted: Count,
    /// Connections of clients that were refused, by reason.
    pub connections_refused: Tally<ConnectionRefused>,
    /// Answers of clients that nobody waited for: late, second or made up.
    pub answers_ignored: Count,
    /// Events of clients that are no command and that nothing handles.
    pub events_unhandled: Count,
    /// Publishes by outcome.
    pub publishes: Tally<PublishOutcome>,
    /// Connections that a shard took over, by protocol.
    pub connections_opened: ByProtocol,
    /// Those of them that have ended.
    pub connections_ended: ByProtocol,
    /// Sessions whose token was accepted.
    pub sessions_opened: Count,
    /// Connections that ended before a token was accepted, by reason.
    pub sessions_refused: Tally<CloseReason>,
    /// Sessions that ended, by reason.
    pub sessions_closed: Tally<CloseReason>,
    /// Sessions that asked to go on from a position.
    pub reconnections: Count,
    /// Joins that asked to go on from a position, by outcome.
    pub recoveries: Tally<Recovery>,
    /// Events that were fanned out on this node.
    pub events_delivered: Count,
    /// Members that events were handed to, summed over events.
    pub deliveries: Count,
    /// Distributions over fan-outs.
    pub fanouts: FanoutRecord,
    /// Times that a shard found its lease lapsed.
    pub lease_lapses: Count,
    /// Requests of clients that were relayed to other nodes, by outcome.
    pub relayed: Tally<RelayOutcome>,
}

impl Cells {
    /// Counts a fan-out that has ended.
    pub fn fanned_out(&self, members: u32, latency: impl FnOnce() -> Duration) {
        self.events_delivered.add();
        self.deliveries.add_many(members.into());
        if let Some(record) = self.fanouts.0.get() {
            record(FanoutFacts {
                members,
                latency: latency(),
            });
        }
    }
}

/// A handle to a node's counters. Cheap to clone; all clones are one set.
pub type Counters = Arc<Cells>;

#[cfg(test)]
mod tests {
    use super::*;

    fn names_are_at_their_places<L: Label + std::fmt::Debug>() {
        for (place, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), place, "{label:?}");
        }
    }

    #[test]
    fn labels_stand_at_their_index() {
        names_are_at_their_places::<ConnectionRefused>();
        names_are_at_their_places::<PublishOutcome>();
        names_are_at_their_places::<Recovery>();
        names_are_at_their_places::<CloseReason>();
        names_are_at_their_places::<RelayOutcome>();
    }

    #[test]
    fn each_name_is_counted_apart() {
        let tally = Tally::default();
        tally.add(PublishOutcome::Accepted);
        tally.add(PublishOutcome::Accepted);
        tally.add(PublishOutcome::Unknown);
        assert_eq!(
            (tally.of(PublishOutcome::Accepted), tally.of(PublishOutcome::TooLarge)),
            (2, 0)
        );
        let counted: Vec<_> = tally.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("accepted", 2), ("unknown", 1)]);
    }
}
