//! Which members are in which room, and what is about to be written to it.

use std::{collections::HashMap, mem};

use slab::Slab;

/// A room's place in [`Rooms`], valid while it has a member.
pub type RoomKey = usize;
/// A member's place among the connections.
pub type MemberKey = usize;

#[derive(Debug, Default)]
struct Room {
    name: String,
    members: Vec<MemberKey>,
    /// Frames that arrived together.
    frames: Vec<u8>,
}

/// All rooms with members.
#[derive(Debug, Default)]
pub struct Rooms {
    keys: HashMap<String, RoomKey>,
    slots: Slab<Room>,
    /// Rooms with frames.
    touched: Vec<RoomKey>,
}

impl Rooms {
    pub fn join(&mut self, name: &str, member: MemberKey) -> RoomKey {
        let key = self.keys.get(name).copied().unwrap_or_else(|| {
            let key = self.slots.insert(Room {
                name: name.to_owned(),
                ..Room::default()
            });
            self.keys.insert(name.to_owned(), key);
            key
        });
        self.slots[key].members.push(member);
        key
    }

    pub fn leave(&mut self, key: RoomKey, member: MemberKey) {
        let room = &mut self.slots[key];
        if let Some(place) = room.members.iter().position(|other| *other == member) {
            room.members.swap_remove(place);
        }
        if room.members.is_empty() {
            self.keys.remove(&room.name);
            self.slots.remove(key);
        }
    }

    /// Where to put the next frame for a room; nothing if nobody is in it.
    pub fn frames_of(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        let key = *self.keys.get(name)?;
        let frames = &mut self.slots[key].frames;
        if frames.is_empty() {
            self.touched.push(key);
        }
        Some(frames)
    }

    /// Hands `write` each room's members and the frames that arrived for it, and forgets the frames.
    pub fn flush(&mut self, mut write: impl FnMut(&[MemberKey], &[u8])) {
        for key in self.touched.drain(..) {
            let room = &mut self.slots[key];
            write(&room.members, &mem::take(&mut room.frames));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_one_room_leave_together_and_once() {
        let mut rooms = Rooms::default();
        rooms.join("a", 1);
        rooms.join("b", 1);
        rooms.join("a", 2);
        for (room, frame) in [("a", b'1'), ("b", b'2'), ("a", b'3')] {
            rooms.frames_of(room).unwrap().push(frame);
        }
        assert!(rooms.frames_of("c").is_none());
        let mut written = Vec::new();
        rooms.flush(|members, frames| written.push((members.to_vec(), frames.to_vec())));
        assert_eq!(written, [(vec![1, 2], b"13".to_vec()), (vec![1], b"2".to_vec())]);
        rooms.flush(|_, _| panic!("nothing is left"));
    }

    #[test]
    fn a_room_ends_with_its_last_member() {
        let mut rooms = Rooms::default();
        let key = rooms.join("a", 1);
        rooms.join("a", 2);
        rooms.leave(key, 1);
        assert!(rooms.frames_of("a").is_some());
        rooms.flush(|members, _| assert_eq!(members, [2]));
        rooms.leave(key, 2);
        assert!(rooms.frames_of("a").is_none());
        assert!(rooms.slots.is_empty());
    }
}
