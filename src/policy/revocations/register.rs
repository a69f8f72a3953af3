//! The index of all tenants' revocations, by the subject that they name.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{RevocationEffect, RevocationLimit, RevocationState, Revocations};
use crate::event::Timestamp;
use crate::identity::{ConnectionId, TokenId, UserId};
use crate::policy::revocation::{Revocation, RevocationEntry, RevocationId, RevocationSubject};
use crate::room::Tenant;

/// The most revocations in force that name one user, one connection or one token: each permission asked for walks through
/// them.
const PER_SUBJECT_MAX: usize = 1_000;

/// The revocations, without a lock around them.
#[derive(Debug)]
pub(super) struct Register {
    pub(super) by_tenant: HashMap<Tenant, OfTenant>,
    pub(super) by_user: Index<UserId>,
    pub(super) by_connection: Index<ConnectionId>,
    pub(super) by_token: Index<TokenId>,
    pub(super) in_force: usize,
    pub(super) swept: Instant,
}

/// Those of one tenant.
#[derive(Debug, Default)]
pub(super) struct OfTenant {
    pub(super) states: BTreeMap<RevocationId, Kept>,
    in_force: usize,
    /// Of which so many name a token: claims are read only where there is one.
    pub(super) tokens: usize,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) state: RevocationState,
    pub(super) until: Instant,
}

impl Kept {
    fn in_force(&self, now: Instant) -> Option<&Arc<RevocationEntry>> {
        match &self.state {
            RevocationState::InForce(entry) if self.until > now => Some(entry),
            RevocationState::InForce(_) | RevocationState::Restored(_) => None,
        }
    }
}

/// Those in force that name a key, each with its end.
#[derive(Debug)]
pub(super) struct Index<K>(HashMap<K, Vec<(Instant, Arc<RevocationEntry>)>>);

impl<K: Hash + Eq + Clone> Index<K> {
    fn add(&mut self, key: &K, until: Instant, entry: &Arc<RevocationEntry>) {
        let entries = self.0.entry(key.clone()).or_default();
        entries.push((until, Arc::clone(entry)));
    }

    fn remove(&mut self, key: &K, id: RevocationId) {
        if let Some(entries) = self.0.get_mut(key) {
            entries.retain(|(_, entry)| entry.id != id);
            if entries.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn of(&self, key: &K) -> &[(Instant, Arc<RevocationEntry>)] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

impl Default for Register {
    fn default() -> Self {
        Self {
            by_tenant: HashMap::new(),
            by_user: Index(HashMap::new()),
            by_connection: Index(HashMap::new()),
            by_token: Index(HashMap::new()),
            in_force: 0,
            swept: Instant::now(),
        }
    }
}

impl Register {
    /// Those in force that name the same, of all tenants.
    pub(super) fn naming(&self, subject: &RevocationSubject) -> &[(Instant, Arc<RevocationEntry>)] {
        match subject {
            RevocationSubject::User(user) => self.by_user.of(user),
            RevocationSubject::Connection(connection) => self.by_connection.of(connection),
            RevocationSubject::Token(token) => self.by_token.of(token),
        }
    }

    /// Those in force of a tenant that name a user, oldest first.
    pub(super) fn naming_user(
        &self,
        tenant: &Tenant,
        user: &UserId,
        after: Option<RevocationId>,
        now: Instant,
    ) -> Vec<Arc<RevocationEntry>> {
        let is_wanted = |until: Instant, entry: &RevocationEntry| {
            until > now && entry.revocation.tenant == *tenant && after.is_none_or(|after| entry.id > after)
        };
        let wanted = self.by_user.of(user).iter();
        let wanted = wanted.filter(|(until, entry)| is_wanted(*until, entry));
        let mut wanted: Vec<_> = wanted.map(|(_, entry)| Arc::clone(entry)).collect();
        wanted.sort_unstable_by_key(|entry| entry.id);
        wanted
    }

    /// Those in force of a tenant, oldest first.
    pub(super) fn of_tenant(
        &self,
        tenant: &Tenant,
        after: Option<RevocationId>,
        max: usize,
        now: Instant,
    ) -> Vec<Arc<RevocationEntry>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let of_tenant = self.by_tenant.get(tenant).into_iter();
        let later = of_tenant.flat_map(|of_tenant| of_tenant.states.range((from, Bound::Unbounded)));
        let in_force = later.filter_map(|(_, kept)| kept.in_force(now));
        in_force.take(max).cloned().collect()
    }

    pub(super) fn check_limits(&self, bounds: &Revocations, revocation: &Revocation) -> Result<(), RevocationLimit> {
        let of_tenant = self.by_tenant.get(&revocation.tenant);
        let of_tenant = of_tenant.map_or(0, |tenant| tenant.in_force);
        if of_tenant >= bounds.per_tenant_max.load(Ordering::Relaxed) {
            return Err(RevocationLimit::Tenant(of_tenant));
        }
        if self.naming(&revocation.subject).len() >= PER_SUBJECT_MAX {
            return Err(RevocationLimit::Subject(PER_SUBJECT_MAX));
        }
        if self.in_force >= bounds.all_max.load(Ordering::Relaxed) {
            return Err(RevocationLimit::All(self.in_force));
        }
        Ok(())
    }

    pub(super) fn revoke(&mut self, entry: &Arc<RevocationEntry>, now: Instant, until: Instant) -> RevocationEffect {
        let (tenant, id) = (&entry.revocation.tenant, entry.id);
        let known = self.by_tenant.get(tenant).and_then(|of| of.states.get(&id));
        let mut effect = RevocationEffect::Begins;
        let mut entry = Arc::clone(entry);
        if let Some(kept) = known {
            let RevocationState::InForce(before) = &kept.state else {
                return RevocationEffect::Restored;
            };
            if kept.until > now {
                effect = RevocationEffect::Continues;
            }
            if kept.until >= until {
                return effect;
            }
            if before.created < entry.created {
                Arc::make_mut(&mut entry).created = before.created;
            }
        }
        self.take(tenant, id);
        self.put(&entry, until);
        effect
    }

    fn put(&mut self, entry: &Arc<RevocationEntry>, until: Instant) {
        let of_tenant = self.by_tenant.entry(entry.revocation.tenant.clone()).or_default();
        let state = RevocationState::InForce(Arc::clone(entry));
        of_tenant.states.insert(entry.id, Kept { state, until });
        of_tenant.in_force += 1;
        self.in_force += 1;
        match &entry.revocation.subject {
            RevocationSubject::User(user) => self.by_user.add(user, until, entry),
            RevocationSubject::Connection(connection) => self.by_connection.add(connection, until, entry),
            RevocationSubject::Token(token) => {
                of_tenant.tokens += 1;
                self.by_token.add(token, until, entry);
            }
        }
    }

    pub(super) fn restore(&mut self, tenant: &Tenant, id: RevocationId, expires: Timestamp, until: Instant) {
        let before = self.take(tenant, id);
        // A revocation that was prolonged meanwhile must not come back from another node's record of that.
        let until = before.map_or(until, |kept| kept.until.max(until));
        let of_tenant = self.by_tenant.entry(tenant.clone()).or_default();
        let state = RevocationState::Restored(expires);
        of_tenant.states.insert(id, Kept { state, until });
    }

    /// Takes a revocation out of everything.
    fn take(&mut self, tenant: &Tenant, id: RevocationId) -> Option<Kept> {
        let of_tenant = self.by_tenant.get_mut(tenant)?;
        let kept = of_tenant.states.remove(&id)?;
        if let RevocationState::InForce(entry) = &kept.state {
            of_tenant.in_force -= 1;
            self.in_force -= 1;
            match &entry.revocation.subject {
                RevocationSubject::User(user) => self.by_user.remove(user, id),
                RevocationSubject::Connection(connection) => self.by_connection.remove(connection, id),
                RevocationSubject::Token(token) => {
                    of_tenant.tokens -= 1;
                    self.by_token.remove(token, id);
                }
            }
        }
        Some(kept)
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        let mut ended = Vec::new();
        for (tenant, of_tenant) in &self.by_tenant {
            let gone = of_tenant.states.iter().filter(|(_, kept)| kept.until <= now);
            ended.extend(gone.map(|(id, _)| (tenant.clone(), *id)));
        }
        for (tenant, id) in ended {
            self.take(&tenant, id);
        }
        self.by_tenant.retain(|_, of_tenant| !of_tenant.states.is_empty());
        self.swept = now;
    }
}
