//! Orders of a backend, and what the node signals to every client.

use std::time::Duration;

use super::clients::{Clients, Key};
use super::members::{Members, tell_left};
use super::timers::{Due, Timers};
use crate::error::CloseReason;
use crate::event::Event;
use crate::hub::Audience;
use crate::notice::Notice;
use crate::room::Room;
use crate::session::link::{Kind, Link};
use crate::session::{Message, RoomChange};

/// Carries out what has no state but this.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Whether deliveries are interrupted behind the node, as clients were told.
    degraded: bool,
}

impl Orders {
    /// Tells everybody whether deliveries are interrupted; once for each change.
    pub fn tell_degraded<L: Link>(&mut self, clients: &mut Clients<L>, active: bool) {
        if std::mem::replace(&mut self.degraded, active) == active {
            return;
        }
        let is_greeted = |key: &Key| clients.session(*key).is_some_and(|session| session.greeted);
        for key in clients.keys().filter(is_greeted).collect::<Vec<_>>() {
            clients.push(key, &Message::Degraded { active });
        }
    }

    /// Tells a session that has just had its first message what everybody else was told.
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

/// The open sessions that an order is for.
pub(super) fn audience<L: Link>(clients: &Clients<L>, audience: &Audience) -> Vec<Key> {
    match audience {
        Audience::User(tenant, user) => {
            let is_open = |key: &Key| clients.identity(*key).is_some();
            clients.of_user(tenant, user).into_iter().filter(is_open).collect()
        }
        Audience::Connection(tenant, connection) => clients.of_connection(tenant, *connection).into_iter().collect(),
    }
}

/// Takes clients out of a room, or calls their joins off; answers how many.
pub(super) fn leave<L: Link>(
    clients: &mut Clients<L>,
    members: &mut Members,
    keys: Vec<Key>,
    room: &Room,
    notice: &Notice,
) -> u32 {
    let mut left = 0;
    for key in keys {
        let called_off = members.abort_join(room, key);
        if members.leave(clients, key, room) || called_off {
            left += 1;
            tell_left(clients, key, room.clone(), RoomChange::Backend, notice);
        }
    }
    members.end_vacated();
    left
}

/// Closes clients; answers how many.
pub(super) fn disconnect<L: Link>(
    clients: &mut Clients<L>,
    keys: Vec<Key>,
    reason: CloseReason,
    notice: &Notice,
) -> u32 {
    let mut closed = 0;
    for key in keys {
        closed += 1;
        // A close frame has no room for both.
        let told = Message::Disconnected {
            reason,
            notice: notice.clone(),
        };
        clients.answer(key, 0, &told);
        clients.doom_saying(key, reason, notice.reason());
    }
    closed
}

/// Sends clients an event of no room; answers how many.
pub(super) fn send<L: Link>(clients: &mut Clients<L>, keys: Vec<Key>, event: &Event) -> u32 {
    let now_ms = clients.now_ms();
    let sent = keys
        .into_iter()
        .filter(|key| clients.send_with(now_ms, *key, Kind::Live, |_, encoder| Some(encoder.event(event))));
    u32::try_from(sent.count()).unwrap_or(u32::MAX)
}

/// Tells everybody to reconnect, each at its own time within the window, so that they do not come back all at once.
pub(super) fn drain<L: Link>(clients: &mut Clients<L>, timers: &mut Timers, window: Duration) {
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
        timers.schedule(clients.now_ms(), after, ticket, Due::Drain);
    }
}
