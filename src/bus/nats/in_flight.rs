//! Back-pressure: bounds on events in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bound on events in flight, enforced by permits.
#[derive(Debug)]
pub(super) struct InFlight {
    free: Arc<Semaphore>,
    max: usize,
}

impl InFlight {
    /// Creates a bound of at least 1.
    pub(super) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// Takes permits for so many events, or for as many as there are at all.
    pub(super) async fn take(&self, events: usize) -> Option<OwnedSemaphorePermit> {
        let events = u32::try_from(events.min(self.max)).ok()?;
        Arc::clone(&self.free).acquire_many_owned(events).await.ok()
    }

    /// Takes a permit for one event, if one is available now.
    pub(super) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Returns the number of permits in use.
    pub(super) fn taken(&self) -> usize {
        self.max.saturating_sub(self.free.available_permits())
    }
}
