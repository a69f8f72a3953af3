//! `PublishStream`: events in the order sent. Events that arrived together are published together, up to a bound.
//!
//! The reader of the replies drives everything (back-pressure). Nothing is read while the bound of unacknowledged events is
//! reached, and nothing continues once the caller has gone.

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::draft::ParseCache;
use super::many::Parsed;
use crate::api::credentials::Caller;
use crate::api::status::{Invalid, Refusal};
use crate::api::{ApiServices, gate, span};
use crate::proto::v1;
use crate::proto::v1::publish_stream_response::Outcome;

/// The field of an event in its message.
const REQUEST: &str = "request";

type Answer = Result<v1::PublishStreamResponse, Status>;

/// Reference of a reply: the sequence, and the field of the event.
struct Asked {
    sequence: u64,
    path: Option<&'static str>,
}

/// Returns the replies to a stream of events.
pub(super) fn answers(
    shared: Arc<ApiServices>,
    caller: Arc<Caller>,
    metadata: MetadataMap,
    requests: impl Stream<Item = Result<v1::PublishStreamRequest, Status>> + Send + 'static,
) -> impl Stream<Item = Answer> + Send {
    let in_flight_max = shared.config.in_flight_max;
    let draining = shared.draining.clone();
    let drained = shared.draining.clone();
    let requests = requests.take_until(async move { draining.cancelled().await });
    // A drain ends the requests; the caller learns of it after all replies that are due.
    let ending = stream::once(async move {
        if drained.is_cancelled() {
            Some(Err(Status::from(Refusal::Draining)))
        } else {
            None
        }
    });
    let (parsing, calling) = (shared.clone(), caller.clone());
    let mut recent = ParseCache::default();
    let parsed = requests.map(move |item| match item {
        Ok(v1::PublishStreamRequest { sequence, request }) => {
            let path = request.as_ref().map(|_| REQUEST);
            let parsed = match request {
                Some(request) => parsing.parse(&calling, span::publish(&metadata, &calling), request, &mut recent),
                None => Parsed::Refused(Refusal::invalid(Invalid::Field, REQUEST, "is required")),
            };
            Ok((Asked { sequence, path }, parsed))
        }
        Err(status) => Err(Status::from(gate::reason_of(&status))),
    });
    let chunks = parsed.ready_chunks(in_flight_max);
    let answers = chunks.then(move |chunk| publish(shared.clone(), caller.clone(), chunk));
    answers
        .flat_map(stream::iter)
        .chain(ending.filter_map(std::future::ready))
}

/// Publishes events that arrived together. Each reply is built when it is read.
async fn publish(
    shared: Arc<ApiServices>,
    caller: Arc<Caller>,
    chunk: Vec<Result<(Asked, Parsed), Status>>,
) -> impl Iterator<Item = Answer> {
    let mut asked = Vec::with_capacity(chunk.len());
    let mut events = Vec::with_capacity(chunk.len());
    let mut broken = None;
    for item in chunk {
        match item {
            Ok((ask, event)) => {
                asked.push(ask);
                events.push(event);
            }
            // The last item: the stream of requests ends with an error.
            Err(status) => broken = Some(Err(status)),
        }
    }
    let done = shared.publish_many(&caller, events.into_iter()).await;
    let answers = asked.into_iter().zip(done).map(|(Asked { sequence, path }, done)| {
        let outcome = Some(match done.answer() {
            Ok(response) => Outcome::Response(response),
            Err(refusal) => Outcome::Error(match path {
                Some(path) => refusal.within(path).item(),
                None => refusal.item(),
            }),
        });
        Ok(v1::PublishStreamResponse { sequence, outcome })
    });
    answers.chain(broken)
}
