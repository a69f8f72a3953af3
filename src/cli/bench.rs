//! `bench`: a small load check of a gateway, over the wires that clients and backends use.
//!
//! It measures from the moment an event was due, on a schedule that waits for nobody, to its receipt by each member, and
//! it counts whether every member got every event exactly once and in order.

mod gateway;
mod latency;
mod member;
mod process;
mod publisher;
mod report;
mod run;
mod tally;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use self::wire::Stamp;
use super::failure::Failure;
use super::publish::Class;
use super::serve::Signals;
use super::settings::Overrides;

/// The longest schedule.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Files needed beside the members' sockets.
const FILES_BESIDE: u64 = 64;

/// Put a small load on a gateway and tell how it fared: losses, latency, CPU and memory
///
/// Without --url it starts a gateway of its own (`roomcast dev`, with limits raised) and ends it afterwards. Members are
/// users of their own, each in one room, over the native protocol; events come in over gRPC. Latency runs from the moment
/// an event was due, on a schedule that waits for nobody, to its receipt by a member; with --rate 0 from when it was sent.
///
/// What it is not: a measure of what a gateway can do. The load generator is one thread, and on the same machine it takes
/// processor time and caches from the gateway; a network has other latencies than a loopback. Compare runs of the same
/// machine with each other and use the ratios; build with --release.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 when an event was lost, doubled, reordered or refused, or a member was disconnected.\n\n\
                  Example:\n  roomcast bench --members 1000 --events 200 --rate 10"
)]
pub(super) struct Bench {
    /// Members, spread evenly over the rooms
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = bounded(1, 100_000))]
    members: u32,
    /// Rooms
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = bounded(1, 10_000))]
    rooms: u32,
    /// Events published into each room
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = bounded(1, 1_000_000))]
    events: u32,
    /// Events per second and room; 0 publishes as fast as the gateway acknowledges
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = bounded(0, 100_000))]
    rate: u32,
    /// Events of a room that are due at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = bounded(1, 1000))]
    burst: u32,
    /// The size of each payload, which is JSON
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = bounded(Stamp::BYTES_MIN, 65_536))]
    payload_bytes: u32,
    /// What is kept of the events
    #[arg(long, value_enum, default_value_t = Class::Reliable)]
    class: Class,
    /// Speak the protobuf form of the native protocol instead of JSON
    #[arg(long)]
    protobuf: bool,
    /// The WebSocket address of a running gateway, instead of one started for the run
    #[arg(long, value_name = "URL", requires_all = ["grpc", "signer"])]
    url: Option<String>,
    /// Its gRPC address
    #[arg(long, value_name = "URL", requires = "url")]
    grpc: Option<String>,
    /// Its service token
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "url",
        env = "ROOMCAST_SERVICE_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Its configuration file, whose first HS256 key signs the members' tokens
    #[arg(long, value_name = "FILE", group = "signer", requires = "url")]
    config: Option<PathBuf>,
    /// The secret it was started with (`roomcast dev --secret`), to sign the members' tokens
    #[arg(long, value_name = "SECRET", group = "signer", requires = "url")]
    user_token_secret: Option<String>,
    /// A file that holds this secret
    #[arg(long, value_name = "FILE", group = "signer", requires = "url")]
    user_token_secret_file: Option<PathBuf>,
    /// The members' tenant there
    #[arg(long, value_name = "ID", default_value = "demo")]
    tenant: String,
    /// Its process, if it runs on this machine, for CPU and memory (Linux)
    #[arg(long, value_name = "PID", requires = "url")]
    pid: Option<u32>,
    /// How long nothing may arrive before what is missing counts as lost
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Overrides,
}

fn bounded(min: u32, max: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(u64::from(min)..=u64::from(max))
}

impl Bench {
    pub(super) async fn run(self) -> Result<(), Failure> {
        self.check()?;
        let mut signals = Signals::listen()?;
        // Dropping the run ends the gateway that was started for it.
        let report = tokio::select! {
            report = run::measure(&self) => report?,
            () = signals.next() => return Err(Failure::Undone("asked to end".to_owned())),
        };
        if self.json {
            println!("{}", report.as_json());
        } else {
            println!("{report}");
        }
        match report.complaint() {
            Some(complaint) => Err(Failure::No(complaint)),
            None => Ok(()),
        }
    }

    /// What the bounds of the single arguments leave open.
    fn check(&self) -> Result<(), Failure> {
        let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
        if self.rooms > self.members {
            return wrong("--rooms: there are fewer --members than that");
        }
        if self.rate > 0 && self.events / self.rate >= u32::try_from(DURATION_MAX.as_secs()).unwrap_or(u32::MAX) {
            return wrong("--events at this --rate take longer than an hour");
        }
        if self.url.is_some() && !self.settings.pairs.is_empty() {
            return wrong("--set is for the gateway started here, not for the one at --url");
        }
        let needed = u64::from(self.members) + FILES_BESIDE;
        match process::files_max() {
            Some(files) if files < needed => Err(Failure::Undone(format!(
                "{needed} open files are needed and {files} allowed: try `ulimit -n {needed}`"
            ))),
            _ => Ok(()),
        }
    }
}
