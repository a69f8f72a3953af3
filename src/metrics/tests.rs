use std::time::Duration;

use super::*;
use crate::admission;
use crate::counters::{PublishOutcome, Recovery};
use crate::error::CloseReason;

fn sources() -> Sources {
    Sources {
        counters: Counters::default(),
        readiness: Readiness::starting(),
        admission: Arc::new(Admission::new(admission::Config::default())),
        protocols: vec!["one", "other"],
    }
}

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let found = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    found.parse().unwrap()
}

#[test]
fn cells_are_read_when_metrics_are_written() {
    let sources = sources();
    let metrics = Metrics::start(&sources).unwrap();
    let counters = &sources.counters;
    counters.publishes.add(PublishOutcome::Accepted);
    counters.connections_opened.add(1);
    counters.connections_opened.add(1);
    counters.connections_ended.add(1);
    counters.sessions_closed.add(CloseReason::SlowConsumer);
    counters.recoveries.add(Recovery::NotRecovered);
    let text = metrics.text().unwrap();
    for (series, expected) in [
        ("roomcast_publishes_total{outcome=\"accepted\"}", 1.0),
        ("roomcast_publishes_total{outcome=\"not_stored\"}", 0.0),
        ("roomcast_connections_active{protocol=\"one\"}", 0.0),
        ("roomcast_connections_active{protocol=\"other\"}", 1.0),
        ("roomcast_sessions_closed_total{reason=\"slow_consumer\"}", 1.0),
        ("roomcast_recoveries_total{outcome=\"not_recovered\"}", 1.0),
        ("roomcast_node_ready", 0.0),
        ("roomcast_node_unready{reason=\"starting\"}", 1.0),
    ] {
        assert!(
            (value(&text, series) - expected).abs() < f64::EPSILON,
            "{series} in {text}"
        );
    }
    sources.readiness.set(Unready::Starting, false);
    let text = metrics.text().unwrap();
    assert!((value(&text, "roomcast_node_ready") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn each_fan_out_is_one_observation() {
    let sources = sources();
    // Without an exporter nothing is asked of a clock.
    sources
        .counters
        .fanned_out(3, || unreachable!("nobody records latencies"));
    let metrics = Metrics::start(&sources).unwrap();
    sources.counters.fanned_out(40, || Duration::from_micros(700));
    let text = metrics.text().unwrap();
    for (series, expected) in [
        ("roomcast_deliveries_total", 43.0),
        ("roomcast_events_delivered_total", 2.0),
        ("roomcast_delivery_latency_seconds_count", 1.0),
        ("roomcast_delivery_latency_seconds_bucket{le=\"0.0005\"}", 0.0),
        ("roomcast_delivery_latency_seconds_bucket{le=\"0.001\"}", 1.0),
        ("roomcast_fanout_members_sum", 40.0),
    ] {
        assert!(
            (value(&text, series) - expected).abs() < f64::EPSILON,
            "{series} in {text}"
        );
    }
}
