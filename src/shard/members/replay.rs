//! Replays: the past of a room, which its new member gets before everything live.

use std::sync::Arc;

use super::RoomMembers;
use crate::event::Event;
use crate::position::Position;
use crate::rooms::Start;
use crate::session::Since;
use crate::session::link::{FrameKind, Link};
use crate::shard::clients::{Clients, Key};
use crate::shard::local::{RoomItem, RoomKey};

/// The past for a new member, which comes before everything live.
#[derive(Debug)]
pub(in crate::shard) struct RoomReplay {
    pub room: RoomKey,
    pub past: Vec<Arc<Event>>,
    /// The position behind `past`.
    pub head: Position,
    pub held: Vec<RoomItem>,
}

impl RoomMembers {
    pub fn replay<L: Link>(&mut self, clients: &mut Clients<L>, key: Key, replay: &RoomReplay) {
        self.replay_past(clients, key, replay);
        self.replay_held(clients, key, replay);
    }

    /// The past of a replay.
    pub fn replay_past<L: Link>(&self, clients: &mut Clients<L>, key: Key, replay: &RoomReplay) {
        for event in &replay.past {
            clients.send_event(key, event, FrameKind::Reply);
        }
        if let Some(cursor) = clients.cursor(key) {
            cursor.enter(self.local.room(replay.room), Some(replay.head));
        }
    }

    /// What came while the past was read.
    pub fn replay_held<L: Link>(&mut self, clients: &mut Clients<L>, key: Key, replay: &RoomReplay) {
        for item in &replay.held {
            self.fanout.deliver_item(&self.local, clients, replay.room, key, item);
        }
    }
}

/// The position that a client has reached before its replay; `None` for last values, of which a part is nothing to go on from.
pub(in crate::shard) fn before_replay(start: &Start, since: Option<Since>) -> Option<Position> {
    let Some(first) = start.replay.first() else {
        return Some(start.head);
    };
    if let (true, Some(Since::At(since))) = (start.recovered, since) {
        return Some(since);
    }
    let first = first.link?.prev;
    let mut reached = first;
    for event in &start.replay {
        let link = event.link.filter(|link| link.prev == reached)?;
        reached = link.position.offset;
    }
    (reached == start.head.offset).then_some(Position {
        epoch: start.head.epoch,
        offset: first,
    })
}
