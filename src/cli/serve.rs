//! `serve`: the gateway in service, until the process is asked to end.

use std::net::SocketAddr;

use clap::Args;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::settings::Settings;
use crate::config::Config;
use crate::gateway::{self, Gateway, Listeners, StartError};
use crate::telemetry::{self, Telemetry};

/// Serve clients and backends until SIGTERM or SIGINT
///
/// The signal makes the gateway send its clients away, spread over the drain window, answer what is under way and end
/// with 0. A second signal ends it at once.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.settings.load()?;
        let telemetry = start_telemetry(&config.telemetry)?;
        let signals = Signals::listen()?;
        let listeners = listen(&config).await?;
        let gateway = start(config.gateway(false)?, listeners).await?;
        until_asked(signals, vec![gateway], telemetry).await;
        Ok(())
    }
}

pub(super) fn start_telemetry(config: &telemetry::Config) -> Result<Telemetry, Failure> {
    Telemetry::start(config).map_err(|error| Failure::No(format!("telemetry: {error}")))
}

pub(super) async fn listen(config: &Config) -> Result<Listeners, Failure> {
    Ok(Listeners {
        client: bind("client.listen", config.client.listen).await?,
        grpc: bind("grpc.listen", config.grpc.listen).await?,
    })
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Undone(format!("cannot listen on {address} ({key}): {error}")))
}

pub(super) async fn start(config: gateway::Config, listeners: Listeners) -> Result<Gateway, Failure> {
    Gateway::start(config, listeners).await.map_err(|error| match error {
        StartError::Io(_) | StartError::Nats(_) => Failure::Undone(format!("cannot start: {error}")),
        StartError::Auth(_) | StartError::Policy(_) | StartError::Backend(_) | StartError::Api(_) => {
            Failure::No(error.to_string())
        }
    })
}

/// Serves until SIGTERM or SIGINT, then drains.
pub(super) async fn until_asked(mut signals: Signals, gateways: Vec<Gateway>, telemetry: Telemetry) {
    signals.next().await;
    tokio::select! {
        _ = join_all(gateways.into_iter().map(Gateway::shutdown)) => {}
        () = signals.next() => tracing::warn!("asked a second time, ending at once"),
    }
    telemetry.shutdown().await;
}

/// SIGTERM and SIGINT. Listened for before anybody can know that the gateway runs: until then they kill.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Undone(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
