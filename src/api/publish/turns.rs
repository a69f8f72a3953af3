//! Whose turn it is: of the events of one stream that are on the way at once, those of one room go one after another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::room::Room;

/// Above this many rooms those nobody waits for are forgotten.
const KEPT_MAX: usize = 256;

/// The turns of one stream. Whoever asks first goes first, in every room alike, so that two events with several rooms
/// cannot wait for each other.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Room, Arc<Semaphore>>>);

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
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.len() >= KEPT_MAX {
            rooms.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        let one = || Arc::new(Semaphore::new(1));
        rooms.entry(room.clone()).or_insert_with(one).clone()
    }
}
