//! All members of one process, and what became of them.

use std::{
    collections::BTreeMap,
    error::Error,
    io::ErrorKind,
    net::Ipv4Addr,
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use slab::Slab;

use crate::{
    Options,
    connection::{Connection, Door},
    token::Signer,
};

/// Tells the loop that a command waits.
pub const COMMANDS: Token = Token(usize::MAX - 1);

/// How many connect at once: enough to keep a gateway busy, too few to fill its queues.
const ENTERING_MAX: usize = 64;
/// As long as this may pass without anybody getting in before those who try have failed.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// One source address has some 28,000 ports; the kernel finds one faster while most are free.
const MEMBERS_PER_SOURCE: u32 = 5_000;
const BUFFER_BYTES: usize = 64 << 10;
/// Reasons kept apart in the report.
const REASONS_MAX: usize = 8;

/// What has come since it was last told.
#[derive(Default)]
pub struct Tally {
    pub pings: u64,
    latencies_us: Vec<u64>,
}

impl Tally {
    pub fn event(&mut self, latency_us: u64) {
        self.latencies_us.push(latency_us);
    }

    fn told(&mut self) -> Value {
        self.latencies_us.sort_unstable();
        let told = json!({"pings": self.pings, "latencies_us": self.latencies_us});
        *self = Self::default();
        told
    }
}

/// The members of one gateway.
pub struct Hall {
    poll: Poll,
    options: Options,
    door: Door,
    members: Slab<Connection>,
    tally: Tally,
    /// Members dialled so far.
    dialled: u32,
    /// How many are to be dialled in all.
    wanted: u32,
    entering: usize,
    inside: usize,
    /// Whether a `connect` waits for its answer.
    owes_answer: bool,
    progress: Instant,
    failed: u32,
    /// Members who were inside and are not any more.
    lost: u32,
    reasons: BTreeMap<String, u32>,
}

impl Hall {
    pub fn new(poll: Poll, options: Options, secret: &str) -> Self {
        let door = Door {
            host: options.host.clone(),
            path: options.path.clone(),
            signer: Signer::new(secret),
        };
        Self {
            poll,
            options,
            door,
            members: Slab::new(),
            tally: Tally::default(),
            dialled: 0,
            wanted: 0,
            entering: 0,
            inside: 0,
            owes_answer: false,
            progress: Instant::now(),
            failed: 0,
            lost: 0,
            reasons: BTreeMap::new(),
        }
    }

    pub fn run(&mut self, commands: &Receiver<String>) -> Result<(), Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let timeout = self.owes_answer.then_some(Duration::from_secs(1));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    COMMANDS => {}
                    Token(key) => self.ready(key, &mut buffer),
                }
            }
            loop {
                match commands.try_recv() {
                    Ok(command) => self.obey(&command)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.let_in();
        }
    }

    fn obey(&mut self, command: &str) -> Result<(), Box<dyn Error>> {
        match command.split_once(' ').unwrap_or((command, "")) {
            ("connect", count) => {
                self.wanted += count.parse::<u32>()?;
                self.owes_answer = true;
                self.progress = Instant::now();
            }
            ("stop", "") => self.wanted = self.dialled,
            ("tally", "") => {
                let told = self.tally.told();
                self.answer(&told);
            }
            _ => return Err(format!("no such command: {command}").into()),
        }
        Ok(())
    }

    /// One line, with what is held beside what was asked for.
    fn answer(&self, asked: &Value) {
        let answer = json!({
            "held": self.inside,
            "failed": self.failed,
            "lost": self.lost,
            "reasons": self.reasons,
            "asked": asked,
        });
        println!("{answer}");
    }

    fn let_in(&mut self) {
        while self.entering < ENTERING_MAX && self.dialled < self.wanted {
            let place = self.dialled;
            self.dialled += 1;
            if let Err(error) = self.dial(place) {
                self.failed += 1;
                self.note(format!("dial: {error}"));
            }
        }
        if self.entering > 0 && self.progress.elapsed() > STEP_TIMEOUT {
            let stuck: Vec<_> = self
                .members
                .iter()
                .filter(|(_, member)| !member.is_inside())
                .map(|(key, _)| key)
                .collect();
            for key in stuck {
                self.end(key, "nothing came for too long".to_owned());
            }
        }
        if self.owes_answer && self.entering == 0 && self.dialled == self.wanted {
            self.owes_answer = false;
            self.answer(&Value::Null);
        }
    }

    fn dial(&mut self, place: u32) -> std::io::Result<()> {
        let source = Ipv4Addr::from_bits(self.options.source.to_bits() + 1 + place / MEMBERS_PER_SOURCE);
        let mut member = Connection::dial(source, self.options.address, self.options.first + place)?;
        let slot = self.members.vacant_entry();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(member.stream(), Token(slot.key()), both)?;
        slot.insert(member);
        self.entering += 1;
        Ok(())
    }

    fn ready(&mut self, key: usize, buffer: &mut [u8]) {
        let Some(member) = self.members.get_mut(key) else {
            return;
        };
        let was_inside = member.is_inside();
        let done = member.ready(buffer, &self.door, &mut self.tally);
        if !was_inside && member.is_inside() {
            self.entering -= 1;
            self.inside += 1;
            self.progress = Instant::now();
        }
        if let Err(why) = done {
            self.end(key, why);
        }
    }

    fn end(&mut self, key: usize, why: String) {
        if self.members.remove(key).is_inside() {
            self.inside -= 1;
            self.lost += 1;
        } else {
            self.entering -= 1;
            self.failed += 1;
        }
        self.note(why);
    }

    fn note(&mut self, why: String) {
        let why = if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&why) {
            why
        } else {
            "others".to_owned()
        };
        *self.reasons.entry(why).or_default() += 1;
    }
}
