//! The application as a gRPC service that the gateway calls (`roomcast.v1.ClientEventService`).
//!
//! Fails closed: no answer in time, an error or junk is never taken for consent. What the backend says in an error
//! status stays in the log; the client reads only what the backend put into a denial for it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Code;
use tonic::transport::Channel;
use tracing::Instrument as _;

use super::config::Config;
use super::{Backend, BackendError, ClientEvent, Verdict};
use crate::event::{Class, EventId, EventName, Payload};
use crate::json::Json;
use crate::proto::call::{self, ChannelError, Failure, Target};
use crate::proto::v1;
use crate::proto::v1::client_event_service_client::ClientEventServiceClient;
use crate::room::Room;

/// The longest reason of a denial, in bytes; longer or otherwise written ones become `denied`.
const REASON_BYTES_MAX: usize = 64;

/// What is wrong with the configuration of a backend.
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
    /// A backend that is connected to when first called.
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

    async fn handle_event(&self, event: ClientEvent) -> Result<Verdict, BackendError> {
        let _turn = self.turn()?;
        let request = v1::HandleEventRequest {
            subject: Some(subject(&event)),
            room: room_name(event.room.as_ref()),
            event: event.name.as_str().to_owned(),
            payload: Some(payload_to(event.payload)),
            class: class_to(event.class).into(),
            idempotency_key: event.key.map_or_else(String::new, |key| key.as_str().to_owned()),
        };
        let mut client = self.client();
        let call = call::within(self.config.timeout, request, |request| client.handle_event(request));
        verdict(call.await.map_err(failure)?)
    }

    async fn handle_request(&self, event: ClientEvent) -> Result<Payload, BackendError> {
        let _turn = self.turn()?;
        let request = v1::HandleRequestRequest {
            subject: Some(subject(&event)),
            request_id: EventId::random().to_string(),
            method: event.name.as_str().to_owned(),
            room: room_name(event.room.as_ref()),
            payload: Some(payload_to(event.payload)),
        };
        let mut client = self.client();
        let call = call::within(self.config.timeout, request, |request| client.handle_request(request));
        match call.await.map_err(failure)?.outcome {
            Some(v1::handle_request_response::Outcome::Reply(payload)) => payload_from(payload),
            Some(v1::handle_request_response::Outcome::Deny(denial)) => Err(BackendError::Refused(reason(denial))),
            None => Err(junk("an answer without an outcome")),
        }
    }
}

impl Backend for GrpcBackend {
    fn validate(&self, event: ClientEvent) -> BoxFuture<'_, Result<Verdict, BackendError>> {
        let span = tracing::debug_span!("backend.handle_event");
        Box::pin(self.handle_event(event).instrument(span))
    }

    fn request(&self, event: ClientEvent) -> BoxFuture<'_, Result<Payload, BackendError>> {
        let span = tracing::debug_span!("backend.handle_request");
        Box::pin(self.handle_request(event).instrument(span))
    }
}

fn verdict(response: v1::HandleEventResponse) -> Result<Verdict, BackendError> {
    use v1::handle_event_response::Outcome;
    match response.outcome {
        Some(Outcome::Accept(accept)) => Ok(Verdict::Publish {
            name: None,
            payload: None,
            echo: accept.echo,
        }),
        Some(Outcome::Handled(_)) => Ok(Verdict::Handled),
        Some(Outcome::Rewrite(rewrite)) => Ok(Verdict::Publish {
            name: name_from(&rewrite.event)?,
            payload: rewrite.payload.map(payload_from).transpose()?,
            echo: rewrite.echo,
        }),
        Some(Outcome::Deny(denial)) => Ok(Verdict::Deny { reason: reason(denial) }),
        None => Err(junk("an answer without an outcome")),
    }
}

fn failure(failure: Failure) -> BackendError {
    let status = match failure {
        Failure::Timeout => return BackendError::Timeout,
        Failure::Status(status) => status,
    };
    let refused = |reason: &str| BackendError::Refused(reason.to_owned());
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => refused("denied"),
        Code::InvalidArgument => refused("invalid_argument"),
        Code::NotFound => refused("not_found"),
        Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => refused("failed_precondition"),
        code => BackendError::Unavailable(format!("{code:?}")),
    }
}

fn junk(what: &str) -> BackendError {
    BackendError::Unavailable(what.to_owned())
}

/// A reason a client may read: the backend's own word, or `denied`.
fn reason(denial: v1::Denial) -> String {
    let word = denial.reason;
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if (1..=REASON_BYTES_MAX).contains(&word.len()) && word.bytes().all(plain) {
        word
    } else {
        "denied".to_owned()
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

const fn class_to(class: Class) -> v1::EventClass {
    match class {
        Class::Ephemeral => v1::EventClass::Ephemeral,
        Class::Reliable => v1::EventClass::Reliable,
        Class::LastValue => v1::EventClass::LastValue,
    }
}

#[cfg(test)]
mod tests;
