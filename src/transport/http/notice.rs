//! Notices to the operator that a request may cause: bounded in time, so that a flood of requests is no flood of logs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time between two notices of one kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// One kind of notice.
#[derive(Debug, Default)]
pub(super) struct Notice(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    unlogged: u64,
}

impl Notice {
    /// Counts an occurrence. Returns how many there were since the last notice when another one is due.
    pub(super) fn count(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.unlogged += 1;
        if state.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_noticed_once_a_minute_with_its_count() {
        let notice = Notice::default();
        assert_eq!(notice.count(), Some(1));
        for _ in 0..99 {
            assert_eq!(notice.count(), None);
        }
        tokio::time::advance(INTERVAL).await;
        assert_eq!(notice.count(), Some(100));
        assert_eq!(notice.count(), None);
    }
}
