//! `SubscribeService`: the events of rooms, for backends and agents.
//!
//! Each subscription is a follower of the rooms, and a task that waits for both ends: for the next events, and for the
//! reader to take the last ones. So a reader that stops reading is noticed although nothing polls its stream, and what
//! waits for it is bounded: the follower's queue, one response that waits, and one on its way.

mod cursor;
mod draft;
mod places;
mod pump;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use self::draft::Draft;
use self::pump::Pump;
use super::status::Refusal;
use super::{ApiServices, caller, convert};
use crate::bus::ReadBounds;
use crate::proto::v1;
use crate::proto::v1::subscribe_service_server::SubscribeService;
use crate::rooms::FollowBounds;

pub(super) use self::places::Places;

/// The bounds of one response. A client library takes messages of up to 4 MiB by default.
const RESPONSE: ReadBounds = ReadBounds {
    events_max: 256,
    bytes_max: 256 << 10,
};

/// Serves `SubscribeService`.
#[derive(Clone)]
pub(super) struct Subscriber(pub(super) Arc<ApiServices>);

type Answer = Result<v1::SubscribeResponse, Status>;

#[tonic::async_trait]
impl SubscribeService for Subscriber {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = caller(&request)?;
        let services = &self.0;
        let draft = Draft::parse(&caller, request.get_ref(), services.config.subscriptions.rooms_max)?;
        let place = services.subscriptions.take(&caller.service.name)?;
        let rooms = &services.context.rooms;
        let bounds = bounds(services);
        let follow = rooms.follow(&draft.permit, draft.selection, draft.since, bounds).await;
        let (responses, taken) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        let pump = Pump {
            follow: follow.map_err(Refusal::from)?,
            scope: draft.scope,
            responses,
            lease: services.context.lease.clone(),
            draining: services.draining.clone(),
            age_max: services.config.subscriptions.waiting_age_max,
        };
        services.subscriptions.tasks().spawn(async move {
            let refusal = pump.run().await;
            // Before the end is told: a caller that was told may subscribe again.
            drop(place);
            if let Some(refusal) = refusal {
                let _ = end.send(refusal);
            }
        });
        // The task only ends by itself with a reason, unless it panicked.
        let ending = stream::once(async move { Err(ended.await.unwrap_or(Refusal::Internal).into()) });
        let taken = stream::unfold(taken, |mut taken| async move {
            let response = taken.recv().await?;
            Some((Ok(response), taken))
        });
        Ok(Response::new(Box::pin(taken.chain(ending))))
    }
}

fn bounds(services: &ApiServices) -> FollowBounds {
    let settings = &services.config.subscriptions;
    FollowBounds {
        waiting: ReadBounds {
            events_max: settings.waiting_events_max,
            bytes_max: settings.waiting_bytes_max,
        },
        step: RESPONSE,
        idle_max: settings.heartbeat_interval,
    }
}

/// Writes a response, which stands at this cursor.
fn response(step: &crate::rooms::Step, cursor: String) -> v1::SubscribeResponse {
    let resync = |resync: &crate::rooms::Resync| v1::RoomResync {
        room: resync.room.name().to_owned(),
        head: Some(convert::position(resync.head)),
    };
    v1::SubscribeResponse {
        cursor,
        resyncs: step.resyncs.iter().map(resync).collect(),
        events: step.events.iter().map(|event| convert::event(event)).collect(),
        partial: step.partial,
    }
}
