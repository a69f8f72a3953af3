//! The report of a fan-out: a table for a person, one object for a program.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::latency::Latency;
use super::numbers::{float, micros, milliseconds, per_second};
use super::publisher::{self, With};
use super::run::Moment;
use super::tally::Faults;
use super::wire::Wire;
use roomcast::cli::publish::Retention;

/// From this share of its one thread on, the generator is part of what was measured.
const GENERATOR_PERCENT_MAX: f64 = 70.0;

/// The borders of the run's parts.
#[derive(Debug)]
pub(super) struct Timeline {
    /// Nobody has connected.
    pub(super) before: Moment,
    /// Everybody has joined.
    pub(super) entered: Moment,
    /// Everybody is warm; what counts begins.
    pub(super) warmed: Moment,
    /// Every event has come, or nothing more does.
    pub(super) settled: Moment,
}

/// The requested amounts, and the counts other than faults.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) members: u32,
    pub(super) rooms: u32,
    pub(super) events: u32,
    /// Events per second and room; none at saturation.
    pub(super) rate: Option<f64>,
    /// At saturation: the events of a room under way.
    pub(super) window: Option<u32>,
    pub(super) burst: u32,
    pub(super) payload_bytes: u32,
    pub(super) retention: Retention,
    pub(super) publish_with: With,
    /// Attempts to connect that the server was too busy for.
    pub(super) busy: u64,
    pub(super) received: u64,
    /// Answers to requests of members that poll.
    pub(super) polls: u64,
}

/// The whole result.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) server: String,
    pub(super) wire: Wire,
    pub(super) timeline: Timeline,
    pub(super) counts: Counts,
    pub(super) published: Arc<publisher::Counts>,
    /// Events of all rooms that were published only to warm up.
    pub(super) warmup: u64,
    pub(super) faults: Faults,
    pub(super) latency: Latency,
}

/// The resources used by the server, where they are known.
struct Costs {
    connecting: Duration,
    delivering: Duration,
    per_delivery_us: f64,
    resident_before: u64,
    resident_after: u64,
    resident_per_connection: f64,
    private_per_connection: f64,
}

impl Report {
    /// Returns the reason why the run counts as failed.
    pub(super) fn complaint(&self) -> Option<String> {
        let refused = self.refused();
        if refused > 0 {
            let why = self.published.trouble();
            let why = why.as_deref().unwrap_or("no reason given");
            return Some(format!("{refused} events were refused: {why}"));
        }
        self.faults.any().then(|| self.faults.to_string())
    }

    /// One object; keys are only ever added.
    pub(super) fn as_json(&self) -> Value {
        let (counts, faults) = (&self.counts, &self.faults);
        json!({
            "scenario": "fanout",
            "server": self.server,
            "members": counts.members,
            "rooms": counts.rooms,
            "events": counts.events,
            "rate": counts.rate,
            "window": counts.window,
            "burst": counts.burst,
            "payload_bytes": counts.payload_bytes,
            "retention": counts.retention.name(),
            "publish_with": counts.publish_with.name(),
            "wire": self.wire.name(),
            "connect_seconds": self.entering().as_secs_f64(),
            "connects_per_second": per_second(u64::from(counts.members), self.entering()),
            "busy_refusals": counts.busy,
            "published": self.acknowledged(),
            "refused": self.refused(),
            "published_per_second": per_second(self.acknowledged(), self.delivering()),
            "deliveries_expected": self.expected(),
            "deliveries": counts.received,
            "deliveries_per_second": per_second(counts.received, self.delivering()),
            "polls": counts.polls,
            "polls_per_second": per_second(counts.polls, self.delivering()),
            "lost": faults.lost,
            "doubled": faults.doubled,
            "reordered": faults.reordered,
            "strayed": faults.strayed,
            "resyncs": faults.resyncs,
            "disconnected": faults.disconnected,
            "latency_ms": self.latency.as_json(),
            "gateway": self.gateway(),
            "nodes": self.nodes(),
            "generator": {
                "cpu_percent": self.generator_percent(),
                "cpu_us_per_delivery": self.generator_cpu_us(),
                "late_max_ms": milliseconds(self.published.late_max()),
            },
        })
    }

    /// Returns the usage of the server; `null` where it cannot be looked at.
    fn gateway(&self) -> Option<Value> {
        let (counts, costs) = (&self.counts, self.costs()?);
        Some(json!({
            "connect_cpu_seconds": costs.connecting.as_secs_f64(),
            "connect_cpu_us": micros(costs.connecting) / f64::from(counts.members),
            "deliver_cpu_seconds": costs.delivering.as_secs_f64(),
            "cpu_us_per_delivery": costs.per_delivery_us,
            "cpu_us_per_poll": (counts.polls > 0).then(|| micros(costs.delivering) / float(counts.polls)),
            "cpu_percent": 100.0 * costs.delivering.as_secs_f64() / self.delivering().as_secs_f64(),
            "resident_bytes_before": costs.resident_before,
            "resident_bytes_connected": costs.resident_after,
            "resident_bytes_per_connection": costs.resident_per_connection,
            "private_bytes_per_connection": costs.private_per_connection,
        }))
    }

    fn refused(&self) -> u64 {
        self.published.refused.load(Ordering::Relaxed)
    }

    /// Without those that only warmed up.
    fn acknowledged(&self) -> u64 {
        let all = self.published.acknowledged.load(Ordering::Relaxed);
        all.saturating_sub(self.warmup)
    }

    fn entering(&self) -> Duration {
        self.timeline.entered.since(&self.timeline.before)
    }

    fn delivering(&self) -> Duration {
        self.timeline.settled.since(&self.timeline.warmed)
    }

    /// Each member gets every event of its room.
    fn expected(&self) -> u64 {
        u64::from(self.counts.members) * u64::from(self.counts.events)
    }

    fn costs(&self) -> Option<Costs> {
        let line = &self.timeline;
        let (before, entered) = (line.before.server?, line.entered.server?);
        let delivering = line.settled.server_cpu(&line.warmed)?;
        let grown = |from: u64, to: u64| float(to.saturating_sub(from)) / f64::from(self.counts.members);
        Some(Costs {
            connecting: line.entered.server_cpu(&line.before)?,
            delivering,
            per_delivery_us: micros(delivering) / float(self.counts.received.max(1)),
            resident_before: before.resident_bytes,
            resident_after: entered.resident_bytes,
            resident_per_connection: grown(before.resident_bytes, entered.resident_bytes),
            private_per_connection: grown(before.private_bytes, entered.private_bytes),
        })
    }

    /// Returns the usage per event of each of several nodes and of their nats-server; `null` for one gateway alone.
    fn nodes(&self) -> Option<Value> {
        let (begin, end) = (&self.timeline.warmed, &self.timeline.settled);
        let seconds = self.delivering().as_secs_f64();
        let nats = end.nats_cpu(begin)?;
        let each = |cpu: Duration| micros(cpu) / float(self.acknowledged().max(1));
        let nodes = end.nodes_cpu(begin);
        Some(json!({
            "cpu_us_per_event": nodes.iter().copied().map(each).collect::<Vec<_>>(),
            "cpu_percent": nodes.iter().map(|cpu| 100.0 * cpu.as_secs_f64() / seconds).collect::<Vec<_>>(),
            "nats_cpu_us_per_event": each(nats),
        }))
    }

    /// Returns the load of the members' thread during the measurement.
    fn generator_percent(&self) -> Option<f64> {
        self.timeline.settled.thread_percent(&self.timeline.warmed)
    }

    /// Returns the generator's CPU time per delivery, publishing included.
    fn generator_cpu_us(&self) -> Option<f64> {
        let used = self.timeline.settled.generator_cpu(&self.timeline.warmed)?;
        Some(micros(used) / float(self.counts.received.max(1)))
    }

    fn pace(&self) -> String {
        match (self.counts.rate, self.counts.window) {
            (_, Some(window)) => format!("with {window} under way"),
            (Some(rate), None) => format!("at {rate}/s"),
            (None, None) => String::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "load            {}: {} members in {} rooms; {} events of {} B per room {}, {} at once; {}, {}",
            self.server,
            counts.members,
            counts.rooms,
            counts.events,
            counts.payload_bytes,
            self.pace(),
            counts.burst,
            counts.retention.name(),
            self.wire.name(),
        )?;
        writeln!(
            f,
            "connected       in {:.2} s, {:.0}/s; told to wait {} times",
            self.entering().as_secs_f64(),
            per_second(counts.members.into(), self.entering()),
            counts.busy
        )?;
        writeln!(
            f,
            "published       {}, {:.1}/s; refused {}",
            self.acknowledged(),
            per_second(self.acknowledged(), self.delivering()),
            self.refused()
        )?;
        writeln!(
            f,
            "delivered       {} of {}, {:.0}/s",
            counts.received,
            self.expected(),
            per_second(counts.received, self.delivering())
        )?;
        writeln!(f, "faults          {}", self.faults)?;
        writeln!(f, "latency         {}", self.latency)?;
        self.write_costs(f)?;
        self.write_generator(f)
    }
}

impl Report {
    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(costs) = self.costs() else {
            return writeln!(f, "server          not looked at (--pid)");
        };
        writeln!(
            f,
            "server CPU      {:.2} us per delivery ({:.2} s); {:.2} s for connecting",
            costs.per_delivery_us,
            costs.delivering.as_secs_f64(),
            costs.connecting.as_secs_f64()
        )?;
        writeln!(
            f,
            "server memory   {:.0} B private, {:.0} B resident per connection ({} MiB, then {} MiB resident)",
            costs.private_per_connection,
            costs.resident_per_connection,
            costs.resident_before >> 20,
            costs.resident_after >> 20
        )
    }

    fn write_generator(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = milliseconds(self.published.late_max());
        let (Some(percent), Some(cost)) = (self.generator_percent(), self.generator_cpu_us()) else {
            return write!(f, "generator       at most {late:.2} ms behind its schedule");
        };
        write!(
            f,
            "generator       {percent:.0} % of a processor, {cost:.2} us per delivery, at most {late:.2} ms behind its schedule"
        )?;
        if percent > GENERATOR_PERCENT_MAX && self.counts.window.is_none() {
            f.write_str("\n                It was the bottleneck: latency and rates are its own, not the server's.")?;
        }
        Ok(())
    }
}
