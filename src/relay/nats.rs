//! Requests relayed over NATS: a core message to the node's own subject, and its answer into the asking node's inbox.
//!
//! A request is not repeated: to carry it out twice would be worse than to fail it. So each loss has to be noticed instead. A message
//! that needs no answer may be carried out twice, and is repeated until the other node has confirmed it.
//!
//! | lost with | noticed by | then |
//! |---|---|---|
//! | the asking node's connection to NATS | its number of connects | its requests under way fail |
//! | the other node's connection | its number of connects | it sends its latest answers again: the first one counts |
//! | the other node | the server has no subscriber, or its silence | the requests to it fail |
//! | the asking node | its silence | the wait for its answers ends |

mod asking;
mod breaks;
mod serving;
mod telling;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::asking::Asking;
use self::serving::Serving;
use super::{Config, Relay, Relayed, parts};
use crate::counters::Counters;
use crate::nats::nodes::Nodes;
use crate::nats::{Nats, NatsError};
use crate::proto::node_v1::RelayPart;

/// The most requests of others that wait for this node to look at them.
const REQUESTS_MAX: usize = 256;

/// Room in a message for all that is not body, in bytes.
const ENVELOPE_BYTES: usize = 1024;

/// Bound on the time for which the connection's queue may be full, as during a reconnect.
const SEND_MAX: Duration = Duration::from_secs(1);

/// Starts to relay; returns the way to other nodes, and the requests that arrive from them.
///
/// # Errors
/// [`NatsError::Subscribe`].
pub async fn start(
    nats: &Arc<Nats>,
    nodes: &Arc<Nodes>,
    config: Config,
    counters: &Counters,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Result<(Arc<dyn Relay>, mpsc::Receiver<Relayed>), NatsError> {
    let subscribe = async |subject: String| {
        let subscription = nats.control().subscribe(subject.clone()).await;
        subscription.map_err(NatsError::subscribing(&subject))
    };
    let answers = subscribe(format!("{}.q.*", nats.subjects().inbox())).await?;
    let own = nodes.own().incarnation;
    let requests = subscribe(nats.subjects().relay(own)).await?;
    let (told, untold) = mpsc::channel(config.in_flight_max.max(1));
    let asking = Arc::new(Asking::new(
        (Arc::clone(nats), Arc::clone(nodes)),
        config,
        told,
        Arc::clone(counters),
    ));
    tasks.spawn(asking::run(Arc::clone(&asking), answers, untold, stop.clone()));
    let (arriving, arrived) = mpsc::channel(REQUESTS_MAX);
    let serving = Serving::new((Arc::clone(nats), Arc::clone(nodes)), config, arriving);
    tasks.spawn(serving.run(requests, stop.clone()));
    Ok((asking, arrived))
}

/// Encodes a message, in as many parts as NATS needs.
fn encoded(nats: &Nats, message: &Bytes, of: &RelayPart) -> Vec<Bytes> {
    let split = parts::split(message, nats.message_bytes_max().saturating_sub(ENVELOPE_BYTES));
    let count = u32::try_from(split.len()).unwrap_or(u32::MAX);
    let part = |(part, body)| RelayPart {
        part,
        parts: count,
        body,
        ..of.clone()
    };
    (0..)
        .zip(split)
        .map(|numbered| part(numbered).encode_to_vec().into())
        .collect()
}

/// Publishes the parts of a message in order, over one connection.
///
/// # Errors
/// The connection has not taken all parts within [`SEND_MAX`].
async fn send(client: &Client, subject: &str, reply: Option<&str>, parts: &[Bytes]) -> Result<(), ()> {
    let sending = async {
        for part in parts {
            let (subject, part) = (subject.to_owned(), part.clone());
            let published = match reply {
                Some(reply) => client.publish_with_reply(subject, reply.to_owned(), part).await,
                None => client.publish(subject, part).await,
            };
            published.map_err(|_| ())?;
        }
        Ok(())
    };
    tokio::time::timeout(SEND_MAX, sending).await.unwrap_or(Err(()))
}
