//! `bench`: what a gateway costs, over the wires that clients and backends use, and beside its peers.
//!
//! It measures from the moment an event was due, on a schedule that waits for nobody, to its receipt by each member, and
//! it counts whether every member got every event exactly once and in order. One thread serves all members with an epoll
//! set of its own, so that the generator takes less than what it measures; another publishes.

mod crowd;
mod fanout;
mod frames;
mod latency;
mod numbers;
mod process;
mod publisher;
mod report;
mod run;
mod stamp;
mod tally;
mod target;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};
use serde_json::Value;

use self::fanout::{Fanout, bounded};
use super::failure::Failure;
use super::serve::Signals;

/// Put a load on a gateway, or on a peer of it, and tell how it fared: losses, latency, CPU and memory
///
/// Without --url it starts a gateway of its own (`roomcast dev`, with limits raised) and ends it afterwards. Members are
/// users of their own; events come in over gRPC. Latency runs from the moment an event was due, on a schedule that waits
/// for nobody, to its receipt by a member.
///
/// Compare runs of the same machine with each other, one beside the other, and use the ratios; build with --release.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit code 1 when an event was lost, doubled, reordered or refused, or a member was disconnected.\n\n\
                  Example:\n  roomcast bench --members 1000 --events 200 --rate 10"
)]
pub(super) struct Bench {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    /// Without a scenario: `fanout`.
    #[command(flatten)]
    fanout: Fanout,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    Fanout(With<Fanout>),
}

/// A scenario and how it is told.
#[derive(Debug, Args)]
struct With<T: Args> {
    #[command(flatten)]
    scenario: T,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Args)]
struct Output {
    /// Print one line of JSON for each run
    #[arg(long)]
    json: bool,
    /// Do it again this often, each time with a server of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = bounded(1, 1000))]
    repeat: u32,
}

/// What a run ends with.
struct Outcome {
    text: String,
    json: Value,
    /// Why it counts as failed.
    complaint: Option<String>,
}

type Measure = Box<dyn Fn(&Arc<AtomicBool>) -> Result<Outcome, Failure> + Send>;

impl Bench {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (measure, output) = match self.scenario {
            None => (self.fanout.prepared()?, self.output),
            Some(Scenario::Fanout(with)) => (with.scenario.prepared()?, with.output),
        };
        let mut signals = Signals::listen()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let runs =
            tokio::task::spawn_blocking(move || (0..output.repeat).try_for_each(|_| output.tell(measure(&stopped)?)));
        tokio::pin!(runs);
        let ended = tokio::select! {
            ended = &mut runs => ended,
            () = signals.next() => {
                // Waited for, so that the server that was started ends too.
                stop.store(true, Ordering::Relaxed);
                runs.await
            }
        };
        ended.map_err(|error| Failure::Undone(error.to_string()))?
    }
}

impl Output {
    fn tell(&self, outcome: Outcome) -> Result<(), Failure> {
        if self.json {
            println!("{}", outcome.json);
        } else {
            println!("{}", outcome.text);
        }
        outcome
            .complaint
            .map_or(Ok(()), |complaint| Err(Failure::No(complaint)))
    }
}

impl Fanout {
    fn prepared(self) -> Result<Measure, Failure> {
        self.check()?;
        Ok(Box::new(move |stop| {
            let report = self.measure(stop)?;
            Ok(Outcome {
                text: report.to_string(),
                json: report.as_json(),
                complaint: report.complaint(),
            })
        }))
    }
}
