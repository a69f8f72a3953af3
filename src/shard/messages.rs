//! Messages to a shard from the API, from presence and from the node.

use tokio::sync::oneshot;

use super::clients::Key;
use super::sessions::Sessions;
use super::tally::JoinTally;
use super::{orders, revocations};
use crate::hub::{Order, Outcome, ShardMessage, Signal, Verb};
use crate::session::link::Link;

impl<L: Link> Sessions<L> {
    /// Carries a message out.
    pub(super) fn message(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Order(order, reply) => self.order(&order, reply),
            ShardMessage::Ask(ask, reply) => {
                // The asker may have gone, and with it the receiver of the answer.
                let _ = reply.send(self.start_ask(&ask));
            }
            ShardMessage::Revoke(revocation, notice, reply) => {
                let (clients, members) = (&mut self.clients, &mut self.members);
                let memberships = revocations::revoke(clients, members, &mut self.asked, &revocation, &notice);
                // The asker may have gone.
                let _ = reply.send(memberships);
            }
            ShardMessage::Recheck(reply) => self.recheck.begin(self.clients.end(), reply),
            ShardMessage::Signal(Signal::Presence(change)) => {
                let is_lapsed = self.gate.is_lapsed();
                self.members.presence_changed(&mut self.clients, is_lapsed, change);
            }
            ShardMessage::Signal(Signal::Degraded(active)) => self.orders.notify_degraded(&mut self.clients, active),
            ShardMessage::Signal(Signal::Drain(window)) => {
                self.orders.draining = true;
                orders::drain(&mut self.clients, &mut self.timers, window);
            }
        }
    }

    /// Carries an order out. A join is answered when the last of the rooms is entered, all others at once.
    fn order(&mut self, order: &Order, reply: oneshot::Sender<Outcome>) {
        let keys = orders::audience(&self.clients, &order.audience);
        let (clients, members) = (&mut self.clients, &mut self.members);
        let outcome = match &order.verb {
            Verb::Join(permit) => return self.order_join(keys, permit, &JoinTally::new(reply)),
            Verb::Leave(room, notice) => {
                let left = orders::leave(clients, members, keys.clone(), room, notice);
                return self.reply_kept(&keys, Outcome::of(left), reply);
            }
            Verb::Disconnect(reason, notice) => {
                let closed = orders::disconnect(clients, keys, *reason, notice);
                // When it is answered they are in no room, and no watcher hears of their end later.
                self.settle();
                Outcome::of(closed)
            }
            Verb::Send(event) if self.gate.may_deliver() => Outcome::of(orders::send(clients, keys, event)),
            Verb::Send(_) => Outcome::of(0),
            Verb::Count => Outcome::of(u32::try_from(keys.len()).unwrap_or(u32::MAX)),
            Verb::Identify => Outcome::identified(keys.first().and_then(|key| clients.identity(*key))),
        };
        // The asker may have gone.
        let _ = reply.send(outcome);
    }

    /// Replies once the records say what was done: a client that comes back must not undo it.
    fn reply_kept(&mut self, keys: &[Key], outcome: Outcome, reply: oneshot::Sender<Outcome>) {
        let kept: Vec<_> = keys.iter().filter_map(|key| self.take_into_record(*key)).collect();
        self.run(async move {
            for kept in kept {
                // One that was taken over is no longer of this connection.
                let _ = kept.saved().await;
            }
            // The asker may have gone.
            let _ = reply.send(outcome);
            |_: &mut Self| {}
        });
    }
}
