//! All members, served by one thread with an epoll set of its own.
//!
//! A scenario runs on that thread and drives the crowd: it lets members in, waits until they have heard what they should,
//! sends them away. Between two calls nothing is read.

mod connection;
mod dial;
mod ledger;
mod plan;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use self::connection::{Connection, End};
pub(super) use self::ledger::{Group, Ledger, Progress};
pub(super) use self::plan::{Plan, RoomsOf, room_name};
use super::tally::{Faults, Tally};
use roomcast::cli::failure::Failure;

/// The number of members that connect at the same time.
const ENTERING_MAX: usize = 64;

/// The longest time without progress while members connect.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause before trying again where the server is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// The longest wait before somebody looks whether the run is still wanted.
const TURN_MAX: Duration = Duration::from_millis(100);

const EVENTS_MAX: usize = 1024;

/// One buffer for all that is read; a read that does not fill it has emptied the socket.
const BUFFER_BYTES: usize = 64 * 1024;

/// The members and what they have heard.
pub(super) struct Crowd {
    pub(super) plan: Plan,
    pub(super) ledger: Ledger,
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    /// By their number.
    connections: Vec<Option<Connection>>,
    /// The tallies of members that have left.
    departed: Vec<(Group, Tally)>,
    /// Members who come back when the server may be less busy.
    waiting: VecDeque<(Instant, u32)>,
    /// Members who read no more.
    stalled: Vec<Connection>,
    stop: Arc<AtomicBool>,
}

impl Crowd {
    pub(super) fn new(plan: Plan, clock: Instant, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        Ok(Self {
            plan,
            ledger: Ledger::new(clock),
            poll: Poll::new().map_err(|error| Failure::Undone(format!("no epoll set: {error}")))?,
            events: Events::with_capacity(EVENTS_MAX),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            connections: Vec::new(),
            departed: Vec::new(),
            waiting: VecDeque::new(),
            stalled: Vec::new(),
            stop,
        })
    }

    /// Lets these members in, and returns when all of them are.
    pub(super) fn enter(&mut self, numbers: Range<u32>) -> Result<(), Failure> {
        let goal = self.ledger.inside + u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let mut numbers = numbers;
        let mut last = (Instant::now(), self.ledger.inside);
        while self.ledger.inside < goal {
            while self.ledger.entering < ENTERING_MAX {
                let Some(number) = self.next_in_line(&mut numbers) else {
                    break;
                };
                self.dial(number)?;
            }
            self.turn(TURN_MAX)?;
            if self.ledger.faults.disconnected > 0 {
                let faults = self.ledger.faults;
                return Err(Failure::No(format!(
                    "a member was disconnected while others connected ({faults})"
                )));
            }
            if self.ledger.inside > last.1 {
                last = (Instant::now(), self.ledger.inside);
            } else if last.0.elapsed() > STEP_TIMEOUT {
                return Err(Failure::Undone(format!("{} did not answer in time", self.plan.host)));
            }
        }
        Ok(())
    }

    /// Serves members until a condition holds, or nothing has come for as long as `patience`; the answer is whether it holds.
    pub(super) fn until(&mut self, patience: Duration, mut done: impl FnMut(&Ledger) -> bool) -> Result<bool, Failure> {
        let mut last = (Instant::now(), self.ledger.received);
        while !done(&self.ledger) {
            self.turn(TURN_MAX.min(patience))?;
            if self.ledger.received > last.1 {
                last = (Instant::now(), self.ledger.received);
            } else if last.0.elapsed() > patience {
                return Ok(done(&self.ledger));
            }
        }
        Ok(true)
    }

    /// Serves members for this long.
    pub(super) fn during(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left.min(TURN_MAX))?;
        }
    }

    /// From now on every member of a group is to have got this many events.
    pub(super) fn expect(&mut self, group: Group, events: u64) {
        self.ledger.expected[group] = events;
        let inside = self.connections.iter().flatten();
        self.ledger.complete = inside.filter(|member| member.is_complete(&self.ledger)).count();
    }

    /// Makes these members stop reading, for good; what they lack is no loss.
    pub(super) fn stall(&mut self, numbers: Range<u32>) -> Result<(), Failure> {
        for number in numbers {
            let Some(mut member) = self.connections.get_mut(number as usize).and_then(Option::take) else {
                continue;
            };
            let deaf = member.deafen(self.poll.registry());
            deaf.map_err(|error| Failure::Undone(format!("cannot let go of a socket: {error}")))?;
            self.ledger.inside -= 1;
            self.stalled.push(member);
        }
        Ok(())
    }

    /// Makes members join and leave these many rooms in turn, one command after the other.
    pub(super) fn drill(&mut self, rooms: u32) -> Result<(), Failure> {
        self.ledger.drill = Some(rooms);
        for member in self.connections.iter_mut().flatten() {
            let begun = member.drill(&self.plan, &self.ledger);
            begun.map_err(|_| Failure::Undone("a connection broke".to_owned()))?;
        }
        Ok(())
    }

    /// Sends everybody away.
    pub(super) fn leave(&mut self) {
        for mut member in self.connections.drain(..).flatten() {
            member.part();
            self.departed.push((member.group, member.tally));
        }
        self.stalled.clear();
        self.ledger.inside = 0;
        self.ledger.complete = 0;
    }

    /// Sends everybody away who will come back: what each lacked by now is lost.
    pub(super) fn leave_whole(&mut self) {
        self.leave();
        self.count_lost();
    }

    /// Everything that went wrong, now that nothing more will come.
    pub(super) fn faults(&mut self) -> Faults {
        self.leave_whole();
        self.ledger.faults
    }

    fn count_lost(&mut self) {
        let expected = self.ledger.expected;
        let lacking = self
            .departed
            .drain(..)
            .map(|(group, tally)| tally.lacking(expected[group]));
        self.ledger.faults.lost += lacking.sum::<u64>();
    }

    fn next_in_line(&mut self, numbers: &mut Range<u32>) -> Option<u32> {
        match self.waiting.front() {
            Some((when, _)) if *when <= Instant::now() => self.waiting.pop_front().map(|(_, number)| number),
            _ => numbers.next(),
        }
    }

    fn dial(&mut self, number: u32) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::Undone(format!("cannot connect to {}: {error}", self.plan.host));
        let mut socket = dial::dial(self.plan.address, number).map_err(failed)?;
        let index = number as usize;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, Token(index), interest)
            .map_err(failed)?;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        self.connections[index] = Some(Connection::new(socket, number, &self.plan));
        self.ledger.entering += 1;
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::Undone("asked to end".to_owned()));
        }
        // Taken out, so that members can be looked at beside it.
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Failure::Undone(format!("cannot wait for sockets: {error}")));
            }
            _ => {}
        }
        let done = events.iter().try_for_each(|event| self.ready(event));
        self.events = events;
        self.ledger.tell_progress();
        done
    }

    fn ready(&mut self, event: &Event) -> Result<(), Failure> {
        let index = event.token().0;
        // One that has gone in this very turn.
        let Some(member) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        let Err(end) = member.ready(event, &mut self.buffer, &self.plan, &mut self.ledger) else {
            return Ok(());
        };
        let was_inside = member.is_inside();
        let number = member.number;
        if let Some(member) = self.connections[index].take() {
            self.departed.extend(was_inside.then_some((member.group, member.tally)));
        }
        if !was_inside {
            self.ledger.entering -= 1;
        }
        match end {
            End::Busy => {
                self.ledger.busy += 1;
                self.waiting.push_back((Instant::now() + BUSY_PAUSE, number));
                Ok(())
            }
            End::Gone(_) if was_inside => {
                self.ledger.inside -= 1;
                self.ledger.faults.disconnected += 1;
                Ok(())
            }
            End::Gone(why) => Err(Failure::Undone(format!("a connection broke: {why}"))),
            End::Refused(why) => Err(Failure::No(why)),
        }
    }
}
