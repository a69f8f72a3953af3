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
        sessions(&meter, &sources.counters);
        events(&meter, &sources.counters);
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

/// Registers a counter that reads a cell.
fn count(meter: &Meter, name: &'static str, about: &'static str, counters: &Counters, cell: fn(&Cells) -> &Count) {
    let counters = Arc::clone(counters);
    meter
        .u64_observable_counter(name)
        .with_description(about)
        .with_callback(move |observer| observer.observe(cell(&counters).total(), &[]))
        .build();
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
    (name, about): (&'static str, &'static str),
    read: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static,
) {
    meter
        .u64_observable_gauge(name)
        .with_description(about)
        .with_callback(read)
        .build();
}

fn connections(meter: &Meter, sources: &Sources) {
    let (counters, protocols) = (Arc::clone(&sources.counters), sources.protocols.clone());
    let about = "Connections of clients that a shard serves, by protocol.";
    gauge(meter, ("roomcast.connections.active", about), move |observer| {
        for (index, protocol) in protocols.iter().enumerate() {
            // Ended first: a connection that opens in between must not read as a negative number.
            let ended = counters.connections_ended.of(index);
            let active = counters.connections_opened.of(index).saturating_sub(ended);
            observer.observe(active, &[KeyValue::new("protocol", *protocol)]);
        }
    });
    let admission = Arc::clone(&sources.admission);
    let about = "Connections of clients that have a place, those without a session included.";
    gauge(meter, ("roomcast.connections.admitted", about), move |observer| {
        observer.observe(admission.connections() as u64, &[]);
    });
    let counters = &sources.counters;
    let about = "Connections of clients that were accepted.";
    count(meter, "roomcast.connections.accepted", about, counters, |cells| {
        &cells.connections_accepted
    });
    let about = "Connections of clients that were refused before their request, by reason.";
    tally(
        meter,
        ("roomcast.connections.refused", about, "reason"),
        counters,
        |cells| &cells.connections_refused,
    );
    let about = "Polling requests that were relayed to the node of their connection, by outcome.";
    tally(
        meter,
        ("roomcast.requests.relayed", about, "outcome"),
        counters,
        |cells| &cells.relayed,
    );
}

fn sessions(meter: &Meter, counters: &Counters) {
    let about = "Sessions whose token was accepted.";
    count(meter, "roomcast.sessions.opened", about, counters, |cells| {
        &cells.sessions_opened
    });
    let about = "Connections that ended before a token was accepted, by reason.";
    tally(
        meter,
        ("roomcast.sessions.refused", about, "reason"),
        counters,
        |cells| &cells.sessions_refused,
    );
    let about = "Sessions that ended, by reason.";
    tally(
        meter,
        ("roomcast.sessions.closed", about, "reason"),
        counters,
        |cells| &cells.sessions_closed,
    );
    let about = "Sessions that asked to go on from a position.";
    count(meter, "roomcast.reconnections", about, counters, |cells| {
        &cells.reconnections
    });
    let about = "Joins that asked to go on from a position, by outcome.";
    tally(meter, ("roomcast.recoveries", about, "outcome"), counters, |cells| {
        &cells.recoveries
    });
}

fn events(meter: &Meter, counters: &Counters) {
    let about = "Publishes of backends and clients, by outcome.";
    tally(meter, ("roomcast.publishes", about, "outcome"), counters, |cells| {
        &cells.publishes
    });
    let about = "Events that this node has fanned out.";
    count(meter, "roomcast.events.delivered", about, counters, |cells| {
        &cells.events_delivered
    });
    let about = "Members that events were handed to, summed over events.";
    count(meter, "roomcast.deliveries", about, counters, |cells| &cells.deliveries);
    let about = "Events of clients that nothing handles.";
    count(meter, "roomcast.events.unhandled", about, counters, |cells| {
        &cells.events_unhandled
    });
    let about = "Answers of clients to asks that nobody waited for.";
    count(meter, "roomcast.answers.ignored", about, counters, |cells| {
        &cells.answers_ignored
    });
    let about = "Times that a shard paused deliveries because the node's lease had lapsed.";
    count(meter, "roomcast.lease.lapses", about, counters, |cells| {
        &cells.lease_lapses
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
    gauge(meter, ("roomcast.node.ready", about), move |observer| {
        observer.observe(readiness.is_ready().into(), &[]);
    });
    let readiness = sources.readiness.clone();
    let about = "1 for each reason why the node is not ready.";
    gauge(meter, ("roomcast.node.unready", about), move |observer| {
        let reasons = readiness.reasons();
        for reason in Unready::ALL {
            let stands = reasons.contains(reason);
            observer.observe(stands.into(), &[KeyValue::new("reason", reason.name())]);
        }
    });
    let about = "1; its label is the version.";
    gauge(meter, ("roomcast.build.info", about), |observer| {
        observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]);
    });
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    meter
        .u64_observable_gauge("process.start_time")
        .with_description("Time at which the node started, since the Unix epoch.")
        .with_unit("s")
        .with_callback(move |observer| observer.observe(started, &[]))
        .build();
}

#[cfg(test)]
mod tests;
