//! A delivery barrier over the deployment: finds out whether everything sent has arrived, and whether every
//! subscription is in effect.
//!
//! A call goes out over one connection, and the answers arrive over another one or the same. Every node answers over
//! the connection it publishes on, once for each of its connections that hears the call. The leader of every stream
//! answers by refusing a publish. NATS keeps the order between any two connections. So when all have answered,
//! - all nodes' connections and all leaders have seen everything that the calling connection had published before,
//! - every earlier subscription of the calling connection is known at each connection that publishes, and
//! - everything published before that has arrived where the answers arrive.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::{Client, HeaderMap, Message};
use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use super::Subjects;
use super::nodes::Nodes;
use crate::proto::node_v1::HeartbeatHeard;

/// The interval after which missing answers are requested again. A stream may have no leader, and a subscription for
/// answers may not be known everywhere when the first call arrives.
const AGAIN: Duration = Duration::from_millis(50);

/// The last token of the subject of nodes' answers.
const NODE: &str = "n";

/// The missing answers.
#[derive(Debug)]
struct Awaited {
    /// Nodes by incarnation, and whether it is their fan-out connection.
    nodes: HashSet<(u64, bool)>,
    /// Streams, by a subject that only they capture.
    streams: HashSet<String>,
}

impl Awaited {
    fn of(nodes: impl Iterator<Item = u64>, partitions: u16, subjects: &Subjects) -> Self {
        let partitions = (0..partitions).map(|number| subjects.barrier(number));
        let others = ["c", "m", "v"].map(|letter| format!("{}.{letter}.-", subjects.deployment()));
        Self {
            nodes: nodes.flat_map(|node| [(node, false), (node, true)]).collect(),
            streams: partitions.chain(others).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.streams.is_empty()
    }

    /// Takes an answer. A message with a status is none: it means that there was no responder.
    fn take(&mut self, inbox: &str, answer: &Message) {
        let token = answer
            .subject
            .strip_prefix(inbox)
            .and_then(|rest| rest.strip_prefix('.'));
        match token {
            _ if answer.status.is_some() => {}
            Some(NODE) => {
                if let Ok(heard) = HeartbeatHeard::decode(answer.payload.clone()) {
                    self.nodes.remove(&(heard.incarnation, heard.over_fanout));
                }
            }
            Some(stream) => {
                self.streams.remove(stream);
            }
            None => {}
        }
    }
}

/// Calls over `via` and receives the answers over `at`; `false` when some are missing after this time.
pub(super) async fn is_answered(nodes: &Nodes, via: &Client, at: &Client, within: Duration) -> bool {
    let (until, nats) = (Instant::now() + within, nodes.nats());
    let live = nodes.live().into_iter().map(|node| node.incarnation);
    let all = live.chain([nodes.own().incarnation]);
    let mut awaited = Awaited::of(all, nats.config().partitions, nats.subjects());
    let inbox = at.new_inbox();
    let Ok(mut answers) = at.subscribe(format!("{inbox}.>")).await else {
        return false;
    };
    while Instant::now() < until {
        if call(nodes, via, &inbox, &awaited).await.is_err() {
            return false;
        }
        let again = until.min(Instant::now() + AGAIN);
        while let Ok(answer) = timeout_at(again, answers.next()).await {
            let Some(answer) = answer else { return false };
            awaited.take(&inbox, &answer);
            if awaited.is_empty() {
                return true;
            }
        }
    }
    tracing::debug!(
        nodes = awaited.nodes.len(),
        streams = awaited.streams.len(),
        "roll call incomplete"
    );
    false
}

async fn call(nodes: &Nodes, via: &Client, inbox: &str, awaited: &Awaited) -> Result<(), async_nats::PublishError> {
    let mut headers = HeaderMap::new();
    // A stream refuses a publish that expects another stream.
    headers.insert(NATS_EXPECTED_STREAM, "-");
    for stream in &awaited.streams {
        let reply = format!("{inbox}.{stream}");
        via.publish_with_reply_and_headers(stream.clone(), reply, headers.clone(), Bytes::new())
            .await?;
    }
    if !awaited.nodes.is_empty() {
        let subject = nodes.nats().subjects().heartbeats();
        let reply = format!("{inbox}.{NODE}");
        via.publish_with_reply(subject, reply, nodes.heartbeat(false)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_nats::StatusCode;

    use super::*;

    const INBOX: &str = "d.i.1.x";

    fn answer(token: &str, status: Option<StatusCode>, payload: Bytes) -> Message {
        Message {
            subject: format!("{INBOX}.{token}").into(),
            reply: None,
            payload,
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    fn heard(incarnation: u64, over_fanout: bool) -> Message {
        let heard = HeartbeatHeard {
            incarnation,
            over_fanout,
        };
        answer(NODE, None, heard.encode_to_vec().into())
    }

    #[test]
    fn all_have_answered_when_each_connection_of_each_node_and_each_stream_has() {
        let mut awaited = Awaited::of([1, 2].into_iter(), 2, &Subjects::new("d").unwrap());
        let streams = ["d.h.0.-", "d.h.1.-", "d.c.-", "d.m.-", "d.v.-"];
        let answers = streams.iter().map(|stream| answer(stream, None, Bytes::new()));
        let nodes = [heard(1, false), heard(1, true), heard(2, false), heard(2, true)];
        let mut left = streams.len() + nodes.len();
        for answer in answers.chain(nodes) {
            assert!(!awaited.is_empty());
            awaited.take(INBOX, &answer);
            awaited.take(INBOX, &answer);
            left -= 1;
            assert_eq!(awaited.nodes.len() + awaited.streams.len(), left);
        }
        assert!(awaited.is_empty());
    }

    #[test]
    fn what_says_that_nobody_was_there_and_what_was_not_asked_is_no_answer() {
        let mut awaited = Awaited::of([1].into_iter(), 1, &Subjects::new("d").unwrap());
        for other in [
            answer("d.h.0.-", Some(StatusCode::NO_RESPONDERS), Bytes::new()),
            answer("d.h.7.-", None, Bytes::new()),
            answer(NODE, None, "?".into()),
            heard(2, true),
            answer("", None, Bytes::new()),
        ] {
            awaited.take(INBOX, &other);
        }
        assert_eq!((awaited.nodes.len(), awaited.streams.len()), (2, 4));
    }
}
