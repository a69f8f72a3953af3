//! The table of what was tried and what came of it.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Write as _};

use super::check::{Finding, Outcome, Wrong};
use super::faults::Fault;

/// How many findings of a kind are told in full.
const TOLD: usize = 3;

/// Faults, how often each was tried, and what came of it.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<(Fault, &'static str), (usize, Outcome)>,
}

impl Table {
    pub fn add(&mut self, fault: Fault, on: &'static str, outcome: Outcome) {
        let row = self.rows.entry((fault, on)).or_default();
        row.0 += 1;
        row.1 += outcome;
    }

    pub fn rounds(&self) -> usize {
        self.rows.values().map(|row| row.0).sum()
    }

    pub fn sum(&self) -> Outcome {
        let mut sum = Outcome::default();
        for (_, outcome) in self.rows.values() {
            sum += outcome.clone();
        }
        sum
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "| fault | NATS | rounds | stored | calls not stored, unknown | deliveries | closed as slow | recovered | told to start anew | revoked (unconfirmed, slowest) | publishes/s meanwhile, acknowledged | \
             lost | doubled | reordered | silent gaps | after revocation | untrue |"
        )?;
        writeln!(f, "|---|---|{}", "---:|".repeat(15))?;
        for ((fault, on), (rounds, outcome)) in &self.rows {
            row(f, &fault.to_string(), on, *rounds, outcome)?;
        }
        row(f, "all", "", self.rounds(), &self.sum())
    }
}

fn row(f: &mut Formatter<'_>, fault: &str, on: &str, rounds: usize, outcome: &Outcome) -> std::fmt::Result {
    let Outcome {
        stored,
        unsettled: (not_stored, unknown),
        slow,
        deliveries,
        recovered,
        restarted,
        revoked,
        unconfirmed,
        revoking_max,
        pace,
        ..
    } = outcome;
    let pace = pace.map_or_else(String::new, |pace| format!("{}, {}", pace.asked, pace.answered));
    write!(
        f,
        "| {fault} | {on} | {rounds} | {stored} | {not_stored}, {unknown} | {deliveries} | {slow} | {recovered} | {restarted} | \
         {revoked} ({unconfirmed}, {} ms) | {pace} |",
        revoking_max / 1000
    )?;
    for wrong in Wrong::ALL {
        write!(f, " {} |", outcome.count(wrong))?;
    }
    writeln!(f)
}

/// Some of what is wrong, in full.
pub fn tell(outcome: &Outcome) -> String {
    let mut told: BTreeMap<Wrong, usize> = BTreeMap::new();
    let mut text = String::new();
    for finding in &outcome.findings {
        let so_far = told.entry(finding.wrong).or_default();
        *so_far += 1;
        if *so_far <= TOLD {
            let Finding { wrong, count, what } = finding;
            writeln!(text, "  {wrong:?} ({count}): {what}").expect("a string takes everything");
        }
    }
    text
}
