//! Orders of a backend, revocations, and what the node signals to every client.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::entry::{Cause, Entry};
use super::link::{Kind, Link};
use super::sessions::{Due, Sessions};
use super::tally::Tally;
use super::{Message, RoomChange};
use crate::error::CloseReason;
use crate::event::Event;
use crate::hub::local::Key;
use crate::hub::{Audience, JoinRefusal, Order, Outcome, ShardMessage, Signal, Verb};
use crate::notice::Notice;
use crate::policy::{Bearer, Permit, Revocation, RevocationSubject};
use crate::room::Room;

impl<L: Link> Sessions<L> {
    /// Takes in a message from the API or from presence.
    pub(super) fn message(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Order(order, reply) => self.order(&order, reply),
            ShardMessage::Revoke(revocation, notice, reply) => {
                let memberships = self.revoke(&revocation, &notice);
                // The asker may have gone.
                let _ = reply.send(memberships);
            }
            ShardMessage::Recheck(reply) => self.recheck(reply),
            ShardMessage::Signal(Signal::Presence(change)) => self.presence_changed(change),
            ShardMessage::Signal(Signal::Degraded(active)) => self.tell_degraded(active),
            ShardMessage::Signal(Signal::Drain(window)) => self.drain(window),
        }
    }

    /// Carries an order out. A join is answered when the last of the rooms is entered, all others at once.
    fn order(&mut self, order: &Order, reply: oneshot::Sender<Outcome>) {
        let keys = self.keys_of(&order.audience);
        let outcome = match &order.verb {
            Verb::Join(permit) => return self.order_join(keys, permit, &Tally::new(reply)),
            Verb::Leave(room, notice) => Outcome::of(self.order_leave(keys, room, notice)),
            Verb::Disconnect(reason, notice) => Outcome::of(self.order_disconnect(keys, *reason, notice)),
            Verb::Send(event) => Outcome::of(self.order_send(keys, event)),
            Verb::Count => Outcome::of(u32::try_from(keys.len()).unwrap_or(u32::MAX)),
            Verb::Identify => Outcome::identified(keys.first().and_then(|key| self.identity(*key))),
        };
        // The asker may have gone.
        let _ = reply.send(outcome);
    }

    fn order_join(&mut self, keys: Vec<Key>, permit: &Permit, tally: &Rc<Tally>) {
        for key in keys {
            let Some(ticket) = self.ticket(key) else { continue };
            if self.is_member(key, permit.room()) {
                tally.add(1);
                continue;
            }
            if let Some(refusal) = self.join_refusal(key, permit.room()) {
                tally.refuse(refusal);
                continue;
            }
            let tally = Some(Rc::clone(tally));
            let cause = Cause::Server {
                change: RoomChange::Backend,
                ends_command: false,
                tally,
            };
            self.enter(ticket, vec![Entry::granted(permit.clone())], cause);
        }
    }

    /// Why a backend cannot put a client into a room now. A revocation stands above a backend's order: an order that was
    /// held up on its way must not undo one that has been answered.
    fn join_refusal(&mut self, key: Key, room: &Room) -> Option<JoinRefusal> {
        if !self.may_deliver() {
            return Some(JoinRefusal::Unavailable);
        }
        self.identity(key)?;
        if self.is_revoked(key, room) {
            return Some(JoinRefusal::Revoked);
        }
        self.check_room_limit(key, room).err().map(|_| JoinRefusal::RoomLimit)
    }

    fn order_leave(&mut self, keys: Vec<Key>, room: &Room, notice: &Notice) -> u32 {
        let mut left = 0;
        for key in keys {
            let called_off = self.local.abort_join(room, key);
            if self.leave_room(key, room) || called_off {
                left += 1;
                self.tell_left(key, room.clone(), RoomChange::Backend, notice);
            }
        }
        self.end_vacated();
        left
    }

    fn order_disconnect(&mut self, keys: Vec<Key>, reason: CloseReason, notice: &Notice) -> u32 {
        let mut closed = 0;
        for key in keys {
            closed += 1;
            // A close frame has no room for both.
            let told = Message::Disconnected {
                reason,
                notice: notice.clone(),
            };
            self.answer(key, 0, &told);
            self.doom_saying(key, reason, notice.reason());
        }
        closed
    }

    fn order_send(&mut self, keys: Vec<Key>, event: &Event) -> u32 {
        if !self.may_deliver() {
            return 0;
        }
        let mut sent = 0;
        for key in keys {
            let Some(encoder) = self.encoder(key) else { continue };
            sent += 1;
            self.send(key, &encoder.event(event), Kind::Live);
        }
        sent
    }

    fn tell_left(&mut self, key: Key, room: Room, change: RoomChange, notice: &Notice) {
        self.push(
            key,
            &Message::RoomLeft {
                room,
                change,
                notice: notice.clone(),
            },
        );
    }

    /// Takes sessions out of rooms. What waits in an outbox cannot be taken back one by one, so a client that has not read
    /// everything is disconnected: after this nothing of the rooms is written to it.
    fn revoke(&mut self, revocation: &Revocation, notice: &Notice) -> u32 {
        let mut memberships = 0;
        for key in self.keys_hit_by(revocation) {
            let rooms = self.rooms_of(key);
            let joining = self.conns[key as usize].session.joining().to_vec();
            for room in joining.iter().filter(|room| revocation.reaches(room)) {
                self.local.abort_join(room, key);
            }
            let lost = rooms.into_iter().filter(|room| revocation.reaches(room)).collect();
            memberships += self.end_memberships(key, lost, notice);
        }
        self.end_vacated();
        memberships
    }

    /// Ends memberships that a revocation does not allow; answers how many.
    pub(super) fn end_memberships(&mut self, key: Key, rooms: Vec<Room>, notice: &Notice) -> u32 {
        let mut count = 0;
        for room in rooms {
            count += 1;
            self.leave_room(key, &room);
            self.tell_left(key, room, RoomChange::Revoked, notice);
        }
        if count > 0 && self.conns[key as usize].link.backlog_bytes() > 0 {
            self.doom_saying(key, CloseReason::Disconnected, notice.reason());
        }
        count
    }

    /// The sessions whose present token, user or connection a revocation names.
    fn keys_hit_by(&self, revocation: &Revocation) -> Vec<Key> {
        let tenant = &revocation.tenant;
        let mut keys = match &revocation.subject {
            RevocationSubject::User(user) => self.sessions_of(tenant, user),
            RevocationSubject::Connection(connection) => vec![connection.slot()],
            // Looking through the claims of all sessions took 3 us each: 0.3 s for 100,000, in which the shard does nothing else.
            RevocationSubject::Token(token) => self.tokens.candidates(token).collect(),
        };
        keys.retain(|key| {
            let Some(conn) = self.conns.get(*key as usize) else {
                return false;
            };
            let bearer = conn.session.identity().map(|identity| Bearer {
                identity,
                connection: conn.session.connection,
            });
            bearer.is_some_and(|bearer| revocation.hits(bearer))
        });
        keys
    }

    /// Returns whether a revocation in force keeps this session out of the room. Ask before anything of a room that was
    /// permitted earlier takes effect: the policy knows a revocation before the shards are ordered to carry it out, so what
    /// passes here and is revoked later is ended by that order.
    pub(super) fn is_revoked(&self, key: Key, room: &Room) -> bool {
        let Some(identity) = self.identity(key) else {
            return true;
        };
        let bearer = Bearer {
            identity: &identity,
            connection: self.conns[key as usize].session.connection,
        };
        self.services.policy.is_revoked(bearer, room)
    }

    fn keys_of(&self, audience: &Audience) -> Vec<Key> {
        match audience {
            Audience::User(tenant, user) => {
                let open = |key: &Key| self.identity(*key).is_some();
                self.sessions_of(tenant, user).into_iter().filter(open).collect()
            }
            Audience::Connection(tenant, connection) => {
                let key = connection.slot();
                let is_it = self
                    .conns
                    .get(key as usize)
                    .is_some_and(|conn| conn.session.connection == *connection);
                let is_open = self.identity(key).is_some_and(|identity| identity.tenant == *tenant);
                if is_it && is_open { vec![key] } else { Vec::new() }
            }
        }
    }

    /// Tells everybody whether deliveries are interrupted; once for each change.
    fn tell_degraded(&mut self, active: bool) {
        if std::mem::replace(&mut self.degraded, active) == active {
            return;
        }
        let keys = self.conns.iter().filter_map(|(key, _)| Key::try_from(key).ok());
        let keys: Vec<Key> = keys.filter(|key| self.conns[*key as usize].session.greeted).collect();
        for key in keys {
            self.push(key, &Message::Degraded { active });
        }
    }

    /// Tells a session that has just had its first message what everybody else was told.
    pub(super) fn greet(&mut self, key: Key) {
        let Some(session) = self.session(key) else { return };
        session.greeted = true;
        if self.degraded {
            self.push(key, &Message::Degraded { active: true });
        }
    }

    /// Tells everybody to reconnect, each at its own time within the window, so that they do not come back all at once.
    fn drain(&mut self, window: Duration) {
        let count = u32::try_from(self.conns.len().max(1)).unwrap_or(u32::MAX);
        let keys: Vec<Key> = self
            .conns
            .iter()
            .filter_map(|(key, _)| Key::try_from(key).ok())
            .collect();
        for (turn, key) in (0u32..).zip(keys) {
            let Some(ticket) = self.ticket(key) else { continue };
            self.push(
                key,
                &Message::ReconnectAdvice {
                    delay: Duration::ZERO,
                    jitter: window,
                },
            );
            self.schedule(window.mul_f64(f64::from(turn) / f64::from(count)), ticket, Due::Drain);
        }
    }
}
