//! Asking others: an order goes out, and goes out again, until those who were asked have answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::asks::FOLLOW_INTERVAL;
use super::{Ignored, wire};
use crate::cluster::Incarnation;
use crate::nats::{Nats, NatsError, Subscription, trace};
use crate::proto::node_v1::node_answer::Answer;
use crate::proto::node_v1::node_order::Order;
use crate::proto::node_v1::{FollowOrder, NodeAnswer, NodeOrder};
use crate::sync::lock;

/// The most answers to one order that wait to be read: more than there are nodes.
const ANSWERS_MAX: usize = 1024;

/// Interval at which an order is repeated to the nodes that have not answered: five times within the timeout.
const AGAIN: Duration = Duration::from_millis(400);

type Waiting = Arc<Mutex<HashMap<u128, mpsc::Sender<(Incarnation, Answer)>>>>;

/// The inbox for answers, and the calls that wait for them.
#[derive(Debug)]
pub(super) struct Inbox {
    nats: Arc<Nats>,
    own: Incarnation,
    waiting: Waiting,
}

impl Inbox {
    /// Opens it; answers come once [`run`] runs.
    pub(super) async fn open(nats: Arc<Nats>, own: Incarnation) -> Result<(Self, Subscription), NatsError> {
        let subject = format!("{}.o.*", nats.subjects().inbox());
        let subscriber = nats.control().subscribe(subject.clone()).await;
        let subscriber = subscriber.map_err(NatsError::subscribing(&subject))?;
        let waiting = Waiting::default();
        Ok((Self { nats, own, waiting }, subscriber))
    }

    /// Returns the calls that wait for answers, for [`run`].
    pub(super) fn waiting(&self) -> Waiting {
        Arc::clone(&self.waiting)
    }

    /// Begins to ask; nothing is sent before the first [`Asking::next`].
    pub(super) fn ask(&self, subject: String, order: Order) -> Asking<'_> {
        let id = rand::random();
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        lock(&self.waiting).insert(id, answers);
        let order = NodeOrder {
            id: wire::id_bytes(id),
            sender: self.own,
            traceparent: trace::current(),
            order: Some(order),
        };
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Asking {
            inbox: self,
            id,
            subject,
            payload: order.encode_to_vec().into(),
            answered,
            again,
        }
    }
}

/// One order on its way.
pub(super) struct Asking<'a> {
    inbox: &'a Inbox,
    id: u128,
    subject: String,
    payload: Bytes,
    answered: mpsc::Receiver<(Incarnation, Answer)>,
    again: tokio::time::Interval,
}

impl Asking<'_> {
    /// Replaces an ask by the question what has become of it, which goes out less often.
    pub(super) fn follow(&mut self) {
        let order = NodeOrder {
            id: wire::id_bytes(self.id),
            sender: self.inbox.own,
            traceparent: String::new(),
            order: Some(Order::Follow(FollowOrder {})),
        };
        self.payload = order.encode_to_vec().into();
        let mut again = tokio::time::interval_at(Instant::now() + FOLLOW_INTERVAL, FOLLOW_INTERVAL);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.again = again;
    }

    /// The next answer. Waits for ever when nobody answers.
    ///
    /// # Cancel safety
    /// No answer is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> (Incarnation, Answer) {
        loop {
            tokio::select! {
                // Answers first: an order that was answered just now need not go out again.
                biased;
                Some(answer) = self.answered.recv() => return answer,
                _ = self.again.tick() => self.send().await,
            }
        }
    }

    /// A message that does not leave is one that is lost on its way: it goes out again.
    async fn send(&self) {
        let nats = &self.inbox.nats;
        if !nats.control().is_connected() {
            return;
        }
        let reply = format!("{}.o.{:032x}", nats.subjects().inbox(), self.id);
        let client = nats.control().client();
        let publishing = client.publish_with_reply(self.subject.clone(), reply, self.payload.clone());
        if !matches!(tokio::time::timeout(AGAIN, publishing).await, Ok(Ok(()))) {
            tracing::debug!("order not sent");
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.inbox.waiting).remove(&self.id);
    }
}

/// Hands answers to those who wait for them.
pub(super) async fn run(waiting: Waiting, mut answers: Subscription, ignored: Arc<Ignored>, stop: CancellationToken) {
    while let Some(Some(message)) = stop.run_until_cancelled(answers.next()).await {
        let answer = NodeAnswer::decode(&*message.payload).ok();
        let parts = answer.and_then(|answer| Some((wire::id_of(&answer.id)?, answer.sender, answer.answer?)));
        let Some((id, from, answer)) = parts else {
            ignored.count("answer");
            continue;
        };
        // One that comes too late, or twice more often than there is room for, is not needed.
        if let Some(waiting) = lock(&waiting).get(&id) {
            let _ = waiting.try_send((from, answer));
        }
    }
}
