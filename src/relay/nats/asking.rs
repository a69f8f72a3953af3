//! Asking other nodes, and telling them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::breaks::Breaks;
use super::telling::{Telling, Untold};
use super::{encoded, send};
use crate::counters::{Counters, RelayOutcome};
use crate::nats::nodes::{NodeChange, Nodes};
use crate::nats::{Nats, Subscription};
use crate::proto::node_v1::RelayPart;
use crate::relay::parts::Assembly;
use crate::relay::{Config, NotRelayed, Relay};
use crate::sync::lock;

/// The interval at which a message is repeated that was not confirmed.
const AGAIN: Duration = Duration::from_secs(1);

/// A request that waits for its answer.
struct Waiting {
    node: u64,
    parts: Assembly,
    answer: oneshot::Sender<Result<Bytes, NotRelayed>>,
}

/// The asking side of the relay.
pub(super) struct Asking {
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    config: Config,
    counters: Counters,
    number: AtomicU64,
    places: Semaphore,
    waiting: Mutex<HashMap<u64, Waiting>>,
    told: mpsc::Sender<(u64, Bytes)>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

/// Removes a request from those that wait when its caller has an answer, or has given up.
struct Waits<'a> {
    asking: &'a Asking,
    number: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        lock(&self.asking.waiting).remove(&self.number);
    }
}

impl Asking {
    pub(super) fn new(
        (nats, nodes): (Arc<Nats>, Arc<Nodes>),
        config: Config,
        told: mpsc::Sender<(u64, Bytes)>,
        counters: Counters,
    ) -> Self {
        Self {
            nats,
            nodes,
            config,
            counters,
            number: AtomicU64::new(0),
            places: Semaphore::new(config.in_flight_max),
            waiting: Mutex::default(),
            told,
        }
    }

    fn lives(&self, node: u64) -> bool {
        self.nodes.live().iter().any(|known| known.incarnation == node)
    }

    async fn asked(&self, node: u64, request: &Bytes) -> Result<Bytes, NotRelayed> {
        let _place = self.places.try_acquire().map_err(|_| NotRelayed::Failed)?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            node,
            parts: Assembly::default(),
            answer,
        };
        lock(&self.waiting).insert(number, waiting);
        let _waits = Waits { asking: self, number };
        // Checked after the insertion: a node that ends, or a connection that breaks, in between is then noticed by one of the two.
        if !self.lives(node) {
            return Err(NotRelayed::NoNode);
        }
        if !self.nats.control().is_connected() {
            return Err(NotRelayed::Failed);
        }
        let sent = self.send(node, number, request, false).await;
        sent.map_err(|()| NotRelayed::Failed)?;
        answered.await.unwrap_or(Err(NotRelayed::Failed))
    }

    async fn send(&self, node: u64, number: u64, message: &Bytes, told: bool) -> Result<(), ()> {
        let reply = format!("{}.q.{number:016x}", self.nats.subjects().inbox());
        let of = RelayPart {
            sender: self.nodes.own().incarnation,
            number,
            told,
            ..RelayPart::default()
        };
        let parts = encoded(&self.nats, message, &of);
        let subject = self.nats.subjects().relay(node);
        send(&self.nats.control().client(), &subject, Some(&reply), &parts).await
    }

    async fn tell_now(&self, untold: &Untold) {
        if self
            .send(untold.node, untold.number, &untold.message, true)
            .await
            .is_err()
        {
            tracing::debug!("relayed message not sent");
        }
    }

    /// Takes a message out of the inbox.
    fn take(&self, message: Message, telling: &mut Telling) {
        let number = message.subject.rsplit('.').next();
        let Some(number) = number.and_then(|number| u64::from_str_radix(number, 16).ok()) else {
            return tracing::debug!("relayed message unreadable");
        };
        let is_unheard = message.status == Some(StatusCode::NO_RESPONDERS);
        let part = RelayPart::decode(message.payload).ok();
        let part = part.filter(|part| !is_unheard && !part.refused);
        if telling.contains(number) {
            // A node without a subscription has not reconnected yet, or has ended: the message is repeated.
            if part.is_some() {
                telling.confirm(number);
            }
            return;
        }
        let mut all = lock(&self.waiting);
        // One whose caller has given up, or that has its answer, waits no more.
        let Some(waiting) = all.get_mut(&number) else { return };
        let answer = match part {
            _ if is_unheard => Err(NotRelayed::NoNode),
            None => Err(NotRelayed::Failed),
            Some(part) => {
                let place = (part.part, part.parts);
                match waiting.parts.add(place, part.body, self.config.message_bytes_max) {
                    Ok(Some(whole)) => Ok(whole),
                    Ok(None) => return,
                    Err(_) => Err(NotRelayed::Failed),
                }
            }
        };
        if let Some(waiting) = all.remove(&number) {
            let _ = waiting.answer.send(answer);
        }
    }

    /// Fails the requests to some nodes.
    fn fail(&self, error: NotRelayed, is_meant: impl Fn(u64) -> bool) {
        let failed = lock(&self.waiting)
            .extract_if(|_, waiting| is_meant(waiting.node))
            .collect::<Vec<_>>();
        for (_, waiting) in failed {
            let _ = waiting.answer.send(Err(error));
        }
    }
}

impl Relay for Asking {
    fn ask(&self, node: u64, request: Bytes) -> BoxFuture<'_, Result<Bytes, NotRelayed>> {
        Box::pin(async move {
            let answer = self.asked(node, &request).await;
            self.counters.relayed.add(match answer {
                Ok(_) => RelayOutcome::Answered,
                Err(NotRelayed::NoNode) => RelayOutcome::NoNode,
                Err(NotRelayed::Failed) => RelayOutcome::Failed,
            });
            answer
        })
    }

    fn tell(&self, node: u64, message: Bytes) {
        // One beyond the bound is lost like one on its way.
        let _ = self.told.try_send((node, message));
    }
}

/// Takes answers, and sends what is to be told, until `stop`.
pub(super) async fn run(
    asking: Arc<Asking>,
    mut answers: Subscription,
    mut untold: mpsc::Receiver<(u64, Bytes)>,
    stop: CancellationToken,
) {
    let mut changes = asking.nodes.changes();
    let connection = asking.nats.control();
    let mut breaks = Breaks::of(connection);
    let mut telling = Telling::default();
    let mut again = interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(message) = answers.next() => asking.take(message, &mut telling),
            _ = breaks.next(connection) => asking.fail(NotRelayed::Failed, |_| true),
            change = changes.recv() => match change {
                Ok(NodeChange::Went(gone)) => asking.fail(NotRelayed::NoNode, |node| node == gone.incarnation),
                Err(RecvError::Lagged(_)) => asking.fail(NotRelayed::NoNode, |node| !asking.lives(node)),
                Ok(NodeChange::Came(_)) => {}
                Err(RecvError::Closed) => return,
            },
            // Beyond the bound they wait in the queue, and then are lost.
            Some((node, message)) = untold.recv(), if telling.len() < asking.config.in_flight_max => {
                let number = asking.number.fetch_add(1, Ordering::Relaxed);
                let untold = Untold { node, number, message };
                asking.tell_now(&untold).await;
                telling.add(untold, Instant::now());
            }
            _ = again.tick(), if telling.len() > 0 && connection.is_connected() => {
                for untold in telling.again(Instant::now()) {
                    asking.tell_now(&untold).await;
                }
            }
        }
    }
}
