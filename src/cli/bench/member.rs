//! One member: connects, joins its room, and counts what comes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderValue, StatusCode};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use tokio_util::sync::CancellationToken;

use super::latency::Latency;
use super::tally::{Faults, Tally};
use super::wire::{Heard, Stamp, Wire};
use crate::cli::failure::{Failure, chain};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long one step of connecting may take, and how long a gateway may refuse for being busy.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause before trying again where the gateway is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// A buffer for each direction of each member; the usual 128 KiB would be the largest part of this program.
const BUFFER_BYTES: usize = 4 * 1024;

/// How many members share a source address on the loopback network: fewer than a gateway lets in from one address by
/// default, and than one address has ports.
const MEMBERS_PER_SOURCE: u32 = 150;

/// What all members share.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) url: String,
    /// What the host of `url` resolves to.
    pub(super) address: SocketAddr,
    pub(super) wire: Wire,
    /// How many events each member is to get.
    pub(super) events: u64,
    /// Bounds how many connect at once.
    pub(super) entrance: Semaphore,
    /// The run's clock.
    pub(super) start: Instant,
    /// How many have joined.
    pub(super) inside: watch::Sender<u32>,
    /// How many have got everything.
    pub(super) complete: watch::Sender<u32>,
    pub(super) received: AtomicU64,
    /// Attempts to connect that the gateway was too busy for.
    pub(super) busy: AtomicU64,
    pub(super) latency: Mutex<Latency>,
    /// Ends all members.
    pub(super) stop: CancellationToken,
}

/// Who a member is.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) number: u32,
    pub(super) token: String,
    pub(super) room: String,
}

impl Member {
    /// Stays until it is told to leave, and says what went wrong. An error is one that happened before it was in.
    pub(super) async fn run(self, crowd: &Crowd) -> Result<Faults, Failure> {
        let mut socket = {
            // It is never closed; were it, connecting without bound would still be right.
            let _turn = crowd.entrance.acquire().await;
            self.enter(crowd).await?
        };
        crowd.inside.send_modify(|inside| *inside += 1);
        let mut tally = Tally::default();
        let stayed = tokio::select! {
            () = crowd.stop.cancelled() => true,
            () = self.follow(crowd, &mut socket, &mut tally) => false,
        };
        tally.faults.disconnected += u64::from(!stayed);
        // It is over; whether the gateway hears of it in time is all the same.
        let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
        Ok(tally.close(crowd.events))
    }

    async fn enter(&self, crowd: &Crowd) -> Result<Socket, Failure> {
        let steps = async {
            let mut socket = self.connect(crowd).await?;
            self.ask(&mut socket, crowd.wire.connect(&self.token), &Heard::Connected)
                .await?;
            self.ask(&mut socket, crowd.wire.join(&self.room), &Heard::Joined)
                .await?;
            Ok(socket)
        };
        let late = |_| Failure::Undone(format!("{} did not answer in time", crowd.url));
        timeout(STEP_TIMEOUT, steps).await.map_err(late)?
    }

    /// Connects, and comes back as long as the gateway is only busy.
    async fn connect(&self, crowd: &Crowd) -> Result<Socket, Failure> {
        loop {
            match self.open(crowd).await {
                Ok(socket) => return Ok(socket),
                Err(tungstenite::Error::Http(answer)) if is_busy(answer.status()) => {
                    crowd.busy.fetch_add(1, Ordering::Relaxed);
                    sleep(BUSY_PAUSE).await;
                }
                Err(tungstenite::Error::Http(answer)) => {
                    return Err(Failure::No(format!("{} answered {}", crowd.url, answer.status())));
                }
                Err(error) => {
                    return Err(Failure::Undone(format!(
                        "cannot connect to {}: {}",
                        crowd.url,
                        chain(&error)
                    )));
                }
            }
        }
    }

    async fn open(&self, crowd: &Crowd) -> Result<Socket, tungstenite::Error> {
        let mut request = crowd.url.as_str().into_client_request()?;
        let protocol = HeaderValue::from_static(crowd.wire.subprotocol());
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        let stream = self.dial(crowd.address).await?;
        let buffers = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES);
        let (socket, _) = client_async_tls_with_config(request, stream, Some(buffers), None).await?;
        Ok(socket)
    }

    async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(source) = source(address, self.number) {
            socket.bind(SocketAddr::from((source, 0)))?;
        }
        socket.set_nodelay(true)?;
        socket.connect(address).await
    }

    /// Says something and waits for this answer.
    async fn ask(&self, socket: &mut Socket, command: tungstenite::Message, answer: &Heard) -> Result<(), Failure> {
        let broken = |error: &tungstenite::Error| Failure::Undone(format!("a connection broke: {}", chain(error)));
        socket.send(command).await.map_err(|error| broken(&error))?;
        loop {
            let message = match socket.next().await {
                Some(Ok(tungstenite::Message::Close(Some(frame)))) => {
                    return Err(Failure::No(format!("the gateway closed a connection: {frame}")));
                }
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(broken(&error)),
                None => return Err(Failure::Undone("the gateway closed a connection".to_owned())),
            };
            match Heard::read(message, &self.room) {
                Some(Heard::Refused(text)) => return Err(Failure::No(text)),
                Some(heard) if heard == *answer => return Ok(()),
                Some(_) => {}
                None => return Err(Failure::No("the gateway does not speak roomcast.v1".to_owned())),
            }
        }
    }

    /// Counts until the connection ends.
    async fn follow(&self, crowd: &Crowd, socket: &mut Socket, tally: &mut Tally) {
        while let Some(Ok(message)) = socket.next().await {
            match Heard::read(message, &self.room) {
                Some(Heard::Event(stamp)) => crowd.take(stamp, tally),
                Some(Heard::Resync) => tally.faults.resyncs += 1,
                Some(_) | None => {}
            }
        }
    }
}

impl Crowd {
    fn take(&self, stamp: Stamp, tally: &mut Tally) {
        let late_us = self.now_us().saturating_sub(stamp.due_us);
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.record(late_us);
        drop(latency);
        self.received.fetch_add(1, Ordering::Relaxed);
        let was_complete = tally.is_complete(self.events);
        tally.event(stamp.number);
        if !was_complete && tally.is_complete(self.events) {
            self.complete.send_modify(|complete| *complete += 1);
        }
    }

    /// Microseconds of this run.
    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS
}

/// Where a member connects from. On Linux the whole of 127.0.0.0/8 is the loopback network.
fn source(address: SocketAddr, number: u32) -> Option<Ipv4Addr> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() && cfg!(target_os = "linux") => {
            let host = number / MEMBERS_PER_SOURCE;
            Some(Ipv4Addr::from_bits(
                Ipv4Addr::LOCALHOST.to_bits() + (host / 250) * 256 + host % 250,
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_members_come_from_many_addresses_of_the_loopback_network() {
        let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let from = |number| source(gateway, number).map(|ip| ip.to_string());
        if cfg!(target_os = "linux") {
            assert_eq!(from(149).as_deref(), Some("127.0.0.1"));
            assert_eq!(from(150).as_deref(), Some("127.0.0.2"));
            assert_eq!(from(99_999).as_deref(), Some("127.0.2.167"));
        }
        assert_eq!(source(SocketAddr::from(([10, 0, 0, 1], 1)), 0), None);
    }
}
