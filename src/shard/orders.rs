//! Orders of a backend, and the node's signals to every client.

use std::time::Duration;

use super::clients::{Clients, Key};
use super::members::{RoomMembers, notify_left};
use super::timers::{DueAction, ShardTimers};
use crate::error::CloseReason;
use crate::event::Event;
use crate::hub::Audience;
use crate::notice::Notice;
use crate::room::Room;
use crate::session::link::{FrameKind, Link};
use crate::session::{Message, RoomChange};

/// The node's state as clients were notified of it.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Set while deliveries are interrupted behind the node, as clients were notified.
    degraded: bool,
    /// Set once the node drains.
    pub draining: bool,
}

impl Orders {
    /// Notifies every client whether deliveries are interrupted; once for each change.
    pub fn notify_degraded<L: Link>(&mut self, clients: &mut Clients<L>, active: bool) {
        if std::mem::replace(&mut self.degraded, active) == active {
            return;
        }
        let is_greeted = |key: &Key| clients.session(*key).is_some_and(|session| session.greeted);
        for key in clients.keys().filter(is_greeted).collect::<Vec<_>>() {
            clients.push(key, &Message::Degraded { active });
        }
    }

    /// Notifies a session that has just had its first message of the node's state.
    pub fn greet<L: Link>(&self, clients: &mut Clients<L>, key: Key) {
        let Some(session) = clients.session_mut(key) else {
            return;
        };
        session.greeted = true;
        if self.degraded {
            clients.push(key, &Message::Degraded { active: true });
        }
    }
}

/// Returns the open sessions that an order is for.
pub(super) fn audience<L: Link>(clients: &Clients<L>, audience: &Audience) -> Vec<Key> {
    match audience {
        Audience::User(tenant, user) => {
            let is_open = |key: &Key| clients.identity(*key).is_some();
            clients.of_user(tenant, user).into_iter().filter(is_open).collect()
        }
        Audience::Connection(tenant, connection) => clients.of_connection(tenant, *connection).into_iter().collect(),
    }
}

/// Removes clients from a room, or aborts their joins. Returns the number.
pub(super) fn leave<L: Link>(
    clients: &mut Clients<L>,
    members: &mut RoomMembers,
    keys: Vec<Key>,
    room: &Room,
    notice: &Notice,
) -> u32 {
    let mut left = 0;
    for key in keys {
        let called_off = members.abort_join(room, key);
        if members.leave(clients, key, room) || called_off {
            left += 1;
            notify_left(clients, key, room.clone(), RoomChange::Backend, notice);
        }
    }
    left
}

/// Closes clients. Returns the number.
pub(super) fn disconnect<L: Link>(
    clients: &mut Clients<L>,
    keys: Vec<Key>,
    reason: CloseReason,
    notice: &Notice,
) -> u32 {
    let closed = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    for key in keys {
        // A close frame has no room for both.
        let told = Message::Disconnected {
            reason,
            notice: notice.clone(),
        };
        clients.answer(key, 0, &told);
        clients.begin_close_with(key, reason, notice.reason());
    }
    closed
}

/// Sends clients an event of no room. Returns the number.
pub(super) fn send<L: Link>(clients: &mut Clients<L>, keys: Vec<Key>, event: &Event) -> u32 {
    let sent = keys
        .into_iter()
        .filter(|key| clients.send_apart(*key, FrameKind::Push, |_, encoder| Some(encoder.event(event))));
    u32::try_from(sent.count()).unwrap_or(u32::MAX)
}

/// Advises every client to reconnect and closes them spread over the window: no thundering herd.
pub(super) fn drain<L: Link>(clients: &mut Clients<L>, timers: &mut ShardTimers, window: Duration) {
    let count = u32::try_from(clients.len().max(1)).unwrap_or(u32::MAX);
    for (turn, key) in (0u32..).zip(clients.keys().collect::<Vec<_>>()) {
        let Some(ticket) = clients.ticket(key) else { continue };
        clients.push(
            key,
            &Message::ReconnectAdvice {
                delay: Duration::ZERO,
                jitter: window,
            },
        );
        let after = window.mul_f64(f64::from(turn) / f64::from(count));
        timers.schedule(clients.now_ms(), after, ticket, DueAction::Drain);
    }
}
