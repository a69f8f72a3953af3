//! The node's readiness: the reasons why it should get no work, each set by the component that knows it.
//!
//! A node is ready while no reason stands. Several may stand at once, and each ends by itself: a backplane that recovers
//! during a drain does not make the node ready again. Probes read it; nothing in the gateway decides by it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// A reason why the node is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// The start is not complete.
    Starting,
    /// The first fetch of an issuer's published keys has not ended. A fetch that fails ends it, too: tokens of other
    /// issuers, and backends, do not need that issuer.
    KeysPending,
    /// A connection to NATS is down or carries nothing.
    NatsUnreachable,
    /// The node may deliver nothing: see [`crate::lease`].
    LeaseLapsed,
    /// The settings differ from the cluster's, or a stream is unusable.
    BusUnusable,
    /// The node is shutting down.
    Draining,
}

impl Unready {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::KeysPending,
        Self::NatsUnreachable,
        Self::LeaseLapsed,
        Self::BusUnusable,
        Self::Draining,
    ];

    /// Returns the reason as probes and logs name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::KeysPending => "keys_pending",
            Self::NatsUnreachable => "nats_unreachable",
            Self::LeaseLapsed => "lease_lapsed",
            Self::BusUnusable => "bus_unusable",
            Self::Draining => "draining",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The reasons that stand at one moment. None: the node is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasons(u8);

impl Reasons {
    /// Returns the same reasons and this one, if `stands`.
    #[must_use]
    pub const fn and(self, reason: Unready, stands: bool) -> Self {
        if stands { Self(self.0 | reason.bit()) } else { self }
    }

    /// Reports whether none stands.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reports whether this one stands.
    #[must_use]
    pub const fn contains(self, reason: Unready) -> bool {
        self.0 & reason.bit() != 0
    }

    /// Returns the reasons that stand.
    pub fn iter(self) -> impl Iterator<Item = Unready> {
        Unready::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, reason) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{}", reason.name())?;
        }
        Ok(())
    }
}

/// A node's readiness. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Reasons>>);

impl Readiness {
    /// Creates the readiness of a node that starts.
    #[must_use]
    pub fn starting() -> Self {
        Self(Arc::new(watch::Sender::new(
            Reasons::default().and(Unready::Starting, true),
        )))
    }

    /// Sets whether this reason stands. The others are untouched.
    pub fn set(&self, reason: Unready, stands: bool) {
        self.0.send_if_modified(|reasons| {
            let changed = reasons.contains(reason) != stands;
            if changed {
                reasons.0 ^= reason.bit();
            }
            changed
        });
    }

    /// Returns the reasons that stand now.
    #[must_use]
    pub fn reasons(&self) -> Reasons {
        *self.0.borrow()
    }

    /// Reports whether the node is ready now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }

    /// Returns a watch of the reasons.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Reasons> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_once_no_reason_stands() {
        let readiness = Readiness::starting();
        assert!(!readiness.is_ready());
        readiness.set(Unready::KeysPending, true);
        readiness.set(Unready::Starting, false);
        assert_eq!(readiness.reasons().to_string(), "keys_pending");
        readiness.set(Unready::KeysPending, false);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_recovery_during_a_drain_does_not_make_ready() {
        let readiness = Readiness::starting();
        readiness.set(Unready::Starting, false);
        readiness.set(Unready::NatsUnreachable, true);
        readiness.set(Unready::Draining, true);
        assert_eq!(readiness.reasons().to_string(), "nats_unreachable, draining");
        readiness.set(Unready::NatsUnreachable, false);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn only_a_change_wakes_a_watcher() {
        let readiness = Readiness::starting();
        let mut watch = readiness.watch();
        watch.mark_unchanged();
        readiness.set(Unready::Starting, true);
        assert!(!watch.has_changed().unwrap());
        readiness.set(Unready::Draining, true);
        assert!(watch.has_changed().unwrap());
    }

    #[test]
    fn every_reason_has_a_name_and_a_bit_of_its_own() {
        let all = Unready::ALL.into_iter().fold(Reasons::default(), |all, reason| {
            assert!(!all.contains(reason), "{reason:?}");
            all.and(reason, true)
        });
        assert_eq!(all.iter().count(), Unready::ALL.len());
    }
}
