//! The events a backend emits in the course of a client's: published in the backend's name, stamped with the client's user,
//! inside the client's tenant.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::future::join_all;

use super::publish::publish_refusal;
use super::unavailable;
use crate::backend::{Emit, EmitTarget};
use crate::bus::PublishError;
use crate::cluster::Found;
use crate::event::{Event, EventId, Except, IdempotencyKey, Publish, Retention, Timestamp};
use crate::hub::{Audience, Verb};
use crate::identity::ConnectionId;
use crate::policy::{Action, Permit, Service};
use crate::room::Room;
use crate::session::Refusal;
use crate::shard::services::{Principal, Services};

/// The service in whose name emitted events are published.
const SERVICE: &str = "backend";

/// The client's event in whose course others are emitted.
pub(super) struct EmitContext<'a> {
    pub principal: &'a Principal,
    pub room: &'a Room,
    pub key: Option<&'a IdempotencyKey>,
}

/// An emitted event for which everything is settled but the publishing.
struct EmitDraft {
    emit: Emit,
    id: EventId,
    except: Except,
    permits: Vec<Permit>,
    connections: Vec<ConnectionId>,
    key: Option<IdempotencyKey>,
}

/// Publishes emitted events, one after the other. All are checked before the first.
///
/// A client that repeats its event under its idempotency key gets nothing published twice: each emitted event has a key
/// made from it, and where the backend says something else the second time, the first time stands. What goes to a single
/// connection has no history to look into, and goes there again.
pub(super) async fn emit(services: &Services, occasion: &EmitContext<'_>, emitted: Vec<Emit>) -> Result<(), Refusal> {
    let drafts = emitted.into_iter().enumerate();
    let drafts = drafts.map(|(index, emit)| draft(services, occasion, index, emit));
    for draft in drafts.collect::<Result<Vec<_>, _>>()? {
        to_rooms(services, occasion, &draft).await?;
        to_connections(services, occasion, &draft).await?;
    }
    Ok(())
}

fn draft(services: &Services, occasion: &EmitContext<'_>, index: usize, emit: Emit) -> Result<EmitDraft, Refusal> {
    if emit.payload.bytes_len() > services.config.load().payload_bytes_max {
        return Err(junk("its payload is too large"));
    }
    let backend = Service {
        name: SERVICE.into(),
        publish: true,
        read: false,
        manage: false,
        subscribe: false,
        tenants: Some([occasion.principal.identity.tenant.as_str().into()].into()),
    };
    let (mut permits, mut connections) = (Vec::<Permit>::new(), Vec::new());
    for target in &emit.targets {
        if let EmitTarget::Connection(connection) = target {
            connections.push(*connection);
            continue;
        }
        let room = room(services, occasion, target)?;
        // Targets that come to the same room share one event.
        if permits.iter().any(|permit| *permit.room() == room) {
            continue;
        }
        let permit = backend.permit(room, Action::Publish(emit.name.clone()));
        permits.push(permit.map_err(|denied| junk(&denied.reason))?);
    }
    let sender = emit.exclude_sender.then_some(occasion.principal.connection);
    Ok(EmitDraft {
        id: EventId::random(),
        except: Except::new(sender.into_iter().collect(), Vec::new()),
        key: occasion.key.map(|key| derived_key(occasion, key, index)),
        permits,
        connections,
        emit,
    })
}

/// The room that a target comes to.
fn room(services: &Services, occasion: &EmitContext<'_>, target: &EmitTarget) -> Result<Room, Refusal> {
    let tenant = &occasion.principal.identity.tenant;
    let name = match target {
        EmitTarget::Room(room) => return Ok(room.clone()),
        EmitTarget::User(user) => services.application.homes.of_user(tenant, user.as_str()),
        EmitTarget::Everyone => services.application.homes.of_tenant(tenant),
        EmitTarget::Connection(_) => None,
    };
    let name = name.ok_or_else(|| junk("no room template is configured for its target"))?;
    Room::parse(tenant, &name).map_err(|error| junk(&error.to_string()))
}

async fn to_rooms(services: &Services, occasion: &EmitContext<'_>, draft: &EmitDraft) -> Result<(), Refusal> {
    let publishes = draft.permits.iter().map(|permit| {
        services.rooms.publish(
            permit,
            Publish {
                room: permit.room().clone(),
                id: draft.id,
                name: draft.emit.name.clone(),
                retention: draft.emit.retention,
                payload: draft.emit.payload.clone(),
                actor: Some(occasion.principal.identity.user.clone()),
                except: draft.except.clone(),
                key: draft.key.clone(),
                expected: None,
            },
        )
    });
    for outcome in join_all(publishes).await {
        match outcome {
            // The event of the first time stands.
            Ok(_) | Err(PublishError::KeyReused) => {}
            Err(error) => return Err(publish_refusal(&error)),
        }
    }
    Ok(())
}

async fn to_connections(services: &Services, occasion: &EmitContext<'_>, draft: &EmitDraft) -> Result<(), Refusal> {
    for &connection in &draft.connections {
        if draft.emit.exclude_sender && connection == occasion.principal.connection {
            continue;
        }
        let cluster = services.application.cluster.get().ok_or_else(unavailable)?;
        let audience = Audience::Connection(occasion.principal.identity.tenant.clone(), connection);
        let found = cluster.find(&audience).await.map_err(|_| unavailable())?;
        // A connection may have gone meanwhile, and is owed nothing.
        let Some(Found { place, .. }) = found else { continue };
        let event = Event {
            room: Room::nameless(&occasion.principal.identity.tenant),
            id: draft.id,
            name: draft.emit.name.clone(),
            retention: Retention::Ephemeral,
            link: None,
            time: Timestamp::now(),
            actor: Some(occasion.principal.identity.user.clone()),
            except: Except::NOBODY,
            payload: draft.emit.payload.clone(),
        };
        let send = audience.order(Verb::Send(Arc::new(event)));
        let sent = cluster.order_at(place, send).await;
        sent.map_err(|_| unavailable())?;
    }
    Ok(())
}

/// The key of one emitted event. Made from everything that names the client's event, so that another event of the client, or
/// one of another client, has another.
fn derived_key(occasion: &EmitContext<'_>, key: &IdempotencyKey, index: usize) -> IdempotencyKey {
    let mut context = Context::new(&SHA256);
    for field in [
        occasion.principal.identity.user.as_str().as_bytes(),
        occasion.room.key(),
        key.as_str().as_bytes(),
        &index.to_le_bytes(),
    ] {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        context.update(&(field.len() as u64).to_le_bytes());
        context.update(field);
    }
    let digest = context.finish();
    let digits = digest.as_ref()[..16]
        .iter()
        .fold(String::from("emit:"), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        });
    IdempotencyKey::of_backend(&digits).expect("a few ASCII characters are a key")
}

/// Refuses the client's event because of what the backend emits. The client can do nothing about it; the log has the reason.
fn junk(reason: &str) -> Refusal {
    tracing::warn!(reason, "backend emitted an event that cannot be published");
    unavailable()
}
