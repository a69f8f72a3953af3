//! One member: a socket, how far it is, and what it has received. Nothing else belongs to it at rest.

mod polling;

use std::io::{self, Read as _, Write as _};

use mio::Registry;
use mio::event::Event;
use mio::net::TcpStream;

use self::polling::Polling;
use super::super::frames::{
    self, BINARY, Broken, CLOSE, CONTINUATION, Frame, Framing, HEAD_END, PING, PONG, Remainder, TEXT,
};
use super::super::tally::Tally;
use super::super::wire::{Heard, Wire};
use super::ledger::{Group, Ledger};
use super::plan::Plan;

/// The longest head of an answer to the upgrade.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The phase of a member's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Dialing,
    Upgrading,
    Connecting,
    /// Waits for this many answers.
    Joining(u8),
    Inside,
}

/// A member and its connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    pub(super) number: u32,
    /// The room whose events count.
    room: u32,
    pub(super) group: Group,
    phase: Phase,
    pub(super) tally: Tally,
    /// Commands of a drill given.
    turns: u32,
    /// The received part of a frame, or of the head of the upgrade's response.
    unread: Remainder,
    head: Vec<u8>,
    /// Bytes that the socket did not accept yet.
    unsent: Vec<u8>,
    /// The requests of a member that polls.
    polling: Option<Box<Polling>>,
}

/// The reason why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The server asks to come back later.
    Busy,
    Gone(String),
    Refused(String),
}

impl From<Broken> for End {
    fn from(_: Broken) -> Self {
        Self::Refused("the server sent a frame that none of ours sends".to_owned())
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}

impl Connection {
    pub(super) fn new(socket: TcpStream, number: u32, plan: &Plan) -> Self {
        let room = (plan.rooms_of)(number).first().copied().unwrap_or(0);
        Self {
            socket,
            number,
            room,
            group: plan.group(room),
            phase: Phase::Dialing,
            tally: Tally::starting_at(plan.first_event),
            turns: 0,
            unread: Remainder::default(),
            head: Vec::new(),
            unsent: Vec::new(),
            polling: (plan.wire == Wire::SocketioPolling).then(Box::default),
        }
    }

    pub(super) fn is_inside(&self) -> bool {
        self.phase == Phase::Inside
    }

    pub(super) fn is_complete(&self, ledger: &Ledger) -> bool {
        self.is_inside() && self.tally.is_complete(ledger.expected[self.group])
    }

    /// Says goodbye; whether the server hears it is all the same.
    pub(super) fn part(&mut self) {
        let _ = self.socket.write(&frames::write(CLOSE, &1000_u16.to_be_bytes()));
    }

    /// Hears nothing from now on.
    pub(super) fn deafen(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.socket)
    }

    /// Does what the socket is ready for.
    pub(super) fn ready(
        &mut self,
        event: &Event,
        buffer: &mut [u8],
        plan: &Plan,
        ledger: &mut Ledger,
    ) -> Result<(), End> {
        if event.is_writable() {
            self.writable(plan)?;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.readable(buffer, plan, ledger)?;
        }
        Ok(())
    }

    fn writable(&mut self, plan: &Plan) -> Result<(), End> {
        if self.phase == Phase::Dialing {
            if let Some(error) = self.socket.take_error()? {
                return Err(error.into());
            }
            if self.polling.is_some() {
                self.phase = Phase::Connecting;
                return self.poll(plan);
            }
            self.phase = Phase::Upgrading;
            let token = match plan.wire {
                Wire::Sse => self.token(plan)?,
                _ => String::new(),
            };
            let rooms = plan.rooms(self.number);
            return self.send(&plan.wire.request(&plan.host, &plan.path, &rooms, &token));
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.send(&unsent)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let mut rest = bytes;
        while !rest.is_empty() && self.unsent.is_empty() {
            match self.socket.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent.extend_from_slice(rest);
        Ok(())
    }

    fn readable(&mut self, buffer: &mut [u8], plan: &Plan, ledger: &mut Ledger) -> Result<(), End> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(End::Gone("the server closed it".to_owned())),
                Ok(count) => {
                    self.take(&buffer[..count], plan, ledger)?;
                    if count < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], plan: &Plan, ledger: &mut Ledger) -> Result<(), End> {
        if self.phase == Phase::Upgrading {
            return self.upgraded(bytes, plan, ledger);
        }
        let framing = match plan.wire {
            Wire::Sse => Framing::Blocks,
            Wire::SocketioPolling => Framing::Responses,
            _ => Framing::WebSocket,
        };
        let mut unread = std::mem::take(&mut self.unread);
        let done = unread.feed(framing, bytes, |frame| match framing {
            Framing::Responses => self.answered(frame.payload, plan, ledger),
            _ => self.frame(frame, plan, ledger),
        });
        self.unread = unread;
        done
    }

    fn token(&self, plan: &Plan) -> Result<String, End> {
        let token = plan.token(self.number);
        token.map_err(|failure| End::Refused(failure.to_string()))
    }

    /// Says something of the protocol, in the next request if the member polls.
    fn say(&mut self, bytes: &[u8]) -> Result<(), End> {
        match &mut self.polling {
            Some(polling) => {
                polling.say(bytes);
                Ok(())
            }
            None => self.send(bytes),
        }
    }

    /// Reads the answer to the first request, and what came right behind it.
    fn upgraded(&mut self, bytes: &[u8], plan: &Plan, ledger: &mut Ledger) -> Result<(), End> {
        self.head.extend_from_slice(bytes);
        let Some(end) = frames::find(&self.head, HEAD_END) else {
            return match self.head.len() {
                ..HEAD_BYTES_MAX => Ok(()),
                _ => Err(End::Refused("the server answered with an endless head".to_owned())),
            };
        };
        let head = std::mem::take(&mut self.head);
        let expected: &[u8] = if plan.wire == Wire::Sse { b"200" } else { b"101" };
        check_status(&head, expected, plan)?;
        self.phase = Phase::Connecting;
        match plan.wire {
            Wire::Plain => self.enter(ledger),
            // The request has named the rooms.
            Wire::Sse => self.join(plan)?,
            wire if wire.opens_at_once() => self.connect(plan)?,
            _ => {}
        }
        self.take(&head[end + HEAD_END.len()..], plan, ledger)
    }

    /// Opens the session.
    fn connect(&mut self, plan: &Plan) -> Result<(), End> {
        match plan.wire.connect(&self.token(plan)?) {
            Some(command) => self.say(&command),
            None => Ok(()),
        }
    }

    fn join(&mut self, plan: &Plan) -> Result<(), End> {
        let since = plan.since.get(&self.room);
        let (command, answers) = plan.wire.join(&plan.rooms(self.number), since, plan.issuer.is_none());
        self.phase = Phase::Joining(answers);
        self.say(&command)
    }

    fn enter(&mut self, ledger: &mut Ledger) {
        self.phase = Phase::Inside;
        ledger.entering -= 1;
        ledger.inside += 1;
        ledger.complete += usize::from(self.is_complete(ledger));
    }

    fn frame(&mut self, frame: Frame<'_>, plan: &Plan, ledger: &mut Ledger) -> Result<(), End> {
        match frame.opcode {
            TEXT | BINARY => {
                let heard = plan.wire.hear(frame.payload, &mut ledger.place);
                self.heard(heard, plan, ledger)
            }
            PING => {
                ledger.pings += 1;
                self.send(&frames::write(PONG, frame.payload))
            }
            // What comes behind an event and is this member's alone.
            PONG | CONTINUATION => Ok(()),
            CLOSE => {
                let reason = frame.payload.get(2..).unwrap_or_default();
                let code = frame
                    .payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(reason);
                Err(End::Gone(format!("the server closed it with {code} {reason}")))
            }
            _ => Err(Broken.into()),
        }
    }

    fn heard(&mut self, heard: Heard, plan: &Plan, ledger: &mut Ledger) -> Result<(), End> {
        match (heard, self.phase) {
            (Heard::Event(stamp), _) if stamp.room == self.room => {
                let late_us = ledger.now_us().saturating_sub(stamp.due_us);
                ledger.latencies[self.group].record(late_us);
                ledger.receipt(self.room);
                let was_complete = self.is_complete(ledger);
                self.tally.event(stamp.number, &mut ledger.faults);
                ledger.complete += usize::from(!was_complete && self.is_complete(ledger));
            }
            (Heard::Event(_), _) => ledger.faults.strayed += 1,
            (Heard::Resync, _) => ledger.faults.resyncs += 1,
            (Heard::Refused(why), _) => return Err(End::Refused(why)),
            (Heard::Ping, phase) => {
                ledger.pings += u64::from(phase == Phase::Inside);
                if let Some(pong) = plan.wire.pong() {
                    self.say(&pong)?;
                }
            }
            (Heard::Opened(sid), Phase::Connecting) => {
                if let Some(polling) = &mut self.polling {
                    polling.opened(sid);
                }
                self.connect(plan)?;
            }
            (Heard::Connected, Phase::Connecting) => self.join(plan)?,
            (Heard::Joined { exact }, Phase::Joining(answers)) => {
                if !exact && plan.since.contains_key(&self.room) {
                    return Err(End::Refused("a member could not go on where it was".to_owned()));
                }
                self.phase = Phase::Joining(answers - 1);
                if answers == 1 {
                    self.enter(ledger);
                }
            }
            (Heard::Joined { .. } | Heard::Left, Phase::Inside) => {
                ledger.drilled += 1;
                self.drill(plan, ledger)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Joins or leaves the next room, while that is wanted.
    pub(super) fn drill(&mut self, plan: &Plan, ledger: &Ledger) -> Result<(), End> {
        let Some(rooms) = ledger.drill else {
            return Ok(());
        };
        let room = plan.room((self.number + self.turns / 2) % rooms);
        let is_leave = self.turns % 2 == 1;
        self.turns += 1;
        let command = if is_leave {
            plan.wire.leave(&room)
        } else {
            plan.wire.join(&[room], None, false).0
        };
        self.say(&command)
    }
}

/// Errors when a response has another status than expected.
fn check_status(response: &[u8], expected: &[u8], plan: &Plan) -> Result<(), End> {
    match response.get(9..12) {
        Some(status) if status == expected => Ok(()),
        Some(b"429" | b"503") => Err(End::Busy),
        _ => {
            let line = response.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            Err(End::Refused(format!("{} answered {line}", plan.host)))
        }
    }
}
