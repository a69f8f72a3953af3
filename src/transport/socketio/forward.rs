//! Polling requests that reach another node than the connection's: forwarded to that node, carried out there, and answered here.
//!
//! The node of the connection checks the id and the credential, and gives the answer that a local request gets. The node that the
//! client has reached holds it to the bounds of the port, and adds the headers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Reply;
use super::route::Request;
use super::sid::Sid;
use crate::proto::node_v1::engine_reply::Reply as WireReply;
use crate::proto::node_v1::engine_request::Request as WireRequest;
use crate::proto::node_v1::{
    EngineAbort, EngineBadRequest, EnginePoll, EnginePost, EngineRelease, EngineReply, EngineRequest, EngineUnknown,
};
use crate::relay::{NotRelayed, Relay, Relayed};
use crate::transport::http::ClientPort;
use crate::transport::shard::Visit;

/// The way from this node to the connections of others.
#[derive(Debug, Clone)]
pub struct Forwarding {
    node: u64,
    relay: Option<Arc<dyn Relay>>,
    ending: CancellationToken,
    /// Counts the requests under way.
    under_way: TaskTracker,
}

impl Forwarding {
    /// The only node, by its incarnation: every other one is unknown.
    #[must_use]
    pub fn alone(node: u64) -> Self {
        Self {
            node,
            relay: None,
            ending: CancellationToken::new(),
            under_way: TaskTracker::new(),
        }
    }

    /// One of several nodes, by its incarnation. Once `ending` is cancelled, no client waits at this node for packets of another one.
    #[must_use]
    pub fn over(relay: Arc<dyn Relay>, node: u64, ending: CancellationToken) -> Self {
        Self {
            node,
            relay: Some(relay),
            ending,
            under_way: TaskTracker::new(),
        }
    }

    /// Waits until no request is under way to another node. To be called once this node takes no more of them.
    pub(in crate::transport) async fn drained(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    /// Reports whether a connection is one of this node.
    pub(super) const fn is_here(&self, sid: Sid) -> bool {
        sid.node == self.node
    }

    /// Waits for packets of another node's connection.
    pub(super) async fn poll(&self, sid: Sid, credential: Option<u64>) -> Reply {
        let Some(relay) = &self.relay else {
            return Reply::Unknown;
        };
        let _under_way = self.under_way.token();
        let mut asking = relay.ask(sid.node, encoded(sid, credential, WireRequest::Poll(EnginePoll {})));
        let answered = tokio::select! {
            // The poll leaves before its release.
            biased;
            answered = &mut asking => answered,
            () = self.ending.cancelled() => {
                relay.tell(sid.node, encoded(sid, None, WireRequest::Release(EngineRelease {})));
                asking.await
            }
        };
        self.reply(sid, answered)
    }

    /// Brings packets to another node's connection.
    pub(super) async fn post(&self, sid: Sid, credential: Option<u64>, body: Bytes) -> Reply {
        let Some(relay) = &self.relay else {
            return Reply::Unknown;
        };
        let _under_way = self.under_way.token();
        let request = encoded(sid, credential, WireRequest::Post(EnginePost { body }));
        self.reply(sid, relay.ask(sid.node, request).await)
    }

    /// Ends another node's connection: its client has given up a request.
    pub(super) fn abort(&self, sid: Sid) {
        if let Some(relay) = &self.relay {
            relay.tell(sid.node, encoded(sid, None, WireRequest::Abort(EngineAbort {})));
        }
    }

    fn reply(&self, sid: Sid, answered: Result<Bytes, NotRelayed>) -> Reply {
        match answered {
            Ok(answer) => read_reply(answer),
            Err(NotRelayed::NoNode) => Reply::Unknown,
            Err(NotRelayed::Failed) => {
                // Packets may be lost, so the connection must not go on as if they were not.
                self.abort(sid);
                Reply::Gone
            }
        }
    }
}

fn encoded(sid: Sid, credential: Option<u64>, request: WireRequest) -> Bytes {
    let request = EngineRequest {
        sid: sid.to_string(),
        credential,
        request: Some(request),
    };
    request.encode_to_vec().into()
}

fn encoded_reply(reply: Reply) -> Bytes {
    let reply = match reply {
        Reply::Body(body) => Some(WireReply::Body(body)),
        Reply::Unknown => Some(WireReply::Unknown(EngineUnknown {})),
        Reply::BadRequest => Some(WireReply::BadRequest(EngineBadRequest {})),
        Reply::Gone => None,
    };
    EngineReply { reply }.encode_to_vec().into()
}

fn read_reply(answer: Bytes) -> Reply {
    match EngineReply::decode(answer).ok().and_then(|answer| answer.reply) {
        Some(WireReply::Body(body)) => Reply::Body(body),
        Some(WireReply::Unknown(_)) => Reply::Unknown,
        Some(WireReply::BadRequest(_)) => Reply::BadRequest,
        None => Reply::Gone,
    }
}

/// Carries out the requests that other nodes forward, until `stop`.
pub async fn serve(port: Arc<ClientPort>, mut requests: mpsc::Receiver<Relayed>, stop: CancellationToken) {
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = answering.next() => {}
            relayed = requests.recv() => {
                let Some(relayed) = relayed else { return };
                answering.extend(carry_out(&port, relayed).await);
            }
        }
    }
}

/// Gives a request to its shard; returns the wait for the answer, if there is one.
///
/// Shards are visited one after the other, so that an abort does not overtake its poll.
async fn carry_out(port: &Arc<ClientPort>, relayed: Relayed) -> Option<impl Future<Output = ()> + use<>> {
    let Relayed { request, answer } = relayed;
    let request = EngineRequest::decode(request).ok();
    let known = request.and_then(|request| Some((Sid::parse(&request.sid)?, request.credential, request.request?)));
    let known = known.filter(|(sid, ..)| port.forwarding().is_here(*sid));
    let Some((sid, credential, request)) = known else {
        let _ = answer.send(encoded_reply(Reply::Unknown));
        return None;
    };
    let (reply, replied) = oneshot::channel();
    let request = match request {
        WireRequest::Poll(_) => Request::Poll { sid, credential, reply },
        WireRequest::Post(EnginePost { body }) => Request::Post {
            sid,
            credential,
            body,
            reply,
        },
        WireRequest::Abort(_) => Request::Abort { sid },
        WireRequest::Release(_) => Request::Release { sid },
    };
    let door = port.door(sid.shard);
    let is_visited = match door {
        Some(door) => door.send(Visit::Poll(request)).await.is_ok(),
        None => false,
    };
    if !is_visited {
        let _ = answer.send(encoded_reply(Reply::Unknown));
        return None;
    }
    Some(answered(Arc::clone(port), sid, replied, answer))
}

/// Answers once the shard has, and ends the connection when nobody waits for that any more: what the answer holds would be lost.
async fn answered(
    port: Arc<ClientPort>,
    sid: Sid,
    replied: oneshot::Receiver<Reply>,
    mut answer: oneshot::Sender<Bytes>,
) {
    let is_taken = tokio::select! {
        reply = replied => answer.send(encoded_reply(reply.unwrap_or(Reply::Gone))).is_ok(),
        () = answer.closed() => false,
    };
    if !is_taken && let Some(door) = port.door(sid.shard) {
        let _ = door.send(Visit::Poll(Request::Abort { sid })).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_back() {
        for reply in [
            || Reply::Body(Bytes::from_static(b"6")),
            || Reply::Body(Bytes::new()),
            || Reply::Unknown,
            || Reply::BadRequest,
            || Reply::Gone,
        ] {
            assert_eq!(read_reply(encoded_reply(reply())), reply());
        }
        assert_eq!(read_reply(Bytes::from_static(b"\xff")), Reply::Gone);
    }

    #[tokio::test]
    async fn a_node_alone_knows_no_other() {
        let (alone, sid) = (Forwarding::alone(1), Sid::draw(2, 0, 0));
        assert!(!alone.is_here(sid) && alone.is_here(Sid::draw(1, 0, 0)));
        assert_eq!(alone.poll(sid, None).await, Reply::Unknown);
        assert_eq!(alone.post(sid, None, Bytes::new()).await, Reply::Unknown);
        alone.abort(sid);
    }
}
