//! `bench publish`: how many events per second come in over gRPC, and what each costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::crowd::Crowd;
use super::fanout::bounded;
use super::numbers::{float, micros, per_second};
use super::outcome::Outcome;
use super::publisher::{Caller, Counts, Style, With};
use super::run::{Moment, Run};
use super::stamp::Stamp;
use super::tally::Faults;
use super::target::{At, Inlet};
use roomcast::cli::failure::Failure;
use roomcast::cli::publish::Retention;

/// The most connections to the server, and calls under way, at once.
const CONNECTIONS_MAX: u32 = 64;
const CALLS_MAX: u32 = 4096;

/// Calls under way unless told otherwise: events wait for each other in a batch and in a stream.
const UNARY_CALLS: u32 = 64;
const OTHER_CALLS: u32 = 4;

/// Publishing time before the measurement starts.
const WARMUP: Duration = Duration::from_secs(1);

/// The step by which a measurement without an answer goes on.
const STEP: Duration = Duration::from_millis(50);

/// The longest wait of the member for events in flight at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// gRPC publishes into a room of one member: how many per second, and the server's CPU for each
///
/// The next call begins when one has ended. With `--peer` it may be a bare gRPC server that only answers.
#[derive(Debug, Args)]
pub(super) struct Calls {
    /// The methods, one after the other
    #[arg(long, value_enum, value_delimiter = ',', value_name = "METHOD,..", default_values_t = [With::Unary, With::Batch, With::Stream])]
    publish_with: Vec<With>,
    /// Calls under way at once; without it 64 unary ones, or 4 batches or streams
    #[arg(long, value_name = "N", value_parser = bounded(1, CALLS_MAX))]
    calls: Option<u32>,
    /// HTTP/2 connections they share
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = bounded(1, CONNECTIONS_MAX))]
    connections: u32,
    /// Events of a batch
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = bounded(1, 100))]
    batch: u32,
    /// The duration of the measurement of each method
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The size of each payload
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = bounded(Stamp::BYTES_MIN, 65_536))]
    payload_bytes: u32,
    /// The retention of the events
    #[arg(long, value_enum, default_value_t = Retention::Reliable)]
    retention: Retention,
    #[command(flatten)]
    at: At,
}

/// Publishing is measured, so a member that reads more slowly than events arrive must not be closed as a slow consumer.
const SETTINGS: [&str; 2] = ["socket.outbox_bytes_max=2GiB", "socket.outbox_age_max=1h"];

/// Calls under way, on a thread of their own.
struct Load {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Calls {
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.at.check()
    }

    pub(super) fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure> {
        let run = Run::of(self.at.start_with(&SETTINGS)?, stop.clone());
        // A bare gRPC server has no members.
        let mut crowd = match run.target.url {
            Some(_) => Some(run.crowd(Box::new(|_| vec![0]), u32::MAX)?),
            None => None,
        };
        if let Some(crowd) = &mut crowd {
            crowd.enter(0..1)?;
        }
        let number = Arc::new(AtomicU64::new(0));
        let methods: Result<Vec<_>, Failure> = self
            .publish_with
            .iter()
            .map(|with| self.method(*with, &run, crowd.as_mut(), &number))
            .collect();
        let published = number.load(Ordering::Relaxed);
        let mut faults = Faults::default();
        if let Some(crowd) = &mut crowd {
            crowd.expect(0, published);
            crowd.until(PATIENCE, super::crowd::Ledger::all_complete)?;
            faults = crowd.faults();
            // Calls overtake each other: there is no order to keep.
            faults.reordered = 0;
        }
        let json = json!({
            "scenario": "publish",
            "server": run.target.name,
            "connections": self.connections,
            "payload_bytes": self.payload_bytes,
            "retention": self.retention.name(),
            "methods": methods?,
            "lost": faults.lost,
            "doubled": faults.doubled,
            "disconnected": faults.disconnected,
        });
        Ok(Outcome::of(json, faults))
    }

    fn method(
        &self,
        with: With,
        run: &Run,
        mut crowd: Option<&mut Crowd>,
        number: &Arc<AtomicU64>,
    ) -> Result<Value, Failure> {
        let load = self.load(with, run, number)?;
        pass(crowd.as_deref_mut(), WARMUP)?;
        let begin = (run.moment()?, load.counts.acknowledged.load(Ordering::Relaxed));
        pass(crowd.as_deref_mut(), self.duration)?;
        // Without an answer there is no rate: on a busy machine a stream's first one may take longer than a short measurement.
        let give_up = Instant::now() + PATIENCE;
        while load.counts.acknowledged.load(Ordering::Relaxed) == begin.1 && Instant::now() < give_up {
            pass(crowd.as_deref_mut(), STEP)?;
        }
        let end = (run.moment()?, load.counts.acknowledged.load(Ordering::Relaxed));
        let counts = load.finish(crowd)?;
        if let Some(why) = counts.trouble() {
            return Err(Failure::No(why));
        }
        let count = end.1 - begin.1;
        let each = |cpu: Option<Duration>| cpu.map(|cpu| micros(cpu) / float(count.max(1)));
        let busy = |cpu: Duration, from: &Moment, to: &Moment| 100.0 * cpu.as_secs_f64() / to.since(from).as_secs_f64();
        let server = end.0.server_cpu(&begin.0);
        Ok(json!({
            "publish_with": with.name(),
            "calls": self.calls(with),
            "batch": (with == With::Batch).then_some(self.batch),
            "published": count,
            "published_per_second": per_second(count, end.0.since(&begin.0)),
            "server_cpu_us_per_publish": each(server),
            "server_cpu_percent": server.map(|cpu| busy(cpu, &begin.0, &end.0)),
            "nats_cpu_us_per_publish": each(end.0.nats_cpu(&begin.0)),
            "generator_cpu_us_per_publish": each(end.0.generator_cpu(&begin.0)),
        }))
    }

    fn calls(&self, with: With) -> u32 {
        let usual = match with {
            With::Unary => UNARY_CALLS,
            With::Batch | With::Stream => OTHER_CALLS,
        };
        self.calls.unwrap_or(usual)
    }

    fn load(&self, with: With, run: &Run, number: &Arc<AtomicU64>) -> Result<Load, Failure> {
        let Inlet::Grpc(api) = run.target.inlet.clone() else {
            return Err(Failure::Usage(format!("{} has no gRPC port", run.target.name)));
        };
        let style = Style {
            run: run.name.clone(),
            tenant: run.target.tenant.clone(),
            payload_bytes: self.payload_bytes as usize,
            retention: self.retention.into(),
            with,
            lanes: self.calls(with) as usize,
        };
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let caller = Caller {
            api,
            style,
            connections: self.connections as usize,
            batch: self.batch,
            number: number.clone(),
            clock: run.clock,
            stop: stop.clone(),
            counts: counts.clone(),
        };
        let thread = thread::Builder::new().name("calls".to_owned());
        let thread = thread.spawn(move || caller.run());
        Ok(Load {
            counts,
            stop,
            thread: thread.map_err(|error| Failure::Undone(format!("no thread to publish from: {error}")))?,
        })
    }
}

impl Load {
    fn finish(self, mut crowd: Option<&mut Crowd>) -> Result<Arc<Counts>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + PATIENCE;
        while !self.thread.is_finished() && Instant::now() < end {
            pass(crowd.as_deref_mut(), Duration::from_millis(20))?;
        }
        Ok(self.counts)
    }
}

/// Lets time pass, reading what the member gets.
fn pass(crowd: Option<&mut Crowd>, time: Duration) -> Result<(), Failure> {
    if let Some(crowd) = crowd {
        return crowd.during(time);
    }
    thread::park_timeout(time);
    Ok(())
}
