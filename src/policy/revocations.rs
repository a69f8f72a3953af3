//! Revocations: a bounded list that is looked at before any rule.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::{Revocation, RevocationScope};
use crate::identity::UserId;
use crate::room::Room;

/// The most scopes kept for one user; one more makes it all rooms, which errs on the safe side.
const SCOPES_MAX: usize = 64;

/// How often expired ones are looked for, at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The revocations in force.
#[derive(Debug)]
pub(super) struct Revocations {
    entries_max: usize,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    by_user: HashMap<UserId, Vec<Entry>>,
    len: usize,
    swept: Instant,
}

#[derive(Debug)]
struct Entry {
    revocation: Revocation,
    until: Instant,
}

impl Revocations {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries_max: entries_max.max(1),
            inner: RwLock::new(Inner {
                by_user: HashMap::new(),
                len: 0,
                swept: Instant::now(),
            }),
        }
    }

    /// Whether this user is shut out of this room now.
    pub(super) fn cover(&self, user: &UserId, room: &Room) -> bool {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let entries = inner.by_user.get(user).map_or(&[][..], Vec::as_slice);
        entries
            .iter()
            .any(|entry| entry.until > now && entry.revocation.covers(user, room))
    }

    /// Puts a revocation in force until `ttl` has passed.
    pub(super) fn add(&self, revocation: Revocation, ttl: Duration) {
        let now = Instant::now();
        // A century stands for "for good": the clock cannot add more than it can hold.
        let until = now + ttl.min(Duration::from_secs(100 * 365 * 86_400));
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(inner.swept) >= SWEEP_INTERVAL || inner.len >= self.entries_max {
            inner.sweep(now);
        }
        if inner.len >= self.entries_max {
            tracing::warn!(entries_max = self.entries_max, "revocation forgotten, the list is full");
            inner.forget_first();
        }
        inner.add(Entry { revocation, until });
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.read().unwrap().len
    }
}

impl Inner {
    fn add(&mut self, mut entry: Entry) {
        let entries = self.by_user.entry(entry.revocation.user.clone()).or_default();
        let same = |own: &&mut Entry| own.revocation == entry.revocation;
        if let Some(own) = entries.iter_mut().find(same) {
            own.until = own.until.max(entry.until);
            return;
        }
        let tenant = &entry.revocation.tenant;
        let (of_tenant, others): (Vec<_>, Vec<_>) = std::mem::take(entries)
            .into_iter()
            .partition(|own| own.revocation.tenant == *tenant);
        self.len -= of_tenant.len() + others.len();
        *entries = others;
        if of_tenant.len() < SCOPES_MAX {
            entries.extend(of_tenant);
        } else {
            let latest = of_tenant.iter().map(|own| own.until).max();
            entry.until = latest.map_or(entry.until, |latest| latest.max(entry.until));
            entry.revocation.scope = RevocationScope::Everything;
        }
        entries.push(entry);
        self.len += entries.len();
    }

    fn sweep(&mut self, now: Instant) {
        self.by_user.retain(|_, entries| {
            entries.retain(|entry| entry.until > now);
            !entries.is_empty()
        });
        self.len = self.by_user.values().map(Vec::len).sum();
        self.swept = now;
    }

    /// Forgets the one that would end first.
    fn forget_first(&mut self) {
        let first = self
            .by_user
            .iter()
            .flat_map(|(user, entries)| entries.iter().map(move |entry| (entry.until, user)))
            .min_by_key(|(until, _)| *until)
            .map(|(until, user)| (until, user.clone()));
        let Some((until, user)) = first else { return };
        if let Some(entries) = self.by_user.get_mut(&user)
            && let Some(at) = entries.iter().position(|entry| entry.until == until)
        {
            entries.swap_remove(at);
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Tenant;

    fn revocation(user: &str, room: &str) -> Revocation {
        let tenant = Tenant::default();
        Revocation {
            user: UserId::parse(user).unwrap(),
            scope: RevocationScope::Room(Room::parse(&tenant, room).unwrap()),
            tenant,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_stays_within_its_bound_and_forgets_what_ends_first() {
        let list = Revocations::new(3);
        for (user, seconds) in [("a", 30), ("b", 10), ("c", 20), ("d", 40)] {
            list.add(revocation(user, "r"), Duration::from_secs(seconds));
        }
        assert_eq!(list.len(), 3);
        let room = Room::parse(&Tenant::default(), "r").unwrap();
        let covered = ["a", "b", "c", "d"].map(|user| list.cover(&UserId::parse(user).unwrap(), &room));
        assert_eq!(covered, [true, false, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_revocations_are_swept() {
        let list = Revocations::new(1_000);
        for user in 0..500 {
            list.add(revocation(&format!("u{user}"), "r"), Duration::from_secs(1));
        }
        tokio::time::advance(Duration::from_secs(11)).await;
        list.add(revocation("last", "r"), Duration::MAX);
        assert_eq!(list.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn repeating_a_revocation_prolongs_it_and_takes_no_room() {
        let list = Revocations::new(1_000);
        for seconds in [10, 30, 20] {
            list.add(revocation("a", "r"), Duration::from_secs(seconds));
        }
        assert_eq!(list.len(), 1);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(list.cover(
            &UserId::parse("a").unwrap(),
            &Room::parse(&Tenant::default(), "r").unwrap()
        ));
    }

    #[tokio::test]
    async fn many_rooms_of_one_user_become_all_rooms() {
        let list = Revocations::new(1_000);
        for room in 0..=SCOPES_MAX {
            list.add(revocation("a", &format!("r{room}")), Duration::from_secs(60));
        }
        assert_eq!(list.len(), 1);
        let elsewhere = Room::parse(&Tenant::default(), "elsewhere").unwrap();
        assert!(list.cover(&UserId::parse("a").unwrap(), &elsewhere));
    }
}
