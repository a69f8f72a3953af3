//! Locks of this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, poisoned or not. No code under a lock calls out or waits, so a panic there is a defect; what it leaves behind is
/// served on with, because a node that refused every later call would be worse.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
