//! One member: how it gets in, and what it hears.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

use crate::{
    frames::{self, CLOSE, PING, PONG, TEXT},
    hall::Tally,
    token::Signer,
};

const JOINS: u8 = 2;
/// The handshake's key: the one of RFC 6455 section 1.3. Nobody here checks the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// How far a member is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Upgrading,
    /// This many joins were answered.
    Joining(u8),
    Inside,
}

/// A member, as small as it can be: it is held by the hundred thousand.
pub struct Connection {
    stream: TcpStream,
    state: State,
    pub number: u32,
    /// What came of a message that is not whole yet; seldom there.
    unfinished: Vec<u8>,
}

/// What all members need to get in.
pub struct Door {
    pub host: String,
    pub path: String,
    pub signer: Signer,
}

impl Connection {
    /// Begins to connect.
    pub fn dial(from: Ipv4Addr, to: SocketAddr, number: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Ports are free again at once: a run of a million would otherwise leave as many behind for a minute.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        // EINPROGRESS has no stable kind; whatever else is wrong shows once the socket is ready.
        let _ = socket.connect(&to.into());
        Ok(Self {
            stream: TcpStream::from_std(socket.into()),
            state: State::Connecting,
            number,
            unfinished: Vec::new(),
        })
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub fn is_inside(&self) -> bool {
        self.state == State::Inside
    }

    /// Goes on as far as possible now.
    ///
    /// # Errors
    ///
    /// Why the connection is over.
    pub fn ready(&mut self, buffer: &mut [u8], door: &Door, tally: &mut Tally) -> Result<(), String> {
        if self.state == State::Connecting {
            if let Some(error) = self.stream.take_error().map_err(|error| error.to_string())? {
                return Err(format!("connect: {error}"));
            }
            if self.stream.peer_addr().is_err() {
                return Ok(());
            }
            let Door { host, path, .. } = door;
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
                 Sec-WebSocket-Protocol: roomcast.v1.json\r\n\r\n"
            );
            self.say(request.as_bytes())?;
            self.state = State::Upgrading;
        }
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("read: {error}")),
            };
            self.hear(&buffer[..read], door, tally)?;
        }
    }

    fn hear(&mut self, read: &[u8], door: &Door, tally: &mut Tally) -> Result<(), String> {
        let mut joined = std::mem::take(&mut self.unfinished);
        let mut bytes = if joined.is_empty() {
            read
        } else {
            joined.extend(read);
            joined.as_slice()
        };
        if self.state == State::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                self.unfinished = bytes.to_vec();
                return Ok(());
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(format!("upgrade: {}", String::from_utf8_lossy(line)));
            }
            bytes = &bytes[end + 4..];
            self.enter(door)?;
        }
        while let Some((opcode, payload)) = frames::take(&mut bytes) {
            match opcode {
                TEXT => self.hear_text(payload, tally)?,
                PING => {
                    tally.pings += 1;
                    let mut pong = Vec::with_capacity(16);
                    frames::push(&mut pong, PONG, payload);
                    self.say(&pong)?;
                }
                CLOSE => {
                    let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                    return Err(format!("closed by the server with {code}"));
                }
                _ => {}
            }
        }
        if !bytes.is_empty() {
            self.unfinished = bytes.to_vec();
        }
        Ok(())
    }

    /// Says who it is and where it wants to be, in one go.
    fn enter(&mut self, door: &Door) -> Result<(), String> {
        let (token, number) = (door.signer.sign(self.number), self.number);
        let mut said = Vec::with_capacity(1024);
        for command in [
            format!(r#"{{"id":1,"connect":{{"token":"{token}","client":"crowd"}}}}"#),
            format!(r#"{{"id":2,"join":{{"room":"ten:{}"}}}}"#, number / 10),
            format!(r#"{{"id":3,"join":{{"room":"thousand:{}"}}}}"#, number / 1000),
        ] {
            frames::push(&mut said, TEXT, command.as_bytes());
        }
        self.state = State::Joining(0);
        self.say(&said)
    }

    fn hear_text(&mut self, text: &[u8], tally: &mut Tally) -> Result<(), String> {
        if text.starts_with(br#"{"event""#) {
            tally.event(at(text).map_or(0, |at| now_us().saturating_sub(at)));
            return Ok(());
        }
        let State::Joining(joined) = self.state else {
            return Ok(());
        };
        if contains(text, br#""error":"#) {
            return Err(format!("refused: {}", String::from_utf8_lossy(text)));
        }
        if text.starts_with(br#"{"id":2,"joined""#) || text.starts_with(br#"{"id":3,"joined""#) {
            self.state = match joined + 1 {
                JOINS => State::Inside,
                joined => State::Joining(joined),
            };
        }
        Ok(())
    }

    /// So little is said that the kernel always takes it.
    fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("write: {error}"))
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// When an event was published.
fn at(text: &[u8]) -> Option<u64> {
    const NAME: &[u8] = br#"{"at":"#;
    let place = text.windows(NAME.len()).position(|window| window == NAME)?;
    let digits = text[place + NAME.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_event_is_found() {
        assert_eq!(at(br#"{"event":{"room":"r","payload":{"at":1234}}}"#), Some(1234));
        assert_eq!(at(br#"{"event":{"room":"r","payload":{}}}"#), None);
    }
}
