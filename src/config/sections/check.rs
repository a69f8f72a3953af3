//! Range checks that serde cannot express.

use crate::bus::nats::ENVELOPE_BYTES_MAX;
use crate::config::{Config, Problem};
use crate::telemetry::{self, TelemetryError};

/// Returns the problems of values that could be read.
pub(in crate::config) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(error) = telemetry::check(&config.telemetry) {
        let key = match error {
            TelemetryError::Endpoint(_) => "telemetry.otlp_endpoint",
            _ => "telemetry.log",
        };
        problems.push(Problem::new(key, error));
    }
    if !(0.0..=1.0).contains(&config.telemetry.sample_ratio) {
        problems.push(Problem::new("telemetry.sample_ratio", "is not between 0 and 1"));
    }
    let largest = config.grpc.payload_bytes_max.max(config.session.payload_bytes_max);
    // A stream that holds less than one event would accept it and drop it at once.
    if config
        .nats
        .as_ref()
        .is_some_and(|nats| nats.stream_bytes_max < largest + ENVELOPE_BYTES_MAX)
    {
        let message = "must hold the largest event: payload_bytes_max of `grpc` and `session`, and 16 KiB around it";
        problems.push(Problem::new("nats.stream_bytes_max", message));
    }
    problems.extend(super::sse::check(&config.sse, &config.client));
    problems.extend(config.socketio.problems());
    problems
}
