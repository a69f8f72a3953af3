//! The application as a gRPC service that the gateway calls (`roomcast.backend.v1.ClientEventService`).
//!
//! Fails closed: a late reply, an error or an invalid reply is never taken for consent. The text of an error status stays in
//! the log; the client receives only the backend's denial.

mod emit;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Code;
use tonic::transport::Channel;
use tracing::Instrument as _;

use super::config::Config;
use super::{Backend, BackendError, ClientEvent, Denial, Echo, Handled, Verdict};
use crate::event::{EventId, EventName, Payload, Retention};
use crate::json::Json;
use crate::notice;
use crate::proto::backend::v1 as wire;
use crate::proto::backend::v1::client_event_service_client::ClientEventServiceClient;
use crate::proto::call::{self, ChannelError, Failure, Target};
use crate::proto::v1;
use crate::room::{Room, Tenant};

/// The longest message of a denial, in characters. A longer one is truncated.
const MESSAGE_CHARS_MAX: usize = 256;

/// The reason of a denial that gives none, or none that is a word.
const DENIED: &str = "denied";

/// The message of a denial that gives none.
const REFUSED: &str = "the backend refused";

/// An error in the configuration of a backend.
#[derive(Debug, thiserror::Error)]
#[error("backend: {0}")]
pub struct BackendConfigError(#[from] ChannelError);

/// Calls the application over gRPC.
#[derive(Debug)]
pub struct GrpcBackend {
    target: Target,
    config: Config,
    in_flight: Semaphore,
}

impl GrpcBackend {
    /// Creates a backend that is connected on the first call.
    ///
    /// # Errors
    /// [`BackendConfigError`] when the address or the certificate cannot be used.
    pub fn new(config: &Config) -> Result<Self, BackendConfigError> {
        Ok(Self {
            target: Target::new(&config.url, config.ca_file.as_deref(), config.timeout)?,
            in_flight: Semaphore::new(config.in_flight_max),
            config: config.clone(),
        })
    }

    fn client(&self) -> ClientEventServiceClient<Channel> {
        ClientEventServiceClient::new(self.target.channel()).max_decoding_message_size(self.config.answer_bytes_max)
    }

    fn turn(&self) -> Result<SemaphorePermit<'_>, BackendError> {
        let turn = self.in_flight.try_acquire();
        turn.map_err(|_| BackendError::Unavailable("too many calls are waiting for it".to_owned()))
    }

    async fn handle(&self, event: ClientEvent) -> Result<Verdict, BackendError> {
        let _turn = self.turn()?;
        let tenant = event.identity.tenant.clone();
        let request = wire::HandleRequest {
            subject: Some(subject(&event)),
            room: room_name(event.room.as_ref()),
            event_name: event.name.as_str().to_owned(),
            payload: Some(payload_to(event.payload)),
            retention: retention_to(event.retention).into(),
            idempotency_key: event.key.map_or_else(String::new, |key| key.as_str().to_owned()),
        };
        let mut client = self.client();
        let call = call::within(self.config.timeout, request, |request| client.handle(request));
        verdict(&tenant, call.await.map_err(failure)?)
    }

    async fn answer(&self, event: ClientEvent) -> Result<Payload, BackendError> {
        let _turn = self.turn()?;
        let request = wire::AnswerRequest {
            subject: Some(subject(&event)),
            request_id: EventId::random().to_string(),
            method: event.name.as_str().to_owned(),
            room: room_name(event.room.as_ref()),
            payload: Some(payload_to(event.payload)),
        };
        let mut client = self.client();
        let call = call::within(self.config.timeout, request, |request| client.answer(request));
        match call.await.map_err(failure)?.outcome {
            Some(wire::answer_response::Outcome::Reply(payload)) => payload_from(payload),
            Some(wire::answer_response::Outcome::Deny(denied)) => Err(BackendError::Refused(denial(denied))),
            None => Err(junk("an answer without an outcome")),
        }
    }
}

impl Backend for GrpcBackend {
    fn validate(&self, event: ClientEvent) -> BoxFuture<'_, Result<Verdict, BackendError>> {
        let span = tracing::debug_span!("backend.handle");
        Box::pin(self.handle(event).instrument(span))
    }

    fn request(&self, event: ClientEvent) -> BoxFuture<'_, Result<Payload, BackendError>> {
        let span = tracing::debug_span!("backend.answer");
        Box::pin(self.answer(event).instrument(span))
    }
}

fn verdict(tenant: &Tenant, response: wire::HandleResponse) -> Result<Verdict, BackendError> {
    use wire::handle_response::Outcome;
    match response.outcome {
        Some(Outcome::Accept(accept)) => Ok(Verdict::Publish {
            name: None,
            payload: None,
            echo: echo_from(accept.echo),
        }),
        Some(Outcome::Handled(handled)) => Ok(Verdict::Handled(Handled {
            reply: handled.reply.map(payload_from).transpose()?,
            emit: emit::parse(tenant, handled.emit)?,
        })),
        Some(Outcome::Rewrite(rewrite)) => Ok(Verdict::Publish {
            name: name_from(&rewrite.event_name)?,
            payload: rewrite.payload.map(payload_from).transpose()?,
            echo: echo_from(rewrite.echo),
        }),
        Some(Outcome::Deny(denied)) => Ok(Verdict::Deny(denial(denied))),
        None => Err(junk("an answer without an outcome")),
    }
}

const fn echo_from(echo: Option<bool>) -> Echo {
    match echo {
        None => Echo::ByPolicy,
        Some(true) => Echo::Deliver,
        Some(false) => Echo::Withhold,
    }
}

fn failure(failure: Failure) -> BackendError {
    let status = match failure {
        Failure::Timeout => return BackendError::Timeout,
        Failure::Status(status) => status,
    };
    let refused = |reason: &str| {
        BackendError::Refused(Denial {
            reason: reason.to_owned(),
            message: REFUSED.to_owned(),
        })
    };
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => refused(DENIED),
        Code::InvalidArgument => refused("invalid_argument"),
        Code::NotFound => refused("not_found"),
        Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => refused("failed_precondition"),
        code => BackendError::Unavailable(format!("{code:?}")),
    }
}

fn junk(what: &str) -> BackendError {
    BackendError::Unavailable(what.to_owned())
}

/// Converts a denial to what a client may read.
fn denial(denial: wire::Denial) -> Denial {
    let message: String = denial.message.chars().take(MESSAGE_CHARS_MAX).collect();
    Denial {
        reason: if notice::is_word(&denial.reason) {
            denial.reason
        } else {
            DENIED.to_owned()
        },
        message: if message.is_empty() {
            REFUSED.to_owned()
        } else {
            message
        },
    }
}

fn subject(event: &ClientEvent) -> v1::Subject {
    v1::Subject {
        tenant: event.identity.tenant.as_str().to_owned(),
        user_id: event.identity.user.as_str().to_owned(),
        connection_id: event.connection.to_string(),
        claims_json: event.identity.claims.as_str().to_owned(),
    }
}

fn room_name(room: Option<&Room>) -> String {
    room.map_or_else(String::new, |room| room.name().to_owned())
}

fn name_from(text: &str) -> Result<Option<EventName>, BackendError> {
    if text.is_empty() {
        return Ok(None);
    }
    EventName::parse(text)
        .map(Some)
        .map_err(|error| junk(&format!("an event name that {error}")))
}

fn payload_to(payload: Payload) -> v1::Payload {
    use v1::payload::Content;
    let content = match payload {
        Payload::Json(json) => Content::Json(json.as_str().to_owned()),
        Payload::Binary(bytes) => Content::Binary(bytes),
    };
    v1::Payload { content: Some(content) }
}

fn payload_from(payload: v1::Payload) -> Result<Payload, BackendError> {
    use v1::payload::Content;
    match payload.content {
        Some(Content::Json(text)) => Json::parse(text)
            .map(Payload::Json)
            .map_err(|error| junk(&format!("a payload that {error}"))),
        // Copied: a slice would keep the whole receive buffer alive for as long as the history does.
        Some(Content::Binary(bytes)) => Ok(Payload::Binary(Bytes::copy_from_slice(&bytes))),
        None => Err(junk("a payload without content")),
    }
}

const fn retention_to(retention: Retention) -> v1::Retention {
    match retention {
        Retention::Ephemeral => v1::Retention::Ephemeral,
        Retention::Reliable => v1::Retention::Reliable,
        Retention::LastValue => v1::Retention::LastValue,
    }
}

#[cfg(test)]
mod tests;
