//! `bench joins` and `bench resumes`: coming and going.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::fanout::bounded;
use super::numbers::{float, micros, per_second};
use super::outcome::Outcome;
use super::publisher::{Style, With, publish_each};
use super::run::{Moment, Run, check_files};
use super::target::{At, Inlet};
use roomcast::cli::failure::Failure;
use roomcast::cli::publish::Retention;
use roomcast::proto::client_v1::Position;

/// Time of joining and leaving before the measurement starts.
const WARMUP: Duration = Duration::from_secs(1);

/// Silence after which missing events count as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Members join and leave rooms, one command after the other: how many per second, and the server's CPU for each
#[derive(Debug, Args)]
pub(super) struct Joins {
    /// Members
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = bounded(1, 100_000))]
    members: u32,
    /// Rooms
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = bounded(1, 1_000_000))]
    rooms: u32,
    /// The duration
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    at: At,
}

/// Members lose their connections, miss events and come back: how many per second, and whether nothing is missing
#[derive(Debug, Args)]
pub(super) struct Resumes {
    /// Members, in one room
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = bounded(1, 100_000))]
    members: u32,
    /// Events that each misses
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = bounded(0, 300))]
    missed: u32,
    /// The number of reconnects
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = bounded(1, 1000))]
    rounds: u32,
    #[command(flatten)]
    at: At,
}

impl Joins {
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.at.check()?;
        check_files(self.members)
    }

    pub(super) fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure> {
        let run = Run::of(self.at.start()?, stop.clone());
        if run.target.issuer.is_none() || !run.target.wire.has_commands() {
            return Err(Failure::Usage(
                "only a gateway is joined and left, and not by an event stream".to_owned(),
            ));
        }
        let rooms = self.rooms;
        // A room of its own that is never left.
        let mut crowd = run.crowd(Box::new(move |number| vec![rooms + number]), u32::MAX)?;
        crowd.enter(0..self.members)?;
        crowd.drill(rooms)?;
        crowd.during(WARMUP)?;
        let (from, begin) = (run.moment()?, crowd.ledger.drilled);
        crowd.during(self.duration)?;
        let (to, end) = (run.moment()?, crowd.ledger.drilled);
        let json = json!({
            "scenario": "joins",
            "server": run.target.name,
            "wire": run.target.wire.name(),
            "members": self.members,
            "rooms": rooms,
            "joins_and_leaves": end - begin,
            "joins_and_leaves_per_second": per_second(end - begin, to.since(&from)),
            "cpu_us_each": cost(&from, &to, end - begin),
        });
        Ok(Outcome::of(json, crowd.faults()))
    }
}

impl Resumes {
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.at.check()?;
        check_files(self.members)
    }

    pub(super) fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure> {
        let run = Run::of(self.at.start()?, stop.clone());
        if !run.target.wire.has_commands() {
            return Err(Failure::Usage(
                "--wire: its members do not say where they go on".to_owned(),
            ));
        }
        let mut crowd = run.crowd(Box::new(|_| vec![0]), u32::MAX)?;
        let mut published = 0;
        let mut since = publish(&run, &mut published, 1)?;
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            crowd.leave_whole();
            crowd.plan.since.insert(0, since);
            crowd.plan.first_event = published;
            since = publish(&run, &mut published, self.missed.max(1))?;
            let from = run.moment()?;
            crowd.expect(0, published);
            crowd.enter(0..self.members)?;
            crowd.until(PATIENCE, super::crowd::Ledger::all_complete)?;
            let to = run.moment()?;
            rounds.push(self.round(&from, &to));
        }
        let json = json!({
            "scenario": "resumes",
            "server": run.target.name,
            "wire": run.target.wire.name(),
            "members": self.members,
            "missed": self.missed.max(1),
            "rounds": rounds,
        });
        Ok(Outcome::of(json, crowd.faults()))
    }

    fn round(&self, from: &Moment, to: &Moment) -> Value {
        json!({
            "resumes_per_second": per_second(self.members.into(), to.since(from)),
            "cpu_us_each": cost(from, to, self.members.into()),
        })
    }
}

/// Publishes while nobody is there, and says where the room is then.
fn publish(run: &Run, published: &mut u64, count: u32) -> Result<Position, Failure> {
    let Inlet::Grpc(api) = &run.target.inlet else {
        return Err(Failure::Usage("--peer: only a gateway lets members resume".to_owned()));
    };
    let style = Style {
        run: run.name.clone(),
        tenant: run.target.tenant.clone(),
        payload_bytes: 200,
        retention: Retention::Reliable.into(),
        with: With::Unary,
        lanes: 1,
    };
    let numbers = *published..*published + u64::from(count);
    *published = numbers.end;
    let due_us = u64::try_from(Instant::now().duration_since(run.clock).as_micros()).unwrap_or(u64::MAX);
    let at = publish_each(api, &style, numbers, due_us)?;
    Ok(Position {
        epoch: at.epoch,
        offset: at.offset,
    })
}

fn cost(from: &Moment, to: &Moment, count: u64) -> Option<f64> {
    Some(micros(to.server_cpu(from)?) / float(count.max(1)))
}
