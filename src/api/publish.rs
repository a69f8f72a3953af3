//! `PublishService`: publishes each request to the bus, once per distinct room.

mod draft;
mod many;
mod stream;
mod turns;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::future::join_all;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span};

use self::draft::{Destination, Draft, ParseCache};
use super::convert::{self, Claim, ClaimedEpoch};
use super::credentials::{Caller, Scope};
use super::status::{Invalid, Refusal};
use super::{ApiServices, caller, span};
use crate::cluster::{Found, Place};
use crate::event::{Event, EventId, Retention, Timestamp};
use crate::hub::{Audience, Verb};
use crate::identity::ConnectionId;
use crate::policy::{Action, Permit};
use crate::proto::v1;
use crate::proto::v1::publish_service_server::PublishService;
use crate::room::{Room, Tenant};
use crate::rooms::Outcome;

/// The most events of one batch. A batch takes the locks of its rooms together; a stream has no such bound.
const BATCH_MAX: usize = 100;

/// Serves `PublishService`.
#[derive(Clone)]
pub(super) struct Publisher(pub(super) Arc<ApiServices>);

#[tonic::async_trait]
impl PublishService for Publisher {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let caller = caller(&request)?;
        let span = span::publish(request.metadata(), &caller);
        let response = self.0.publish(&caller, request.into_inner()).instrument(span).await?;
        Ok(Response::new(response))
    }

    async fn publish_batch(
        &self,
        request: Request<v1::PublishBatchRequest>,
    ) -> Result<Response<v1::PublishBatchResponse>, Status> {
        let caller = caller(&request)?;
        caller.check_scope(Scope::Publish)?;
        let span = span::publish_batch(request.metadata(), &caller);
        let requests = request.into_inner().requests;
        let response = self.0.publish_batch(&caller, requests).instrument(span).await?;
        Ok(Response::new(response))
    }

    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<v1::PublishStreamResponse, Status>> + Send>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let caller = caller(&request)?;
        caller.check_scope(Scope::Publish)?;
        let (metadata, _, requests) = request.into_parts();
        let answers = stream::answers(self.0.clone(), caller, metadata, requests);
        Ok(Response::new(Box::pin(answers)))
    }
}

impl ApiServices {
    /// Publishes the events in order. A failed event does not stop the next.
    async fn publish_batch(
        &self,
        caller: &Arc<Caller>,
        requests: Vec<v1::PublishRequest>,
    ) -> Result<v1::PublishBatchResponse, Refusal> {
        use v1::publish_batch_result::Outcome;
        if requests.is_empty() || requests.len() > BATCH_MAX {
            let why = format!("has {} events; 1 to {BATCH_MAX} are allowed", requests.len());
            return Err(Refusal::invalid(Invalid::BatchTooLarge, "requests", why));
        }
        let mut recent = ParseCache::default();
        let events = requests.into_iter();
        let events = events.map(|request| self.parse(caller, Span::current(), request, &mut recent));
        let done = self.publish_many(caller, events).await.into_iter().enumerate();
        let results = done.map(|(index, done)| v1::PublishBatchResult {
            outcome: Some(match done.answer() {
                Ok(response) => Outcome::Response(response),
                Err(refusal) => Outcome::Error(refusal.within(&format!("requests[{index}]")).item()),
            }),
        });
        Ok(v1::PublishBatchResponse {
            results: results.collect(),
        })
    }

    /// Publishes one event. Everything is checked before anything is stored.
    pub(super) async fn publish(
        &self,
        caller: &Caller,
        request: v1::PublishRequest,
    ) -> Result<v1::PublishResponse, Refusal> {
        let draft = self.draft(caller, request, &mut ParseCache::default())?;
        if !draft.needs_only_the_bus() {
            return Box::pin(self.publish_draft(caller, draft)).await;
        }
        let (permit, publish) = many::permitted(caller, draft)?;
        let published = self.context.rooms.publish(&permit, publish).await;
        let outcome = published.map_err(|error| Refusal::publish(&error, permit.room().clone()))?;
        let results = vec![result(permit.room(), outcome)];
        span::record_publish(&results);
        Ok(v1::PublishResponse { results })
    }

    /// Checks everything that needs no other component.
    fn draft(&self, caller: &Caller, request: v1::PublishRequest, recent: &mut ParseCache) -> Result<Draft, Refusal> {
        caller.check_scope(Scope::Publish)?;
        let draft = Draft::parse(request, &self.context.home_rooms, self.config.payload_bytes_max, recent)?;
        caller.check(Scope::Publish, draft.tenant.as_str())?;
        self.report_absent(&draft.tenant);
        // After the tenant was checked: a refused call costs no rate.
        caller.spend(draft.targets.len(), self.config.publish_rate)?;
        Ok(draft)
    }

    fn report_absent(&self, tenant: &Tenant) {
        let tenants = self.context.tenants.as_ref();
        if tenants.is_some_and(|tenants| tenants.reports_absent(tenant.as_str())) {
            tracing::warn!(tenant = tenant.as_str(), "publish to a tenant without connections");
        }
    }

    async fn publish_draft(&self, caller: &Caller, draft: Draft) -> Result<v1::PublishResponse, Refusal> {
        let draft = &draft;
        let found = self.expect_connections(draft).await?;
        let id = EventId::random();
        let outcomes = self.publish_rooms(caller, draft, id).await?;
        let mut results = Vec::with_capacity(draft.targets.len());
        for target in &draft.targets {
            results.push(match *target {
                Destination::Room(index) => result(&draft.rooms[index], outcomes[index]),
                Destination::Connection(connection) => match found.iter().find(|(own, _)| *own == connection) {
                    Some((_, place)) => self.send(draft, connection, *place, id).await?,
                    // A target that is also excluded: nothing is reached.
                    None => v1::PublishResult {
                        reached: Some(0),
                        ..v1::PublishResult::default()
                    },
                },
            });
        }
        span::record_publish(&results);
        Ok(v1::PublishResponse { results })
    }

    /// Checks that every target connection exists in the tenant. Returns the places of those that are not excluded.
    async fn expect_connections(&self, draft: &Draft) -> Result<Vec<(ConnectionId, Place)>, Refusal> {
        let mut found = Vec::new();
        for target in &draft.targets {
            if let Destination::Connection(connection) = *target {
                let audience = Audience::Connection(draft.tenant.clone(), connection);
                let target = self.context.cluster.find(&audience).await?;
                let Found { identity, place } = target.ok_or(Refusal::ConnectionNotFound)?;
                if !draft.except.covers(connection, &identity.user) {
                    found.push((connection, place));
                }
            }
        }
        Ok(found)
    }

    /// Publishes to every distinct room at once. Storing is not atomic: when a room fails, others may have the event. The
    /// refusal has the number of rooms that certainly have it.
    async fn publish_rooms(&self, caller: &Caller, draft: &Draft, id: EventId) -> Result<Vec<Outcome>, Refusal> {
        let action = Action::Publish(draft.name.clone());
        let permits = draft
            .rooms
            .iter()
            .map(|room| caller.service.permit(room.clone(), action.clone()));
        let permits: Vec<Permit> = permits.collect::<Result<_, _>>()?;
        if let ([permit], Some(claim)) = (&*permits, draft.expected) {
            // Before anything is stored: the bus compares offsets only.
            self.expect_epoch(permit, claim).await?;
        }
        let publishes = permits.iter().map(|permit| async {
            let publish = draft.publish(permit.room(), id);
            let outcome = self.context.rooms.publish(permit, publish).await;
            outcome.map_err(|error| Refusal::publish(&error, permit.room().clone()))
        });
        all_or_first_refusal(join_all(publishes).await)
    }

    /// Compares the epoch. The bus compares offsets only, and those of another epoch mean nothing.
    async fn expect_epoch(&self, permit: &Permit, claim: Claim) -> Result<(), Refusal> {
        if claim.epoch == ClaimedEpoch::Any {
            return Ok(());
        }
        let head = self.context.rooms.head(permit).await?;
        if claim.same_epoch(head) {
            return Ok(());
        }
        let room = permit.room().clone();
        Err(Refusal::VersionConflict { room, head })
    }

    /// Sends the event to one connection. It was there a moment ago; if it has ended since, the reach is 0.
    async fn send(
        &self,
        draft: &Draft,
        connection: ConnectionId,
        place: Place,
        id: EventId,
    ) -> Result<v1::PublishResult, Refusal> {
        let audience = Audience::Connection(draft.tenant.clone(), connection);
        let event = Arc::new(Event {
            room: Room::nameless(&draft.tenant),
            id,
            name: draft.name.clone(),
            retention: Retention::Ephemeral,
            link: None,
            time: Timestamp::now(),
            actor: draft.actor.clone(),
            except: draft.except.clone(),
            payload: draft.payload.clone(),
        });
        let sent = self
            .context
            .cluster
            .order_at(place, audience.order(Verb::Send(event)))
            .await?;
        Ok(v1::PublishResult {
            reached: Some(sent.connections),
            ..v1::PublishResult::default()
        })
    }
}

/// Returns the outcomes, or the first room's refusal, with the number of rooms that stored the event.
fn all_or_first_refusal(outcomes: Vec<Result<Outcome, Refusal>>) -> Result<Vec<Outcome>, Refusal> {
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let stored = u32::try_from(stored).unwrap_or(u32::MAX);
    let unknown = outcomes
        .iter()
        .any(|outcome| matches!(outcome, Err(Refusal::UnknownOutcome { .. })));
    let collected: Result<Vec<_>, _> = outcomes.into_iter().collect();
    collected.map_err(|refusal| match refusal {
        Refusal::KeyReused { room, .. } => Refusal::KeyReused { room, stored },
        Refusal::UnknownOutcome { why, .. } => Refusal::UnknownOutcome { why, stored },
        // "Nothing was done" is true only if no room stored the event.
        Refusal::NotStored(why) if stored > 0 || unknown => Refusal::UnknownOutcome { why, stored },
        other => other,
    })
}

fn result(room: &Room, outcome: Outcome) -> v1::PublishResult {
    v1::PublishResult {
        room: room.name().to_owned(),
        position: outcome.published.position.map(convert::position),
        duplicate: outcome.published.duplicate,
        reached: outcome.reached,
    }
}
