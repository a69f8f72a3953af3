//! Delivery latency: a histogram of fixed size, so that measuring costs the same whatever the load.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::numbers::milliseconds;

/// Each power of two is cut into this many buckets: a quantile is at most 1.6 % too high.
const PER_OCTAVE_LOG2: u32 = 6;
const PER_OCTAVE: u64 = 1 << PER_OCTAVE_LOG2;

/// Enough for every `u64` of microseconds.
const BUCKETS: usize = (64 - PER_OCTAVE_LOG2 as usize + 1) << PER_OCTAVE_LOG2;

/// Counts by microseconds.
#[derive(Debug)]
pub(super) struct Latency {
    counts: Box<[u64]>,
    count: u64,
    max_us: u64,
}

impl Latency {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            max_us: 0,
        }
    }

    pub(super) fn record(&mut self, micros: u64) {
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.count += 1;
        self.max_us = self.max_us.max(micros);
    }

    /// The time within which this many of a thousand arrived; none without deliveries.
    pub(super) fn per_mille(&self, share: u64) -> Option<Duration> {
        let rank = self.count.saturating_mul(share).div_ceil(1000);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            *count > 0 && seen >= rank
        })?;
        Some(Duration::from_micros(highest(found as u64).min(self.max_us)))
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

/// The shares that are told, in parts of a thousand.
const SHARES: [(&str, u64); 4] = [("p50", 500), ("p99", 990), ("p99.9", 999), ("max", 1000)];

impl Latency {
    pub(super) fn as_json(&self) -> Value {
        let [p50, p99, p99_9, max] = SHARES.map(|(_, share)| self.per_mille(share).map(milliseconds));
        json!({ "p50": p50, "p99": p99, "p99_9": p99_9, "max": max })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |(name, share)| {
            let time = self.per_mille(share)?;
            Some(format!("{name} {:.2} ms", milliseconds(time)))
        };
        let said: Vec<_> = SHARES.into_iter().filter_map(said).collect();
        f.write_str(&said.join(", "))
    }
}

fn bucket(micros: u64) -> usize {
    let shift = micros.max(1).ilog2().saturating_sub(PER_OCTAVE_LOG2);
    let index = u64::from(shift) * PER_OCTAVE + (micros >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest time that falls into a bucket.
fn highest(index: u64) -> u64 {
    if index < 2 * PER_OCTAVE {
        return index;
    }
    let shift = index / PER_OCTAVE - 1;
    let next = u128::from(index % PER_OCTAVE + PER_OCTAVE + 1) << shift;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_into_a_bucket_that_says_it_within_two_percent() {
        let spread = (0..64).flat_map(|bits| [1_u64 << bits, (1 << bits) - 1, (1 << bits) + (1 << bits) / 3]);
        for micros in spread.chain(0..5000).chain([u64::MAX]) {
            let said = highest(bucket(micros) as u64);
            assert!(bucket(micros) < BUCKETS, "{micros}");
            assert!(said >= micros && said - micros <= micros / 50, "{micros} {said}");
        }
    }

    #[test]
    fn a_quantile_is_the_time_within_which_that_share_arrived() {
        let mut latency = Latency::new();
        assert_eq!(latency.per_mille(500), None);
        (1..=100).for_each(|micros| latency.record(micros));
        for (share, micros) in [(0, 1), (500, 50), (990, 99), (1000, 100)] {
            assert_eq!(latency.per_mille(share), Some(Duration::from_micros(micros)), "{share}");
        }
    }
}
