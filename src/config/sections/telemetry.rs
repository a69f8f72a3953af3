//! `[telemetry]`: what serde cannot see.

use crate::config::Problem;
use crate::telemetry::{self, Config};

pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(error) = telemetry::check(config) {
        problems.push(Problem::new("telemetry.log", error));
    }
    if !(0.0..=1.0).contains(&config.sample_ratio) {
        problems.push(Problem::new("telemetry.sample_ratio", "is not between 0 and 1"));
    }
    problems
}
