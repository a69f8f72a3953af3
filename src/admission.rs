//! Limits on the node's connections, in all, per user and per address, and their count.
//!
//! Users and addresses are kept as 64-bit hashes under a key of this process: 12 bytes each. A collision, which an
//! outsider cannot provoke, only makes two users share a limit.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::counters::{ConnectionRefused, Counters};
use crate::identity::Identity;
use crate::sync::lock;

/// The node's limits on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The most connections of the node.
    pub connections_max: usize,
    /// The most connections of one user of one tenant.
    pub per_user_max: u32,
    /// The most connections from one address.
    pub per_address_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            per_user_max: 20,
            per_address_max: 200,
        }
    }
}

/// Reason why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The node's limit is reached.
    #[error("the node is full")]
    NodeFull,
    /// The address's limit is reached.
    #[error("too many connections from this address")]
    AddressFull,
    /// The user's limit is reached.
    #[error("too many connections of this user")]
    UserFull,
}

impl Refused {
    const fn label(self) -> ConnectionRefused {
        match self {
            Self::NodeFull => ConnectionRefused::NodeFull,
            Self::AddressFull => ConnectionRefused::AddressFull,
            Self::UserFull => ConnectionRefused::UserFull,
        }
    }
}

/// A connection's place among those of its address, to be released when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a place that is not given back stays taken"]
pub struct Place(u64);

#[derive(Debug, Default)]
struct Counts {
    config: Config,
    connections: usize,
    users: HashMap<u64, u32>,
    addresses: HashMap<u64, u32>,
}

/// Counts the node's connections.
#[derive(Debug, Default)]
pub struct Admission {
    keys: RandomState,
    counts: Mutex<Counts>,
    tenants: Option<Tenants>,
    counters: Counters,
    emptied: Notify,
}

/// Connections by tenant, for `dev` alone: its log reports publishes to tenants without connections. Nodes of one process
/// share it.
#[derive(Debug, Clone, Default)]
pub struct Tenants(Arc<Mutex<TenantCounts>>);

#[derive(Debug, Default)]
struct TenantCounts {
    connections: HashMap<Box<str>, u32>,
    /// Tenants reported as absent since their last connection.
    reported: HashSet<Box<str>>,
}

/// The most absent tenants that are reported.
const REPORTED_MAX: usize = 100;

impl Tenants {
    /// Returns true when this tenant has no connections: once, until it has some again.
    #[must_use]
    pub fn reports_absent(&self, tenant: &str) -> bool {
        let mut counts = self.lock();
        !counts.connections.contains_key(tenant)
            && counts.reported.len() < REPORTED_MAX
            && counts.reported.insert(tenant.into())
    }

    fn enter(&self, tenant: &str) {
        let mut counts = self.lock();
        *counts.connections.entry(tenant.into()).or_default() += 1;
        counts.reported.remove(tenant);
    }

    fn leave(&self, tenant: &str) {
        give(&mut self.lock().connections, tenant.into());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TenantCounts> {
        lock(&self.0)
    }
}

impl Admission {
    /// Creates the counts under these limits.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let counts = Counts {
            config,
            ..Counts::default()
        };
        Self {
            counts: Mutex::new(counts),
            ..Self::default()
        }
    }

    /// Replaces the limits. They apply to new connections; existing connections stay open.
    pub fn limit(&self, config: Config) {
        self.lock().config = config;
    }

    /// The same, counting tenants as well.
    #[must_use]
    pub fn with_tenants(self, tenants: Option<Tenants>) -> Self {
        Self { tenants, ..self }
    }

    /// The same, counting into these.
    #[must_use]
    pub fn with_counters(self, counters: Counters) -> Self {
        Self { counters, ..self }
    }

    /// Counts a connection from `address` in.
    ///
    /// # Errors
    /// [`Refused::NodeFull`] and [`Refused::AddressFull`]; it has no place then.
    pub fn enter(&self, address: IpAddr) -> Result<Place, Refused> {
        let entered = self.take_place(address);
        match entered {
            Ok(_) => self.counters.connections_accepted.add(),
            Err(refused) => self.counters.connections_refused.add(refused.label()),
        }
        entered
    }

    /// Records that a connection was refused before its address was looked at.
    pub fn turned_away(&self) {
        self.counters.connections_refused.add(ConnectionRefused::Busy);
    }

    fn take_place(&self, address: IpAddr) -> Result<Place, Refused> {
        let mut counts = self.lock();
        let config = counts.config;
        if counts.connections >= config.connections_max {
            return Err(Refused::NodeFull);
        }
        let place = Place(self.keys.hash_one(address));
        if !take(&mut counts.addresses, place.0, config.per_address_max) {
            return Err(Refused::AddressFull);
        }
        counts.connections += 1;
        Ok(place)
    }

    /// Releases a place of [`Self::enter`].
    pub fn leave(&self, place: Place) {
        let mut counts = self.lock();
        counts.connections = counts.connections.saturating_sub(1);
        give(&mut counts.addresses, place.0);
        if counts.connections == 0 {
            self.emptied.notify_waiters();
        }
    }

    /// Counts a connection as one of this user.
    ///
    /// # Errors
    /// [`Refused::UserFull`]; it is not counted as one of theirs then.
    pub fn identify(&self, identity: &Identity) -> Result<(), Refused> {
        let key = self.user_key(identity);
        {
            let mut counts = self.lock();
            let max = counts.config.per_user_max;
            if !take(&mut counts.users, key, max) {
                self.counters.connections_refused.add(ConnectionRefused::UserFull);
                return Err(Refused::UserFull);
            }
        }
        if let Some(tenants) = &self.tenants {
            tenants.enter(identity.tenant.as_str());
        }
        Ok(())
    }

    /// Releases a connection counted by [`Self::identify`].
    pub fn forget(&self, identity: &Identity) {
        let key = self.user_key(identity);
        give(&mut self.lock().users, key);
        if let Some(tenants) = &self.tenants {
            tenants.leave(identity.tenant.as_str());
        }
    }

    /// Returns the number of connections now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Waits until there is no connection; returns at once when there is none.
    pub async fn emptied(&self) {
        loop {
            // Before the count is read: a connection that leaves between the two still wakes this waiter.
            let emptied = self.emptied.notified();
            if self.connections() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn user_key(&self, identity: &Identity) -> u64 {
        self.keys.hash_one((identity.tenant.as_str(), identity.user.as_str()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        lock(&self.counts)
    }
}

fn take<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: K, max: u32) -> bool {
    let count = counts.entry(key).or_default();
    let free = *count < max;
    *count += u32::from(free);
    free
}

fn give<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
    // A wave of connections must not leave its peak behind.
    if counts.capacity() > 1024 && counts.len() * 4 < counts.capacity() {
        counts.shrink_to(counts.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_full_is_refused_until_one_leaves() {
        let admission = Admission::new(Config {
            per_address_max: 2,
            ..Config::default()
        });
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let place = admission.enter(one).unwrap();
        assert!(admission.enter(one).is_ok());
        assert_eq!(admission.enter(one), Err(Refused::AddressFull));
        assert!(admission.enter(other).is_ok());
        admission.leave(place);
        assert!(admission.enter(one).is_ok());
        assert_eq!(admission.connections(), 3);
    }

    #[test]
    fn an_absent_tenant_is_reported_once_until_it_is_connected() {
        let tenants = Tenants::default();
        assert!(tenants.reports_absent("acme"));
        assert!(!tenants.reports_absent("acme"));
        tenants.enter("acme");
        tenants.enter("acme");
        tenants.leave("acme");
        assert!(!tenants.reports_absent("acme"), "one is still connected");
        tenants.leave("acme");
        assert!(tenants.reports_absent("acme"));
    }

    #[test]
    fn lower_limits_hold_for_newcomers_and_end_nothing() {
        let admission = Admission::new(Config::default());
        let address = "10.0.0.1".parse().unwrap();
        let places = [admission.enter(address).unwrap(), admission.enter(address).unwrap()];
        admission.limit(Config {
            per_address_max: 1,
            ..Config::default()
        });
        assert_eq!(admission.connections(), 2);
        assert_eq!(admission.enter(address), Err(Refused::AddressFull));
        admission.leave(places[0]);
        assert_eq!(admission.enter(address), Err(Refused::AddressFull));
        admission.leave(places[1]);
        assert!(admission.enter(address).is_ok());
    }

    #[tokio::test]
    async fn waiting_ends_when_the_last_has_left() {
        let admission = Admission::new(Config::default());
        admission.emptied().await;
        let address = "10.0.0.1".parse().unwrap();
        let places = [admission.enter(address).unwrap(), admission.enter(address).unwrap()];
        let waiting = admission.emptied();
        tokio::pin!(waiting);
        for place in places {
            assert!(futures_util::poll!(&mut waiting).is_pending());
            admission.leave(place);
        }
        waiting.await;
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let counters = Counters::default();
        let config = Config {
            per_address_max: 1,
            ..Config::default()
        };
        let admission = Admission::new(config).with_counters(Arc::clone(&counters));
        let address = "10.0.0.1".parse().unwrap();
        assert!(admission.enter(address).is_ok() && admission.enter(address).is_err());
        admission.turned_away();
        assert_eq!(counters.connections_accepted.total(), 1);
        let refused: Vec<_> = counters.connections_refused.iter().collect();
        assert_eq!(
            refused,
            [("node_full", 0), ("address_full", 1), ("user_full", 0), ("busy", 1)]
        );
    }

    #[test]
    fn a_node_that_is_full_refuses_everybody() {
        let admission = Admission::new(Config {
            connections_max: 1,
            ..Config::default()
        });
        assert!(admission.enter("10.0.0.1".parse().unwrap()).is_ok());
        assert_eq!(admission.enter("10.0.0.2".parse().unwrap()), Err(Refused::NodeFull));
    }
}
