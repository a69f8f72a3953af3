//! The register of revocations: those in force, looked at before any rule, and those that were taken back.
//!
//! What it is told may come in any order and any number of times: a revocation that was taken back stays taken back until it
//! would have ended by itself, and of two ends of one revocation the later one counts. So registers of nodes that were told
//! the same say the same. It never forgets what is in force: whoever makes a revocation asks [`Revocations::check_limits`].

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::revocation::{Bearer, Revocation, RevocationEntry, RevocationId, RevocationSubject, TokenFacts, TokenId};
use crate::event::Timestamp;
use crate::identity::{ConnectionId, UserId};
use crate::room::{Room, Tenant};

/// How often ended ones are looked for, at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The most revocations in force that name one user, one connection or one token: each permission asked for walks through
/// them.
const PER_SUBJECT_MAX: usize = 1_000;

/// No more revocations may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationLimit {
    /// The tenant has as many as it may have.
    #[error("the tenant has {0} revocations in force, as many as it may have")]
    Tenant(usize),
    /// The user, connection or token has as many as it may have.
    #[error("{0} revocations of this user, connection or token are in force, as many as there may be: use a pattern")]
    Subject(usize),
    /// The deployment has as many as it may have.
    #[error("{0} revocations are in force, as many as there may be")]
    All(usize),
}

/// What it comes to that a register is told of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationEffect {
    /// It is in force from here on.
    Begins,
    /// It was in force already.
    Continues,
    /// None: it was taken back.
    Restored,
}

/// What is known of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationState {
    /// It is in force.
    InForce(Arc<RevocationEntry>),
    /// It was taken back, and would have ended then.
    Restored(Timestamp),
}

/// The revocations of all tenants.
#[derive(Debug)]
pub struct Revocations {
    all_max: usize,
    per_tenant_max: usize,
    /// How many are in force; most of the time none, and then nothing else is looked at.
    in_force: AtomicUsize,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    by_tenant: HashMap<Tenant, OfTenant>,
    by_user: Index<UserId>,
    by_connection: Index<ConnectionId>,
    by_token: Index<TokenId>,
    in_force: usize,
    swept: Instant,
}

/// Those of one tenant.
#[derive(Debug, Default)]
struct OfTenant {
    states: BTreeMap<RevocationId, Kept>,
    in_force: usize,
    /// Of which so many name a token: claims are read only where there is one.
    tokens: usize,
}

#[derive(Debug)]
struct Kept {
    state: RevocationState,
    until: Instant,
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
struct Index<K>(HashMap<K, Vec<(Instant, Arc<RevocationEntry>)>>);

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

    fn of(&self, key: &K) -> &[(Instant, Arc<RevocationEntry>)] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

impl Revocations {
    pub(super) fn new(all_max: usize, per_tenant_max: usize) -> Self {
        Self {
            all_max,
            per_tenant_max,
            in_force: AtomicUsize::new(0),
            inner: RwLock::new(Inner {
                by_tenant: HashMap::new(),
                by_user: Index(HashMap::new()),
                by_connection: Index(HashMap::new()),
                by_token: Index(HashMap::new()),
                in_force: 0,
                swept: Instant::now(),
            }),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revocation that keeps this session out of this room now, if one does.
    #[must_use]
    pub fn covering(&self, bearer: Bearer<'_>, room: &Room) -> Option<RevocationId> {
        if self.in_force.load(Ordering::Acquire) == 0 {
            return None;
        }
        let (inner, now, facts) = (self.read(), Instant::now(), TokenFacts::of(bearer.identity));
        let covers = |(until, entry): &&(Instant, Arc<RevocationEntry>)| {
            *until > now && entry.revocation.covers_known(bearer, &facts, room)
        };
        let of_user = inner.by_user.of(&bearer.identity.user).iter().find(covers);
        let of_connection = || inner.by_connection.of(&bearer.connection).iter().find(covers);
        let of_token = || {
            let tenant = inner.by_tenant.get(&bearer.identity.tenant)?;
            let id = (tenant.tokens > 0).then(|| facts.id()).flatten()?;
            inner.by_token.of(&id).iter().find(covers)
        };
        let found = of_user.or_else(of_connection).or_else(of_token);
        found.map(|(_, entry)| entry.id)
    }

    /// Puts a revocation in force until `left` has passed. One that is in force already is prolonged, never shortened; one
    /// that was taken back stays so.
    pub(super) fn revoke(&self, entry: &Arc<RevocationEntry>, left: Duration) -> RevocationEffect {
        let now = Instant::now();
        self.change(now, |inner| inner.revoke(entry, now, end(now, left)))
    }

    /// Takes a revocation back, known or not, for as long as `left`; it would have ended at `expires`.
    pub(super) fn restore(&self, tenant: &Tenant, id: RevocationId, expires: Timestamp, left: Duration) {
        let now = Instant::now();
        self.change(now, |inner| inner.restore(tenant, id, expires, end(now, left)));
    }

    fn change<T>(&self, now: Instant, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(inner.swept) >= SWEEP_INTERVAL {
            inner.sweep(now);
        }
        let outcome = change(&mut inner);
        self.in_force.store(inner.in_force, Ordering::Release);
        outcome
    }

    /// Refuses where one more would be too many.
    ///
    /// # Errors
    /// Every variant of [`RevocationLimit`].
    pub fn check_limits(&self, revocation: &Revocation) -> Result<(), RevocationLimit> {
        if self.read().check_limits(self, revocation).is_ok() {
            return Ok(());
        }
        // Ended ones are still counted.
        let now = Instant::now();
        self.change(now, |inner| inner.sweep(now));
        self.read().check_limits(self, revocation)
    }

    /// What is known of a revocation; `None` also when it has ended by itself.
    #[must_use]
    pub fn find(&self, tenant: &Tenant, id: RevocationId) -> Option<RevocationState> {
        let inner = self.read();
        let kept = inner.by_tenant.get(tenant)?.states.get(&id)?;
        (kept.until > Instant::now()).then(|| kept.state.clone())
    }

    /// The one in force that says the same, if there is one.
    #[must_use]
    pub fn equal(&self, revocation: &Revocation) -> Option<Arc<RevocationEntry>> {
        let (inner, now) = (self.read(), Instant::now());
        let entries = inner.naming(&revocation.subject);
        let is_equal =
            |(until, entry): &&(Instant, Arc<RevocationEntry>)| *until > now && entry.revocation == *revocation;
        entries.iter().find(is_equal).map(|(_, entry)| Arc::clone(entry))
    }

    /// Those of a tenant in force, at most `max` after `after`, oldest first; and whether more follow. With `user`, those
    /// that name this user.
    #[must_use]
    pub fn page(
        &self,
        tenant: &Tenant,
        user: Option<&UserId>,
        after: Option<RevocationId>,
        max: usize,
    ) -> (Vec<Arc<RevocationEntry>>, bool) {
        let (inner, now) = (self.read(), Instant::now());
        let mut page = match user {
            Some(user) => inner.naming_user(tenant, user, after, now),
            None => inner.of_tenant(tenant, after, max.saturating_add(1), now),
        };
        let more = page.len() > max;
        page.truncate(max);
        (page, more)
    }

    /// Everything that is known and has not ended.
    #[must_use]
    pub fn all(&self) -> Vec<(Tenant, RevocationId, RevocationState)> {
        let (inner, now) = (self.read(), Instant::now());
        let mut all = Vec::new();
        for (tenant, of_tenant) in &inner.by_tenant {
            let kept = of_tenant.states.iter().filter(|(_, kept)| kept.until > now);
            all.extend(kept.map(|(id, kept)| (tenant.clone(), *id, kept.state.clone())));
        }
        all
    }
}

impl Inner {
    /// Those in force that name the same, of all tenants.
    fn naming(&self, subject: &RevocationSubject) -> &[(Instant, Arc<RevocationEntry>)] {
        match subject {
            RevocationSubject::User(user) => self.by_user.of(user),
            RevocationSubject::Connection(connection) => self.by_connection.of(connection),
            RevocationSubject::Token(token) => self.by_token.of(token),
        }
    }

    /// Those in force of a tenant that name a user, oldest first.
    fn naming_user(
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
    fn of_tenant(
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

    fn check_limits(&self, bounds: &Revocations, revocation: &Revocation) -> Result<(), RevocationLimit> {
        let of_tenant = self.by_tenant.get(&revocation.tenant);
        let of_tenant = of_tenant.map_or(0, |tenant| tenant.in_force);
        if of_tenant >= bounds.per_tenant_max {
            return Err(RevocationLimit::Tenant(of_tenant));
        }
        if self.naming(&revocation.subject).len() >= PER_SUBJECT_MAX {
            return Err(RevocationLimit::Subject(PER_SUBJECT_MAX));
        }
        if self.in_force >= bounds.all_max {
            return Err(RevocationLimit::All(self.in_force));
        }
        Ok(())
    }

    fn revoke(&mut self, entry: &Arc<RevocationEntry>, now: Instant, until: Instant) -> RevocationEffect {
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

    fn restore(&mut self, tenant: &Tenant, id: RevocationId, expires: Timestamp, until: Instant) {
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

    fn sweep(&mut self, now: Instant) {
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

/// When `left` has passed. A century stands for "for good": the clock cannot add more than it can hold.
fn end(now: Instant, left: Duration) -> Instant {
    now + left.min(Duration::from_secs(100 * 365 * 86_400))
}

#[cfg(test)]
mod tests;
