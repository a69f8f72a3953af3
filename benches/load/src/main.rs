//! `roomcast-bench`: what a gateway costs, over the wires that clients and backends use, and beside its peers.
//!
//! It measures from the moment an event was due, on a schedule that waits for nobody, to its receipt by each member, and
//! it counts whether every member got every event exactly once and in order. One thread serves all members with an epoll
//! set of its own, so that the generator takes less than what it measures; another publishes.

mod calls;
mod churn;
mod crowd;
mod fanout;
mod frames;
mod idle;
mod latency;
mod neighbour;
mod numbers;
mod outcome;
mod own;
mod process;
mod publisher;
mod report;
mod run;
mod stamp;
mod tally;
mod target;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Parser, Subcommand};
use roomcast::cli::failure::Failure;
use roomcast::cli::output::print;
use roomcast::cli::serve::{Hangup, Signals};

use self::calls::Calls;
use self::churn::{Joins, Resumes};
use self::fanout::{Fanout, bounded};
use self::idle::Idle;
use self::neighbour::{Neighbour, Stalled};
use self::outcome::Outcome;

/// Put a load on a gateway, or on a comparable server, and report losses, latency, CPU time and memory
///
/// Without --url it starts a gateway of its own (`roomcast dev`, with limits raised) and ends it afterwards. Members are
/// users of their own; events come in over gRPC. Latency runs from the moment an event was due, on a schedule that waits
/// for nobody, to its receipt by a member.
///
/// Compare runs of the same machine with each other, one beside the other, and use the ratios; build with `--profile dist`.
#[derive(Debug, Parser)]
#[command(
    name = "roomcast-bench",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "Exit code 1 when an event was lost, doubled, reordered or refused, or a member was disconnected; 2 when the\n\
                  command line cannot be read; 3 when it could not be done.\n\n\
                  Example:\n  roomcast-bench --members 1000 --events 200 --rate 10"
)]
struct Bench {
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
    /// Publish to rooms on a schedule, and measure how late each member receives each event
    Fanout(With<Fanout>),
    /// Hold connections in which nothing happens, and measure the memory and CPU time of each
    ///
    /// Each member is a user of its own in rooms of 1,000 and of 10, with presence and with claims in its token. `--set
    /// session.heartbeat_interval=5s` makes a gateway ask for signs of life more often.
    Idle(With<Idle>),
    /// Publish over gRPC as fast as calls are answered, and measure calls per second and the CPU time of each
    ///
    /// The next call begins when one has ended. With `--peer` it may be a bare gRPC server that only answers.
    Publish(With<Calls>),
    /// Join and leave rooms as fast as commands are answered, and measure commands per second and the CPU time of each
    Joins(With<Joins>),
    /// Cut connections, publish meanwhile, reconnect all at once, and check that each member gets what it missed
    Resumes(With<Resumes>),
    /// Measure the latency of a small room, first alone, then beside a large room that is busy
    Neighbour(With<Neighbour>),
    /// Have some members stop reading, and measure the latency of the others and the memory that is held
    Stalled(With<Stalled>),
}

// No doc comment: clap would take it for the help of each scenario.
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

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(|error| Failure::Undone(format!("cannot start: {error}")))
        .and_then(|runtime| runtime.block_on(Bench::parse().run()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

type Measure = Box<dyn Fn(&Arc<AtomicBool>) -> Result<Outcome, Failure> + Send>;

impl Bench {
    async fn run(self) -> Result<(), Failure> {
        let (measure, output) = match self.scenario {
            None => (prepared(self.fanout)?, self.output),
            Some(Scenario::Fanout(with)) => (prepared(with.scenario)?, with.output),
            Some(Scenario::Idle(with)) => (prepared(with.scenario)?, with.output),
            Some(Scenario::Publish(with)) => (prepared(with.scenario)?, with.output),
            Some(Scenario::Joins(with)) => (prepared(with.scenario)?, with.output),
            Some(Scenario::Resumes(with)) => (prepared(with.scenario)?, with.output),
            Some(Scenario::Neighbour(with)) => (prepared(with.scenario)?, with.output),
            Some(Scenario::Stalled(with)) => (prepared(with.scenario)?, with.output),
        };
        let mut signals = Signals::listen(Hangup::End)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let runs =
            tokio::task::spawn_blocking(move || (0..output.repeat).try_for_each(|_| output.tell(measure(&stopped)?)));
        tokio::pin!(runs);
        let ended = tokio::select! {
            ended = &mut runs => ended,
            () = signals.asked() => {
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
            print(&outcome.json)?;
        } else {
            print(&outcome.text)?;
        }
        outcome
            .complaint
            .map_or(Ok(()), |complaint| Err(Failure::No(complaint)))
    }
}

/// Something that can be measured.
trait Measurable: Send + 'static {
    /// Checks the combination of arguments before anything is started.
    fn check(&self) -> Result<(), Failure>;
    /// One run, on the calling thread, until it is done or stopped.
    fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure>;
}

/// Each scenario has the two methods under their own names.
macro_rules! measurable {
    ($($scenario:ty),*) => {$(
        impl Measurable for $scenario {
            fn check(&self) -> Result<(), Failure> {
                self.check()
            }

            fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure> {
                self.measure(stop)
            }
        }
    )*};
}

measurable!(Fanout, Idle, Calls, Joins, Resumes, Neighbour, Stalled);

fn prepared(scenario: impl Measurable) -> Result<Measure, Failure> {
    scenario.check()?;
    Ok(Box::new(move |stop| scenario.measure(stop)))
}
