//! The subscriptions of the node, counted by service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::task::TaskTracker;

use crate::api::Subscriptions;
use crate::api::status::Refusal;
use crate::sync::lock;

/// Bounds the subscriptions of all callers and of each.
pub(in crate::api) struct Places {
    bounds: Subscriptions,
    taken: Arc<Mutex<Taken>>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_service: HashMap<Arc<str>, usize>,
}

/// One subscription's place. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    service: Arc<str>,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    pub(in crate::api) fn new(bounds: Subscriptions) -> Self {
        Self {
            bounds,
            taken: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Takes a place for a subscription of a service.
    ///
    /// # Errors
    /// [`Refusal::SubscriptionLimit`].
    pub(super) fn take(&self, service: &Arc<str>) -> Result<Place, Refusal> {
        let mut taken = lock(&self.taken);
        if taken.all >= self.bounds.subscriptions_max {
            return Err(Refusal::SubscriptionLimit("the node"));
        }
        let own = taken.by_service.entry(Arc::clone(service)).or_default();
        if *own >= self.bounds.per_service_max {
            return Err(Refusal::SubscriptionLimit("the service"));
        }
        *own += 1;
        taken.all += 1;
        Ok(Place {
            service: Arc::clone(service),
            taken: Arc::clone(&self.taken),
        })
    }

    /// Returns the tracker of the subscriptions' tasks.
    pub(super) const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Returns the count of places that are taken.
    #[cfg(test)]
    pub(in crate::api) fn taken(&self) -> usize {
        let taken = lock(&self.taken);
        assert_eq!(taken.by_service.values().sum::<usize>(), taken.all);
        assert!(taken.by_service.values().all(|own| *own > 0));
        taken.all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(own) = taken.by_service.get_mut(&self.service) {
            *own -= 1;
            if *own == 0 {
                taken.by_service.remove(&self.service);
            }
        }
    }
}
