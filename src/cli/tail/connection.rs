//! One connection of `tail`, from the upgrade to its end.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderValue, StatusCode};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Run;
use super::print::Line;
use crate::cli::failure::chain;
use crate::cli::reach::{Cause, Port, Unreached};
use crate::proto::client_v1::client_frame::Command;
use crate::proto::client_v1::server_frame::Message as Push;
use crate::proto::client_v1::{
    ClientFrame, Connect, Connected, ErrorCode, ErrorReply, Event, Joined, ReconnectAdvice, RoomLeft, ServerFrame,
};
use crate::url::shown;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Deadline of connecting, and of the reply to the first command.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time beyond the announced heartbeat for which the server may be silent.
const HEARTBEAT_GRACE: Duration = Duration::from_secs(8);

/// Id of the first command. The join of the n-th room has this id plus n + 1.
const CONNECT_ID: u32 = 1;

/// Reason why a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Every requested event was printed.
    Enough,
    /// The gateway refused, and would refuse again.
    Refused(String),
    /// A retry may succeed, after `wait` where the gateway asked for that.
    Lost { reason: String, wait: Option<Duration> },
}

impl Ended {
    fn lost(reason: impl Into<String>) -> Self {
        Self::Lost {
            reason: reason.into(),
            wait: None,
        }
    }
}

/// Connects and follows the rooms until the connection ends.
pub(super) async fn run(run: &mut Run, token: &str) -> Ended {
    let socket = match timeout(CONNECT_TIMEOUT, open(&run.url)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::lost(unreached(&run.url, Cause::Silent(CONNECT_TIMEOUT))),
    };
    let mut connection = Connection {
        socket,
        run,
        silence_max: CONNECT_TIMEOUT,
        advice: None,
    };
    let ended = match connection.follow(token).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    };
    connection.socket.close(None).await.ok();
    ended
}

async fn open(url: &str) -> Result<Socket, Ended> {
    let request = request(url).map_err(|error| Ended::Refused(format!("{}: {}", shown(url), chain(&error))))?;
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => Err(answered(url, answer.status())),
        Err(error) => Err(Ended::lost(unreached(url, Cause::of(&error, CONNECT_TIMEOUT)))),
    }
}

/// Classifies an HTTP reply in place of a WebSocket. A full gateway, and a proxy without a gateway, are worth a retry.
fn answered(url: &str, status: StatusCode) -> Ended {
    let answer = format!("{} answered {status}", shown(url));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Ended::lost(answer),
        status if status.is_server_error() => Ended::lost(answer),
        StatusCode::FORBIDDEN => Ended::Refused(answer),
        _ => Ended::Refused(format!("{answer}: {}", unreached(url, Cause::OtherProtocol))),
    }
}

fn unreached(url: &str, cause: Cause) -> String {
    let port = Port::Client;
    Unreached { url, port, cause }.to_string()
}

fn request(url: &str) -> Result<Request, tungstenite::Error> {
    let mut request = url.into_client_request()?;
    let protocol = HeaderValue::from_static("roomcast.v1.protobuf");
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    Ok(request)
}

struct Connection<'r> {
    socket: Socket,
    run: &'r mut Run,
    silence_max: Duration,
    /// Time after which the gateway wants a reconnect.
    advice: Option<Duration>,
}

impl Connection<'_> {
    async fn follow(&mut self, token: &str) -> Result<std::convert::Infallible, Ended> {
        let connect = Connect {
            token: token.to_owned(),
            client: concat!("roomcast-tail/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Connect::default()
        };
        self.send(CONNECT_ID, Command::Connect(connect)).await?;
        loop {
            let frame = self.next().await?;
            if let Some(message) = frame.message {
                self.take(frame.id, message).await?;
            }
        }
    }

    async fn send(&mut self, id: u32, command: Command) -> Result<(), Ended> {
        let frame = ClientFrame {
            id,
            command: Some(command),
        };
        let sent = self.socket.send(Message::Binary(frame.encode_to_vec().into())).await;
        sent.map_err(|error| self.broken(&error))
    }

    /// Returns the next frame. Pings only show that the gateway lives.
    async fn next(&mut self) -> Result<ServerFrame, Ended> {
        loop {
            let message = match timeout(self.silence_max, self.socket.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(self.broken(&error)),
                Ok(None) => return Err(self.closed(None)),
                Err(_) => return Err(Ended::lost("no heartbeat from the gateway")),
            };
            match message {
                Message::Binary(bytes) => {
                    return ServerFrame::decode(bytes).map_err(|error| Ended::Refused(format!("not a frame: {error}")));
                }
                Message::Close(frame) => return Err(self.closed(frame)),
                Message::Text(_) => return Err(Ended::Refused("the gateway does not speak roomcast.v1".to_owned())),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    async fn take(&mut self, id: u32, message: Push) -> Result<(), Ended> {
        match message {
            Push::Connected(connected) => self.connected(&connected).await,
            Push::Joined(joined) => {
                self.joined(&joined);
                Ok(())
            }
            Push::Event(event) => self.event(&event),
            Push::Error(refusal) => self.refused(id, &refusal),
            Push::RoomLeft(left) => self.put_out(&left),
            Push::Disconnected(told) => self.notice("", &format!("disconnected ({}) {}", told.reason, told.message)),
            Push::Resync(resync) => self.resync(&resync.room).await,
            Push::Passed(passed) => {
                if let Some(index) = self.index(&passed.room) {
                    let gap = self.run.rooms[index].passed(&passed);
                    self.report(index, gap);
                }
                Ok(())
            }
            Push::PresenceDelta(delta) => {
                self.run.printer.show(&Line::Presence(&delta));
                Ok(())
            }
            Push::ReconnectAdvice(advice) => {
                self.advice = Some(pause(&advice));
                Ok(())
            }
            Push::Degraded(degraded) => {
                let text = if degraded.active {
                    "events may be late"
                } else {
                    "events are on time again"
                };
                self.notice("", text)
            }
            Push::SessionExpiring(_) => self.notice("", "the token expires soon"),
            // Replies to commands that are not sent here, or messages newer than this program.
            _ => Ok(()),
        }
    }

    async fn connected(&mut self, connected: &Connected) -> Result<(), Ended> {
        (self.run.connected, self.run.attempts) = (true, 0);
        if connected.heartbeat_interval_ms > 0 {
            self.silence_max = Duration::from_millis(connected.heartbeat_interval_ms.into()) + HEARTBEAT_GRACE;
        }
        self.run.printer.show(&Line::Connected {
            user: &connected.user_id,
            connection: &connected.connection_id,
        });
        for index in 0..self.run.rooms.len() {
            self.join(index).await?;
        }
        Ok(())
    }

    async fn join(&mut self, index: usize) -> Result<(), Ended> {
        let id = CONNECT_ID + 1 + u32::try_from(index).unwrap_or(u32::MAX - CONNECT_ID - 1);
        let join = self.run.rooms[index].join(self.run.presence);
        self.send(id, Command::Join(join)).await
    }

    fn joined(&mut self, joined: &Joined) {
        if let Some(index) = self.index(&joined.room) {
            let room = &mut self.run.rooms[index];
            let resumed = room.resumes();
            room.joined(joined);
            self.run.printer.show(&Line::Joined { joined, resumed });
        }
    }

    fn event(&mut self, event: &Event) -> Result<(), Ended> {
        let Some(index) = self.index(&event.room) else {
            // A room that the server joined for this user.
            return Ok(());
        };
        let gap = self.run.rooms[index].event(event);
        self.report(index, gap);
        self.run.printer.show(&Line::Event(event));
        match &mut self.run.left {
            Some(left) => {
                *left = left.saturating_sub(1);
                if *left == 0 { Err(Ended::Enough) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    fn report(&self, index: usize, gap: Option<super::follow::Gap>) {
        if let Some(gap) = gap {
            let room = &self.run.rooms[index].name;
            self.run.printer.show(&Line::Gap { room, gap });
        }
    }

    fn refused(&mut self, id: u32, refusal: &ErrorReply) -> Result<(), Ended> {
        let text = format!("{}: {}", refusal.reason, refusal.message);
        let room = (id as usize)
            .checked_sub(CONNECT_ID as usize + 1)
            .and_then(|index| self.run.rooms.get(index));
        let what = room.map_or_else(|| "connecting".to_owned(), |room| format!("joining {}", room.name));
        let text = format!("{what} was refused: {text}");
        Err(match refusal.code() {
            ErrorCode::Unavailable | ErrorCode::RateLimited => Ended::Lost {
                reason: text,
                wait: Some(Duration::from_millis(refusal.retry_after_ms.max(500).into())),
            },
            _ => Ended::Refused(text),
        })
    }

    fn put_out(&mut self, left: &RoomLeft) -> Result<(), Ended> {
        self.notice(
            &left.room,
            &format!("put out of the room ({}) {}", left.reason, left.message),
        )?;
        self.run.rooms.retain(|room| room.name != left.room);
        if self.run.rooms.is_empty() {
            return Err(Ended::Refused("no room is left to follow".to_owned()));
        }
        Ok(())
    }

    async fn resync(&mut self, room: &str) -> Result<(), Ended> {
        self.notice(room, "continuity is lost, read the state anew")?;
        let Some(index) = self.index(room) else { return Ok(()) };
        self.run.rooms[index].forget();
        self.join(index).await
    }

    #[expect(clippy::unnecessary_wraps, reason = "the arms of `take` end alike")]
    fn notice(&self, room: &str, text: &str) -> Result<(), Ended> {
        self.run.printer.show(&Line::Notice { room, text });
        Ok(())
    }

    fn index(&self, room: &str) -> Option<usize> {
        self.run.rooms.iter().position(|own| own.name == room)
    }

    fn broken(&self, error: &tungstenite::Error) -> Ended {
        Ended::Lost {
            reason: format!("the connection broke: {}", chain(error)),
            wait: self.advice,
        }
    }

    /// Classifies a close. Codes from 4500 on mean that a reconnect does not help (docs/protocol.md).
    fn closed(&self, frame: Option<CloseFrame>) -> Ended {
        let Some(frame) = frame else {
            return Ended::Lost {
                reason: "the gateway closed the connection".to_owned(),
                wait: self.advice,
            };
        };
        let code = u16::from(frame.code);
        let reason = format!("the gateway closed the connection: {code} {}", frame.reason.as_str());
        if (4500..5000).contains(&code) {
            return Ended::Refused(reason);
        }
        Ended::Lost {
            reason,
            wait: self.advice,
        }
    }
}

fn pause(advice: &ReconnectAdvice) -> Duration {
    let jitter = rand::random_range(0..=advice.jitter_ms);
    Duration::from_millis(u64::from(advice.delay_ms) + u64::from(jitter))
}
