//! The loop: accepts, upgrades, reads what to publish, writes it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net,
    rc::Rc,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use roomcast_peers::control;
use slab::Slab;

use crate::{
    backlog::Backlog,
    rooms::{MemberKey, RoomKey, Rooms},
    wire::{self, Asked, Broken},
};

const MEMBERS: Token = Token(usize::MAX - 1);
const CONTROL: Token = Token(usize::MAX - 2);
/// Control connections count from here, members from 0.
const CONTROL_FIRST: usize = usize::MAX / 2;
/// Read in one call. From the control connection this bounds what can arrive together.
const READ_BYTES: usize = 256 << 10;

/// A member, before and after its upgrade. Small: it is what an idle connection costs here.
struct Member {
    stream: TcpStream,
    /// None before the upgrade.
    rooms: Option<Box<[RoomKey]>>,
    /// A request or frame that is not whole yet; seldom there.
    unfinished: Vec<u8>,
    /// None while the socket takes everything.
    backlog: Option<Box<Backlog>>,
}

impl Member {
    /// Writes now, or behind what waits already. `shared` makes the bytes shareable, only when they must wait.
    fn send(&mut self, bytes: &[u8], shared: impl FnOnce() -> Rc<[u8]>) -> io::Result<()> {
        if let Some(backlog) = &mut self.backlog {
            backlog.push(shared());
            return Ok(());
        }
        let written = loop {
            match self.stream.write(bytes) {
                Ok(written) => break written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if written < bytes.len() {
            // The kernel says when there is room again only to one who met the end of it, so meet it.
            self.backlog = Some(Box::new(Backlog::of(shared(), written)));
            self.drain()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> io::Result<()> {
        if let Some(backlog) = &mut self.backlog
            && backlog.drain(&mut self.stream)?
        {
            self.backlog = None;
        }
        Ok(())
    }
}

/// Who says what to publish.
struct Control {
    stream: TcpStream,
    unfinished: Vec<u8>,
}

/// The whole server.
pub struct Server {
    poll: Poll,
    member_listener: TcpListener,
    control_listener: TcpListener,
    members: Slab<Member>,
    controls: Slab<Control>,
    rooms: Rooms,
    scratch: Box<[u8]>,
}

impl Server {
    pub fn new(members: net::TcpListener, control: net::TcpListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut member_listener = TcpListener::from_std(members);
        let mut control_listener = TcpListener::from_std(control);
        poll.registry()
            .register(&mut member_listener, MEMBERS, Interest::READABLE)?;
        poll.registry()
            .register(&mut control_listener, CONTROL, Interest::READABLE)?;
        Ok(Self {
            poll,
            member_listener,
            control_listener,
            members: Slab::new(),
            controls: Slab::new(),
            rooms: Rooms::default(),
            scratch: vec![0; READ_BYTES].into(),
        })
    }

    /// Runs until accepting fails, which means that the limit of open files is too low.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    MEMBERS => self.accept_members()?,
                    CONTROL => self.accept_controls()?,
                    Token(key) if key >= CONTROL_FIRST => self.control_is_ready(key - CONTROL_FIRST),
                    Token(key) => self.member_is_ready(key, event.is_read_closed()),
                }
            }
        }
    }

    fn accept_members(&mut self) -> io::Result<()> {
        while let Some(mut stream) = accept(&self.member_listener)? {
            let slot = self.members.vacant_entry();
            // Edge-triggered: being told of room to write costs nothing until a write has failed for want of it.
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(slot.key()), both)?;
            slot.insert(Member {
                stream,
                rooms: None,
                unfinished: Vec::new(),
                backlog: None,
            });
        }
        Ok(())
    }

    fn accept_controls(&mut self) -> io::Result<()> {
        while let Some(mut stream) = accept(&self.control_listener)? {
            let slot = self.controls.vacant_entry();
            let token = Token(CONTROL_FIRST + slot.key());
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            slot.insert(Control {
                stream,
                unfinished: Vec::new(),
            });
        }
        Ok(())
    }

    fn member_is_ready(&mut self, key: MemberKey, is_read_closed: bool) {
        // One that left earlier in the same turn is still among the turn's events.
        let Some(member) = self.members.get_mut(key) else {
            return;
        };
        let stays = member.drain().is_ok() && self.read_member(key, is_read_closed).unwrap_or(false);
        if !stays {
            self.remove(key);
        }
    }

    /// Reads what there is; whether the member stays.
    fn read_member(&mut self, key: MemberKey, is_read_closed: bool) -> io::Result<bool> {
        loop {
            let read = match self.members[key].stream.read(&mut self.scratch) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if !self.take(key, read).unwrap_or(false) {
                return Ok(false);
            }
            // Less than asked for: the socket is empty, unless its end was announced and is still to be read.
            if read < self.scratch.len() && !is_read_closed {
                return Ok(true);
            }
        }
    }

    /// Handles the bytes just read; whether the member stays.
    fn take(&mut self, key: MemberKey, read: usize) -> Result<bool, Broken> {
        let member = &mut self.members[key];
        let mut joined = std::mem::take(&mut member.unfinished);
        let mut bytes = if joined.is_empty() {
            &self.scratch[..read]
        } else {
            joined.extend(&self.scratch[..read]);
            joined.as_slice()
        };
        if member.rooms.is_none()
            && let Some(upgrade) = wire::upgrade(bytes)?
        {
            member.rooms = Some(upgrade.rooms.iter().map(|room| self.rooms.join(room, key)).collect());
            bytes = &bytes[upgrade.length..];
            let response = upgrade.response.as_bytes();
            member.send(response, || Rc::from(response)).map_err(|_| Broken)?;
        }
        if member.rooms.is_some() {
            while let Some(asked) = wire::frame(&mut bytes)? {
                match asked {
                    Asked::Nothing => {}
                    Asked::Pong(frame) => {
                        member.send(&frame, || Rc::from(frame.as_slice())).map_err(|_| Broken)?;
                    }
                    Asked::Close(frame) => {
                        member.send(&frame, || Rc::from(frame.as_slice())).map_err(|_| Broken)?;
                        return Ok(false);
                    }
                }
            }
        }
        if !bytes.is_empty() {
            member.unfinished = bytes.to_vec();
        }
        Ok(true)
    }

    fn remove(&mut self, key: MemberKey) {
        let member = self.members.remove(key);
        for room in member.rooms.iter().flatten() {
            self.rooms.leave(*room, key);
        }
        // Dropping the stream closes it, and with that ends its registration.
    }

    fn control_is_ready(&mut self, key: usize) {
        loop {
            match self.publish_what_arrived(key) {
                Ok(true) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(false) => break,
                Err(error) => {
                    eprintln!("error: a control connection ended: {error}");
                    break;
                }
            }
        }
        self.controls.remove(key);
    }

    /// Reads once and publishes all of it; whether the connection stays.
    fn publish_what_arrived(&mut self, key: usize) -> io::Result<bool> {
        let Some(control) = self.controls.get_mut(key) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let read = control.stream.read(&mut self.scratch)?;
        control.unfinished.extend(&self.scratch[..read]);
        let mut rest = control.unfinished.as_slice();
        while let Some(publish) = control::decode(&mut rest)? {
            if let Some(frames) = self.rooms.frames_of(publish.room) {
                wire::push_text(frames, publish.text);
            }
        }
        let taken = control.unfinished.len() - rest.len();
        control.unfinished.drain(..taken);
        self.fan_out();
        Ok(read > 0)
    }

    fn fan_out(&mut self) {
        let mut gone = Vec::new();
        let members = &mut self.members;
        self.rooms.flush(|keys, frames| {
            let mut shared: Option<Rc<[u8]>> = None;
            for key in keys {
                let share = || shared.get_or_insert_with(|| Rc::from(frames)).clone();
                if members[*key].send(frames, share).is_err() {
                    gone.push(*key);
                }
            }
        });
        // In two rooms of one flush, a member can be found gone twice.
        gone.sort_unstable();
        gone.dedup();
        for key in gone {
            self.remove(key);
        }
    }
}

/// The next who waits, with delays switched off; nothing if nobody does.
fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nodelay(true)?;
                return Ok(Some(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(error),
        }
    }
}
