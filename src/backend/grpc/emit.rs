//! Events emitted by a backend, parsed as a whole: one invalid event invalidates the reply, and none is published.

use super::{junk, payload_from};
use crate::backend::{BackendError, Emit, EmitTarget, Handled};
use crate::event::{EventName, Retention};
use crate::identity::UserId;
use crate::proto::backend::v1 as wire;
use crate::proto::v1;
use crate::proto::v1::target::Target;
use crate::room::{Room, Tenant};

/// The most targets of one event, as for a publish of the API.
const TARGETS_MAX: usize = 100;

/// Parses emitted events, whose targets lie in `tenant`.
pub(super) fn parse(tenant: &Tenant, emitted: Vec<wire::EmittedEvent>) -> Result<Vec<Emit>, BackendError> {
    if emitted.len() > Handled::EMIT_MAX {
        return Err(junk("more than 16 events to emit"));
    }
    emitted.into_iter().map(|event| parse_one(tenant, event)).collect()
}

fn parse_one(tenant: &Tenant, event: wire::EmittedEvent) -> Result<Emit, BackendError> {
    if !(1..=TARGETS_MAX).contains(&event.targets.len()) {
        return Err(junk("an event to emit without targets, or with more than 100"));
    }
    let targets = event.targets.into_iter().map(|target| parse_target(tenant, target));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let retention = match v1::Retention::try_from(event.retention) {
        Ok(v1::Retention::Unspecified | v1::Retention::Reliable) => Retention::Reliable,
        Ok(v1::Retention::Ephemeral) => Retention::Ephemeral,
        Ok(v1::Retention::LastValue) => Retention::LastValue,
        Err(_) => return Err(junk("an event to emit with an unknown retention")),
    };
    let is_direct = |target: &EmitTarget| matches!(target, EmitTarget::Connection(_));
    if retention != Retention::Ephemeral && targets.iter().any(is_direct) {
        return Err(junk("an event to emit to a connection that is not ephemeral"));
    }
    let payload = event
        .payload
        .ok_or_else(|| junk("an event to emit without a payload"))?;
    Ok(Emit {
        targets,
        name: EventName::parse(&event.event_name)
            .map_err(|error| junk(&format!("an event to emit whose name {error}")))?,
        payload: payload_from(payload)?,
        retention,
        exclude_sender: event.exclude_sender,
    })
}

fn parse_target(tenant: &Tenant, target: v1::Target) -> Result<EmitTarget, BackendError> {
    let wrong = |error: &dyn std::fmt::Display| junk(&format!("a target that {error}"));
    match target.target {
        Some(Target::Room(name)) => Room::parse(tenant, &name)
            .map(EmitTarget::Room)
            .map_err(|error| wrong(&error)),
        Some(Target::UserId(user)) => UserId::parse(&user)
            .map(EmitTarget::User)
            .map_err(|error| wrong(&error)),
        Some(Target::Everyone(v1::TenantTarget {})) => Ok(EmitTarget::Everyone),
        Some(Target::ConnectionId(connection)) => connection
            .parse()
            .map(EmitTarget::Connection)
            .map_err(|error: crate::identity::ConnectionIdError| wrong(&error)),
        None => Err(wrong(&"names nothing")),
    }
}
