//! The register of revocations: those in force, looked at before any rule, and those that were taken back.
//!
//! What it is told may come in any order and any number of times: a revocation that was taken back stays taken back until it
//! would have ended by itself, and of two ends of one revocation the later one counts. So registers of nodes that were told
//! the same say the same. It never forgets what is in force: whoever makes a revocation asks [`Revocations::check_limits`].

mod register;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::time::Instant;

use self::register::Register;
use super::revocation::{Bearer, Revocation, RevocationEntry, RevocationId, TokenFacts};
use crate::event::Timestamp;
use crate::identity::UserId;
use crate::room::{Room, Tenant};

/// The least interval between two searches for ended ones: a search takes the write lock.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

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

/// The effect of a revocation on a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationEffect {
    /// It is in force from here on.
    Begins,
    /// It was in force already.
    Continues,
    /// None: it was taken back.
    Restored,
}

/// The state of a revocation.
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
    all_max: AtomicUsize,
    per_tenant_max: AtomicUsize,
    /// The number in force: mostly none, and then nothing else is read.
    in_force: AtomicUsize,
    register: RwLock<Register>,
}

impl Revocations {
    pub(super) fn new(all_max: usize, per_tenant_max: usize) -> Self {
        Self {
            all_max: AtomicUsize::new(all_max),
            per_tenant_max: AtomicUsize::new(per_tenant_max),
            in_force: AtomicUsize::new(0),
            register: RwLock::new(Register::default()),
        }
    }

    /// Replaces the limits. Lower ones hold for the next revocation and end none.
    pub(super) fn limit(&self, all_max: usize, per_tenant_max: usize) {
        self.all_max.store(all_max, Ordering::Relaxed);
        self.per_tenant_max.store(per_tenant_max, Ordering::Relaxed);
    }

    fn read(&self) -> RwLockReadGuard<'_, Register> {
        self.register.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revocation that keeps this session out of this room now, if one does.
    #[must_use]
    pub fn covering(&self, bearer: Bearer<'_>, room: &Room) -> Option<RevocationId> {
        if self.in_force.load(Ordering::Acquire) == 0 {
            return None;
        }
        let (register, now, facts) = (self.read(), Instant::now(), TokenFacts::of(bearer.identity));
        let covers = |(until, entry): &&(Instant, Arc<RevocationEntry>)| {
            *until > now && entry.revocation.covers_known(bearer, &facts, room)
        };
        let of_user = register.by_user.of(&bearer.identity.user).iter().find(covers);
        let of_connection = || register.by_connection.of(&bearer.connection).iter().find(covers);
        let of_token = || {
            let tenant = register.by_tenant.get(&bearer.identity.tenant)?;
            let id = (tenant.tokens > 0).then(|| facts.id()).flatten()?;
            register.by_token.of(&id).iter().find(covers)
        };
        let found = of_user.or_else(of_connection).or_else(of_token);
        found.map(|(_, entry)| entry.id)
    }

    /// Puts a revocation in force until `left` has passed. One that is in force already is prolonged, never shortened; one
    /// that was taken back stays so.
    pub(super) fn revoke(&self, entry: &Arc<RevocationEntry>, left: Duration) -> RevocationEffect {
        let now = Instant::now();
        self.change(now, |register| register.revoke(entry, now, end(now, left)))
    }

    /// Takes a revocation back, known or not, for as long as `left`; it would have ended at `expires`.
    pub(super) fn restore(&self, tenant: &Tenant, id: RevocationId, expires: Timestamp, left: Duration) {
        let now = Instant::now();
        self.change(now, |register| register.restore(tenant, id, expires, end(now, left)));
    }

    fn change<T>(&self, now: Instant, change: impl FnOnce(&mut Register) -> T) -> T {
        let mut register = self.register.write().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(register.swept) >= SWEEP_INTERVAL {
            register.sweep(now);
        }
        let outcome = change(&mut register);
        self.in_force.store(register.in_force, Ordering::Release);
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
        self.change(now, |register| register.sweep(now));
        self.read().check_limits(self, revocation)
    }

    /// Returns the state of a revocation; `None` also when it has ended by itself.
    #[must_use]
    pub fn find(&self, tenant: &Tenant, id: RevocationId) -> Option<RevocationState> {
        let register = self.read();
        let kept = register.by_tenant.get(tenant)?.states.get(&id)?;
        (kept.until > Instant::now()).then(|| kept.state.clone())
    }

    /// The one in force that says the same, if there is one.
    #[must_use]
    pub fn equal(&self, revocation: &Revocation) -> Option<Arc<RevocationEntry>> {
        let (register, now) = (self.read(), Instant::now());
        let entries = register.naming(&revocation.subject);
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
        let (register, now) = (self.read(), Instant::now());
        let mut page = match user {
            Some(user) => register.naming_user(tenant, user, after, now),
            None => register.of_tenant(tenant, after, max.saturating_add(1), now),
        };
        let more = page.len() > max;
        page.truncate(max);
        (page, more)
    }

    /// Everything that is known and has not ended.
    #[must_use]
    pub fn all(&self) -> Vec<(Tenant, RevocationId, RevocationState)> {
        let (register, now) = (self.read(), Instant::now());
        let mut all = Vec::new();
        for (tenant, of_tenant) in &register.by_tenant {
            let kept = of_tenant.states.iter().filter(|(_, kept)| kept.until > now);
            all.extend(kept.map(|(id, kept)| (tenant.clone(), *id, kept.state.clone())));
        }
        all
    }
}

/// Returns the time at which `left` has passed. A century stands for "for good": the clock cannot add more than it can hold.
fn end(now: Instant, left: Duration) -> Instant {
    now + left.min(Duration::from_secs(100 * 365 * 86_400))
}

#[cfg(test)]
mod tests;
