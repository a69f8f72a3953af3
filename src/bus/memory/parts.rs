//! The parts of the in-process bus: its stripes, whose locks order their rooms.

use std::sync::{Arc, MutexGuard};

use futures_util::future::BoxFuture;

use super::stripe::Stripe;
use super::{MemoryBus, STRIPES};
use crate::bus::BusUnavailable;
use crate::bus::parts::{Follower, PartPage, Parts, Place};
use crate::position::Position;
use crate::sync::lock;

impl MemoryBus {
    fn part(&self, part: u16) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[usize::from(part)])
    }
}

impl Parts for MemoryBus {
    fn parts(&self) -> u16 {
        u16::try_from(STRIPES).expect("there are 64 stripes")
    }

    fn follow<'a>(
        &'a self,
        part: u16,
        after: Option<Place>,
        follower: &'a Arc<dyn Follower>,
    ) -> BoxFuture<'a, Result<PartPage, BusUnavailable>> {
        Box::pin(async move { Ok(self.part(part).follow(&self.shared, part, after, follower)) })
    }

    fn followed(&self, part: u16, follower_id: u16) -> Option<Position> {
        let stripe = self.part(part);
        // Under the lock: everything in the stripe through the newest offset was delivered.
        stripe.is_followed_by(follower_id).then(|| Position {
            epoch: self.shared.epoch,
            offset: self.shared.newest(),
        })
    }

    fn unfollow(&self, follower_id: u16) {
        for part in 0..self.parts() {
            self.part(part).unfollow(follower_id);
        }
    }
}
