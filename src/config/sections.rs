//! How the components' settings are written, section by section.
//!
//! A mirror repeats a component's `Config` field by field for serde, so that components stay free of it; the compiler
//! holds the two together.

mod connections;
mod telemetry;

use super::{Config, Problem};

pub(super) use connections::Connections;

/// What is wrong with values that could be read.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    telemetry::check(&config.telemetry)
}
