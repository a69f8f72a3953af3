//! `bench idle`: what connections at rest cost.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::crowd::Crowd;
use super::fanout::bounded;
use super::numbers::{float, micros, per_second};
use super::outcome::Outcome;
use super::process::Usage;
use super::run::{Moment, Run, check_files};
use super::target::At;
use roomcast::cli::failure::Failure;

/// The interval of memory readings until they are stable.
const LOOK: Duration = Duration::from_millis(500);

/// Memory has settled when this many looks in a row differ by less than 1 in 200.
const LOOKS: u32 = 4;

/// The longest time for memory to settle.
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// Members of a room, by which of a member's rooms it is; further rooms are as the last.
const ROOM_SIZES: [u32; 2] = [1000, 10];

/// Rooms of one kind have numbers apart from those of another.
const KIND: u32 = 1_000_000;

/// Connections at rest: memory, heartbeats, connecting, and what is given back
///
/// Each member is a user of its own in rooms of 1,000 and of 10, with presence and with claims in its token. `--set
/// session.heartbeat_interval=5s` makes a gateway ask for signs of life more often.
#[derive(Debug, Args)]
pub(super) struct Idle {
    /// Numbers of members; memory is measured at each step, and the slope between the first and the last
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [5000, 15_000], value_parser = bounded(1, 100_000))]
    members: Vec<u32>,
    /// Rooms of each member
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = bounded(1, 100))]
    rooms_per_member: u32,
    /// The duration of the heartbeat measurement
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    hold: Duration,
    /// The time after all members have left before memory is read again: some servers release memory only at
    /// intervals
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = humantime::parse_duration)]
    alone: Duration,
    #[command(flatten)]
    at: At,
}

/// The readings at one number of members.
struct Step {
    members: u32,
    usage: Option<Usage>,
    connecting: Duration,
    connects: u32,
    cpu: Option<Duration>,
}

impl Idle {
    pub(super) fn check(&self) -> Result<(), Failure> {
        if !self.members.is_sorted_by(|one, next| one < next) {
            return Err(Failure::Usage(
                "--members: each step must be larger than the one before".to_owned(),
            ));
        }
        self.at.check()?;
        check_files(self.members.last().copied().unwrap_or(0))
    }

    pub(super) fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure> {
        let run = Run::of(self.at.start()?, stop.clone());
        let rooms = self.rooms_per_member;
        let rooms_of = move |number| (0..rooms).map(|kind| room(number, kind)).collect();
        let mut crowd = run.crowd(Box::new(rooms_of), u32::MAX)?;
        let before = settled(&run, &mut crowd, SETTLE_MAX)?;
        let mut steps = Vec::new();
        let mut inside = 0;
        for members in &self.members {
            let from = run.moment()?;
            crowd.enter(inside..*members)?;
            let to = run.moment()?;
            steps.push(Step {
                members: *members,
                usage: settled(&run, &mut crowd, SETTLE_MAX)?.server,
                connecting: to.since(&from),
                connects: *members - inside,
                cpu: to.server_cpu(&from),
            });
            inside = *members;
        }
        let pings = crowd.ledger.pings;
        let from = run.moment()?;
        crowd.during(self.hold)?;
        let to = run.moment()?;
        let pings = crowd.ledger.pings - pings;
        let disconnected = crowd.ledger.faults.disconnected;
        let faults = crowd.faults();
        crowd.during(self.alone)?;
        let after = settled(&run, &mut crowd, SETTLE_MAX)?;
        let seconds = to.since(&from).as_secs_f64() * f64::from(inside);
        let json = json!({
            "scenario": "idle",
            "server": run.target.name,
            "wire": run.target.wire.name(),
            "rooms_per_member": rooms,
            "memory_before": before.server.map(memory),
            "steps": steps.iter().map(Step::as_json).collect::<Vec<_>>(),
            "slope_bytes_per_connection": slope(before.server, &steps),
            "heartbeat_cpu_us_per_connection_second": to.server_cpu(&from).map(|cpu| micros(cpu) / seconds),
            "hold_seconds": to.since(&from).as_secs_f64(),
            "pings_answered": pings,
            "memory_after_leave": after.server.map(memory),
            "memory_after_percent_of_before": before.server.zip(after.server).map(|(before, after)| {
                100.0 * float(after.private_bytes) / float(before.private_bytes.max(1))
            }),
            "resident_after_percent_of_before": before.server.zip(after.server).map(|(before, after)| {
                100.0 * float(after.resident_bytes) / float(before.resident_bytes.max(1))
            }),
            "memory_after_percent_of_full": steps.last().and_then(|step| step.usage).zip(after.server)
                .map(|(full, after)| 100.0 * float(after.private_bytes) / float(full.private_bytes.max(1))),
            "disconnected": disconnected,
        });
        Ok(Outcome::of(json, faults))
    }
}

fn room(number: u32, kind: u32) -> u32 {
    let size = ROOM_SIZES[(kind as usize).min(ROOM_SIZES.len() - 1)];
    // Further rooms mix members that do not share the others.
    let number = if kind < 2 { number } else { number.reverse_bits() >> 8 };
    (kind * KIND).wrapping_add(number / size)
}

/// Waits until the server's memory stays as it is, and says what it is.
fn settled(run: &Run, crowd: &mut Crowd, at_most: Duration) -> Result<Moment, Failure> {
    let end = Instant::now() + at_most;
    let (mut last, mut alike) = (run.moment()?, 0);
    while alike < LOOKS && Instant::now() < end {
        crowd.during(LOOK)?;
        let now = run.moment()?;
        let bytes = |moment: &Moment| moment.server.map_or(0, |usage| usage.private_bytes);
        let is_alike = bytes(&now).abs_diff(bytes(&last)) * 200 <= bytes(&now);
        alike = if is_alike { alike + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

fn memory(usage: Usage) -> Value {
    json!({
        "private_bytes": usage.private_bytes,
        "anonymous_bytes": usage.anonymous_bytes,
        "resident_bytes": usage.resident_bytes,
    })
}

/// Private bytes for each connection more: between the first step and the last, or from nobody to the only one.
fn slope(before: Option<Usage>, steps: &[Step]) -> Option<f64> {
    let (first, last) = (steps.first()?, steps.last()?);
    let (bytes, members) = match steps.len() {
        1 => (before?.private_bytes, 0),
        _ => (first.usage?.private_bytes, first.members),
    };
    let grown = float(last.usage?.private_bytes) - float(bytes);
    Some(grown / f64::from(last.members - members))
}

impl Step {
    fn as_json(&self) -> Value {
        json!({
            "members": self.members,
            "memory": self.usage.map(memory),
            "connects_per_second": per_second(self.connects.into(), self.connecting),
            "cpu_us_per_connect": self.cpu.map(|cpu| micros(cpu) / f64::from(self.connects)),
        })
    }
}
