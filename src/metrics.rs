//! The node's counts and states as metrics of OpenTelemetry, in the text format of Prometheus.
//!
//! Components count in plain cells ([`crate::counters`]); an instrument here reads a cell when it is scraped. Labels are
//! closed sets: a tenant, a room or a user is never one.

mod process;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider as _};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use crate::admission::Admission;
use crate::counters::{Cells, Count, Counters, Label, Tally};
use crate::readiness::{Readiness, Unready};

/// Bounds of the delivery latency, in seconds.
const LATENCY_BOUNDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// Bounds of the number of members that an event is handed to.
const MEMBERS_BOUNDS: [f64; 10] = [0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0, 100_000.0];

/// The parts of a node that metrics are read from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Its counters.
    pub counters: Counters,
    /// The reasons why it is not ready.
    pub readiness: Readiness,
    /// Its connections.
    pub admission: Arc<Admission>,
    /// The names of its protocols, by [`crate::session::ProtocolId::index`].
    pub protocols: Vec<&'static str>,
}

/// Reason why metrics cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The exporter cannot be set up.
    #[error("metrics: {0}")]
    Exporter(#[from] OTelSdkError),
    /// The metrics cannot be written as text.
    #[error("metrics: {0}")]
    Text(#[from] prometheus::Error),
}

/// The metrics of one node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Held for its drop: instruments end with it.
    _provider: SdkMeterProvider,
}

impl Metrics {
    /// Registers the metrics of a node.
    ///
    /// # Errors
    /// [`MetricsError::Exporter`].
    pub fn start(sources: &Sources) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            // One program with one scope: both would be repeated with every metric.
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let scope = InstrumentationScope::builder("roomcast")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let meter = provider.meter_with_scope(scope);
        connections(&meter, sources);
        counters(&meter, &sources.counters);
        fanouts(&meter, &sources.counters);
        state(&meter, sources);
        process::register(&meter);
        Ok(Self {
            registry,
            _provider: provider,
        })
    }

    /// Writes all metrics in the text format of Prometheus, version 0.0.4.
    ///
    /// # Errors
    /// [`MetricsError::Text`].
    pub fn text(&self) -> Result<String, MetricsError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// A counter without labels: its name, its meaning, and its cell.
type Counter = (&'static str, &'static str, fn(&Cells) -> &Count);

/// The counters without labels.
const COUNTERS: [Counter; 8] = [
    (
        "roomcast.connections.accepted",
        "Connections of clients that were accepted.",
        |cells| &cells.connections_accepted,
    ),
    (
        "roomcast.sessions.opened",
        "Sessions whose token was accepted.",
        |cells| &cells.sessions_opened,
    ),
    (
        "roomcast.reconnections",
        "Sessions that asked to go on from a position.",
        |cells| &cells.reconnections,
    ),
    (
        "roomcast.events.delivered",
        "Events that this node has fanned out.",
        |cells| &cells.events_delivered,
    ),
    (
        "roomcast.deliveries",
        "Members that events were handed to, summed over events.",
        |cells| &cells.deliveries,
    ),
    (
        "roomcast.events.unhandled",
        "Events of clients that nothing handles.",
        |cells| &cells.events_unhandled,
    ),
    (
        "roomcast.answers.ignored",
        "Answers of clients to asks that nobody waited for.",
        |cells| &cells.answers_ignored,
    ),
    (
        "roomcast.lease.lapses",
        "Times that a shard paused deliveries because the node's lease had lapsed.",
        |cells| &cells.lease_lapses,
    ),
];

/// Registers the counters, each of which reads a cell or the cells of a label.
fn counters(meter: &Meter, counters: &Counters) {
    for (name, about, cell) in COUNTERS {
        let counters = Arc::clone(counters);
        meter
            .u64_observable_counter(name)
            .with_description(about)
            .with_callback(move |observer| observer.observe(cell(&counters).total(), &[]))
            .build();
    }
    let about = "Connections of clients that were refused before their request, by reason.";
    let tallied = ("roomcast.connections.refused", about, "reason");
    tally(meter, tallied, counters, |cells| &cells.connections_refused);
    let about = "Polling requests that were relayed to the node of their connection, by outcome.";
    let tallied = ("roomcast.requests.relayed", about, "outcome");
    tally(meter, tallied, counters, |cells| &cells.relayed);
    let about = "Connections that ended before a token was accepted, by reason.";
    let tallied = ("roomcast.sessions.refused", about, "reason");
    tally(meter, tallied, counters, |cells| &cells.sessions_refused);
    let about = "Sessions that ended, by reason.";
    let tallied = ("roomcast.sessions.closed", about, "reason");
    tally(meter, tallied, counters, |cells| &cells.sessions_closed);
    let about = "Joins that asked to go on from a position, by outcome.";
    let tallied = ("roomcast.recoveries", about, "outcome");
    tally(meter, tallied, counters, |cells| &cells.recoveries);
    let about = "Publishes of backends and clients, by outcome.";
    let tallied = ("roomcast.publishes", about, "outcome");
    tally(meter, tallied, counters, |cells| &cells.publishes);
}

/// Registers a counter that reads the cells of a label.
fn tally<L: Label>(
    meter: &Meter,
    (name, about, label): (&'static str, &'static str, &'static str),
    counters: &Counters,
    cells: fn(&Cells) -> &Tally<L>,
) {
    let counters = Arc::clone(counters);
    meter
        .u64_observable_counter(name)
        .with_description(about)
        .with_callback(move |observer| {
            for (value, count) in cells(&counters).iter() {
                observer.observe(count, &[KeyValue::new(label, value)]);
            }
        })
        .build();
}

/// Registers a gauge.
fn gauge(
    meter: &Meter,
    (name, about, unit): (&'static str, &'static str, &'static str),
    read: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static,
) {
    meter
        .u64_observable_gauge(name)
        .with_description(about)
        .with_unit(unit)
        .with_callback(read)
        .build();
}

fn connections(meter: &Meter, sources: &Sources) {
    let (counters, protocols) = (Arc::clone(&sources.counters), sources.protocols.clone());
    let about = "Connections of clients that a shard serves, by protocol.";
    gauge(meter, ("roomcast.connections.active", about, ""), move |observer| {
        for (index, protocol) in protocols.iter().enumerate() {
            // Ended first: a connection that opens in between must not read as a negative number.
            let ended = counters.connections_ended.of(index);
            let active = counters.connections_opened.of(index).saturating_sub(ended);
            observer.observe(active, &[KeyValue::new("protocol", *protocol)]);
        }
    });
    let admission = Arc::clone(&sources.admission);
    let about = "Connections of clients that have a place, those without a session included.";
    gauge(meter, ("roomcast.connections.admitted", about, ""), move |observer| {
        observer.observe(admission.connections() as u64, &[]);
    });
}

/// Registers the distributions. They are recorded once for each event, not for each member.
fn fanouts(meter: &Meter, counters: &Counters) {
    let latency = meter
        .f64_histogram("roomcast.delivery.latency")
        .with_description("Time from the acceptance of an event at a gateway to the last of this node's members.")
        .with_unit("s")
        .with_boundaries(LATENCY_BOUNDS.to_vec())
        .build();
    let members = meter
        .u64_histogram("roomcast.fanout.members")
        .with_description("Members of this node that an event was handed to.")
        .with_boundaries(MEMBERS_BOUNDS.to_vec())
        .build();
    counters.fanouts.record_by(move |facts| {
        latency.record(facts.latency.as_secs_f64(), &[]);
        members.record(facts.members.into(), &[]);
    });
}

fn state(meter: &Meter, sources: &Sources) {
    let readiness = sources.readiness.clone();
    let about = "1 while the node is ready for work.";
    gauge(meter, ("roomcast.node.ready", about, ""), move |observer| {
        observer.observe(readiness.is_ready().into(), &[]);
    });
    let readiness = sources.readiness.clone();
    let about = "1 for each reason why the node is not ready.";
    gauge(meter, ("roomcast.node.unready", about, ""), move |observer| {
        let reasons = readiness.reasons();
        for reason in Unready::ALL {
            let stands = reasons.contains(reason);
            observer.observe(stands.into(), &[KeyValue::new("reason", reason.name())]);
        }
    });
    let about = "1; its label is the version.";
    gauge(meter, ("roomcast.build.info", about, ""), |observer| {
        observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]);
    });
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let about = "Time at which the node started, since the Unix epoch.";
    gauge(meter, ("process.start_time", about, "s"), move |observer| {
        observer.observe(started, &[]);
    });
}

#[cfg(test)]
mod tests;
