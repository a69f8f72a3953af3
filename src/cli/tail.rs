//! `tail`: follows rooms over the native WebSocket protocol, in its protobuf form, as a client would.
//!
//! Once connected it reconnects by itself, resumes, and reports whether the missed events were recovered.

mod connection;
mod follow;
mod print;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::connection::Ended;
use self::follow::Room;
use self::print::{Line, Printer};
use super::failure::Failure;
use super::reach::Port;
use super::token::read_secret;
use crate::proto::client_v1::Position;
use crate::units::{jittered_ms, millis};

/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Follow rooms and print their events, one line each
///
/// Events go to standard output, everything else to standard error; with --json everything is one JSON object per line
/// on standard output. After a lost connection it resumes and reports whether every missed event was recovered.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  roomcast tail project:7 --token-file ada.token --rewind 10")]
pub(super) struct Tail {
    /// The rooms
    #[arg(value_name = "ROOM", required = true)]
    rooms: Vec<String>,
    /// The gateway's WebSocket address
    #[arg(
        long,
        value_name = "URL",
        default_value = "ws://127.0.0.1:8080/v1/ws",
        env = "ROOMCAST_URL"
    )]
    url: String,
    /// The user's token
    #[arg(long, value_name = "TOKEN", env = "ROOMCAST_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the user's token; read again for each connection
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Begin after this position instead of now (one room only)
    #[arg(long, value_name = "EPOCH/OFFSET", value_parser = position, conflicts_with = "rewind")]
    since: Option<Position>,
    /// Begin with this many of the newest events
    #[arg(long, value_name = "N", default_value_t = 0)]
    rewind: u32,
    /// Print joins and leaves as well
    #[arg(long)]
    presence: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End when the connection is lost
    #[arg(long)]
    no_reconnect: bool,
}

/// Progress of one run.
#[derive(Debug)]
struct Run {
    url: String,
    rooms: Vec<Room>,
    presence: bool,
    /// Number of events still to print before it ends by itself.
    left: Option<u64>,
    printer: Printer,
    /// Set once there has been a session.
    connected: bool,
    /// Attempts since the last session, for the pause before the next.
    attempts: u32,
}

impl Tail {
    pub(super) async fn run(self) -> Result<(), Failure> {
        if self.since.is_some() && self.rooms.len() > 1 {
            return Err(Failure::Usage(
                "--since is a position of one room; name only that room".to_owned(),
            ));
        }
        Port::Client.check(&self.url).map_err(Failure::Usage)?;
        let mut run = Run {
            url: self.url.clone(),
            rooms: self.rooms().collect(),
            presence: self.presence,
            left: self.count,
            printer: Printer::new(self.json),
            connected: false,
            attempts: 0,
        };
        loop {
            let (reason, wait) = match connection::run(&mut run, &self.token()?).await {
                Ended::Enough => return Ok(()),
                Ended::Refused(text) => return Err(Failure::No(text)),
                Ended::Lost { reason, wait } => (reason, wait),
            };
            // An address that never replied is more likely wrong than restarting.
            if self.no_reconnect || !run.connected {
                return Err(Failure::Undone(reason));
            }
            let pause = wait.unwrap_or_else(|| backoff(run.attempts));
            run.attempts += 1;
            run.printer.show(&Line::Lost { reason: &reason, pause });
            tokio::time::sleep(pause).await;
        }
    }

    fn rooms(&self) -> impl Iterator<Item = Room> {
        self.rooms
            .iter()
            .map(|name| Room::new(name.clone(), self.since.clone(), self.rewind))
    }

    fn token(&self) -> Result<String, Failure> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(token.clone()),
            (None, Some(path)) => read_secret(path),
            (None, None) => Err(Failure::Usage(
                "name a token with --token, --token-file or ROOMCAST_TOKEN".to_owned(),
            )),
        }
    }
}

/// Returns the pause before an attempt. It doubles from half a second; half of it is jitter, so that many followers do not
/// reconnect in step (thundering herd).
fn backoff(attempts: u32) -> Duration {
    let full = Duration::from_millis(500)
        .saturating_mul(1 << attempts.min(10))
        .min(PAUSE_MAX);
    Duration::from_millis(jittered_ms(millis(full), rand::random()))
}

fn position(text: &str) -> Result<Position, String> {
    let parts = text
        .split_once('/')
        .and_then(|(epoch, offset)| Some((epoch, offset.parse().ok()?)));
    let (epoch, offset) = parts.ok_or("expected EPOCH/OFFSET, as tail prints it")?;
    Ok(Position {
        epoch: epoch.to_owned(),
        offset,
    })
}
