//! What every client checks of every room it is in: nothing is missing, nothing comes twice, the order is kept.

use std::collections::HashMap;

use roomcast::proto::client_v1::server_frame::Message;
use roomcast::proto::client_v1::{Event, Joined, Position};

/// Where a client is in one room.
#[derive(Debug, Clone)]
struct Chain {
    /// The last position seen, or the head at the moment of joining.
    at: Position,
    /// Events at or before the head that are still to come.
    replay_left: u32,
    /// What the next of them follows: exactly this offset when recovered, else any later one.
    replay_after: u64,
    recovered: bool,
}

/// The rooms of one client.
#[derive(Debug, Default)]
pub struct Chains {
    rooms: HashMap<String, Chain>,
    /// Where each room was when it was last heard of, also after it was left.
    last: HashMap<String, Position>,
}

impl Chains {
    /// Takes in what the server said. `since` is where the client said it left off in rooms it joins.
    ///
    /// # Panics
    /// When the message cannot follow those before it.
    pub fn note(&mut self, message: &Message, since: &HashMap<String, Position>) {
        match message {
            Message::Connected(connected) => connected.rooms.iter().for_each(|room| self.joined(room, since)),
            Message::Joined(joined) => self.joined(joined, since),
            Message::RoomJoined(pushed) => {
                self.joined(pushed.joined.as_ref().expect("what was joined is said"), since);
            }
            Message::Left(left) => self.left(&left.room),
            Message::RoomLeft(left) => self.left(&left.room),
            Message::Event(event) => self.event(event),
            Message::Passed(passed) => self.link(&passed.room, &passed.epoch, passed.offset, passed.previous_offset),
            Message::Resync(resync) => {
                let position = resync.head.clone().expect("where the room is now is said");
                let chain = self.rooms.get_mut(&resync.room).expect("resync of a joined room");
                chain.at = position;
                chain.replay_left = 0;
            }
            _ => {}
        }
    }

    /// The position last seen in a room.
    pub fn last(&self, room: &str) -> Position {
        self.last.get(room).cloned().unwrap_or_default()
    }

    fn joined(&mut self, joined: &Joined, since: &HashMap<String, Position>) {
        let at = joined.head.clone().expect("a join tells the room's position");
        assert!(!at.epoch.is_empty(), "a position has an epoch");
        let since = since.get(&joined.room);
        if joined.recovered {
            let since = since.expect("only who asks since a position recovers");
            assert_eq!(since.epoch, at.epoch, "another epoch recovers nothing");
            assert!(since.offset <= at.offset, "a room does not go back");
            assert!(
                joined.replayed > 0 || since.offset == at.offset,
                "what was missed is replayed"
            );
        }
        let known = since.filter(|_| joined.recovered).unwrap_or(&at);
        self.last.insert(joined.room.clone(), known.clone());
        let chain = Chain {
            at,
            replay_left: joined.replayed,
            replay_after: if joined.recovered {
                since.map_or(0, |since| since.offset)
            } else {
                0
            },
            recovered: joined.recovered,
        };
        self.rooms.insert(joined.room.clone(), chain);
    }

    fn left(&mut self, room: &str) {
        self.rooms.remove(room);
    }

    fn event(&mut self, event: &Event) {
        assert!(
            !event.event_name.is_empty() && !event.id.is_empty() && event.time_ms > 0,
            "{event:?}"
        );
        if event.room.is_empty() {
            assert!(
                event.epoch.is_empty(),
                "an event to a connection has no position: {event:?}"
            );
            return;
        }
        assert!(
            self.rooms.contains_key(&event.room),
            "an event of a room it is not in: {event:?}"
        );
        if event.epoch.is_empty() {
            assert_eq!((event.offset, event.previous_offset), (0, 0), "{event:?}");
            return;
        }
        self.link(&event.room, &event.epoch, event.offset, event.previous_offset);
    }

    fn link(&mut self, room: &str, epoch: &str, offset: u64, previous: u64) {
        let chain = self.rooms.get_mut(room);
        let chain = chain.unwrap_or_else(|| panic!("a link of `{room}`, a room it is not in"));
        let (at, link) = (chain.at.clone(), (previous, offset));
        assert_eq!(epoch, at.epoch, "`{room}`: another epoch without a resync");
        assert!(previous < offset, "`{room}`: {link:?} goes back");
        if chain.replay_left > 0 {
            let after = chain.replay_after;
            assert!(
                offset > after && offset <= at.offset,
                "`{room}`: {link:?} is not in ({after}, {at:?}]"
            );
            assert!(
                !chain.recovered || previous == after || previous == 0,
                "`{room}`: a gap between {after} and {link:?}"
            );
            (chain.replay_after, chain.replay_left) = (offset, chain.replay_left - 1);
            if chain.recovered {
                let seen = Position { offset, ..at.clone() };
                self.last.insert(room.to_owned(), seen);
            }
            assert!(
                !chain.recovered || chain.replay_left > 0 || offset == at.offset,
                "`{room}`: recovered up to {offset}, and not to {at:?}"
            );
            return;
        }
        // Less only for the first event of a room, which follows nothing.
        let follows = previous == at.offset || (previous == 0 && offset > at.offset);
        assert!(follows, "`{room}`: {link:?} does not follow {}", at.offset);
        chain.at.offset = offset;
        self.last.insert(room.to_owned(), chain.at.clone());
    }
}
