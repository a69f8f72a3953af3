//! Orders and answers on the wire.
//!
//! A permit does not travel: only the policy makes one. The node that is ordered grants what the service was granted where it
//! called, in the name of that service; whoever may publish on the nodes' subjects is trusted to have asked.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::CloseReason;
use crate::event::{Event, EventId, EventName, Except, Payload, Retention, Timestamp};
use crate::hub::{Audience, JoinRefusal, Order, Outcome, Verb};
use crate::identity::{Expiry, Identity, UserId};
use crate::json::Json;
use crate::notice::Notice;
use crate::policy::{Action, Service};
use crate::proto::node_v1 as wire;
use crate::proto::node_v1::node_answer::Answer as WireAnswer;
use crate::proto::node_v1::node_order::Order as WireOrder;
use crate::room::{Room, Tenant};

pub(super) fn id_bytes(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

pub(super) fn id_of(bytes: &[u8]) -> Option<u128> {
    bytes.try_into().ok().map(u128::from_be_bytes)
}

pub(super) fn order(order: &Order) -> WireOrder {
    let whom = Some(whom(&order.audience));
    match &order.verb {
        Verb::Join(permit) => WireOrder::Join(wire::JoinOrder {
            whom,
            room: permit.room().name().to_owned(),
            service: permit.rule().to_owned(),
        }),
        Verb::Leave(room, notice) => WireOrder::Leave(wire::LeaveOrder {
            whom,
            room: room.name().to_owned(),
            message: notice.message().to_owned(),
            reason: notice.reason().to_owned(),
        }),
        Verb::Disconnect(reason, notice) => WireOrder::Disconnect(wire::DisconnectOrder {
            whom,
            code: reason.code().into(),
            message: notice.message().to_owned(),
            reason: notice.reason().to_owned(),
        }),
        Verb::Send(event) => WireOrder::Send(send(whom, event)),
        Verb::Count => WireOrder::Count(wire::CountOrder { whom }),
        Verb::Identify => WireOrder::Identify(wire::IdentifyOrder { whom }),
    }
}

pub(super) fn whom(audience: &Audience) -> wire::Whom {
    use wire::whom::Whom;
    let (tenant, whom) = match audience {
        Audience::User(tenant, user) => (tenant, Whom::UserId(user.as_str().to_owned())),
        Audience::Connection(tenant, connection) => (tenant, Whom::ConnectionId(connection.to_string())),
    };
    wire::Whom {
        tenant: tenant.as_str().to_owned(),
        whom: Some(whom),
    }
}

fn send(whom: Option<wire::Whom>, event: &Event) -> wire::SendOrder {
    use wire::send_order::Payload as Content;
    let actor = event.actor.as_ref().map(|actor| actor.as_str().to_owned());
    wire::SendOrder {
        whom,
        event_id: id_bytes(event.id.bits()),
        name: event.name.as_str().to_owned(),
        payload: Some(match &event.payload {
            Payload::Json(json) => Content::Json(json.bytes().clone()),
            Payload::Binary(bytes) => Content::Binary(bytes.clone()),
        }),
        actor: actor.unwrap_or_default(),
        time_ms: event.time.0,
    }
}

/// Reads an order to connections; `None` when it is another one, or cannot be read.
pub(super) fn read_order(order: WireOrder) -> Option<Order> {
    let whom = match &order {
        WireOrder::Join(order) => &order.whom,
        WireOrder::Leave(order) => &order.whom,
        WireOrder::Disconnect(order) => &order.whom,
        WireOrder::Send(order) => &order.whom,
        WireOrder::Count(order) => &order.whom,
        WireOrder::Identify(order) => &order.whom,
        WireOrder::Confirm(_) | WireOrder::Verify(_) | WireOrder::Ask(_) | WireOrder::Follow(_) => return None,
    };
    let audience = audience(whom.as_ref()?)?;
    let verb = verb(order, audience.tenant())?;
    Some(Order { audience, verb })
}

fn verb(order: WireOrder, tenant: &Tenant) -> Option<Verb> {
    Some(match order {
        WireOrder::Join(order) => {
            let room = Room::parse(tenant, &order.room).ok()?;
            let service = Service {
                name: order.service.into(),
                publish: false,
                read: false,
                manage: true,
                subscribe: false,
                tenants: Some([tenant.as_str().into()].into()),
            };
            Verb::Join(service.permit(room, Action::Join).ok()?)
        }
        WireOrder::Leave(order) => {
            let room = Room::parse(tenant, &order.room).ok()?;
            Verb::Leave(room, notice(&order.reason, &order.message))
        }
        WireOrder::Disconnect(order) => {
            let mut reasons = CloseReason::ALL.into_iter();
            let reason = reasons.find(|reason| u32::from(reason.code()) == order.code)?;
            Verb::Disconnect(reason, notice(&order.reason, &order.message))
        }
        WireOrder::Send(order) => Verb::Send(Arc::new(event(order, tenant)?)),
        WireOrder::Count(_) => Verb::Count,
        WireOrder::Identify(_) => Verb::Identify,
        WireOrder::Confirm(_) | WireOrder::Verify(_) | WireOrder::Ask(_) | WireOrder::Follow(_) => return None,
    })
}

/// Reads what a client is told. What cannot be told must not keep an order from being carried out.
fn notice(reason: &str, message: &str) -> Notice {
    Notice::parse(reason, message).unwrap_or_default()
}

pub(super) fn audience(whom: &wire::Whom) -> Option<Audience> {
    use wire::whom::Whom;
    let tenant = Tenant::parse(&whom.tenant).ok()?;
    Some(match whom.whom.as_ref()? {
        Whom::UserId(user) => Audience::User(tenant, UserId::parse(user).ok()?),
        Whom::ConnectionId(connection) => Audience::Connection(tenant, connection.parse().ok()?),
    })
}

fn event(order: wire::SendOrder, tenant: &Tenant) -> Option<Event> {
    use wire::send_order::Payload as Content;
    Some(Event {
        room: Room::nameless(tenant),
        id: EventId::from_bits(id_of(&order.event_id)?),
        name: EventName::parse(&order.name).ok()?,
        retention: Retention::Ephemeral,
        link: None,
        time: Timestamp(order.time_ms),
        actor: match &*order.actor {
            "" => None,
            actor => Some(UserId::parse(actor).ok()?),
        },
        except: Except::NOBODY,
        payload: match order.payload? {
            Content::Json(json) => Payload::Json(Json::parse(json).ok()?),
            Content::Binary(bytes) => Payload::Binary(bytes),
        },
    })
}

/// The answer to an order of this verb.
pub(super) fn answer(verb: &Verb, outcome: Outcome) -> WireAnswer {
    match (verb, outcome.identity) {
        (Verb::Join(_), _) => WireAnswer::Joined(wire::JoinAnswer {
            connections: outcome.connections,
            refused: refusal(outcome.refused).into(),
        }),
        (Verb::Identify, None) => WireAnswer::Identity(wire::IdentityAnswer::default()),
        (Verb::Identify, Some(identity)) => WireAnswer::Identity(wire::IdentityAnswer {
            found: true,
            tenant: identity.tenant.as_str().to_owned(),
            user_id: identity.user.as_str().to_owned(),
            claims_json: identity.claims.as_str().to_owned(),
            expiry_s: identity.expiry.0,
        }),
        (Verb::Leave(..) | Verb::Disconnect(..) | Verb::Send(_) | Verb::Count, _) => {
            WireAnswer::Count(wire::CountAnswer {
                connections: outcome.connections,
            })
        }
    }
}

const fn refusal(refused: Option<JoinRefusal>) -> wire::JoinRefusal {
    match refused {
        None => wire::JoinRefusal::Unspecified,
        Some(JoinRefusal::RoomLimit) => wire::JoinRefusal::RoomLimit,
        Some(JoinRefusal::Revoked) => wire::JoinRefusal::Revoked,
        Some(JoinRefusal::Unavailable) => wire::JoinRefusal::Unavailable,
    }
}

/// Reads an answer about connections; `None` when it is another one, or cannot be read.
pub(super) fn outcome(answer: WireAnswer) -> Option<Outcome> {
    Some(match answer {
        WireAnswer::Count(answer) => Outcome::of(answer.connections),
        WireAnswer::Joined(answer) => Outcome {
            connections: answer.connections,
            refused: match answer.refused() {
                wire::JoinRefusal::Unspecified => None,
                wire::JoinRefusal::RoomLimit => Some(JoinRefusal::RoomLimit),
                wire::JoinRefusal::Revoked => Some(JoinRefusal::Revoked),
                wire::JoinRefusal::Unavailable => Some(JoinRefusal::Unavailable),
            },
            identity: None,
        },
        WireAnswer::Identity(answer) if !answer.found => Outcome::identified(None),
        WireAnswer::Identity(answer) => Outcome::identified(Some(Arc::new(Identity {
            tenant: Tenant::parse(&answer.tenant).ok()?,
            user: UserId::parse(&answer.user_id).ok()?,
            claims: Json::parse(answer.claims_json).ok()?.into(),
            expiry: Expiry(answer.expiry_s),
        }))),
        WireAnswer::Confirmed(_) | WireAnswer::Verified(_) | WireAnswer::Asked(_) => return None,
    })
}

#[cfg(test)]
mod tests;
