//! `serve`: runs the gateway until the process is asked to end.

use std::net::SocketAddr;

use clap::Args;
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::settings::Settings;
use crate::config::Config;
use crate::gateway::{self, Gateway, Listeners, StartError};
use crate::telemetry::{self, Telemetry};

/// Serve clients and backends until SIGTERM or SIGINT
///
/// The signal drains the gateway: clients are disconnected over the drain window, calls in flight are completed, and the
/// process ends with 0. A second signal ends it at once. SIGHUP, SIGUSR1 and SIGUSR2 are logged and ignored: settings are
/// read at the start only.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = Config::check(&self.settings.sources()?)?;
        let telemetry = start_telemetry(&config.telemetry)?;
        let mut signals = Signals::listen(Hangup::Ignore)?;
        let listeners = listen(&config).await?;
        let starting = start(config.gateway(false)?, listeners);
        // The start may wait for NATS.
        let gateway = tokio::select! {
            started = starting => started?,
            () = signals.asked() => {
                tracing::info!("termination requested during start");
                return Ok(());
            }
        };
        until_asked(signals, vec![gateway], telemetry).await;
        Ok(())
    }
}

pub(super) fn start_telemetry(config: &telemetry::Config) -> Result<Telemetry, Failure> {
    let telemetry = Telemetry::start(config).map_err(|error| Failure::No(format!("telemetry: {error}")))?;
    telemetry::log_panics();
    Ok(telemetry)
}

pub(super) async fn listen(config: &Config) -> Result<Listeners, Failure> {
    raise_open_files();
    Ok(Listeners {
        client: bind("client.listen", config.client.listen).await?,
        grpc: bind("grpc.listen", config.grpc.listen).await?,
        admin: match config.admin.listen {
            Some(address) => Some(bind("admin.listen", address).await?),
            None => None,
        },
    })
}

/// Raises the soft limit of open files to the hard one.
///
/// Each connection is a file, a usual soft limit is 1,024, and a pod cannot set another.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "limit of open files not raised");
    }
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Undone(format!("cannot listen on {address} ({key}): {error}")))
}

pub(super) async fn start(config: gateway::Config, listeners: Listeners) -> Result<Gateway, Failure> {
    Gateway::start(config, listeners).await.map_err(|error| match error {
        StartError::Bus(_)
        | StartError::Cluster(_)
        | StartError::Metrics(_)
        | StartError::Listeners(_)
        | StartError::Shards(_) => Failure::Undone(format!("cannot start: {error}")),
        StartError::Auth(_) | StartError::Policy(_) | StartError::Backend(_) | StartError::Api(_) => {
            Failure::No(error.to_string())
        }
    })
}

/// Serves until SIGTERM or SIGINT, then drains.
pub(super) async fn until_asked(mut signals: Signals, gateways: Vec<Gateway>, telemetry: Telemetry) {
    signals.asked().await;
    tokio::select! {
        _ = join_all(gateways.into_iter().map(Gateway::shutdown)) => {}
        () = signals.asked() => tracing::warn!("second termination signal, exiting immediately"),
    }
    telemetry.shutdown().await;
}

/// The meaning of SIGHUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// In a service: tools send it to reopen files or reread settings, and neither is needed here.
    Ignore,
    /// In a program at a terminal: the terminal was closed.
    End,
}

/// Handlers of the signals that would kill a process without one. Installed before the gateway can be known to run.
/// SIGQUIT has none: it ends a process at once, with a core dump. The Rust runtime ignores SIGPIPE.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: [Signal; 2],
    on_hangup: Hangup,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// [`Failure::Undone`] when the system refuses a handler.
    pub fn listen(on_hangup: Hangup) -> Result<Self, Failure> {
        // Read before the handler is installed: `nohup` has SIGHUP ignored, which must stay so.
        let on_hangup = if hangup_is_ignored() { Hangup::Ignore } else { on_hangup };
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Undone(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user: [
                listen(SignalKind::user_defined1())?,
                listen(SignalKind::user_defined2())?,
            ],
            on_hangup,
        })
    }

    /// Waits for a signal to end.
    pub async fn asked(&mut self) {
        loop {
            let [user1, user2] = &mut self.user;
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => match self.on_hangup {
                    Hangup::End => return,
                    Hangup::Ignore => "SIGHUP",
                },
                _ = user1.recv() => "SIGUSR1",
                _ = user2.recv() => "SIGUSR2",
            };
            tracing::warn!(signal = ignored, "signal ignored, settings cannot be reloaded");
        }
    }
}

/// Returns true when this process was started with SIGHUP ignored, where Linux reports it.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The first signal is the lowest bit, and SIGHUP is the first.
    ignored.is_some_and(|mask| mask & 1 == 1)
}
