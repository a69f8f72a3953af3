//! Presence of many nodes over NATS, without a database: each node owns what its own connections make of it, tells the
//! others, and shows what all living nodes have.
//!
//! What is shown is a [`MemoryPresence`]: observers, grace periods and counts are its. What other nodes have of a user in
//! a room is entered there as their share.
//!
//! - A node **follows** the rooms it has connections or observers in, and a little longer. Others are told nothing of
//!   rooms they do not follow.
//! - An **update** says what a node now has of users, with a version and the one it builds on. A gap is noticed and the
//!   node is asked for all of its part of the room. A second after a change, and then every 15 to 20 s, a node says where
//!   it stands (version, number, digest), so that a lost last word is found, too.
//! - Who starts to follow a room **asks all** who follow it; whatever comes is merged as it comes.
//! - A **census** makes sure that a room is known completely: every node that lives is asked, and answers behind all it has
//!   to tell. A roster waits for it, at most [`CONFIRM_WITHIN`]; it is partial when a node did not answer. From such a node
//!   what comes next is told as present and not as joined, until it has answered a later census. The same goes for one that
//!   lived unheard when the room was counted. One exception: a user whose only connections are on such a node, and who comes on
//!   another one as well, is told as joined.
//! - A **node that has ended** takes its connections with it: each other node sees that by itself. They are lost, not
//!   left, at the time it was last heard; with the usual grace period of 5 s they are gone 5 s after it ended.
//! - A node that **was stopped or cut off** says and asks everything anew. What others gave up comes back with it.
//!
//! # What is different from one node
//! - [`Presence::page`] and [`Presence::occupancy`] take a census, too, or ask a node that has members in the room to take
//!   one; [`Presence::rooms_of`] asks every node. What was not answered within [`CONFIRM_WITHIN`] makes them partial.
//! - [`Presence::reach`] asks every node how many connections it serves. A node that has not answered in time makes the
//!   number unknown, and is not waited for again before it has.
//! - A node that was given up without a goodbye may only be stopped or cut off. Until its lease has ended the number is
//!   unknown, and rosters, pages and counts are partial; nobody waits for it. Its members are shown as gone meanwhile.
//! - Changes of other nodes are late as messages between nodes are.
//! - Activity is told at most once: what happened on other nodes comes over NATS, and is lost when a message is. When a
//!   node ends without a word, watchers are told who left of the rooms that their own node follows.
//! - A user that comes back within its grace period, but on a node that did not follow the room, comes with a new time
//!   and without its state. One that comes back on two nodes at once has it on both until each has set its own.
//! - All who follow a room know all of its members, however many. Only clients are told of large rooms in counts.

mod answers;
mod book;
mod driver;
mod news;
mod other;
mod query;
mod reach;
mod replica;
#[cfg(test)]
mod sim;
mod site;
#[cfg(test)]
mod tests;
mod touched;
mod update;
mod wire;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::driver::Driver;
use self::reach::Reaching;
use self::replica::Rhythm;
use self::site::Site;
use self::touched::Touched;
use super::memory::{Config, MemoryPresence};
use super::{
    Activity, CONFIRM_WITHIN, Departure, Detail, Member, Observer, Occupancy, Presence, Reach, Roster, RosterPage,
    StateTooLarge, UserRooms,
};
use crate::event::Except;
use crate::identity::UserId;
use crate::json::Json;
use crate::nats::nodes::Nodes;
use crate::nats::{Nats, NatsError};
use crate::room::{Room, Tenant};

/// How long the last words may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// When nodes tell and ask each other.
const RHYTHM: Rhythm = Rhythm {
    confirm_after: Duration::from_secs(1),
    stand_interval: Duration::from_secs(20),
    ask_again_after: Duration::from_millis(500),
    silence_max: Duration::from_secs(60),
    settle_after: Duration::from_millis(200),
    linger: Duration::from_secs(6),
    unknown_max: Duration::from_secs(5),
    ended_max: Duration::from_secs(600),
    recheck_after: Duration::from_millis(300),
};

/// Presence of a deployment. See the module's documentation for what it promises.
#[derive(Debug)]
pub struct NatsPresence {
    memory: Arc<MemoryPresence>,
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    shared: Arc<Shared>,
    reaching: Arc<Reaching>,
    goodbyes: mpsc::Sender<oneshot::Sender<()>>,
}

/// What the driver and the callers of the port share.
#[derive(Debug, Default)]
struct Shared {
    touched: Arc<Touched>,
    /// Something was touched.
    work: Notify,
    /// Somebody has begun to watch.
    watched: Notify,
    /// Rooms that are waited for until they are known completely.
    confirming: Mutex<Vec<Confirming>>,
    /// There are some.
    asked: Notify,
    /// The followed rooms whose subscription is in effect.
    followed: Mutex<HashSet<Room>>,
}

/// A room, and who is told whether it is known completely.
type Confirming = (Room, oneshot::Sender<bool>);

impl Shared {
    fn touch(&self, room: &Room, user: Option<(&UserId, Departure)>) {
        self.touched.add(room, user);
        self.work.notify_one();
    }

    fn confirm(&self, room: &Room) -> oneshot::Receiver<bool> {
        let (told, answer) = oneshot::channel();
        self.confirming().push((room.clone(), told));
        self.asked.notify_one();
        answer
    }

    fn take_confirming(&self) -> Vec<Confirming> {
        std::mem::take(&mut *self.confirming())
    }

    fn confirming(&self) -> MutexGuard<'_, Vec<Confirming>> {
        self.confirming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follows(&self, room: &Room) -> bool {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.contains(room)
    }

    fn set_followed(&self, room: &Room, is_followed: bool) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if is_followed {
            followed.insert(room.clone());
        } else {
            followed.remove(room);
        }
    }
}

impl NatsPresence {
    /// Starts to speak with the other nodes, until `stop`.
    ///
    /// # Errors
    /// [`NatsError::Permission`] when a subscription is refused at once.
    pub async fn start(
        nats: Arc<Nats>,
        nodes: Arc<Nodes>,
        config: Config,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, NatsError> {
        let rhythm = Rhythm {
            linger: config.leave_grace + Duration::from_secs(1),
            ..RHYTHM
        };
        let memory = Arc::new(MemoryPresence::new(config));
        let shared = Arc::new(Shared::default());
        let site = Site::new(
            Arc::clone(&memory),
            Arc::clone(&shared.touched),
            nodes.own().incarnation,
            rhythm,
        );
        let (goodbyes, said) = mpsc::channel(1);
        let parts = (Arc::clone(&nats), Arc::clone(&nodes), Arc::clone(&memory));
        let driver = Driver::listen(parts, Arc::clone(&shared), site, config.flush_interval).await?;
        tasks.spawn(Arc::clone(&memory).run(stop.clone()));
        tasks.spawn(driver.run(said, stop.clone()));
        let reaching = Reaching::new(Arc::clone(&nats), Arc::clone(&nodes), Arc::clone(&memory));
        let reaching = Arc::new(reaching);
        let listening = reaching.listen().await?;
        tasks.spawn(Arc::clone(&reaching).run(listening, stop));
        Ok(Arc::new(Self {
            memory,
            nats,
            nodes,
            shared,
            reaching,
            goodbyes,
        }))
    }

    /// Tells the others everything that happened here until now, before this node ends. Returns when it is with NATS, or
    /// cannot be for 2 s.
    pub async fn leave_all(&self) {
        let (told, done) = oneshot::channel();
        let telling = async {
            if self.goodbyes.send(told).await.is_ok() {
                // The driver has ended otherwise, and has told it then.
                done.await.ok();
            }
        };
        if timeout(GOODBYE_WITHIN, telling).await.is_err() {
            tracing::warn!("last presence changes not published");
        }
    }
}

impl Presence for NatsPresence {
    fn enter(&self, room: &Room, member: &Member, state: Option<Json>) -> Result<(), StateTooLarge> {
        self.memory.enter(room, member, state)?;
        self.shared.touch(room, Some((&member.user, Departure::Lost)));
        Ok(())
    }

    fn leave(&self, room: &Room, member: &Member, departure: Departure) {
        self.memory.leave(room, member, departure);
        self.shared.touch(room, Some((&member.user, departure)));
    }

    fn confirm<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            if self.nodes.is_alone() {
                return true;
            }
            let confirmed = timeout(CONFIRM_WITHIN, self.shared.confirm(room)).await;
            // The census asks those that live. One that was given up may only be stopped, with its connections open.
            matches!(confirmed, Ok(Ok(true))) && self.nodes.hears_all()
        })
    }

    fn observe(&self, room: &Room, observer: Arc<dyn Observer>, detail: Detail) -> Roster {
        let roster = self.memory.observe(room, observer, detail);
        self.shared.touch(room, None);
        roster
    }

    fn unobserve(&self, room: &Room, observer_id: u16) {
        self.memory.unobserve(room, observer_id);
        self.shared.touch(room, None);
    }

    fn page<'a>(&'a self, room: &'a Room, after: Option<&'a UserId>, size: usize) -> BoxFuture<'a, RosterPage> {
        Box::pin(async move {
            if !self.shared.follows(room) {
                return self.ask_page(room, after, size).await.0;
            }
            let partial = !self.confirm(room).await;
            RosterPage {
                partial,
                ..self.memory.page_now(room, after, size)
            }
        })
    }

    fn rooms_of<'a>(&'a self, tenant: &'a Tenant, user: &'a UserId) -> BoxFuture<'a, UserRooms> {
        Box::pin(self.ask_places(tenant, user))
    }

    fn occupancy<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Occupancy> {
        Box::pin(async move {
            if !self.shared.follows(room) {
                let (page, since) = self.ask_page(room, None, 0).await;
                return Occupancy {
                    counts: page.counts,
                    since,
                    partial: page.partial,
                };
            }
            let partial = !self.confirm(room).await;
            Occupancy {
                partial,
                ..self.memory.occupancy_now(room)
            }
        })
    }

    fn reach(&self, room: &Room, except: &Except) -> Reach {
        self.reaching.reach(room, except)
    }

    fn announce(&self, activity: Activity) {
        self.memory.announce(activity);
    }

    fn activity(&self) -> broadcast::Receiver<Activity> {
        let activity = self.memory.activity();
        self.shared.watched.notify_one();
        activity
    }
}
