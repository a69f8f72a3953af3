use std::collections::{HashMap, HashSet};

use super::room::HELD_MAX;
use super::*;
use crate::event::{Event, EventId, EventName, Except, Payload, Retention, Timestamp};
use crate::json::Json;
use crate::position::{ChainLink, Epoch, Offset};
use crate::room::Tenant;

fn room(name: &str) -> Room {
    Room::parse(&Tenant::default(), name).unwrap()
}

fn position(offset: u64) -> Position {
    Position {
        epoch: Epoch::from_bits(1),
        offset: Offset(offset),
    }
}

fn event(room: &Room, offset: u64) -> RoomItem {
    let position = position(offset);
    let event = Event {
        room: room.clone(),
        id: EventId::from_bits(u128::from(offset)),
        name: EventName::parse("e").unwrap(),
        retention: Retention::Reliable,
        link: Some(ChainLink {
            position,
            prev: Offset(offset - 1),
        }),
        time: Timestamp(0),
        actor: None,
        except: Except::NOBODY,
        payload: Payload::Json(Json::parse("1").unwrap()),
    };
    RoomItem::Event(Delivery::new(Arc::new(event), None))
}

fn offset(item: &RoomItem) -> u64 {
    let RoomItem::Event(delivery) = item else {
        panic!("an event was expected, not {item:?}")
    };
    delivery.event.offset().unwrap().0
}

/// A shard whose members write down what they are given.
#[derive(Default)]
struct Recorder {
    local: LocalRooms,
    slots: HashMap<(Room, Key), (RoomKey, u32)>,
    got: HashMap<(Room, Key), Vec<u64>>,
    targets: Vec<Recipient>,
}

impl Recorder {
    fn finish(&mut self, room: &Room, key: Key, head: u64) {
        let entered = self.local.finish_join(room, key, position(head)).unwrap();
        self.slots.insert((room.clone(), key), (entered.room, entered.slot));
        self.got
            .insert((room.clone(), key), entered.held.iter().map(offset).collect());
    }

    fn leave(&mut self, room: &Room, key: Key) -> Vec<u64> {
        let (room_key, slot) = self.slots.remove(&(room.clone(), key)).unwrap();
        if let Some(moved) = self.local.leave(room_key, slot) {
            self.slots.get_mut(&(room.clone(), moved.key)).unwrap().1 = moved.slot;
        }
        self.got.remove(&(room.clone(), key)).unwrap()
    }

    fn chunk(&mut self) -> bool {
        let mut targets = std::mem::take(&mut self.targets);
        let chunk = self.local.next_chunk(&mut targets);
        if let Some(chunk) = &chunk {
            let room = self.local.room(chunk.room).clone();
            for target in &targets {
                let items = chunk.batch.items()[target.from..].iter().map(offset);
                self.got.get_mut(&(room.clone(), target.key)).unwrap().extend(items);
            }
        }
        self.targets = targets;
        chunk.is_some()
    }
}

#[test]
fn a_large_room_takes_turns_with_a_small_one() {
    let (large, small) = (room("large"), room("small"));
    let mut shard = Recorder::default();
    for key in 0..1000 {
        shard.local.begin_join(&large, key);
        shard.finish(&large, key, 0);
    }
    shard.local.begin_join(&small, 7);
    shard.finish(&small, 7, 0);
    shard.local.enqueue(&large, event(&large, 1));
    shard.local.enqueue(&small, event(&small, 2));
    assert!(shard.chunk() && shard.chunk());
    assert_eq!(shard.got[&(small, 7)], [2]);
    assert_eq!(shard.got.values().filter(|got| !got.is_empty()).count(), CHUNK + 1);
    while shard.chunk() {}
    assert!(shard.got.values().all(|got| got.len() == 1));
}

#[test]
fn what_waits_in_line_is_handed_out_together() {
    let lobby = room("lobby");
    let mut shard = Recorder::default();
    shard.local.begin_join(&lobby, 1);
    shard.finish(&lobby, 1, 0);
    (1..=8).for_each(|offset| shard.local.enqueue(&lobby, event(&lobby, offset)));
    assert!(shard.chunk() && !shard.chunk());
    assert_eq!(shard.got[&(lobby, 1)], [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn what_comes_during_a_pass_goes_along_to_those_still_to_be_served() {
    let lobby = room("lobby");
    let mut shard = Recorder::default();
    let members = u32::try_from(3 * CHUNK).unwrap();
    for key in 0..members {
        shard.local.begin_join(&lobby, key);
        shard.finish(&lobby, key, 0);
    }
    shard.local.enqueue(&lobby, event(&lobby, 1));
    let mut handed = Vec::new();
    while shard.chunk() {
        handed.push(shard.targets.len());
        if handed.len() == 1 {
            (2..=8).for_each(|offset| shard.local.enqueue(&lobby, event(&lobby, offset)));
        }
    }
    // Only the first chunk is served twice; a last look finds nobody who lacks anything.
    assert_eq!(handed, [CHUNK, CHUNK, CHUNK, CHUNK, 0]);
    assert!(shard.got.values().all(|got| *got == [1, 2, 3, 4, 5, 6, 7, 8]));
}

#[test]
fn a_join_that_was_called_off_does_not_finish() {
    let lobby = room("lobby");
    let mut local = LocalRooms::default();
    local.begin_join(&lobby, 1);
    assert!(local.begin_join(&lobby, 1).is_none());
    assert!(local.abort_join(&lobby, 1));
    assert_eq!(local.vacated(), std::slice::from_ref(&lobby));
    assert_eq!(
        local.finish_join(&lobby, 1, position(0)).unwrap_err(),
        JoinFailed::Aborted
    );
    assert!(local.is_empty());
}

#[test]
fn a_join_during_a_flood_fails_instead_of_growing() {
    let lobby = room("lobby");
    let mut local = LocalRooms::default();
    local.begin_join(&lobby, 1);
    (1..=HELD_MAX as u64 + 1).for_each(|offset| local.enqueue(&lobby, event(&lobby, offset)));
    assert_eq!(
        local.finish_join(&lobby, 1, position(0)).unwrap_err(),
        JoinFailed::Overflowed
    );
    assert!(local.is_empty());
}

#[test]
fn a_member_that_catches_up_has_everything_in_line_and_gets_it_once() {
    let lobby = room("lobby");
    let mut shard = Recorder::default();
    for key in 0..200 {
        shard.local.begin_join(&lobby, key);
        shard.finish(&lobby, key, 0);
    }
    shard.local.enqueue(&lobby, event(&lobby, 1));
    assert!(shard.chunk());
    (2..=3).for_each(|offset| shard.local.enqueue(&lobby, event(&lobby, offset)));
    for key in [0, 199] {
        let (room_key, slot) = shard.slots[&(lobby.clone(), key)];
        let (items, last) = shard.local.catch_up(room_key, slot);
        assert_eq!(last, Some(position(3)));
        let got = shard.got.get_mut(&(lobby.clone(), key)).unwrap();
        got.extend(items.iter().map(offset));
    }
    while shard.chunk() {}
    assert!(shard.got.values().all(|got| *got == [1, 2, 3]));
}

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Begin(Key),
    Finish(Key),
    Leave(Key),
    FanoutChunk,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        4 => Just(Step::Publish),
        3 => (0u32..200).prop_map(Step::Begin),
        3 => (0u32..200).prop_map(Step::Finish),
        2 => (0u32..200).prop_map(Step::Leave),
        3 => Just(Step::FanoutChunk),
    ];
    proptest::collection::vec(step, 1..600)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Against the simplest model: a member gets exactly what is published after the head it started from.
    #[test]
    fn each_member_gets_each_item_exactly_once(steps in steps(), crowd in 0u32..300) {
        let lobby = room("lobby");
        let mut shard = Recorder::default();
        // Turns wrap around within the test.
        let mut published = 0u64;
        let mut joining: HashSet<Key> = HashSet::new();
        let mut heads: HashMap<Key, u64> = HashMap::new();
        for key in 1000..1000 + crowd {
            shard.local.begin_join(&lobby, key);
            shard.finish(&lobby, key, 0);
            heads.insert(key, 0);
        }
        for step in steps {
            match step {
                Step::Publish => {
                    published += 1;
                    shard.local.enqueue(&lobby, event(&lobby, published));
                }
                Step::Begin(key) if !joining.contains(&key) && !heads.contains_key(&key) => {
                    shard.local.begin_join(&lobby, key).unwrap();
                    joining.insert(key);
                }
                Step::Finish(key) if joining.remove(&key) => {
                    // The head is read at any time after the join began: here a little in the past is not possible,
                    // so the newest or what was newest one publish ago if that came after the beginning.
                    shard.finish(&lobby, key, published);
                    heads.insert(key, published);
                }
                Step::Leave(key) if heads.contains_key(&key) => {
                    let got = shard.leave(&lobby, key);
                    let head = heads.remove(&key).unwrap();
                    let expected: Vec<u64> = (head + 1..=published).take(got.len()).collect();
                    proptest::prop_assert_eq!(got, expected);
                }
                Step::FanoutChunk => { shard.chunk(); }
                Step::Begin(_) | Step::Finish(_) | Step::Leave(_) => {}
            }
        }
        while shard.chunk() {}
        for (key, head) in heads {
            let expected: Vec<u64> = (head + 1..=published).collect();
            proptest::prop_assert_eq!(&shard.got[&(lobby.clone(), key)], &expected);
        }
    }

    /// Items that arrive during a join are delivered once, from the head on.
    #[test]
    fn nothing_falls_between_head_and_live(before in 0u64..5, held in 0u64..5, after in 0u64..5, back in 0u64..5) {
        let lobby = room("lobby");
        let mut shard = Recorder::default();
        shard.local.begin_join(&lobby, 1);
        shard.finish(&lobby, 1, 0);
        (1..=before).for_each(|offset| shard.local.enqueue(&lobby, event(&lobby, offset)));
        shard.local.begin_join(&lobby, 2);
        let head = before + held.saturating_sub(back);
        (before + 1..=before + held).for_each(|offset| shard.local.enqueue(&lobby, event(&lobby, offset)));
        shard.finish(&lobby, 2, head);
        let last = before + held + after;
        (before + held + 1..=last).for_each(|offset| shard.local.enqueue(&lobby, event(&lobby, offset)));
        while shard.chunk() {}
        let expected: Vec<u64> = (head + 1..=last).collect();
        proptest::prop_assert_eq!(&shard.got[&(lobby, 2)], &expected);
    }
}
