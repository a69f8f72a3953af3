//! Requests of other nodes, and the answers to them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use prost::Message as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breaks::{Break, Breaks};
use super::{encoded, send};
use crate::nats::nodes::{NodeChange, Nodes};
use crate::nats::{Nats, Subscription};
use crate::proto::node_v1::RelayPart;
use crate::relay::parts::Assembly;
use crate::relay::{Config, Relayed};

/// The time within which a connection that has broken silently is noticed, doubled: it is probed, and reconnects within seconds.
const BREAK_NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// The most bytes of answers that are kept for a break of the connection. Those beyond it are lost with it.
const SENT_BYTES_MAX: usize = 8 << 20;

/// The most requests of which only a part has arrived. The parts of one come in one go.
const INCOMPLETE_MAX: usize = 256;

/// The most messages that are confirmed at once, beside the requests that wait. Each is a turn of a shard.
const TOLD_MAX: usize = 1024;

/// The end of a request: the destination of the answer, and the answer. `None` when the node has gone that waited for it.
type Answered = (String, Option<Result<Bytes, oneshot::error::RecvError>>);

/// An answer that was sent.
struct SentAnswer {
    at: Instant,
    reply: String,
    parts: Vec<Bytes>,
    bytes: usize,
}

/// The serving side of the relay.
pub(super) struct Serving {
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    config: Config,
    arriving: mpsc::Sender<Relayed>,
    incomplete: HashMap<(u64, u64), Assembly>,
    answering: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// The nodes that have asked, each with the end of the wait for their answers.
    peers: HashMap<u64, CancellationToken>,
    sent: VecDeque<SentAnswer>,
    sent_bytes: usize,
}

impl Serving {
    pub(super) fn new((nats, nodes): (Arc<Nats>, Arc<Nodes>), config: Config, arriving: mpsc::Sender<Relayed>) -> Self {
        Self {
            nats,
            nodes,
            config,
            arriving,
            incomplete: HashMap::new(),
            answering: FuturesUnordered::new(),
            peers: HashMap::new(),
            sent: VecDeque::new(),
            sent_bytes: 0,
        }
    }

    /// Serves until `stop`.
    pub(super) async fn run(mut self, mut requests: Subscription, stop: CancellationToken) {
        let nats = Arc::clone(&self.nats);
        let mut changes = self.nodes.changes();
        let mut breaks = Breaks::of(nats.control());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(message) = requests.next() => self.take(message).await,
                Some((reply, answer)) = self.answering.next(), if !self.answering.is_empty() => match answer {
                    Some(Ok(answer)) => self.answer(reply, &answer, false).await,
                    Some(Err(_)) => self.answer(reply, &Bytes::new(), true).await,
                    None => {}
                },
                broken = breaks.next(nats.control()) => match broken {
                    Break::Away => self.incomplete.clear(),
                    Break::Renewed => self.send_again().await,
                },
                change = changes.recv() => match change {
                    Ok(NodeChange::Went(gone)) => self.forget(|node| node == gone.incarnation),
                    Err(RecvError::Lagged(_)) => {
                        let live = self.nodes.live();
                        self.forget(|node| live.iter().all(|known| known.incarnation != node));
                    }
                    Ok(NodeChange::Came(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    async fn take(&mut self, message: Message) {
        let Ok(part) = RelayPart::decode(message.payload) else {
            return tracing::debug!("relayed message unreadable");
        };
        let (id, place) = ((part.sender, part.number), (part.part, part.parts));
        let mut assembly = self.incomplete.remove(&id).unwrap_or_default();
        let request = match assembly.add(place, part.body, self.config.message_bytes_max) {
            Ok(Some(request)) => request,
            Ok(None) if self.incomplete.len() < INCOMPLETE_MAX => {
                self.incomplete.insert(id, assembly);
                return;
            }
            Ok(None) | Err(_) => return self.refuse(message.reply.as_deref()).await,
        };
        let Some(reply) = message.reply else {
            return tracing::debug!("relayed message unreadable");
        };
        // What is told does not wait: it may be the end of a request that does.
        let bound = self.config.in_flight_max + if part.told { TOLD_MAX } else { 0 };
        if self.answering.len() >= bound {
            return self.refuse(Some(&reply)).await;
        }
        let (answer, answered) = oneshot::channel();
        let gone = self.peers.entry(part.sender).or_default().clone();
        if self.arriving.send(Relayed { request, answer }).await.is_err() {
            return self.refuse(Some(&reply)).await;
        }
        let reply = reply.to_string();
        self.answering.push(Box::pin(async move {
            tokio::select! {
                biased;
                answer = answered => (reply, Some(answer)),
                () = gone.cancelled() => (reply, None),
            }
        }));
    }

    async fn refuse(&mut self, reply: Option<&str>) {
        if let Some(reply) = reply {
            self.answer(reply.to_owned(), &Bytes::new(), true).await;
        }
    }

    /// Sends an answer, and keeps it for a while.
    async fn answer(&mut self, reply: String, answer: &Bytes, refused: bool) {
        let of = RelayPart {
            refused,
            ..RelayPart::default()
        };
        let parts = encoded(&self.nats, answer, &of);
        let client = self.nats.control().client();
        if send(&client, &reply, None, &parts).await.is_err() {
            tracing::debug!("relayed answer not sent");
        }
        let bytes = parts.iter().map(Bytes::len).sum::<usize>() + reply.len();
        self.sent_bytes += bytes;
        self.sent.push_back(SentAnswer {
            at: Instant::now(),
            reply,
            parts,
            bytes,
        });
        // While the connection is away, age says nothing: what was sent before the break is needed after it.
        let is_connected = self.nats.control().is_connected();
        while let Some(oldest) = self.sent.front()
            && (self.sent_bytes > SENT_BYTES_MAX || is_connected && oldest.at.elapsed() > BREAK_NOTICED_WITHIN)
        {
            self.sent_bytes -= oldest.bytes;
            self.sent.pop_front();
        }
    }

    /// Sends the answers again that the broken connection may have lost. A node that has one already drops it.
    async fn send_again(&mut self) {
        self.incomplete.clear();
        let client = self.nats.control().client();
        for sent in &self.sent {
            if send(&client, &sent.reply, None, &sent.parts).await.is_err() {
                tracing::debug!("relayed answer not sent");
            }
        }
    }

    /// Ends the wait for answers that nobody takes any more.
    fn forget(&mut self, is_gone: impl Fn(u64) -> bool) {
        self.incomplete.retain(|(sender, _), _| !is_gone(*sender));
        self.peers.retain(|node, waits| {
            let is_gone = is_gone(*node);
            if is_gone {
                waits.cancel();
            }
            !is_gone
        });
    }
}
