//! `WatchService`: joins, leaves and connections, live.
//!
//! Nothing is queued per watch: activity is kept once for all, and a slow consumer is ended. Resuming (`cursor`) and
//! starting from the current state (`snapshot`) are not offered yet.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::credentials::{Caller, Scope};
use super::status::{Invalid, Refusal};
use super::{ApiServices, caller, convert};
use crate::error::CloseReason;
use crate::event::Timestamp;
use crate::presence::{Activity, Member};
use crate::proto::v1;
use crate::proto::v1::watch_response::Event;
use crate::proto::v1::watch_service_server::WatchService;
use crate::room::{Room, RoomGlob, Tenant};

/// The most tenants of one watch: each activity is compared with the list.
const TENANTS_MAX: usize = 100;

/// Serves `WatchService`.
#[derive(Clone)]
pub(super) struct Watcher(pub(super) Arc<ApiServices>);

type Told = Result<v1::WatchResponse, Status>;

#[tonic::async_trait]
impl WatchService for Watcher {
    type WatchStream = Pin<Box<dyn Stream<Item = Told> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request)?;
        let filter = Filter::parse(caller, request.get_ref())?;
        // Subscribed before `started` is sent: no later activity is missed.
        let activity = self.0.context.rooms.presence().activity();
        let started = stream::once(std::future::ready(Ok(response(
            "",
            Event::Started(v1::WatchStarted {}),
        ))));
        let draining = self.0.draining.clone();
        let live = live(filter, activity).take_until(async move { draining.cancelled().await });
        let drained = self.0.draining.clone();
        let ending = stream::once(async move { drained.is_cancelled().then(|| Err(Refusal::Draining.into())) });
        let told = started.chain(live).chain(ending.filter_map(std::future::ready));
        Ok(Response::new(Box::pin(told)))
    }
}

/// Streams activity until the reader is too slow.
fn live(filter: Filter, activity: Receiver<Activity>) -> impl Stream<Item = Told> + Send {
    stream::unfold(Some((filter, activity)), |state| async move {
        let (filter, mut activity) = state?;
        loop {
            match activity.recv().await {
                Ok(activity_now) => {
                    if let Some(told) = filter.tell(&activity_now) {
                        return Some((Ok(told), Some((filter, activity))));
                    }
                }
                Err(RecvError::Lagged(_)) => return Some((Err(Refusal::SlowConsumer.into()), None)),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

/// Filter of one watch.
struct Filter {
    caller: Arc<Caller>,
    tenants: Option<HashSet<Tenant>>,
    kinds: Option<HashSet<v1::WatchKind>>,
    rooms: Option<RoomGlob>,
}

impl Filter {
    fn parse(caller: Arc<Caller>, request: &v1::WatchRequest) -> Result<Self, Refusal> {
        convert::required(&request.required_features)?;
        caller.check_scope(Scope::Watch)?;
        if !request.cursor.is_empty() {
            return Err(Refusal::Unimplemented("watch.cursor"));
        }
        if request.snapshot {
            return Err(Refusal::Unimplemented("watch.snapshot"));
        }
        Ok(Self {
            tenants: tenants(&caller, &request.tenants)?,
            kinds: kinds(&request.kinds)?,
            rooms: match &*request.room_pattern {
                "" => None,
                text => Some(
                    RoomGlob::parse(text).map_err(|error| Refusal::invalid(Invalid::Room, "room_pattern", error))?,
                ),
            },
            caller,
        })
    }

    /// Returns the message for an activity, if it passes the filter.
    fn tell(&self, activity: &Activity) -> Option<v1::WatchResponse> {
        use v1::WatchKind as Kind;
        match activity {
            Activity::Opened(tenant, member, protocol) => {
                self.connection(Kind::ConnectionOpened, tenant, opened(member, protocol))
            }
            Activity::Closed(tenant, member, reason) => {
                self.connection(Kind::ConnectionClosed, tenant, closed(member, *reason))
            }
            Activity::Joined(room, user) => {
                let user_id = user.as_str().to_owned();
                let joined = |room| Event::MemberJoined(v1::MemberJoined { room, user_id });
                self.room(Kind::MemberJoined, room, joined)
            }
            Activity::Left(room, user) => {
                let user_id = user.as_str().to_owned();
                let left = |room| Event::MemberLeft(v1::MemberLeft { room, user_id });
                self.room(Kind::MemberLeft, room, left)
            }
            Activity::Occupied(room) => self.room(Kind::RoomOccupied, room, |room| {
                Event::RoomOccupied(v1::RoomOccupied { room })
            }),
            Activity::Vacated(room) => self.room(Kind::RoomVacated, room, |room| {
                Event::RoomVacated(v1::RoomVacated { room })
            }),
        }
    }

    fn connection(&self, kind: v1::WatchKind, tenant: &Tenant, event: Event) -> Option<v1::WatchResponse> {
        self.wants(kind, tenant.as_str())
            .then(|| response(tenant.as_str(), event))
    }

    fn room(&self, kind: v1::WatchKind, room: &Room, event: impl FnOnce(String) -> Event) -> Option<v1::WatchResponse> {
        let matches = self.rooms.as_ref().is_none_or(|glob| glob.matches(room.name()));
        (matches && self.wants(kind, room.tenant())).then(|| response(room.tenant(), event(room.name().to_owned())))
    }

    fn wants(&self, kind: v1::WatchKind, tenant: &str) -> bool {
        let named = |tenants: &HashSet<Tenant>| tenants.iter().any(|own| own.as_str() == tenant);
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
            && self
                .tenants
                .as_ref()
                .map_or_else(|| self.caller.service.serves(tenant), named)
    }
}

fn tenants(caller: &Caller, names: &[String]) -> Result<Option<HashSet<Tenant>>, Refusal> {
    if names.len() > TENANTS_MAX {
        return Err(Refusal::field(
            "tenants",
            format_args!("has more than {TENANTS_MAX} entries"),
        ));
    }
    let parse = |name: &String| {
        let tenant = convert::tenant(name)?;
        caller.check(Scope::Watch, tenant.as_str())?;
        Ok(tenant)
    };
    let tenants = names.iter().map(parse).collect::<Result<_, Refusal>>()?;
    Ok((!names.is_empty()).then_some(tenants))
}

fn kinds(kinds: &[i32]) -> Result<Option<HashSet<v1::WatchKind>>, Refusal> {
    let parse = |(index, kind): (usize, &i32)| match v1::WatchKind::try_from(*kind) {
        Ok(v1::WatchKind::Unspecified) | Err(_) => Err(Refusal::field(format!("kinds[{index}]"), "is not a kind")),
        Ok(kind) => Ok(kind),
    };
    let set = kinds.iter().enumerate().map(parse).collect::<Result<_, Refusal>>()?;
    Ok((!kinds.is_empty()).then_some(set))
}

fn opened(member: &Member, protocol: &str) -> Event {
    Event::ConnectionOpened(v1::ConnectionOpened {
        connection_id: member.connection.to_string(),
        user_id: member.user.as_str().to_owned(),
        protocol: protocol.to_owned(),
    })
}

fn closed(member: &Member, reason: CloseReason) -> Event {
    Event::ConnectionClosed(v1::ConnectionClosed {
        connection_id: member.connection.to_string(),
        user_id: member.user.as_str().to_owned(),
        code: reason.code().into(),
        reason: reason.as_str().to_owned(),
    })
}

fn response(tenant: &str, event: Event) -> v1::WatchResponse {
    v1::WatchResponse {
        cursor: String::new(),
        event_time: Some(convert::time(Timestamp::now())),
        tenant: tenant.to_owned(),
        event: Some(event),
    }
}
