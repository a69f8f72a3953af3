//! How much was published while rights were taken: what a revocation raced with.

use std::collections::HashMap;

use super::super::log::{Answer, Id, Log, Micros};

/// Less time says nothing about a rate.
const SPAN_MIN: Micros = 1_000_000;

/// Events per second, from the first call of `Revoke` to the last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Asked for, each counted once.
    pub asked: u64,
    /// Acknowledged.
    pub answered: u64,
}

impl Pace {
    /// The lower of both.
    pub(super) fn slower(self, other: Self) -> Self {
        Self {
            asked: self.asked.min(other.asked),
            answered: self.answered.min(other.answered),
        }
    }
}

pub(super) fn of(log: &Log) -> Option<Pace> {
    let from = log.revocations.iter().map(|one| one.returned - one.took).min()?;
    let to = log.revocations.iter().map(|one| one.returned).max()?;
    let span = to - from;
    if span < SPAN_MIN {
        return None;
    }
    let within = |at: Micros| (from..to).contains(&at);
    let mut first: HashMap<Id, Micros> = HashMap::new();
    let mut answered = 0;
    for attempt in &log.attempts {
        let called = first.entry(attempt.id).or_insert(attempt.called);
        *called = attempt.called.min(*called);
        answered += u64::from(within(attempt.returned) && matches!(attempt.answer, Answer::Stored(_) | Answer::Sent));
    }
    let asked = first.values().filter(|&&called| within(called)).count() as u64;
    let per_second = |count: u64| count * 1_000_000 / span;
    Some(Pace {
        asked: per_second(asked),
        answered: per_second(answered),
    })
}
