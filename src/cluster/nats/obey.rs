//! Obeying others: what comes on the nodes' subjects is carried out on this node's shards, once, and answered.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::memory::Seen;
use super::{Node, asks, wire};
use crate::nats::{Nats, NatsError, Subscription, trace};
use crate::proto::node_v1::node_answer::Answer;
use crate::proto::node_v1::node_order::Order;
use crate::proto::node_v1::{ConfirmAnswer, NodeAnswer, NodeOrder, VerifyAnswer};

/// Time for which a confirmation waits for the log; the asking node repeats its request before.
const CONFIRM_MAX: Duration = Duration::from_secs(1);

/// Time for this node to write back what the control log has lost: an election of its leader takes up to
/// 9 s, and thousands of records may follow.
const VERIFY_MAX: Duration = Duration::from_secs(30);

/// The subscriptions on which orders come: to all, and to this node.
pub(super) async fn listen(nats: &Nats, incarnation: u64) -> Result<[Subscription; 2], NatsError> {
    let subscribe = async |subject: String| {
        let subscriber = nats.control().subscribe(subject.clone()).await;
        subscriber.map_err(NatsError::subscribing(&subject))
    };
    Ok([
        subscribe(nats.subjects().all_nodes()).await?,
        subscribe(nats.subjects().node(incarnation)).await?,
    ])
}

/// Carries orders out until `stop`.
pub(super) async fn run(node: Arc<Node>, orders: [Subscription; 2]) {
    let (tasks, stop) = (node.tasks.clone(), node.stop.clone());
    let turns = Arc::new(Semaphore::new(node.config.orders_max));
    let mut orders = stream::select_all(orders);
    while let Some(Some(message)) = stop.run_until_cancelled(orders.next()).await {
        let Some(order) = read(&node, &message) else { continue };
        let Ok(turn) = Arc::clone(&turns).try_acquire_owned() else {
            node.ignored.count("order, too many at once");
            continue;
        };
        let span = trace::adopt(tracing::debug_span!("cluster.obey"), &order.traceparent);
        let (node, stop) = (Arc::clone(&node), stop.clone());
        let obeying = async move {
            let _turn = turn;
            stop.run_until_cancelled(obey(&node, message, order)).await;
        };
        tasks.spawn(obeying.instrument(span));
    }
}

/// Reads an order of another node.
fn read(node: &Node, message: &Message) -> Option<NodeOrder> {
    match NodeOrder::decode(&*message.payload) {
        Ok(order) if order.order.is_some() && message.reply.is_some() => {
            (order.sender != node.own.incarnation).then_some(order)
        }
        // Also one that only a newer release knows.
        _ => {
            node.ignored.count("order");
            None
        }
    }
}

async fn obey(node: &Arc<Node>, message: Message, order: NodeOrder) {
    let (Some(id), Some(command)) = (wire::id_of(&order.id), order.order) else {
        return node.ignored.count("order");
    };
    let command = match (command, message.reply.clone()) {
        (Order::Ask(order), Some(reply)) => return asks::obey(node, id, order, reply).await,
        (Order::Follow(_), Some(reply)) => return asks::follow(node, id, reply).await,
        (command, _) => command,
    };
    let seen = match command {
        // They change nothing: carrying them out again is the answer.
        Order::Count(_) | Order::Identify(_) | Order::Confirm(_) => Seen::New,
        _ => node.remembered().begin(id),
    };
    let answer = match seen {
        Seen::UnderWay => return,
        Seen::Done(answer) => answer,
        Seen::New => {
            let Some(answer) = carry_out(node, command).await else {
                return;
            };
            let answer: Bytes = NodeAnswer {
                id: wire::id_bytes(id),
                sender: node.own.incarnation,
                answer: Some(answer),
            }
            .encode_to_vec()
            .into();
            node.remembered().done(id, answer.clone());
            answer
        }
    };
    let Some(reply) = message.reply else { return };
    if node.nats.control().client().publish(reply, answer).await.is_err() {
        tracing::debug!("answer not sent");
    }
}

/// Carries an order out, and returns its answer; `None` when there is none.
async fn carry_out(node: &Node, order: Order) -> Option<Answer> {
    if let Order::Verify(_) = order {
        tokio::time::timeout(VERIFY_MAX, node.log.verify()).await.ok()?;
        return Some(Answer::Verified(VerifyAnswer {}));
    }
    if let Order::Confirm(confirm) = order {
        let operation = wire::id_of(&confirm.operation)?;
        let confirmed = tokio::time::timeout(CONFIRM_MAX, node.log.carried_out(operation)).await;
        let memberships = confirmed.ok()?;
        return Some(Answer::Confirmed(ConfirmAnswer { memberships }));
    }
    let Some(order) = wire::read_order(order) else {
        node.ignored.count("order");
        return None;
    };
    let order = Arc::new(order);
    // A node that shuts down has no connections that could be meant; it does not answer, and is soon given up.
    let outcome = node.shards.order(Arc::clone(&order)).await.ok()?;
    Some(wire::answer(&order.verb, outcome))
}
