//! Range checks that serde cannot express.

use std::time::Duration;

use super::NatsSection;
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
    for (key, time) in times(config) {
        if time.is_zero() {
            problems.push(Problem::new(key, "must be longer than zero"));
        }
    }
    for (key, time) in config.nats.iter().flat_map(nats_times) {
        if time.is_zero() {
            problems.push(Problem::new(key, "must be longer than zero"));
        }
    }
    for (key, number) in numbers(config) {
        if number == 0 {
            problems.push(Problem::new(key, "must be at least 1"));
        }
    }
    problems
}

/// Times that make the gateway useless, or busy, when they are zero.
fn times(config: &Config) -> [(&'static str, Duration); 10] {
    [
        ("client.head_timeout", config.client.head_timeout),
        ("client.idle_timeout", config.client.idle_timeout),
        ("session.authentication_timeout", config.session.authentication_timeout),
        ("session.heartbeat_interval", config.session.heartbeat_interval),
        ("socket.outbox_age_max", config.socket.outbox_age_max),
        ("socket.message_duration_max", config.socket.message_duration_max),
        ("bus.sweep_interval", config.bus.sweep_interval),
        ("presence.counts_interval", config.presence.counts_interval),
        ("grpc.keepalive_interval", config.grpc.keepalive_interval),
        ("grpc.deadline_max", config.grpc.deadline_max),
    ]
}

/// The same times of NATS.
fn nats_times(nats: &NatsSection) -> [(&'static str, Duration); 6] {
    [
        ("nats.ping_interval", nats.ping_interval),
        ("nats.request_timeout", nats.request_timeout),
        ("nats.publish_timeout", nats.publish_timeout),
        ("nats.sweep_interval", nats.sweep_interval),
        ("nats.idempotency_window", nats.idempotency_window),
        ("nats.lease", nats.lease),
    ]
}

/// Bounds that refuse everything when they are zero.
fn numbers(config: &Config) -> [(&'static str, usize); 23] {
    let session = &config.session;
    let rate = |number: u32| number as usize;
    [
        ("connections.connections_max", config.connections.connections_max),
        ("client.head_bytes_max", config.client.head_bytes_max),
        ("client.headers_max", config.client.headers_max),
        ("client.handshakes_max", config.client.handshakes_max),
        (
            "client.connect_rate.per_second",
            rate(config.client.connect_rate.per_second),
        ),
        ("client.connect_rate.burst", rate(config.client.connect_rate.burst)),
        ("session.commands_waiting_max", session.commands_waiting_max),
        ("session.join_rate.per_second", rate(session.join_rate.per_second)),
        ("session.join_rate.burst", rate(session.join_rate.burst)),
        ("session.publish_rate.per_second", rate(session.publish_rate.per_second)),
        ("session.publish_rate.burst", rate(session.publish_rate.burst)),
        ("socket.outbox_bytes_max", config.socket.outbox_bytes_max),
        ("socket.message_bytes_max", config.socket.message_bytes_max),
        ("bus.in_flight_events_max", config.bus.in_flight_events_max),
        ("bus.rooms_max", config.bus.rooms_max),
        ("presence.activity_capacity", config.presence.activity_capacity),
        ("grpc.message_bytes_max", config.grpc.message_bytes_max),
        ("grpc.payload_bytes_max", config.grpc.payload_bytes_max),
        ("grpc.streams_max", config.grpc.streams_max as usize),
        ("grpc.connections_max", config.grpc.connections_max),
        ("grpc.in_flight_max", config.grpc.in_flight_max),
        (
            "grpc.publish_rate.per_second",
            rate(config.grpc.publish_rate.per_second),
        ),
        ("grpc.publish_rate.burst", rate(config.grpc.publish_rate.burst)),
    ]
}
