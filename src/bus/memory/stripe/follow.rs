//! Followers of rooms by a pattern: subscribers of every room of the stripe that matches. A room that comes into memory
//! finds them in the stripe's list; an event costs what another subscriber of its room costs.

use std::sync::Arc;

use super::super::log::RoomLog;
use super::super::shared::MemoryBusInner;
use super::Stripe;
use crate::bus::parts::{Follower, PartPage, Place};
use crate::bus::{Delivery, ReadBounds, Subscriber};
use crate::event::Event;
use crate::position::{Offset, Position};
use crate::room::Room;

/// The histories' own limits bound a page: it holds no events, only pointers to what is kept.
const EVERYTHING: ReadBounds = ReadBounds {
    events_max: usize::MAX,
    bytes_max: usize::MAX,
};

/// A follower as a subscriber of the stripe's rooms.
pub(super) struct StripeFollower {
    stripe: u16,
    follower: Arc<dyn Follower>,
}

impl StripeFollower {
    pub(super) fn follows(&self, room: &Room) -> bool {
        self.follower.rooms().contains(room)
    }
}

impl Subscriber for StripeFollower {
    fn id(&self) -> u16 {
        self.follower.id()
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.follower.deliver(self.stripe, Arc::clone(&delivery.event));
    }

    // Continuity never breaks in this bus.
    fn reset(&self, _: Room, _: Position) {}

    // Otherwise no room that matches would ever leave memory.
    fn holds_room(&self) -> bool {
        false
    }
}

impl Stripe {
    /// Reads what follows a position, and attaches the follower to every room that matches, in one step.
    pub(in crate::bus::memory) fn follow(
        &mut self,
        shared: &MemoryBusInner,
        stripe: u16,
        after: Option<Place>,
        follower: &Arc<dyn Follower>,
    ) -> PartPage {
        let now_ms = shared.clock.now().ms;
        self.unfollow(follower.id());
        let own = Arc::new(StripeFollower {
            stripe,
            follower: Arc::clone(follower),
        });
        let epoch = shared.epoch;
        // Read under the lock: everything in the stripe lies at or before it, and what follows lies after.
        let newest = shared.newest();
        let known = |after: Position| after.epoch == epoch && after.offset <= newest;
        let since = after.map(|after| after.position).filter(|after| known(*after));
        let since = since.map(|since| since.offset);
        let mut page = PartPage {
            events: Vec::new(),
            through: Place::at(Position { epoch, offset: newest }),
            restarts: Vec::new(),
            // A room whose history has expired is known by a hash alone.
            partial: since.map_or(after.is_some(), |since| self.heads.newest() > since),
            attached: true,
        };
        for (room, live) in self.rooms.iter_mut().filter(|(room, _)| own.follows(room)) {
            if let Some(since) = since {
                live.expire(shared, now_ms);
                match missed(&live.log, since) {
                    Some(events) => page.events.extend(events),
                    None => page.restarts.push((room.clone(), shared.stands_at(live.log.head()))),
                }
            }
            live.subscribe(Arc::clone(&own) as Arc<dyn Subscriber>);
        }
        page.events.sort_unstable_by_key(|event| event.offset());
        self.followers.push(own);
        page
    }

    /// Reports whether the follower is attached.
    pub(in crate::bus::memory) fn is_followed_by(&self, follower_id: u16) -> bool {
        self.followers.iter().any(|own| own.id() == follower_id)
    }

    pub(in crate::bus::memory) fn unfollow(&mut self, follower_id: u16) {
        if !self.is_followed_by(follower_id) {
            return;
        }
        self.followers.retain(|own| own.id() != follower_id);
        for live in self.rooms.values_mut() {
            live.drop_subscriber(follower_id);
        }
    }
}

/// Returns everything after an offset; `None` when some of it is lost.
fn missed(log: &RoomLog, since: Offset) -> Option<Vec<Arc<Event>>> {
    if log.head().bound() <= since {
        return Some(Vec::new());
    }
    log.since(since, EVERYTHING)
}
