use std::collections::VecDeque;

use futures_util::task::noop_waker;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;

/// More messages than a task may read at once before it should yield.
const MANY: u64 = 1000;

/// The messages of a connection.
#[derive(Debug)]
struct Leg(mpsc::Receiver<u64>);

impl Stream for Leg {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<u64>> {
        self.0.poll_recv(context)
    }
}

impl Marked for u64 {
    fn mark(&self) -> u64 {
        *self
    }
}

/// A subscription that is read, and the sender of its messages.
struct Reader {
    splice: Splice<Leg>,
    asked: AtomicUsize,
}

impl Reader {
    fn new() -> (Self, mpsc::Sender<u64>) {
        let (leg, brings) = leg();
        let (splice, asked) = (Splice::new(leg, 0), AtomicUsize::new(0));
        (Self { splice, asked }, brings)
    }

    fn ask(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
    }

    fn take(&mut self, leg: Leg, its_move: &Arc<Move>) {
        self.splice.add(leg, Arc::clone(its_move));
        self.asked.fetch_sub(1, Ordering::SeqCst);
    }

    /// Requests a leg and takes it.
    fn moves(&mut self) -> (mpsc::Sender<u64>, Arc<Move>) {
        let ((leg, brings), its_move) = (leg(), Move::to(self.splice.line() + 1));
        self.ask();
        self.take(leg, &its_move);
        (brings, its_move)
    }

    fn poll(&mut self) -> Poll<Option<u64>> {
        self.splice.poll(&self.asked, &mut Context::from_waker(&noop_waker()))
    }

    fn read(&mut self) -> Vec<u64> {
        let mut read = Vec::new();
        while let Poll::Ready(Some(message)) = self.poll() {
            read.push(message);
        }
        read
    }
}

fn leg() -> (Leg, mpsc::Sender<u64>) {
    let (brings, leg) = mpsc::channel(10_000);
    (Leg(leg), brings)
}

fn bring(over: &mpsc::Sender<u64>, messages: impl IntoIterator<Item = u64>) {
    for message in messages {
        over.try_send(message).unwrap();
    }
}

#[test]
fn the_old_leg_is_read_until_the_move_is_settled_and_it_is_empty() {
    let (mut reader, old) = Reader::new();
    bring(&old, [1]);
    let (new, its_move) = reader.moves();
    bring(&new, [2, 3]);
    assert_eq!(reader.read(), [1]);
    bring(&old, [2]);
    assert_eq!(reader.read(), [2]);
    its_move.settle();
    assert_eq!((reader.splice.line(), Arc::strong_count(&its_move)), (0, 2));
    bring(&old, [3]);
    bring(&new, [4]);
    assert_eq!(reader.read(), [3, 4]);
    assert_eq!((reader.splice.line(), Arc::strong_count(&its_move)), (1, 1));
    assert!(old.is_closed());
}

#[test]
fn what_was_read_after_the_new_leg_was_asked_for_and_before_it_is_there_does_not_come_twice() {
    let (mut reader, old) = Reader::new();
    reader.ask();
    let ((leg, new), its_move) = (leg(), Move::to(1));
    bring(&new, [1]);
    bring(&old, [1]);
    assert_eq!(reader.read(), [1]);
    reader.take(leg, &its_move);
    its_move.settle();
    bring(&new, [2]);
    assert_eq!(reader.read(), [2]);
}

#[test]
fn who_says_the_same_again_after_the_move_is_heard() {
    let (mut reader, old) = Reader::new();
    let (new, its_move) = reader.moves();
    bring(&old, [7, 7]);
    bring(&new, [7, 7, 7]);
    assert_eq!(reader.read(), [7, 7]);
    its_move.settle();
    assert_eq!(reader.read(), [7]);
}

#[test]
fn a_move_that_is_withdrawn_leaves_everything_as_it_was() {
    let (mut reader, old) = Reader::new();
    let (new, its_move) = reader.moves();
    bring(&new, [1]);
    bring(&old, [1]);
    assert_eq!(reader.read(), [1]);
    assert!(its_move.withdraw());
    bring(&old, [2, 1]);
    assert_eq!(reader.read(), [2, 1]);
    assert!(new.is_closed() && !old.is_closed());
    assert!(reader.splice.noted.is_none(), "nothing is remembered for nobody");
    its_move.settle();
    assert!(!its_move.withdraw());
}

#[test]
fn a_leg_that_ends_by_itself_is_followed_by_the_next() {
    let (mut reader, old) = Reader::new();
    let (new, _move) = reader.moves();
    bring(&old, [1]);
    bring(&new, [1, 2]);
    drop(old);
    assert_eq!(reader.read(), [1, 2]);
    drop(new);
    assert_eq!(reader.poll(), Poll::Ready(None));
}

#[test]
fn a_reader_that_missed_two_moves_reads_all_three_legs() {
    let (mut reader, first) = Reader::new();
    bring(&first, [1, 2]);
    let (second, one) = reader.moves();
    bring(&first, [3]);
    bring(&second, [3, 4]);
    one.settle();
    let (third, other) = reader.moves();
    bring(&second, [5]);
    // The first connection is ending and delivers it late.
    bring(&first, [5]);
    bring(&third, [5, 6]);
    other.settle();
    assert_eq!(reader.read(), [1, 2, 3, 5, 4, 6]);
}

#[tokio::test]
async fn a_leg_is_empty_when_it_is_and_not_when_the_task_has_read_enough() {
    let (mut reader, old) = Reader::new();
    bring(&old, 0..MANY);
    let (new, its_move) = reader.moves();
    bring(&new, MANY / 2..MANY + 10);
    its_move.settle();
    let mut read = Vec::new();
    let reading = std::future::poll_fn(|context| {
        while let Poll::Ready(Some(message)) = reader.splice.poll(&reader.asked, context) {
            read.push(message);
        }
        if read.len() as u64 >= MANY + 10 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    tokio::time::timeout(Duration::from_secs(60), reading).await.unwrap();
    assert_eq!(read, (0..MANY + 10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_came_is_forgotten_after_a_while() {
    let (mut reader, old) = Reader::new();
    let (new, its_move) = reader.moves();
    bring(&old, [1, 2]);
    its_move.settle();
    bring(&new, [1]);
    assert_eq!(reader.read(), [1, 2]);
    tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
    bring(&new, [2]);
    assert_eq!(reader.read(), [2]);
    assert!(reader.splice.before.is_none());
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut marks = Marks::new();
    for mark in 0..2 * MARKS_MAX as u64 {
        marks.note(mark);
    }
    assert_eq!(marks.times.len(), MARKS_MAX);
}

/// An action of a publisher or of the network during a move.
#[derive(Debug, Clone)]
enum Step {
    /// A publisher publishes the next message.
    Publish(usize),
    /// The new subscription takes effect where this publisher publishes.
    InEffect(usize),
    /// One message of one publisher arrives over the old (`false`) or the new connection.
    Arrive(usize, bool),
    /// The subscription is read.
    Read,
}

const PUBLISHERS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let publisher = 0..PUBLISHERS;
    prop_oneof![
        4 => publisher.clone().prop_map(Step::Publish),
        1 => publisher.clone().prop_map(Step::InEffect),
        6 => (publisher, any::<bool>()).prop_map(|(publisher, over_new)| Step::Arrive(publisher, over_new)),
        2 => Just(Step::Read),
    ]
}

/// A network that keeps each publisher's order over each connection, and no other.
struct World {
    reader: Reader,
    old: mpsc::Sender<u64>,
    new: mpsc::Sender<u64>,
    published: [u64; PUBLISHERS],
    in_effect: [bool; PUBLISHERS],
    /// In transit over the old and the new connection.
    under_way: [[VecDeque<u64>; PUBLISHERS]; 2],
    read: Vec<u64>,
}

impl World {
    fn new() -> (Self, Arc<Move>) {
        let (mut reader, old) = Reader::new();
        let (new, its_move) = reader.moves();
        let world = Self {
            reader,
            old,
            new,
            published: [0; PUBLISHERS],
            in_effect: [false; PUBLISHERS],
            under_way: Default::default(),
            read: Vec::new(),
        };
        (world, its_move)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Publish(publisher) => {
                let message = publisher as u64 * 1_000_000 + self.published[publisher];
                self.published[publisher] += 1;
                self.under_way[0][publisher].push_back(message);
                if self.in_effect[publisher] {
                    self.under_way[1][publisher].push_back(message);
                }
            }
            Step::InEffect(publisher) => self.in_effect[publisher] = true,
            Step::Arrive(publisher, over_new) => {
                let over = if over_new { &self.new } else { &self.old };
                if let Some(message) = self.under_way[usize::from(over_new)][publisher].pop_front() {
                    // An old leg that has ended is not read any more.
                    let _ = over.try_send(message);
                }
            }
            Step::Read => self.read.extend(self.reader.read()),
        }
    }

    /// Each publisher's answer to the call has arrived over the old connection, behind everything that was published
    /// before the new one was in effect.
    fn call_is_answered(&mut self) {
        for publisher in 0..PUBLISHERS {
            self.in_effect[publisher] = true;
            while !self.under_way[0][publisher].is_empty() {
                self.take(&Step::Arrive(publisher, false));
            }
        }
    }

    fn everything_arrives(&mut self) {
        for publisher in 0..PUBLISHERS {
            while !self.under_way[1][publisher].is_empty() {
                self.take(&Step::Arrive(publisher, true));
            }
        }
        self.take(&Step::Read);
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_reordered_by_a_move(
        before in prop::collection::vec(step(), 0..60),
        after in prop::collection::vec(step(), 0..60),
    ) {
        let (mut world, its_move) = World::new();
        for step in &before {
            world.take(step);
        }
        world.call_is_answered();
        its_move.settle();
        for step in &after {
            world.take(step);
        }
        world.everything_arrives();
        for publisher in 0..PUBLISHERS {
            let base = publisher as u64 * 1_000_000;
            let of_publisher = world.read.iter().copied().filter(|message| message / 1_000_000 == publisher as u64);
            let expected: Vec<u64> = (base..base + world.published[publisher]).collect();
            prop_assert_eq!(of_publisher.collect::<Vec<_>>(), expected);
        }
    }
}
