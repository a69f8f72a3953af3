//! Turns: of one call's concurrent events, those of one room are published one after another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::room::Room;
use crate::sync::lock;

/// Below this many rooms no turn is dropped.
const KEPT_MIN: usize = 256;

/// The turns of one stream, first come first served in every room alike. So two events with several rooms cannot
/// deadlock.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Rooms>);

#[derive(Debug, Default)]
struct Rooms {
    turns: HashMap<Room, Arc<Semaphore>>,
    /// Number of turns left by the last sweep.
    left: usize,
}

impl Turns {
    /// Waits for the turn in all these rooms. The places in the queues are taken when this is first polled.
    pub(super) async fn take(&self, rooms: &[Room]) -> Vec<OwnedSemaphorePermit> {
        let turns = rooms.iter().map(|room| self.of(room).acquire_owned());
        let turns = join_all(turns.collect::<Vec<_>>()).await;
        turns
            .into_iter()
            .map(|turn| turn.expect("turns are never closed"))
            .collect()
    }

    fn of(&self, room: &Room) -> Arc<Semaphore> {
        let mut rooms = lock(&self.0);
        // Doubling between sweeps keeps the cost per event constant, however many rooms are in use.
        if rooms.turns.len() >= KEPT_MIN.max(2 * rooms.left) {
            rooms.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            rooms.left = rooms.turns.len();
        }
        let one = || Arc::new(Semaphore::new(1));
        rooms.turns.entry(room.clone()).or_insert_with(one).clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::room::Tenant;

    fn room(name: &str) -> Room {
        Room::parse(&Tenant::default(), name).unwrap()
    }

    #[tokio::test]
    async fn who_asks_first_goes_first_in_every_room() {
        let turns = Turns::default();
        let (a, b) = (room("a"), room("b"));
        let first = turns.take(std::slice::from_ref(&a)).await;
        let both = [b.clone(), a.clone()];
        let mut second = Box::pin(turns.take(&both));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(turns.take(std::slice::from_ref(&b)));
        assert!(
            third.as_mut().now_or_never().is_none(),
            "`b` is free, but the second asked for it first"
        );
        drop(first);
        drop(second.await);
        third.await;
    }

    #[tokio::test]
    async fn rooms_nobody_waits_for_are_forgotten() {
        let turns = Turns::default();
        for number in 0..10_000 {
            turns.take(&[room(&number.to_string())]).await;
        }
        assert!(turns.0.lock().unwrap().turns.len() <= 2 * KEPT_MIN);
    }
}
