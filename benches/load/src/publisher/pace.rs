//! The schedule of events.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{Burst, Counts};
use crate::crowd::Progress;

/// The longest sleep of a thread before it checks again.
const NAP_MAX: Duration = Duration::from_millis(100);

/// The longest sleep of a publisher that is at its bound of events in flight; progress wakes it earlier.
const STARVED_NAP: Duration = Duration::from_millis(20);

/// Events to publish.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) rooms: Range<u32>,
    /// The events of each room.
    pub(crate) numbers: Range<u64>,
    /// Events of a room that are due at the same time.
    pub(crate) burst: u64,
    pub(crate) pace: Pace,
}

/// The rule that makes an event due.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Time: from one burst of a room to the next, beginning at an instant.
    Every(Duration, Instant),
    /// Receipts: at most this many events of each room are under way, each of which this many members get.
    Window { events: u64, members: u64 },
}

impl Load {
    /// Hands over every event when it is due.
    pub(super) fn run(
        &self,
        clock: Instant,
        progress: &Progress,
        counts: &Counts,
        mut send: impl FnMut(Burst) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut burst = |room, first, due: Instant| {
            let due_us = due.saturating_duration_since(clock).as_micros();
            let done = send(Burst {
                room,
                first,
                count: self.burst.min(self.numbers.end - first),
                due_us: u64::try_from(due_us).unwrap_or(u64::MAX),
            });
            let late_us = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
            counts.late_max_us.fetch_max(late_us, Ordering::Relaxed);
            done
        };
        match self.pace {
            Pace::Every(interval, start) => self.timed(interval, start, counts, &mut burst),
            Pace::Window { events, members } => self.windowed(events, members, progress, counts, &mut burst),
        }
    }

    /// Rooms take turns within an interval, so that all of them at once is not one large burst.
    fn timed(
        &self,
        interval: Duration,
        start: Instant,
        counts: &Counts,
        burst: &mut dyn FnMut(u32, u64, Instant) -> Result<(), String>,
    ) -> Result<(), String> {
        let rooms = u64::from(self.rooms.end - self.rooms.start).max(1);
        let step = interval.as_nanos() / u128::from(rooms);
        let firsts = self
            .numbers
            .clone()
            .step_by(usize::try_from(self.burst).unwrap_or(usize::MAX));
        let mut turn = 0_u128;
        for first in firsts {
            for room in self.rooms.clone() {
                let offset = u64::try_from(step * turn).unwrap_or(u64::MAX);
                let due = start + Duration::from_nanos(offset);
                sleep_until(due, counts)?;
                burst(room, first, due)?;
                turn += 1;
            }
        }
        Ok(())
    }

    fn windowed(
        &self,
        events: u64,
        members: u64,
        progress: &Progress,
        counts: &Counts,
        burst: &mut dyn FnMut(u32, u64, Instant) -> Result<(), String>,
    ) -> Result<(), String> {
        // Receipts of earlier loads count from 0 too.
        let mut under_way: Vec<(u32, u64)> = self.rooms.clone().map(|room| (room, self.numbers.start)).collect();
        while !under_way.is_empty() {
            let mut starved = true;
            for (room, next) in &mut under_way {
                let received = progress.of(*room) / members.max(1);
                let is_free = *next + self.burst <= received + events.max(self.burst);
                if is_free && *next < self.numbers.end {
                    burst(*room, *next, Instant::now())?;
                    *next = (*next + self.burst).min(self.numbers.end);
                    starved = false;
                }
            }
            under_way.retain(|(_, next)| *next < self.numbers.end);
            if counts.breakage().is_some() {
                return Ok(());
            }
            if starved {
                thread::park_timeout(STARVED_NAP);
                // Whoever waits for receipts that no longer come is told by the crowd's patience.
                if counts.refused.load(Ordering::Relaxed) > 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// More exact than a runtime's timer, which counts in milliseconds.
fn sleep_until(due: Instant, counts: &Counts) -> Result<(), String> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if let Some(why) = counts.breakage() {
            return Err(why);
        }
        thread::park_timeout(left.min(NAP_MAX));
    }
}
