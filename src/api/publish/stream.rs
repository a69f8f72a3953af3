//! `PublishStream`: events in the order sent, so many of them on the way to the bus at once.
//!
//! Everything is driven by who reads the answers: nothing is read while the bound of unanswered events is reached, and
//! nothing goes on once the caller has gone.

use std::sync::Arc;

use futures_util::future::Either;
use futures_util::stream::{self, Stream, StreamExt as _};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tracing::Instrument as _;

use super::turns::Turns;
use crate::api::credentials::Caller;
use crate::api::status::{Invalid, Refusal};
use crate::api::{Shared, gate, span};
use crate::proto::v1;

type Answer = Result<v1::PublishStreamResponse, Status>;

/// The answers to a stream of events. An event's place in its rooms' queues is taken when its future is first polled,
/// and that happens in the order in which the events came.
pub(super) fn answers(
    shared: Arc<Shared>,
    caller: Arc<Caller>,
    metadata: MetadataMap,
    requests: impl Stream<Item = Result<v1::PublishStreamRequest, Status>> + Send + 'static,
) -> impl Stream<Item = Answer> + Send {
    let in_flight_max = shared.config.in_flight_max;
    let draining = shared.draining.clone();
    let drained = shared.draining.clone();
    let requests = requests.take_until(async move { draining.cancelled().await });
    // When the requests ended because the node shuts down, the caller is told so after what it is owed.
    let ending = stream::once(async move {
        if drained.is_cancelled() {
            Some(Err(Status::from(Refusal::Draining)))
        } else {
            None
        }
    });
    let turns = Arc::new(Turns::default());
    let answers = requests.map(move |request| match request {
        Ok(request) => {
            let span = span::publish(&metadata, &caller);
            Either::Left(answer(shared.clone(), caller.clone(), turns.clone(), request).instrument(span))
        }
        Err(status) => Either::Right(std::future::ready(Err(
            gate::reason_of(&status).map_or(status, Status::from)
        ))),
    });
    answers
        .buffered(in_flight_max)
        .chain(ending.filter_map(std::future::ready))
}

async fn answer(
    shared: Arc<Shared>,
    caller: Arc<Caller>,
    turns: Arc<Turns>,
    request: v1::PublishStreamRequest,
) -> Answer {
    use v1::publish_stream_response::Outcome;
    let sequence = request.sequence;
    let outcome = match request.request {
        Some(request) => {
            let published = shared.publish_in_turn(&caller, request, &turns).await;
            published.map_err(|refusal| refusal.within("request"))
        }
        None => Err(Refusal::invalid(Invalid::Field, "request", "is required")),
    };
    let outcome = match outcome {
        Ok(response) => Outcome::Response(response),
        Err(refusal) => Outcome::Error(refusal.item()),
    };
    Ok(v1::PublishStreamResponse {
        sequence,
        outcome: Some(outcome),
    })
}
