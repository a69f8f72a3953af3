//! `bench neighbour` and `bench stalled`: what others do to the latency of a room.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::crowd::{Crowd, Group, Progress};
use super::fanout::{bounded, rate};
use super::outcome::Outcome;
use super::publisher::{Load, Pace, Publisher, Style, With};
use super::run::{Moment, Run, check_files};
use super::stamp::Stamp;
use super::target::At;
use roomcast::cli::failure::Failure;
use roomcast::cli::publish::Retention;

/// The room that is watched, and the one beside it.
const WATCHED: u32 = 0;
const BESIDE: u32 = 1;

/// From the last preparation to the first event.
const LEAD: Duration = Duration::from_millis(50);

/// Silence after which missing events count as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A small room alone, then the same beside a large one that is being served: latency of both
#[derive(Debug, Args)]
pub(super) struct Neighbour {
    /// Members of the small room
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = bounded(1, 10_000))]
    small: u32,
    /// Members of the large room
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = bounded(1, 100_000))]
    members: u32,
    /// Events per second in the small room
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = rate)]
    rate: f64,
    /// Events per second in the large room
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = rate)]
    large_rate: f64,
    /// The duration of each of the two parts
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    at: At,
}

/// Some members stop reading: what the others and the server's memory notice of it
#[derive(Debug, Args)]
pub(super) struct Stalled {
    /// Members, in one room
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = bounded(10, 100_000))]
    members: u32,
    /// The percentage of members that stop reading
    #[arg(long, value_name = "PERCENT", default_value_t = 1, value_parser = bounded(1, 90))]
    stalled: u32,
    /// Events per second
    #[arg(long, value_name = "N", default_value_t = 25.0, value_parser = rate)]
    rate: f64,
    /// The size of each payload
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = bounded(Stamp::BYTES_MIN, 65_536))]
    payload_bytes: u32,
    /// The duration of each of the two parts
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    at: At,
}

impl Neighbour {
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.at.check()?;
        check_files(self.members + self.small)
    }

    pub(super) fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure> {
        let run = Run::of(self.at.start()?, stop.clone());
        let small = self.small;
        // Each room has a thread of its own, or the small room's events would wait behind those of the large one here.
        let mut watched = run.crowd(Box::new(|_| vec![WATCHED]), BESIDE)?;
        let mut others = run.crowd(Box::new(|_| vec![BESIDE]), BESIDE)?;
        watched.enter(0..small)?;
        others.enter(small..small + self.members)?;
        let mut near = Source::start(&run, WATCHED, self.rate, 200)?;
        let mut far = Source::start(&run, BESIDE, self.large_rate, 200)?;
        serve(&mut watched, &mut near, 0, Duration::from_secs(1))?;
        serve(&mut others, &mut far, 1, Duration::from_secs(1))?;
        watched.ledger.restart();
        serve(&mut watched, &mut near, 0, self.duration)?;
        let alone = watched.ledger.latencies[0].as_json();
        watched.ledger.restart();
        others.ledger.restart();
        let from = run.moment()?;
        std::thread::scope(|scope| {
            let large = scope.spawn(|| serve(&mut others, &mut far, 1, self.duration));
            let small = serve(&mut watched, &mut near, 0, self.duration);
            let large = large.join().expect("serving members does not panic");
            small.and(large)
        })?;
        let to = run.moment()?;
        near.finish()?;
        far.finish()?;
        let mut faults = watched.faults();
        faults.add(others.faults());
        let json = json!({
            "scenario": "neighbour",
            "server": run.target.name,
            "wire": run.target.wire.name(),
            "small": small,
            "members": self.members,
            "rate": self.rate,
            "large_rate": self.large_rate,
            "alone_ms": alone,
            "beside_ms": watched.ledger.latencies[0].as_json(),
            "large_ms": others.ledger.latencies[1].as_json(),
            "cpu_percent": percent(&from, &to),
        });
        Ok(Outcome::of(json, faults))
    }
}

impl Stalled {
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.at.check()?;
        check_files(self.members)
    }

    pub(super) fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure> {
        let run = Run::of(self.at.start()?, stop.clone());
        let mut crowd = run.crowd(Box::new(|_| vec![WATCHED]), BESIDE)?;
        crowd.enter(0..self.members)?;
        let mut source = Source::start(&run, WATCHED, self.rate, self.payload_bytes)?;
        serve(&mut crowd, &mut source, 0, Duration::from_secs(1))?;
        crowd.ledger.restart();
        let well = self.part(&run, &mut crowd, &mut source)?;
        crowd.stall(0..(self.members * self.stalled / 100).max(1))?;
        crowd.ledger.restart();
        let stalled = self.part(&run, &mut crowd, &mut source)?;
        source.finish()?;
        let json = json!({
            "scenario": "stalled",
            "server": run.target.name,
            "wire": run.target.wire.name(),
            "members": self.members,
            "stalled_percent": self.stalled,
            "rate": self.rate,
            "payload_bytes": self.payload_bytes,
            "without": well,
            "with": stalled,
        });
        Ok(Outcome::of(json, crowd.faults()))
    }

    fn part(&self, run: &Run, crowd: &mut Crowd, source: &mut Source) -> Result<Value, Failure> {
        let from = run.moment()?;
        // Memory is looked at after each second: what is queued does not last.
        let mut private_bytes_max = 0;
        let seconds = self.duration.as_secs().max(1);
        for _ in 0..seconds {
            serve(crowd, source, 0, Duration::from_secs(1))?;
            let now = run.moment()?;
            private_bytes_max = private_bytes_max.max(now.server.map_or(0, |usage| usage.private_bytes));
        }
        let to = run.moment()?;
        Ok(json!({
            "latency_ms": crowd.ledger.latencies[0].as_json(),
            "private_bytes_max": private_bytes_max,
            "cpu_percent": percent(&from, &to),
        }))
    }
}

fn percent(from: &Moment, to: &Moment) -> Option<f64> {
    let cpu = to.server_cpu(from)?;
    Some(100.0 * cpu.as_secs_f64() / to.since(from).as_secs_f64())
}

/// Events of one room, at a rate.
struct Source {
    publisher: Publisher,
    room: u32,
    interval: Duration,
    next: u64,
}

impl Source {
    fn start(run: &Run, room: u32, rate: f64, payload_bytes: u32) -> Result<Self, Failure> {
        let style = Style {
            run: run.name.clone(),
            tenant: run.target.tenant.clone(),
            payload_bytes: payload_bytes as usize,
            retention: Retention::Reliable.into(),
            with: With::Stream,
            lanes: 1,
        };
        Ok(Self {
            publisher: Publisher::start(&run.target, style, run.clock, Arc::new(Progress::new(0)))?,
            room,
            interval: Duration::from_secs_f64(1.0 / rate),
            next: 0,
        })
    }

    fn publish(&mut self, start: Instant, duration: Duration) {
        let count = duration.div_duration_f64(self.interval).ceil().max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at least one, and not more than an hour's"
        )]
        let end = self.next + count as u64;
        self.publisher.publish(Load {
            rooms: self.room..self.room + 1,
            numbers: self.next..end,
            burst: 1,
            pace: Pace::Every(self.interval, start),
        });
        self.next = end;
    }

    fn finish(self) -> Result<(), Failure> {
        let counts = self.publisher.finish();
        counts.trouble().map_or(Ok(()), |why| Err(Failure::No(why)))
    }
}

/// Publishes for this long and waits until everybody has everything.
fn serve(crowd: &mut Crowd, source: &mut Source, group: Group, duration: Duration) -> Result<(), Failure> {
    source.publish(Instant::now() + LEAD, duration);
    crowd.expect(group, source.next);
    crowd.until(PATIENCE + duration, |ledger| {
        ledger.all_complete() && source.publisher.is_done()
    })?;
    Ok(())
}
