//! Orders and answers on the wire.
//!
//! A permit does not travel: only the policy makes one. The node that is ordered grants what the service was granted where it
//! called, in the name of that service; whoever may publish on the nodes' subjects is trusted to have asked.

use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::{Answer, Command};
use crate::error::CloseReason;
use crate::event::{Event, EventId, EventName, Except, Payload, Retention, Timestamp};
use crate::hub::{Audience, JoinRefusal, Joined};
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

pub(super) fn order(command: &Command) -> WireOrder {
    match command {
        Command::Join(audience, permit) => WireOrder::Join(wire::JoinOrder {
            whom: Some(whom(audience)),
            room: permit.room().name().to_owned(),
            service: permit.rule().to_owned(),
        }),
        Command::Leave(audience, room, notice) => WireOrder::Leave(wire::LeaveOrder {
            whom: Some(whom(audience)),
            room: room.name().to_owned(),
            message: notice.message().to_owned(),
            reason: notice.reason().to_owned(),
        }),
        Command::Disconnect(audience, reason, notice) => WireOrder::Disconnect(wire::DisconnectOrder {
            whom: Some(whom(audience)),
            code: reason.code().into(),
            message: notice.message().to_owned(),
            reason: notice.reason().to_owned(),
        }),
        Command::Send(audience, event) => WireOrder::Send(send(audience, event)),
        Command::Count(audience) => WireOrder::Count(wire::CountOrder {
            whom: Some(whom(audience)),
        }),
        Command::Identify(audience) => WireOrder::Identify(wire::IdentifyOrder {
            whom: Some(whom(audience)),
        }),
    }
}

fn whom(audience: &Audience) -> wire::Whom {
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

fn send(audience: &Audience, event: &Event) -> wire::SendOrder {
    use wire::send_order::Payload as Content;
    let actor = event.actor.as_ref().map(|actor| actor.as_str().to_owned());
    wire::SendOrder {
        whom: Some(whom(audience)),
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

/// Reads an order that moves or asks connections; `None` when it is another one, or cannot be read.
pub(super) fn command(order: WireOrder) -> Option<Command> {
    Some(match order {
        WireOrder::Join(order) => {
            let audience = audience(order.whom)?;
            let room = room_of(&audience, &order.room)?;
            let service = Service {
                name: order.service.into(),
                publish: false,
                read: false,
                manage: true,
                tenants: Some([room.tenant().into()].into()),
            };
            Command::Join(audience, service.permit(room, Action::Join).ok()?)
        }
        WireOrder::Leave(order) => {
            let audience = audience(order.whom)?;
            let room = room_of(&audience, &order.room)?;
            Command::Leave(audience, room, notice(&order.reason, &order.message))
        }
        WireOrder::Disconnect(order) => {
            let mut reasons = CloseReason::ALL.into_iter();
            let reason = reasons.find(|reason| u32::from(reason.code()) == order.code)?;
            let notice = notice(&order.reason, &order.message);
            Command::Disconnect(audience(order.whom)?, reason, notice)
        }
        WireOrder::Send(order) => sent(order)?,
        WireOrder::Count(order) => Command::Count(audience(order.whom)?),
        WireOrder::Identify(order) => Command::Identify(audience(order.whom)?),
        WireOrder::Confirm(_) | WireOrder::Verify(_) => return None,
    })
}

/// Reads what a client is told. What cannot be told must not keep an order from being carried out.
fn notice(reason: &str, message: &str) -> Notice {
    Notice::parse(reason, message).unwrap_or_default()
}

fn audience(whom: Option<wire::Whom>) -> Option<Audience> {
    use wire::whom::Whom;
    let whom = whom?;
    let tenant = Tenant::parse(&whom.tenant).ok()?;
    Some(match whom.whom? {
        Whom::UserId(user) => Audience::User(tenant, UserId::parse(&user).ok()?),
        Whom::ConnectionId(connection) => Audience::Connection(tenant, connection.parse().ok()?),
    })
}

const fn tenant_of(audience: &Audience) -> &Tenant {
    match audience {
        Audience::User(tenant, _) | Audience::Connection(tenant, _) => tenant,
    }
}

fn room_of(audience: &Audience, name: &str) -> Option<Room> {
    Room::parse(tenant_of(audience), name).ok()
}

fn sent(order: wire::SendOrder) -> Option<Command> {
    use wire::send_order::Payload as Content;
    let audience = audience(order.whom)?;
    let event = Event {
        room: Room::nameless(tenant_of(&audience)),
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
    };
    Some(Command::Send(audience, Arc::new(event)))
}

pub(super) fn answer(answer: Answer) -> WireAnswer {
    match answer {
        Answer::Count(connections) => WireAnswer::Count(wire::CountAnswer { connections }),
        Answer::Joined(joined) => WireAnswer::Joined(wire::JoinAnswer {
            connections: joined.connections,
            refused: refusal(joined.refused).into(),
        }),
        Answer::Identity(None) => WireAnswer::Identity(wire::IdentityAnswer::default()),
        Answer::Identity(Some(identity)) => WireAnswer::Identity(wire::IdentityAnswer {
            found: true,
            tenant: identity.tenant.as_str().to_owned(),
            user_id: identity.user.as_str().to_owned(),
            claims_json: identity.claims.as_str().to_owned(),
            expiry_s: identity.expiry.0,
        }),
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
pub(super) fn answered(answer: WireAnswer) -> Option<Answer> {
    Some(match answer {
        WireAnswer::Count(answer) => Answer::Count(answer.connections),
        WireAnswer::Joined(answer) => Answer::Joined(Joined {
            connections: answer.connections,
            refused: match answer.refused() {
                wire::JoinRefusal::Unspecified => None,
                wire::JoinRefusal::RoomLimit => Some(JoinRefusal::RoomLimit),
                wire::JoinRefusal::Revoked => Some(JoinRefusal::Revoked),
                wire::JoinRefusal::Unavailable => Some(JoinRefusal::Unavailable),
            },
        }),
        WireAnswer::Identity(answer) if !answer.found => Answer::Identity(None),
        WireAnswer::Identity(answer) => Answer::Identity(Some(Arc::new(Identity {
            tenant: Tenant::parse(&answer.tenant).ok()?,
            user: UserId::parse(&answer.user_id).ok()?,
            claims: Json::parse(answer.claims_json).ok()?.into(),
            expiry: Expiry(answer.expiry_s),
        }))),
        WireAnswer::Confirmed(_) | WireAnswer::Verified(_) => return None,
    })
}

#[cfg(test)]
mod tests;
