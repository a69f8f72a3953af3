//! The in-process presence: the whole state where there is one node. With other nodes, also the store of their state:
//! each user's [`Share`] of each node, as the replication enters it.
//!
//! Rooms are spread over stripes, each behind a lock that is never held over an await. Entering and leaving change the
//! room at once. One task ([`MemoryPresence::run`]) coalesces the changes, delivers them to observers, and ends grace
//! periods. A slow observer delays the next round, not the other observers of this one; meanwhile changes coalesce.
//!
//! Details that the contract of [`crate::presence`] leaves open:
//! - **State** belongs to a connection and ends with it: the latest state of a connection that is still there is shown. A
//!   user whose last connection was lost is shown with its state, which the reconnecting connection takes over.
//! - **Queries** ([`Presence::page`], [`Presence::occupancy`], [`Presence::rooms_of`]) return the current state. Observers
//!   see it within [`Config::flush_interval`].
//! - **Versions** are drawn from one sequence of the process, so they are sparse within a room. A reader skips a change
//!   whose version is not above that of its roster.
//! - **Activity** is reported at once, in order per room; a leave after the grace period.

mod attendance;
mod config;
mod room;
mod share;
mod shares;
mod stripe;
#[cfg(test)]
mod tests;
mod users;
mod watched;
mod whereabouts;

use std::fmt;
use std::future::ready;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use share::{Origin, Share, Stated, newer};
pub use shares::NodeShare;
pub use stripe::{Cause, Withdrawal};

use super::{
    Activity, Change, Counts, Departure, Detail, Member, Observer, Occupancy, Presence, Reach, Roster, RosterPage,
    StateTooLarge, UserRooms,
};
use crate::event::Except;
use crate::identity::UserId;
use crate::json::Json;
use crate::room::{Room, Tenant};
use crate::sync::lock;
use crate::units::millis;
use room::RoomPresence;
use stripe::{ObservedChange, PresenceStripes, STRIPES, Stripe};
use whereabouts::{RoomId, UserRoomIndex};

/// Changes for one observer, in order.
type Letters = Vec<(Arc<dyn Observer>, Arc<Change>)>;

/// The in-process presence. The module's documentation has its contract.
pub struct MemoryPresence {
    shared: PresenceStripes,
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
    started: Instant,
    /// Wakes [`Self::run`]: there is a change to deliver or a grace period to end.
    work: Notify,
}

impl MemoryPresence {
    /// Creates a presence without members.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            stripes: (0..STRIPES).map(|number| Mutex::new(Stripe::new(number))).collect(),
            hasher: RandomState::new(),
            started: Instant::now(),
            work: Notify::new(),
            shared: PresenceStripes {
                activity: broadcast::Sender::new(config.activity_capacity.max(1)),
                outgoing: broadcast::Sender::new(config.activity_capacity.max(1)),
                versions: AtomicU64::new(0),
                whereabouts: UserRoomIndex::new(),
                config,
            },
        }
    }

    /// Delivers changes to observers and ends grace periods until `shutdown`. Sleeps while there is nothing to do. Without
    /// it observers receive nothing and lost users stay.
    ///
    /// # Cancel safety
    /// When dropped, a change in flight may have reached only some observers.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let telling = async {
            loop {
                self.work.notified().await;
                // Wait after the wake-up, not before: the interval is what coalesces the changes of many rooms.
                sleep(self.shared.config.flush_interval).await;
                if self.flush().await {
                    self.work.notify_one();
                }
            }
        };
        shutdown.run_until_cancelled(telling).await;
    }

    /// Delivers the changes that are due. Returns whether something is left for later.
    pub(super) async fn flush(&self) -> bool {
        let now_ms = self.now_ms();
        let (mut told, mut more) = (Vec::new(), false);
        for stripe in &self.stripes {
            more |= lock(stripe).flush(&self.shared, now_ms, &mut told);
        }
        // Observers in parallel, the changes of each in order: a slow observer delays only the next round.
        join_all(by_observer(told).into_iter().map(hand_over)).await;
        more
    }

    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    fn stripe(&self, room: &Room) -> MutexGuard<'_, Stripe> {
        let hash = self.hasher.hash_one(room);
        let index = usize::try_from(hash % u64::from(STRIPES)).expect("it is less than the number of stripes");
        lock(&self.stripes[index])
    }

    /// Implements [`Presence::occupancy`] from this node's state alone.
    #[must_use]
    pub fn occupancy_now(&self, room: &Room) -> Occupancy {
        self.read(room, |attended| Occupancy {
            counts: attended.counts(),
            since: attended.occupied_since(),
            partial: false,
        })
    }

    /// Returns the number of this node's connections that an event to the room reaches, except those left out.
    #[must_use]
    pub fn reached_now(&self, room: &Room, except: &Except) -> u32 {
        self.read(room, |attended| attended.reached(except))
    }

    /// Implements [`Presence::page`] from this node's state alone.
    #[must_use]
    pub fn page_now(&self, room: &Room, after: Option<&UserId>, size: usize) -> RosterPage {
        let page = self.read(room, |attended| Some(attended.page(after, size)));
        page.unwrap_or(RosterPage {
            counts: Counts::default(),
            members: Vec::new(),
            next_after: None,
            partial: false,
        })
    }

    fn read<T: Default>(&self, room: &Room, read: impl FnOnce(&RoomPresence) -> T) -> T {
        self.stripe(room).rooms.get(room).map(read).unwrap_or_default()
    }
}

fn by_observer(told: Vec<ObservedChange>) -> Vec<Letters> {
    let mut piles: Vec<(u16, Letters)> = Vec::new();
    for (change, observers) in told {
        for observer in observers {
            let letter = (observer, Arc::clone(&change));
            let id = letter.0.id();
            match piles.iter_mut().find(|(known, _)| *known == id) {
                Some((_, pile)) => pile.push(letter),
                None => piles.push((id, vec![letter])),
            }
        }
    }
    piles.into_iter().map(|(_, pile)| pile).collect()
}

async fn hand_over(letters: Letters) {
    for (observer, change) in letters {
        observer.observe(change).await;
    }
}

impl fmt::Debug for MemoryPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.shared.config;
        f.debug_struct("MemoryPresence")
            .field("config", config)
            .finish_non_exhaustive()
    }
}

impl Presence for MemoryPresence {
    fn enter(&self, room: &Room, member: &Member, state: Option<Json>) -> Result<(), StateTooLarge> {
        let max = self.shared.config.state_bytes_max;
        if state.as_ref().is_some_and(|state| state.bytes().len() > max) {
            return Err(StateTooLarge { max });
        }
        if self.stripe(room).enter(&self.shared, room, member, state) {
            self.work.notify_one();
        }
        Ok(())
    }

    fn leave(&self, room: &Room, member: &Member, departure: Departure) {
        let now_ms = self.now_ms();
        if self.stripe(room).leave(&self.shared, room, member, departure, now_ms) {
            self.work.notify_one();
        }
    }

    fn confirm<'a>(&'a self, _: &'a Room) -> BoxFuture<'a, bool> {
        Box::pin(ready(true))
    }

    fn observe(&self, room: &Room, observer: Arc<dyn Observer>, detail: Detail) -> Roster {
        self.stripe(room).observe(&self.shared, room, observer, detail)
    }

    fn unobserve(&self, room: &Room, observer_id: u16) {
        self.stripe(room).unobserve(room, observer_id);
    }

    fn page<'a>(&'a self, room: &'a Room, after: Option<&'a UserId>, size: usize) -> BoxFuture<'a, RosterPage> {
        Box::pin(async move { self.page_now(room, after, size) })
    }

    fn rooms_of<'a>(&'a self, tenant: &'a Tenant, user: &'a UserId) -> BoxFuture<'a, UserRooms> {
        Box::pin(async move {
            UserRooms {
                rooms: self.find(tenant, user),
                partial: false,
            }
        })
    }

    fn occupancy<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Occupancy> {
        Box::pin(async move { self.occupancy_now(room) })
    }

    fn reach(&self, room: &Room, except: &Except) -> Reach {
        Reach::Known(self.reached_now(room, except))
    }

    fn announce(&self, activity: Activity) {
        self.shared.announce(Cause::Here, || activity.clone());
    }

    fn activity(&self) -> broadcast::Receiver<Activity> {
        self.shared.activity.subscribe()
    }
}
