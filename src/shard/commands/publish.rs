//! A client's events and requests. What the client says about itself is overwritten by what its token says.

use std::sync::Arc;

use tracing::Instrument;

use super::emit::{self, EmitContext};
use super::{CommandContext, event_name, forbidden, unavailable};
use crate::backend::{BackendError, ClientEvent, Echo, Handled, Verdict};
use crate::bus::PublishError;
use crate::error::ErrorCode;
use crate::event::{EventId, EventName, Except, IdempotencyKey, Payload, Publish, Retention};
use crate::identity::UserId;
use crate::policy::{Action, Permit};
use crate::room::Room;
use crate::session::link::Link;
use crate::session::{Message, Refusal};
use crate::shard::services::{Principal, Services};
use crate::shard::sessions::Sessions;

/// The publish command.
#[derive(Debug)]
pub(super) struct PublishCommand {
    pub room: String,
    pub event: String,
    pub payload: Payload,
    pub retention: Retention,
    pub idempotency: String,
}

impl<L: Link> CommandContext<'_, L> {
    pub(super) fn publish(&mut self, wanted: PublishCommand) -> Result<(), Refusal> {
        let room = self.room(&wanted.room)?;
        let name = event_name(&wanted.event)?;
        self.check_payload(&wanted.payload)?;
        let principal = self.principal()?;
        let publish = Publish {
            room,
            id: EventId::random(),
            name,
            retention: wanted.retention,
            payload: wanted.payload,
            actor: Some(principal.identity.user.clone()),
            except: Except::NOBODY,
            key: idempotency_key(&principal.identity.user, &wanted.idempotency)?,
            expected: None,
        };
        let services = self.sessions.services.clone();
        self.wait(
            async move {
                let answer = publish_permitted(&services, &principal, publish).await;
                move |command: CommandContext<'_, L>| command.end(answer)
            }
            .instrument(tracing::debug_span!("session.publish")),
        );
        Ok(())
    }

    /// Asks a backend, where the policy allows the method. Several requests may be under way; commands go on meanwhile.
    pub(super) fn ask(&mut self, method: &str, room: &str, payload: Payload) -> Result<(), Refusal> {
        let principal = self.principal()?;
        let room = match room {
            "" => Room::nameless(&principal.identity.tenant),
            name => self.room(name)?,
        };
        let name = event_name(method)?;
        self.check_payload(&payload)?;
        let max = self.sessions.services.config.load().asks_max;
        let Some(session) = self.session_mut() else {
            return Ok(());
        };
        if session.rates.asks >= max {
            return Err(Refusal::new(
                ErrorCode::RateLimited,
                format!("at most {max} requests at once"),
            ));
        }
        session.rates.asks += 1;
        let (services, ticket, id) = (self.sessions.services.clone(), self.ticket, self.id);
        self.sessions.run(async move {
            let answer = ask_permitted(&services, principal, room, (name, payload)).await;
            let answer = answer.map_or_else(Message::Error, Message::Reply);
            move |sessions: &mut Sessions<L>| {
                let Some(session) = sessions.clients.alive(ticket) else {
                    return;
                };
                session.rates.asks -= 1;
                sessions.clients.answer(ticket.key, id, &answer);
            }
        });
        Ok(())
    }
}

fn idempotency_key(user: &UserId, text: &str) -> Result<Option<IdempotencyKey>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let refusal =
        |error: crate::event::IdempotencyKeyError| Refusal::new(ErrorCode::InvalidArgument, error.to_string());
    IdempotencyKey::of_user(user, text).map(Some).map_err(refusal)
}

/// Asks the backend about a room, or about none where it is nameless.
async fn ask_permitted(
    services: &Services,
    principal: Principal,
    room: Room,
    (name, payload): (EventName, Payload),
) -> Result<Payload, Refusal> {
    authorize(services, &principal, &room, Action::Request(name.clone())).await?;
    let Principal { identity, connection } = principal;
    let asked = ClientEvent {
        identity,
        connection,
        room: (!room.is_nameless()).then_some(room),
        name,
        payload,
        retention: Retention::Ephemeral,
        key: None,
    };
    let answer = services.application.backend.request(asked).await;
    answer.map_err(|error| backend_refusal(&error))
}

async fn publish_permitted(services: &Services, principal: &Principal, publish: Publish) -> Result<Message, Refusal> {
    let action = Action::Publish(publish.name.clone());
    let permit = authorize(services, principal, &publish.room, action).await?;
    let (permit, publish) = if permit.needs_validation() {
        match validate(services, principal, publish).await? {
            ValidatedEvent::Publish(publish) => (permit.validated_as(publish.name.clone()), publish),
            ValidatedEvent::Handled(reply) => {
                return Ok(Message::Published {
                    position: None,
                    duplicate: false,
                    reached: None,
                    reply,
                });
            }
        }
    } else {
        (permit, publish)
    };
    let outcome = services
        .rooms
        .publish(&permit, publish)
        .await
        .map_err(|error| publish_refusal(&error))?;
    let (published, reached) = (outcome.published, outcome.reached);
    Ok(Message::Published {
        position: published.position,
        duplicate: published.duplicate,
        reached,
        reply: None,
    })
}

/// An event the backend has seen.
enum ValidatedEvent {
    /// Published, with what the backend changed.
    Publish(Publish),
    /// Taken by the backend, which may have something to say to the sender.
    Handled(Option<Payload>),
}

/// Shows the event to the backend.
async fn validate(services: &Services, principal: &Principal, publish: Publish) -> Result<ValidatedEvent, Refusal> {
    let event = ClientEvent {
        identity: Arc::clone(&principal.identity),
        connection: principal.connection,
        room: Some(publish.room.clone()),
        name: publish.name.clone(),
        payload: publish.payload.clone(),
        retention: publish.retention,
        key: publish.key.clone(),
    };
    let verdict = services
        .application
        .backend
        .validate(event)
        .await
        .map_err(|error| backend_refusal(&error))?;
    match verdict {
        Verdict::Handled(Handled { reply, emit }) => {
            let occasion = EmitContext {
                principal,
                room: &publish.room,
                key: publish.key.as_ref(),
            };
            // Apart, so that every publish need not carry what few do.
            Box::pin(emit::emit(services, &occasion, emit)).await?;
            Ok(ValidatedEvent::Handled(reply))
        }
        Verdict::Deny(denial) => Err(backend_refusal(&BackendError::Refused(denial))),
        Verdict::Publish { name, payload, echo } => Ok(ValidatedEvent::Publish(Publish {
            name: name.unwrap_or(publish.name),
            payload: payload.unwrap_or(publish.payload),
            except: match echo {
                Echo::Withhold => Except::new(vec![principal.connection], Vec::new()),
                Echo::ByPolicy | Echo::Deliver => publish.except,
            },
            ..publish
        })),
    }
}

async fn authorize(services: &Services, principal: &Principal, room: &Room, action: Action) -> Result<Permit, Refusal> {
    let name = action.as_str();
    services.authorize(principal, room, action).await.map_err(|denied| {
        tracing::debug!(
            action = name,
            rule = denied.rule.as_deref(),
            reason = &*denied.reason,
            "command denied"
        );
        forbidden()
    })
}

fn backend_refusal(error: &BackendError) -> Refusal {
    match error {
        BackendError::None => Refusal::new(ErrorCode::NoBackend, "no backend answers this"),
        BackendError::Timeout => Refusal::new(ErrorCode::Timeout, "the backend did not answer in time"),
        BackendError::Unavailable(reason) => {
            tracing::warn!(reason, "backend failed");
            unavailable()
        }
        BackendError::Refused(denial) => Refusal {
            reason: denial.reason.clone(),
            ..Refusal::new(ErrorCode::Rejected, denial.message.clone())
        },
    }
}

pub(super) fn publish_refusal(error: &PublishError) -> Refusal {
    match error {
        PublishError::VersionConflict { .. } => Refusal::new(ErrorCode::VersionConflict, error.to_string()),
        PublishError::KeyReused => Refusal::new(ErrorCode::KeyReused, error.to_string()),
        PublishError::TooLarge { .. } => Refusal::new(ErrorCode::PayloadTooLarge, error.to_string()),
        PublishError::NotStored(reason) => {
            tracing::warn!(reason, "event not stored");
            unavailable()
        }
        PublishError::UnknownOutcome(_) => {
            Refusal::new(ErrorCode::UnknownOutcome, "repeat it with its idempotency key")
        }
    }
}
