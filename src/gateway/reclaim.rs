//! Returns memory to the kernel after a wave of clients has left.
//!
//! A client's memory is free then, but lies between allocations still in use. glibc returns by itself only the end of its
//! heap: after 15,000 connections had left, 31 of 31 MB stayed resident, and 20 after this (decision 3). With another C
//! library this does nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admission::Admission;

/// Interval at which the number of connections is checked. Memory that waits some seconds longer costs nothing.
const LOOK: Duration = Duration::from_secs(5);

/// The fewest departed connections that are worth a walk through the heap: about 1 MB.
const LEFT_MIN: usize = 1024;

/// Number of consecutive checks after a wave that return memory: users are shown for a while after their connections are
/// lost, and only then is the wave's memory free.
const TIMES: u32 = 6;

/// Watches the connections until `stop`.
///
/// # Cancel safety
/// Nothing is lost when the future is dropped.
pub(super) async fn run(admission: Arc<Admission>, stop: CancellationToken) {
    let watching = async {
        let mut wave = Wave::default();
        loop {
            tokio::time::sleep(LOOK).await;
            if wave.has_passed(admission.connections()) {
                // Not on this thread: going through a large heap takes milliseconds.
                let given_back = tokio::task::spawn_blocking(give_back).await;
                tracing::debug!(
                    given_back = given_back.is_ok_and(|given| given),
                    "unused memory returned"
                );
            }
        }
    };
    stop.run_until_cancelled(watching).await;
}

/// Detects departures large enough to be worth a walk through the heap.
#[derive(Debug, Default)]
struct Wave {
    /// The most connections since memory was last returned.
    peak: usize,
    times: u32,
}

impl Wave {
    /// Records the count of one check. Returns whether memory should be returned.
    fn has_passed(&mut self, connections: usize) -> bool {
        self.peak = self.peak.max(connections);
        if self.peak - connections >= LEFT_MIN.max(self.peak / 4) {
            (self.peak, self.times) = (connections, TIMES);
        }
        let due = self.times > 0;
        self.times = self.times.saturating_sub(1);
        due
    }
}

/// Returns whether the C library returned anything.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() -> bool {
    #[expect(unsafe_code, reason = "the only call of C of this crate; glibc has no other way")]
    // SAFETY: `malloc_trim` (glibc, malloc.h) takes a number, may be called by any thread at any time, and changes nothing
    // that a program can see but its resident memory.
    let given = unsafe { libc::malloc_trim(0) };
    given == 1
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
const fn give_back() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(counts: &[usize]) -> Vec<bool> {
        let mut wave = Wave::default();
        counts.iter().map(|connections| wave.has_passed(*connections)).collect()
    }

    #[test]
    fn a_wave_that_has_left_is_followed_for_some_looks() {
        let mut counts = vec![15_000, 15_000, 20];
        counts.resize(3 + TIMES as usize, 20);
        let given = looks(&counts);
        assert_eq!(given.iter().filter(|given| **given).count(), TIMES as usize);
        assert_eq!(given[..3], [false, false, true]);
        assert!(!given[given.len() - 1]);
    }

    #[test]
    fn the_usual_coming_and_going_is_no_wave() {
        assert!(looks(&[100_000, 80_000, 99_000, 76_000]).iter().all(|given| !given));
        assert!(looks(&[1000, 0]).iter().all(|given| !given));
    }
}
