//! The two times of an event: the wall clock's, and a monotonic one for ages.

#[cfg(test)]
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::event::Timestamp;
use crate::units::millis;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Stamped on events.
    pub wall: Timestamp,
    /// Milliseconds since the bus was created. Ages are measured with it, because it never runs backwards.
    pub ms: u64,
}

/// The source of time.
#[derive(Debug)]
pub(super) enum Clock {
    /// The machine's clocks.
    System(Instant),
    /// A test's clock, in milliseconds.
    #[cfg(test)]
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub(super) fn system() -> Self {
        Self::System(Instant::now())
    }

    pub(super) fn now(&self) -> Now {
        match self {
            Self::System(started) => Now {
                wall: Timestamp::now(),
                ms: millis(started.elapsed()),
            },
            #[cfg(test)]
            Self::Manual(clock) => {
                let ms = clock.load(Ordering::SeqCst);
                Now {
                    wall: Timestamp(ms),
                    ms,
                }
            }
        }
    }
}
