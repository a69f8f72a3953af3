//! A simulation of one room's chain. It has a stream with publishers, a leader that dies before it has republished, and
//! a network that loses, doubles, delays and reorders. A replica lags, and connections break for long and for short.
//! Other rooms push their own events out, limits are lowered and raised again, and an operator purges the room.
//! Everything is drawn from a seed; a failing seed is printed, and the same seed does the same again.

mod stream;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::chain::{Chain, Fetch, Fetched, Output};
use super::proof::{Removal, Run};
use stream::{Room, Stream};

/// The number of seeds of every test run, and of the long run.
const SEEDS: u64 = 300;
const SEEDS_LONG: u64 = 10_000;

const TICKS: u64 = 1500;
const AGE_MAX: u64 = 600;
const SWEEP_INTERVAL: u64 = 40;
const HELD_MAX: usize = 6;

/// A message on its way to the node.
#[derive(Debug, Clone, Copy)]
enum Message {
    Live { seq: u64, prev: u64 },
    Nudge(u64),
}

struct World {
    random: StdRng,
    /// An operator changes limits and purges the room.
    erasing: bool,
    now: u64,
    stream: Stream,
    /// The events held by the replica that serves reads, and the newest sequence it knows of.
    replica: Room,
    replica_last: u64,
    on_the_way: Vec<(u64, Message)>,
    chain: Chain<u64>,
    /// The sequence through which the member has everything.
    through: u64,
    /// The watermark through which sweeps have found nothing more.
    clear: u64,
    /// The newest sequence known to the last two sweeps.
    swept_through: [u64; 2],
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
    fn new(seed: u64, erasing: bool) -> Self {
        Self {
            erasing,
            random: StdRng::seed_from_u64(seed),
            now: 0,
            stream: Stream::new(),
            replica: Room::new(),
            replica_last: 0,
            on_the_way: Vec::new(),
            chain: Chain::joining(HELD_MAX),
            through: 0,
            clear: 0,
            swept_through: [0; 2],
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
            self.catch_up();
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

    fn catch_up(&mut self) {
        self.replica.clone_from(&self.stream.room);
        self.replica_last = self.stream.last;
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
        if self.erasing && self.chance(150) {
            self.erase();
        }
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

    /// An operator lowers the limit, raises it again, or purges the room. Only while no event is so young that neither
    /// a sweep nor a later event has revealed it: no node could know of such an event.
    fn erase(&mut self) {
        match self.random.random_range(0..4) {
            0 => self.stream.limit(Some(3)),
            1 => self.stream.limit(None),
            2 => self.stream.purge(2),
            _ => {
                let newest = self.stream.ledger.last().map_or(0, |(_, at)| *at);
                if self.is_away() || newest + SWEEP_INTERVAL * 2 < self.now {
                    self.stream.purge(0);
                }
            }
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
                    let last = self.chain.last();
                    if prev < last && self.came(last).is_some_and(|at| at + AGE_MAX / 2 > now) {
                        self.chain.suspect();
                    }
                    // The connection is not the one that was verified.
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

    /// Returns the tick at which an event of the room was published; `None` for anything else.
    fn came(&self, seq: u64) -> Option<u64> {
        let ledger = &self.stream.ledger;
        let index = ledger.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(ledger[index].1)
    }

    fn verify(&mut self) {
        if self.verifying.is_none_or(|at| self.now < at) {
            return;
        }
        self.verifying = None;
        self.chain.suspect();
        let known = self.swept_through[1];
        self.sweep();
        if self.stream.removed().look(known, None) == Removal::Nothing {
            let mut out = Vec::new();
            self.chain.verified(&mut out);
            self.apply(out);
        }
    }

    /// A sweep after a long pause suspects everything.
    fn sweep(&mut self) {
        if !self.is_trusted() {
            self.chain.suspect();
        }
        if let Some(head) = self.replica.last().copied() {
            self.chain.told(head);
        }
        self.swept_at = self.now;
        self.swept_through = [self.replica_last.max(self.swept_through[0]), self.swept_through[0]];
        if self.chain.is_settled() {
            self.clear = self.clear.max(self.replica_last);
        }
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
        let first = self.stream.room.range(asked.after..).next().copied();
        let read: Vec<_> = self.replica.range(asked.after..).map(|seq| (*seq, *seq)).collect();
        if first.is_some_and(|first| read.last().is_none_or(|(reached, _)| *reached < first)) {
            return;
        }
        let run = Run::settled(read, first, false);
        let clear = asked.after.max(self.clear);
        let since = if first.is_some_and(|first| first <= clear) {
            asked.after
        } else {
            clear
        };
        let proven = run.has(asked.after) || self.stream.removed().look(since, first) == Removal::Nothing;
        let events: Vec<_> = run.events.into_iter().filter(|(seq, _)| *seq > asked.after).collect();
        let reached = events.last().map_or(asked.after, |(seq, _)| *seq);
        let (last, head) = (self.stream.last, self.stream.head());
        let nothing_came = events.is_empty() && head.unwrap_or(last) <= asked.after;
        let fetched = if proven || nothing_came {
            let confirmed = head.is_none_or(|head| head <= reached) && (asked.verify || reached < asked.want);
            Fetched::Exact { events, confirmed }
        } else {
            Fetched::Broken {
                head: head.unwrap_or(last),
            }
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
                    let next = ledger.partition_point(|(stored, _)| *stored <= self.through);
                    assert_eq!(
                        Some(seq),
                        ledger.get(next).map(|(stored, _)| *stored),
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

/// Returns the number of delivered events, and the number of resets.
fn run(seed: u64, erasing: bool) -> (usize, usize) {
    let mut world = World::new(seed, erasing);
    for _ in 0..TICKS {
        world.tick(true);
    }
    world.away_until = world.away_until.min(world.now);
    world.verifying = world.verifying.map(|at| at.min(world.now));
    for _ in 0..SWEEP_INTERVAL * 6 {
        world.catch_up();
        world.tick(false);
    }
    let newest = world.stream.ledger.last().map_or(0, |(seq, _)| *seq);
    assert!(world.through >= newest, "{} of {newest} were delivered", world.through);
    assert!(
        world.chain.held() == 0 && world.chain.fetch().is_none(),
        "the chain did not settle"
    );
    (world.delivered, world.resets)
}

/// Returns the number of resets.
fn run_all(seeds: u64, erasing: bool) -> u64 {
    let (mut delivered, mut resets) = (0, 0);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run(seed, erasing));
        let (events, afresh) = outcome.unwrap_or_else(|_| panic!("seed {seed} fails"));
        delivered += events;
        resets += afresh;
    }
    println!("{seeds} seeds: {delivered} events delivered, {resets} resets");
    assert!(delivered > 100 * usize::try_from(seeds).unwrap());
    resets.try_into().unwrap()
}

#[test]
fn every_event_is_delivered_once_and_in_order_or_the_member_starts_afresh() {
    // About one in a thousand ticks the node is away for longer than the stream keeps anything.
    assert!(run_all(SEEDS, false) < 3 * SEEDS);
}

#[test]
fn whatever_an_operator_removes_nothing_is_left_out_without_a_word() {
    run_all(SEEDS, true);
}

#[test]
#[ignore = "the long run: cargo test --lib sim -- --ignored"]
fn every_event_is_delivered_once_and_in_order_or_the_member_starts_afresh_long() {
    assert!(run_all(SEEDS_LONG, false) < 3 * SEEDS_LONG);
    run_all(SEEDS_LONG, true);
}
