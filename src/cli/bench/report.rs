//! What came of a run: a table for a person, one object for a program.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::latency::Latency;
use super::process::Usage;
use super::publisher::Published;
use super::tally::Faults;
use super::wire::Wire;
use crate::cli::failure::Failure;
use crate::cli::publish::Class;

/// From this share of its one thread on, the generator is part of what was measured.
const GENERATOR_PERCENT_MAX: f64 = 70.0;

/// What processes had used at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    at: Instant,
    gateway: Option<Usage>,
    generator: Option<Usage>,
}

/// The borders of the run's parts.
#[derive(Debug)]
pub(super) struct Timeline {
    /// Nobody has connected.
    pub(super) before: Moment,
    /// Everybody has joined; publishing begins.
    pub(super) entered: Moment,
    /// Every event is answered.
    pub(super) acknowledged: Moment,
    /// Every event has come, or nothing more does.
    pub(super) settled: Moment,
}

/// What was asked for, and what is counted besides faults.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) members: u32,
    pub(super) rooms: u32,
    pub(super) events: u32,
    pub(super) rate: u32,
    pub(super) burst: u32,
    pub(super) payload_bytes: u32,
    pub(super) class: Class,
    /// Attempts to connect that the gateway was too busy for.
    pub(super) busy: u64,
    pub(super) received: u64,
}

/// The whole result.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) wire: Wire,
    pub(super) timeline: Timeline,
    pub(super) counts: Counts,
    pub(super) published: Published,
    pub(super) faults: Faults,
    pub(super) latency: Latency,
}

impl Moment {
    /// An error when the process that is to be looked at cannot be.
    pub(super) fn now(gateway: Option<u32>) -> Result<Self, Failure> {
        let usage = |pid| {
            // Elsewhere than on Linux only a process that was asked for must be readable.
            Usage::of(pid)
                .ok_or_else(|| Failure::Undone(format!("cannot read what process {pid} uses; --pid needs Linux")))
        };
        let gateway = gateway.filter(|_| cfg!(target_os = "linux")).map(usage).transpose()?;
        Ok(Self {
            at: Instant::now(),
            gateway,
            generator: Usage::of(std::process::id()),
        })
    }

    fn since(&self, earlier: &Self) -> Duration {
        self.at.saturating_duration_since(earlier.at)
    }
}

/// What the gateway used, where it can be known.
struct Costs {
    connecting: Duration,
    delivering: Duration,
    per_delivery_us: f64,
    resident_before: u64,
    resident_after: u64,
    resident_per_connection: f64,
}

impl Report {
    /// Why the run counts as failed.
    pub(super) fn complaint(&self) -> Option<String> {
        if self.published.refused > 0 {
            let why = self.published.first_refusal.as_deref().unwrap_or("no reason given");
            return Some(format!("{} events were refused: {why}", self.published.refused));
        }
        let faults = &self.faults;
        faults.any().then(|| {
            format!(
                "{} lost, {} doubled, {} reordered, {} resyncs, {} members disconnected",
                faults.lost, faults.doubled, faults.reordered, faults.resyncs, faults.disconnected
            )
        })
    }

    /// One object; keys are only ever added.
    pub(super) fn as_json(&self) -> Value {
        let (counts, faults) = (&self.counts, &self.faults);
        let latency = |share| self.latency.per_mille(share).map(milliseconds);
        let costs = self.costs();
        json!({
            "members": counts.members,
            "rooms": counts.rooms,
            "events": counts.events,
            "rate": counts.rate,
            "burst": counts.burst,
            "payload_bytes": counts.payload_bytes,
            "class": counts.class.name(),
            "wire": self.wire_name(),
            "connect_seconds": self.entering().as_secs_f64(),
            "connects_per_second": per_second(u64::from(counts.members), self.entering()),
            "busy_refusals": counts.busy,
            "published": self.published.acknowledged,
            "refused": self.published.refused,
            "published_per_second": per_second(self.published.acknowledged, self.publishing()),
            "deliveries_expected": self.expected(),
            "deliveries": counts.received,
            "deliveries_per_second": per_second(counts.received, self.delivering()),
            "lost": faults.lost,
            "doubled": faults.doubled,
            "reordered": faults.reordered,
            "resyncs": faults.resyncs,
            "disconnected": faults.disconnected,
            "latency_ms": { "p50": latency(500), "p99": latency(990), "p99_9": latency(999), "max": latency(1000) },
            "gateway": costs.as_ref().map(|costs| json!({
                "connect_cpu_seconds": costs.connecting.as_secs_f64(),
                "deliver_cpu_seconds": costs.delivering.as_secs_f64(),
                "cpu_us_per_delivery": costs.per_delivery_us,
                "resident_bytes_before": costs.resident_before,
                "resident_bytes_connected": costs.resident_after,
                "resident_bytes_per_connection": costs.resident_per_connection,
            })),
            "generator": {
                "cpu_percent": self.generator_percent(),
                "late_max_ms": milliseconds(self.published.late_max),
            },
        })
    }

    fn wire_name(&self) -> &'static str {
        match self.wire {
            Wire::Json => "json",
            Wire::Protobuf => "protobuf",
        }
    }

    fn entering(&self) -> Duration {
        self.timeline.entered.since(&self.timeline.before)
    }

    fn publishing(&self) -> Duration {
        self.timeline.acknowledged.since(&self.timeline.entered)
    }

    fn delivering(&self) -> Duration {
        self.timeline.settled.since(&self.timeline.entered)
    }

    /// Each member gets every event of its room.
    fn expected(&self) -> u64 {
        u64::from(self.counts.members) * u64::from(self.counts.events)
    }

    fn costs(&self) -> Option<Costs> {
        let line = &self.timeline;
        let (before, entered, settled) = (line.before.gateway?, line.entered.gateway?, line.settled.gateway?);
        let delivering = settled.cpu.saturating_sub(entered.cpu);
        let grown = entered.resident_bytes.saturating_sub(before.resident_bytes);
        Some(Costs {
            connecting: entered.cpu.saturating_sub(before.cpu),
            delivering,
            per_delivery_us: delivering.as_secs_f64() * 1e6 / float(self.counts.received.max(1)),
            resident_before: before.resident_bytes,
            resident_after: entered.resident_bytes,
            resident_per_connection: float(grown) / f64::from(self.counts.members),
        })
    }

    /// How much of one processor the generator used while events came.
    fn generator_percent(&self) -> Option<f64> {
        let (entered, settled) = (self.timeline.entered.generator?, self.timeline.settled.generator?);
        let used = settled.cpu.saturating_sub(entered.cpu).as_secs_f64();
        Some(100.0 * used / self.delivering().as_secs_f64().max(f64::EPSILON))
    }

    fn latencies(&self) -> Vec<String> {
        let shares = [("p50", 500), ("p99", 990), ("p99.9", 999), ("max", 1000)];
        let said = |(name, share)| {
            let time = self.latency.per_mille(share)?;
            Some(format!("{name} {:.2} ms", milliseconds(time)))
        };
        shares.into_iter().filter_map(said).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counts, faults) = (&self.counts, &self.faults);
        let rate = match counts.rate {
            0 => "as acknowledged".to_owned(),
            rate => format!("at {rate}/s"),
        };
        writeln!(
            f,
            "load            {} members in {} rooms; {} events of {} B per room {rate}, {} at once; {}, {}",
            counts.members,
            counts.rooms,
            counts.events,
            counts.payload_bytes,
            counts.burst,
            counts.class.name(),
            self.wire_name(),
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
            self.published.acknowledged,
            per_second(self.published.acknowledged, self.publishing()),
            self.published.refused
        )?;
        writeln!(
            f,
            "delivered       {} of {}, {:.0}/s",
            counts.received,
            self.expected(),
            per_second(counts.received, self.delivering())
        )?;
        writeln!(
            f,
            "faults          lost {}, doubled {}, reordered {}, resyncs {}, disconnected {}",
            faults.lost, faults.doubled, faults.reordered, faults.resyncs, faults.disconnected
        )?;
        writeln!(f, "latency         {}", self.latencies().join(", "))?;
        self.write_costs(f)?;
        self.write_generator(f)
    }
}

impl Report {
    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(costs) = self.costs() else {
            return writeln!(f, "gateway         not looked at (--pid)");
        };
        writeln!(
            f,
            "gateway CPU     {:.2} us per delivery ({:.2} s); {:.2} s for connecting",
            costs.per_delivery_us,
            costs.delivering.as_secs_f64(),
            costs.connecting.as_secs_f64()
        )?;
        writeln!(
            f,
            "gateway memory  {:.1} KiB per connection ({} MiB, then {} MiB resident)",
            costs.resident_per_connection / 1024.0,
            costs.resident_before >> 20,
            costs.resident_after >> 20
        )
    }

    fn write_generator(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = milliseconds(self.published.late_max);
        let Some(percent) = self.generator_percent() else {
            return write!(f, "generator       at most {late:.2} ms behind its schedule");
        };
        write!(
            f,
            "generator       {percent:.0} % of a processor, at most {late:.2} ms behind its schedule"
        )?;
        if percent > GENERATOR_PERCENT_MAX {
            f.write_str("\n                It was the bottleneck: latency and rates are its own, not the gateway's.")?;
        }
        Ok(())
    }
}

fn per_second(count: u64, time: Duration) -> f64 {
    float(count) / time.as_secs_f64().max(f64::EPSILON)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53 here")]
fn float(count: u64) -> f64 {
    count as f64
}
