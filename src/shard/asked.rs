//! Asks of backends that wait for clients' answers. They are kept apart from the sessions, so that a session at rest holds
//! nothing of them.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::clients::{ClientFacts, Key};
use super::sessions::Sessions;
use crate::hub::{Ask, AskEnd, AskRefusal, AskStart};
use crate::room::Room;
use crate::session::Message;
use crate::session::link::Link;

/// The largest id of an ask: acknowledgement ids of Socket.IO are small numbers, and JSON readers keep it exact.
const ID_MAX: u32 = i32::MAX as u32;

/// One ask that waits.
#[derive(Debug)]
struct PendingAsk {
    id: u32,
    end: oneshot::Sender<AskEnd>,
}

/// The asks of one shard that wait, by session. A session is taken out before its slot is used again.
#[derive(Debug, Default)]
pub(super) struct PendingAsks {
    /// The last id that was drawn. One sequence for all sessions: an id that is used again long after names another ask.
    last: u32,
    by_session: HashMap<Key, Vec<PendingAsk>>,
}

impl PendingAsks {
    /// Begins an ask of a session; returns its id and where it ends. `None` when `max` wait already.
    fn begin(&mut self, key: Key, max: usize) -> Option<(u32, oneshot::Receiver<AskEnd>)> {
        let waiting = self.by_session.entry(key).or_default();
        // Asks whose asker has gone count no longer.
        waiting.retain(|ask| !ask.end.is_closed());
        if waiting.len() >= max {
            return None;
        }
        self.last = self.last % ID_MAX + 1;
        let (end, ended) = oneshot::channel();
        waiting.push(PendingAsk { id: self.last, end });
        Some((self.last, ended))
    }

    /// Reports whether an ask waits for this session's answer.
    pub fn waits(&self, key: Key, id: u32) -> bool {
        let mut waiting = self.by_session.get(&key).into_iter().flatten();
        waiting.any(|ask| ask.id == id && !ask.end.is_closed())
    }

    /// Ends an ask.
    pub fn answer(&mut self, key: Key, id: u32, end: AskEnd) {
        let Some(waiting) = self.by_session.get_mut(&key) else {
            return;
        };
        if let Some(index) = waiting.iter().position(|ask| ask.id == id) {
            // The asker may have gone just now.
            let _ = waiting.swap_remove(index).end.send(end);
        }
        if waiting.is_empty() {
            self.by_session.remove(&key);
        }
    }

    /// Ends all asks of a session as lost; returns whether there were any.
    pub fn end(&mut self, key: Key) -> bool {
        if self.by_session.is_empty() {
            return false;
        }
        let waiting = self.by_session.remove(&key).unwrap_or_default();
        let were_any = !waiting.is_empty();
        for ask in waiting {
            // The asker may have gone.
            let _ = ask.end.send(AskEnd::Lost);
        }
        were_any
    }

    /// Frees the asks whose askers have gone.
    pub fn forget_withdrawn(&mut self) {
        self.by_session.retain(|_, waiting| {
            waiting.retain(|ask| !ask.end.is_closed());
            !waiting.is_empty()
        });
        if self.by_session.is_empty() && self.by_session.capacity() > 0 {
            self.by_session = HashMap::new();
        }
    }
}

impl<L: Link> Sessions<L> {
    /// Asks a client. The ask is a push like any: behind what was pushed before, never without the lease, and never to a
    /// client whose access to everything was withdrawn.
    pub(super) fn start_ask(&mut self, ask: &Ask) -> AskStart {
        let Some(key) = self.clients.of_connection(&ask.tenant, ask.connection) else {
            return AskStart::NotHere;
        };
        let Some(session) = self.clients.session(key) else {
            return AskStart::NotHere;
        };
        if !session.rates.facts.has(ClientFacts::ANSWERS) {
            return AskStart::Refused(AskRefusal::CannotAnswer);
        }
        let is_greeted = session.greeted;
        let is_revoked = self
            .revocations
            .is_revoked(&self.clients, key, &Room::nameless(&ask.tenant));
        if !is_greeted || is_revoked || self.is_draining() || !self.gate.may_deliver() {
            return AskStart::Refused(AskRefusal::Unavailable);
        }
        let max = self.services.config.load().asked_max;
        let Some((id, ended)) = self.asked.begin(key, usize::from(max)) else {
            return AskStart::Refused(AskRefusal::TooMany);
        };
        let question = Message::Asked {
            ask: id,
            method: ask.method.clone(),
            payload: ask.payload.clone(),
        };
        self.clients.push(key, &question);
        if self.clients.identity(key).is_none() {
            // The connection did not take it, and is closed. Not counted as lost: its client has seen nothing of it.
            self.asked.answer(key, id, AskEnd::Lost);
            return AskStart::Refused(AskRefusal::Unavailable);
        }
        AskStart::Delivered(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Payload;
    use crate::json::Json;

    fn answered() -> AskEnd {
        AskEnd::Answered(Payload::Json(Json::parse("1").unwrap()))
    }

    #[test]
    fn an_answer_ends_its_own_ask_once() {
        let mut asks = PendingAsks::default();
        let (first, mut first_end) = asks.begin(7, 2).unwrap();
        let (second, mut second_end) = asks.begin(7, 2).unwrap();
        assert_ne!(first, second);
        assert!(asks.begin(7, 2).is_none() && asks.begin(8, 2).is_some());
        assert!(asks.waits(7, first) && !asks.waits(8, first));
        asks.answer(8, first, answered());
        assert!(first_end.try_recv().is_err(), "the answer of another client");
        asks.answer(7, first, answered());
        assert_eq!(first_end.try_recv(), Ok(answered()));
        assert!(!asks.waits(7, first) && asks.waits(7, second));
        assert!(asks.end(7) && !asks.end(7));
        assert_eq!(second_end.try_recv(), Ok(AskEnd::Lost));
    }

    #[test]
    fn withdrawn_asks_make_room_and_leave_nothing() {
        let mut asks = PendingAsks::default();
        let (id, end) = asks.begin(7, 1).unwrap();
        drop(end);
        assert!(!asks.waits(7, id));
        drop(asks.begin(7, 1).unwrap());
        asks.forget_withdrawn();
        assert_eq!(asks.by_session.capacity(), 0);
    }

    #[test]
    fn ids_begin_again_at_one() {
        let mut asks = PendingAsks {
            last: ID_MAX - 1,
            ..PendingAsks::default()
        };
        let ids = [(); 2].map(|()| asks.begin(7, 9).unwrap().0);
        assert_eq!(ids, [ID_MAX, 1]);
    }
}
