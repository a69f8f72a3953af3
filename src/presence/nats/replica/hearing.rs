//! Merging of other nodes' messages, and the judgement whether they are news.

use super::census::ON_ITS_WAY_MS;
use super::{Action, Life, Replica, ask};
use crate::presence::memory::{Cause, Origin};
use crate::presence::nats::other::{Merged, PeerView};
use crate::presence::nats::update::{Changed, DigestAnnouncement, Update};
use crate::room::Room;
use crate::units::millis;

/// Properties of a message, beside its users.
#[derive(Debug, Clone, Copy)]
struct Heard {
    /// The node has nothing.
    is_nothing: bool,
    /// The node had nothing before.
    begins: bool,
    is_patient: bool,
}

impl Replica {
    /// Merges another node's update of its part of a room.
    pub(in crate::presence::nats) fn update(
        &mut self,
        room: &Room,
        node: u64,
        update: Update,
        now_ms: u64,
    ) -> Vec<Action> {
        let heard = Heard {
            is_nothing: update.previous == 0 && update.changes.is_empty(),
            begins: update.begins,
            is_patient: false,
        };
        self.hear(room, node, heard, now_ms, |other| other.update(update, now_ms))
    }

    /// Merges another node's stand.
    pub(in crate::presence::nats) fn stand(
        &mut self,
        room: &Room,
        stand: DigestAnnouncement,
        now_ms: u64,
    ) -> Vec<Action> {
        self.hear_stand(room, stand, false, now_ms)
    }

    /// Merges a stand. `is_patient`: a missing version is probably in flight, and is asked for a little later.
    pub(super) fn hear_stand(
        &mut self,
        room: &Room,
        stand: DigestAnnouncement,
        is_patient: bool,
        now_ms: u64,
    ) -> Vec<Action> {
        let heard = Heard {
            is_nothing: stand.users == 0,
            begins: false,
            is_patient,
        };
        let node = stand.incarnation;
        self.hear(room, node, heard, now_ms, |other| other.stand(stand, now_ms))
    }

    fn hear(
        &mut self,
        room: &Room,
        node: u64,
        heard: Heard,
        now_ms: u64,
        merge: impl FnOnce(&mut PeerView) -> Merged,
    ) -> Vec<Action> {
        let Some(followed) = self.rooms.get_mut(room).filter(|_| node != self.own) else {
            return Vec::new();
        };
        let life = self.lives.entry(node).or_insert(Life::Unknown { since_ms: now_ms });
        // An empty part needs no entry, and an ended node is fenced by its tombstone.
        if matches!(life, Life::Ended { .. }) || heard.is_nothing && !followed.others.contains_key(&node) {
            return Vec::new();
        }
        let is_trusted = *life == Life::Lives && !followed.doubts(node);
        let other = followed.others.entry(node).or_default();
        let origin = Origin {
            node,
            is_news: is_trusted && (heard.begins || other.book.version > 0),
        };
        let (changes, is_missing) = match merge(other) {
            Merged::Current(changes) => (changes, false),
            Merged::Missing(changes) => (changes, true),
        };
        let mut actions: Vec<Action> = changes.into_iter().map(|one| shown(room, origin, one)).collect();
        if is_missing && !other.is_missing() {
            let wait_ms = if heard.is_patient {
                ON_ITS_WAY_MS
            } else {
                actions.push(ask(room, node, other));
                millis(self.rhythm.ask_again_after)
            };
            other.ask_at_ms = Some(now_ms + wait_ms);
        }
        followed.resolve(node);
        self.schedule(room);
        self.confirm(Some(room), now_ms, &mut actions);
        actions
    }
}

fn shown(room: &Room, origin: Origin, changed: Changed) -> Action {
    match changed.now {
        Ok(share) => Action::Set(room.clone(), origin, changed.user, share),
        Err(departure) => Action::Withdraw(room.clone(), origin.node, changed.user, departure, Cause::Told),
    }
}
