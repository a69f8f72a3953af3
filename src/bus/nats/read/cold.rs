//! Single-flight reads of rooms from the stream: concurrent callers with the same request share one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::ColdRead;
use crate::bus::nats::gate::SingleFlight;
use crate::position::Offset;
use crate::room::Room;
use crate::sync::lock;

/// A room, and the position after which it is read.
type Request = (Room, Option<u64>);

/// The running reads of rooms from the stream, by request.
#[derive(Debug, Default)]
pub(in crate::bus::nats) struct ColdReads(Mutex<HashMap<Request, Arc<SingleFlight<ColdRead>>>>);

impl ColdReads {
    /// Returns the result of a read that begins after this call, and is shared with every caller of the same request.
    pub(super) async fn share(
        &self,
        room: &Room,
        since: Option<Offset>,
        read: impl AsyncFnOnce() -> ColdRead,
    ) -> ColdRead {
        let key = (room.clone(), since.map(|since| since.0));
        let gate = Arc::clone(lock(&self.0).entry(key.clone()).or_default());
        let read = gate.pass(read).await;
        let mut running = lock(&self.0);
        // Two references are the map's and this call's: no other caller waits.
        if running.get(&key).is_some_and(|known| Arc::ptr_eq(known, &gate))
            && Arc::<SingleFlight<_>>::strong_count(&gate) <= 2
        {
            running.remove(&key);
        }
        read
    }
}
