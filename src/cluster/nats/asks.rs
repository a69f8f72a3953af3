//! Asks of connections on other nodes, from both sides.
//!
//! The order goes out again until the other node says that the client is asked. From then on only a small question follows,
//! now and then: the node sends the end of the ask by itself, and a question replaces that message if it was lost.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use super::ask_book::{AskBegun, AskKnown};
use super::ask_wire::{self, AskProgress};
use super::{NatsPeers, Node, wire};
use crate::cluster::{Asked, Delivered, Incarnation};
use crate::hub::{Ask, AskEnd, AskStart};
use crate::proto::node_v1::node_answer::Answer;
use crate::proto::node_v1::{AskAnswer, AskOrder, AskState, NodeAnswer};
use crate::units::millis;

/// Interval at which the outcome is asked for: a lost message delays an answer by at most this.
pub(super) const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time that a node waits for a client on behalf of another one, whatever that one says.
const WAIT_MAX: Duration = Duration::from_secs(600);

impl NatsPeers {
    /// Asks a connection of another node.
    pub(super) async fn ask_there(&self, node: Incarnation, ask: &Ask, deadline: Instant) -> Asked {
        let now = Instant::now();
        let order = ask_wire::order(ask, millis(deadline.saturating_duration_since(now)));
        let mut asking = self.inbox.ask(self.nats.subjects().node(node), order);
        let first_answer = (now + self.config.answer_timeout).min(deadline);
        let mut delivered = Delivered::Unknown;
        loop {
            let until = match delivered {
                Delivered::Yes => (Instant::now() + FOLLOW_INTERVAL).min(deadline),
                Delivered::No | Delivered::Unknown => first_answer,
            };
            let Ok((from, answer)) = timeout_at(until, asking.next()).await else {
                if Instant::now() >= deadline {
                    return Asked::TimedOut(delivered);
                }
                if delivered != Delivered::Yes {
                    return Asked::Silent(delivered);
                }
                // A node that was given up, and holds no lease any more, has taken its connections along.
                if !self.required().contains_key(&node) {
                    return Asked::Ended(AskEnd::Lost);
                }
                continue;
            };
            match ask_wire::progress(answer).filter(|_| from == node) {
                Some(AskProgress::Delivered) if delivered == Delivered::Yes => {}
                Some(AskProgress::Delivered) => {
                    delivered = Delivered::Yes;
                    asking.follow();
                }
                Some(AskProgress::Ended(asked)) => return asked,
                Some(AskProgress::Forgotten) => return Asked::Silent(delivered),
                None => self.ignored.count("answer"),
            }
        }
    }
}

/// Carries out an ask of another node. Returns once the client is asked; its answer follows by a task of its own, so that
/// clients that think hold no turn of other orders.
pub(super) async fn obey(node: &Arc<Node>, id: u128, order: AskOrder, reply: Subject) {
    let timeout = Duration::from_millis(order.timeout_ms).min(WAIT_MAX);
    let Some(ask) = ask_wire::read_order(order) else {
        return node.ignored.count("order");
    };
    let begun = node.asks().begin(id);
    match begun {
        AskBegun::New => {}
        AskBegun::Full => return send(node, reply, state(node, id, AskState::Unavailable)).await,
        AskBegun::Known => return follow(node, id, reply).await,
    }
    // A node that shuts down is asked no more, and is soon given up.
    let Ok(start) = node.shards.start_ask(Arc::new(ask)).await else {
        return;
    };
    let ended = match start {
        AskStart::NotHere => return end(node, id, state(node, id, AskState::NotFound), reply).await,
        AskStart::Refused(refusal) => {
            let refused = ask_wire::refused(refusal);
            return end(node, id, state(node, id, refused), reply).await;
        }
        AskStart::Delivered(ended) => ended,
    };
    node.asks().delivered(id);
    send(node, reply.clone(), state(node, id, AskState::Delivered)).await;
    let own = Arc::clone(node);
    let waiting = async move {
        let answer = match tokio::time::timeout(timeout, ended).await {
            Ok(ended) => encoded(&own, id, ask_wire::ended(ended.unwrap_or(AskEnd::Lost))),
            // The asking node has ended it by itself.
            Err(_) => state(&own, id, AskState::Unspecified),
        };
        end(&own, id, answer, reply).await;
    };
    let stop = node.stop.clone();
    node.tasks.spawn(async move {
        stop.run_until_cancelled(waiting).await;
    });
}

/// Sends what has become of an ask.
pub(super) async fn follow(node: &Node, id: u128, reply: Subject) {
    let known = node.asks().find(id);
    let answer = match known {
        // Its first answer is on its way.
        AskKnown::Starting => return,
        AskKnown::Delivered => state(node, id, AskState::Delivered),
        AskKnown::Ended(answer) => answer,
        AskKnown::Unknown => state(node, id, AskState::Unspecified),
    };
    send(node, reply, answer).await;
}

async fn end(node: &Node, id: u128, answer: Bytes, reply: Subject) {
    node.asks().end(id, answer.clone());
    send(node, reply, answer).await;
}

async fn send(node: &Node, reply: Subject, answer: Bytes) {
    if node.nats.control().client().publish(reply, answer).await.is_err() {
        tracing::debug!("answer not sent");
    }
}

fn state(node: &Node, id: u128, state: AskState) -> Bytes {
    let answer = AskAnswer {
        state: state.into(),
        ..AskAnswer::default()
    };
    encoded(node, id, answer)
}

fn encoded(node: &Node, id: u128, answer: AskAnswer) -> Bytes {
    let answer = NodeAnswer {
        id: wire::id_bytes(id),
        sender: node.own.incarnation,
        answer: Some(Answer::Asked(answer)),
    };
    answer.encode_to_vec().into()
}
