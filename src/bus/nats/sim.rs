//! A simulation of one room's chain: a stream with publishers, a leader that dies before it has republished, a network
//! that loses, doubles, delays and reorders, a replica that is behind, connections that break for long and for short.
//! Everything is drawn from a seed; a seed that fails is printed, and the same seed does the same again.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::chain::{Chain, Fetch, Fetched, Output};
use super::proof::{Evidence, reaches_back};

/// Seeds that every run of the tests tries, and those of the long run.
const SEEDS: u64 = 300;
const SEEDS_LONG: u64 = 10_000;

const TICKS: u64 = 1500;
const RETAINED_MAX: usize = 12;
const AGE_MAX: u64 = 600;
const SWEEP_INTERVAL: u64 = 40;
const HELD_MAX: usize = 6;

/// The room's events that a server holds.
type Room = BTreeSet<u64>;

#[derive(Debug, Default)]
struct Stream {
    last: u64,
    /// What it holds, and since when.
    stored: BTreeMap<u64, u64>,
    room: Room,
    /// Every event the room ever had.
    ledger: Vec<u64>,
}

impl Stream {
    fn first(&self) -> u64 {
        self.stored.keys().next().copied().unwrap_or(self.last + 1)
    }

    fn head(&self) -> Option<u64> {
        self.room.last().copied()
    }

    /// Its sequence, and that of the room's event before it.
    fn publish(&mut self, at: u64, ours: bool) -> (u64, u64) {
        let prev = self.head().unwrap_or(0);
        self.last += 1;
        self.stored.insert(self.last, at);
        if ours {
            self.ledger.push(self.last);
            self.room.insert(self.last);
            if self.room.len() > RETAINED_MAX
                && let Some(oldest) = self.room.pop_first()
            {
                self.stored.remove(&oldest);
            }
        }
        (self.last, prev)
    }

    fn expire(&mut self, now: u64) {
        while let Some(oldest) = self.stored.first_entry()
            && oldest.get() + AGE_MAX <= now
        {
            self.room.remove(&oldest.remove_entry().0);
        }
    }
}

/// What is on its way to the node.
#[derive(Debug, Clone, Copy)]
enum Message {
    Live { seq: u64, prev: u64 },
    Nudge(u64),
}

struct World {
    random: StdRng,
    now: u64,
    stream: Stream,
    /// What the replica holds that answers reads.
    replica: Room,
    on_the_way: Vec<(u64, Message)>,
    chain: Chain<u64>,
    /// What the member has: everything through here.
    through: u64,
    delivered: usize,
    resets: usize,
    fetching: Option<(u64, Fetch)>,
    verifying: Option<u64>,
    swept_at: u64,
    away_until: u64,
    leader_mute_until: u64,
    subscribed: bool,
    join_at: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            now: 0,
            stream: Stream::default(),
            replica: Room::new(),
            on_the_way: Vec::new(),
            chain: Chain::joining(HELD_MAX),
            through: 0,
            delivered: 0,
            resets: 0,
            fetching: None,
            verifying: None,
            swept_at: 0,
            away_until: 0,
            leader_mute_until: 0,
            subscribed: false,
            join_at: 0,
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn is_away(&self) -> bool {
        self.now < self.away_until
    }

    fn tick(&mut self, publishing: bool) {
        self.now += 1;
        self.stream.expire(self.now);
        if publishing {
            self.publish();
            self.break_something();
        }
        if self.chance(6) {
            self.replica.clone_from(&self.stream.room);
        }
        self.join();
        self.arrive();
        self.finish_fetch();
        self.verify();
        if self.now.is_multiple_of(SWEEP_INTERVAL) && !self.is_away() {
            self.sweep();
        }
        self.start_fetch();
    }

    fn publish(&mut self) {
        if self.chance(3) {
            self.stream.publish(self.now, false);
        }
        if !self.chance(4) {
            return;
        }
        let (seq, prev) = self.stream.publish(self.now, true);
        let heard = self.subscribed && !self.is_away();
        if heard && self.now >= self.leader_mute_until && !self.chance(12) {
            for _ in 0..=u32::from(self.chance(10)) {
                let due = self.now
                    + if self.chance(6) {
                        self.random.random_range(1..30)
                    } else {
                        1
                    };
                self.on_the_way.push((due, Message::Live { seq, prev }));
            }
        }
        if heard && self.chance(10) {
            self.on_the_way.push((self.now + 3, Message::Nudge(seq)));
        }
    }

    fn break_something(&mut self) {
        if self.chance(250) {
            self.leader_mute_until = self.now + self.random.random_range(5..60);
        }
        if self.subscribed && !self.is_away() && self.chance(300) {
            let long = self.chance(4);
            let ticks = if long {
                self.random.random_range(AGE_MAX..AGE_MAX * 2)
            } else {
                self.random.random_range(1..50)
            };
            self.away_until = self.now + ticks;
            self.on_the_way.clear();
            self.fetching = None;
            self.verifying = Some(self.away_until);
        }
    }

    fn join(&mut self) {
        if !self.subscribed && self.now > 100 {
            self.subscribed = true;
            self.join_at = self.now + self.random.random_range(0..10);
        }
        if self.subscribed && self.chain.is_joining() && self.now >= self.join_at && !self.is_away() {
            let head = self.stream.head().unwrap_or(self.stream.last);
            self.through = head;
            let mut out = Vec::new();
            self.chain.joined(head, &mut out);
            self.apply(out);
        }
    }

    fn arrive(&mut self) {
        if self.is_away() {
            return;
        }
        let now = self.now;
        let due: Vec<_> = self.on_the_way.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, message) in due {
            let mut out = Vec::new();
            match message {
                Message::Nudge(head) => self.chain.told(head),
                Message::Live { seq, prev } => {
                    // The connection is another one than was verified.
                    if self.verifying.is_some() || (prev < self.chain.last() && !self.is_trusted()) {
                        self.chain.suspect();
                        self.verifying.get_or_insert(now);
                    }
                    self.chain.live(seq, prev, seq, &mut out);
                }
            }
            self.apply(out);
        }
    }

    fn is_trusted(&self) -> bool {
        self.now - self.swept_at < AGE_MAX / 2
    }

    fn verify(&mut self) {
        if self.verifying.is_none_or(|at| self.now < at) {
            return;
        }
        self.verifying = None;
        self.chain.suspect();
        let trusted = self.is_trusted();
        self.sweep();
        if trusted {
            let mut out = Vec::new();
            self.chain.verified(&mut out);
            self.apply(out);
        }
    }

    /// Who sweeps after a long time suspects everything.
    fn sweep(&mut self) {
        if !self.is_trusted() {
            self.chain.suspect();
        }
        if let Some(head) = self.replica.last().copied() {
            self.chain.told(head);
        }
        self.swept_at = self.now;
    }

    fn start_fetch(&mut self) {
        if self.fetching.is_none()
            && !self.is_away()
            && let Some(asked) = self.chain.fetch()
        {
            let due = self.now + self.random.random_range(1..15);
            self.fetching = Some((due, asked));
        }
    }

    fn finish_fetch(&mut self) {
        let Some((_, asked)) = self.fetching.take_if(|(due, _)| *due <= self.now) else {
            return;
        };
        let inclusive = self.replica.contains(&asked.after);
        let events: Vec<_> = self.replica.range(asked.after + 1..).copied().collect();
        let reached = events.last().copied().unwrap_or(asked.after);
        let evidence = Evidence {
            inclusive,
            events: events.len(),
            retained_max: RETAINED_MAX,
            nothing_dropped: (!asked.verify && self.is_trusted()) || reaches_back(self.stream.first(), asked.after),
        };
        let (last, head) = (self.stream.last, self.stream.head());
        let nothing_came = events.is_empty() && head.unwrap_or(last) <= asked.after;
        let fetched = if !evidence.is_whole() && !nothing_came {
            Fetched::Broken {
                head: head.unwrap_or(last),
            }
        } else {
            let confirmed = head.is_none_or(|head| head <= reached) && (asked.verify || reached < asked.want);
            let events = events.into_iter().map(|seq| (seq, seq)).collect();
            Fetched::Exact { events, confirmed }
        };
        let mut out = Vec::new();
        self.chain.fetched(asked, fetched, &mut out);
        self.apply(out);
    }

    fn apply(&mut self, out: Vec<Output<u64>>) {
        for output in out {
            match output {
                Output::Reset { head } => {
                    self.resets += 1;
                    self.through = self.through.max(head);
                }
                Output::Deliver { seq, .. } => {
                    let ledger = &self.stream.ledger;
                    let next = ledger.partition_point(|stored| *stored <= self.through);
                    assert_eq!(
                        Some(&seq),
                        ledger.get(next),
                        "after {} at tick {}",
                        self.through,
                        self.now
                    );
                    self.through = seq;
                    self.delivered += 1;
                }
            }
        }
    }
}

/// How many events were delivered, and how often the member had to start afresh.
fn run(seed: u64) -> (usize, usize) {
    let mut world = World::new(seed);
    for _ in 0..TICKS {
        world.tick(true);
    }
    world.away_until = world.away_until.min(world.now);
    world.verifying = world.verifying.map(|at| at.min(world.now));
    for _ in 0..SWEEP_INTERVAL * 6 {
        world.replica.clone_from(&world.stream.room);
        world.tick(false);
    }
    let newest = world.stream.ledger.last().copied().unwrap_or(0);
    assert!(world.through >= newest, "{} of {newest} were delivered", world.through);
    assert!(
        world.chain.held() == 0 && world.chain.fetch().is_none(),
        "the chain did not settle"
    );
    (world.delivered, world.resets)
}

fn run_all(seeds: u64) {
    let (mut delivered, mut resets) = (0, 0);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let (events, afresh) = outcome.unwrap_or_else(|_| panic!("seed {seed} fails"));
        delivered += events;
        resets += afresh;
    }
    println!("{seeds} seeds: {delivered} events delivered, {resets} resets");
    assert!(delivered > 100 * usize::try_from(seeds).unwrap());
    // Being away for longer than the stream keeps anything is one in a thousand ticks or so.
    assert!(resets < 3 * usize::try_from(seeds).unwrap(), "{resets} resets");
}

#[test]
fn every_event_is_delivered_once_and_in_order_or_the_member_starts_afresh() {
    run_all(SEEDS);
}

#[test]
#[ignore = "the long run: cargo test --lib sim -- --ignored"]
fn every_event_is_delivered_once_and_in_order_or_the_member_starts_afresh_long() {
    run_all(SEEDS_LONG);
}
