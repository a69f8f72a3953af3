//! `publish`: publishes one event through the gRPC API, as a backend would.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use prost::Message as _;
use serde_json::json;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::failure::{Failure, chain};
use super::output::print;
use super::reach::{Cause, Port, Unreached};
use super::token::{TENANT, read_secret};
use crate::proto::v1::publish_service_client::PublishServiceClient;
use crate::proto::v1::{
    self, Payload, Position, PublishRequest, PublishResponse, PublishResult, Target, VersionConflict, payload, target,
};

/// Publish one event over gRPC and print its position in each room
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  roomcast publish --room project:7 --event task:created --data '{\"id\":1}' --token-file token"
)]
pub(super) struct Publish {
    #[command(flatten)]
    api: Api,
    /// The tenant
    #[arg(long, value_name = "ID", default_value = TENANT)]
    tenant: String,
    /// A room; may be repeated
    #[arg(long = "room", value_name = "ROOM", required = true)]
    rooms: Vec<String>,
    /// The event's name
    #[arg(long, value_name = "NAME")]
    event: String,
    /// The payload: JSON, or @FILE
    #[arg(long, value_name = "JSON", default_value = "null")]
    data: String,
    /// The retention
    #[arg(long, value_enum, default_value_t = Retention::Reliable)]
    retention: Retention,
    /// The idempotency key: repeating the command with it does no harm
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Publish only if the room's head is here: an OFFSET, or EPOCH/OFFSET
    #[arg(long, value_name = "POSITION", value_parser = expected)]
    expect: Option<Position>,
    /// The user on whose behalf it is published
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Address of the gRPC API, and the caller's credential.
#[derive(Debug, Args)]
pub(super) struct Api {
    /// The gateway's gRPC address
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051",
        env = "ROOMCAST_GRPC_URL"
    )]
    url: String,
    /// The service token
    #[arg(long, value_name = "TOKEN", env = "ROOMCAST_SERVICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the service token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Deadline of the call
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Retention of an event, as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Retention {
    /// For the current members; no position, not kept
    Ephemeral,
    /// Ordered, kept, recovered after a reconnect
    Reliable,
    /// Reliable, and the newest one is delivered to later members
    #[value(name = "last_value")]
    LastValue,
}

impl Retention {
    /// Returns its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ephemeral => "ephemeral",
            Self::Reliable => "reliable",
            Self::LastValue => "last_value",
        }
    }
}

impl From<Retention> for v1::Retention {
    fn from(retention: Retention) -> Self {
        match retention {
            Retention::Ephemeral => Self::Ephemeral,
            Retention::Reliable => Self::Reliable,
            Retention::LastValue => Self::LastValue,
        }
    }
}

impl Publish {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let json = self.json;
        let mut client = PublishServiceClient::new(self.api.channel()?);
        let call = self.api.call(self.request()?)?;
        let answer = client
            .publish(call)
            .await
            .map_err(|status| self.api.refusal(&status))?
            .into_inner();
        if json {
            print(as_json(&answer))?;
        } else {
            for result in &answer.results {
                print(as_text(result))?;
            }
        }
        Ok(())
    }

    fn request(&self) -> Result<PublishRequest, Failure> {
        let target = |room: &String| Target {
            target: Some(target::Target::Room(room.clone())),
        };
        Ok(PublishRequest {
            tenant: self.tenant.clone(),
            targets: self.rooms.iter().map(target).collect(),
            event_name: self.event.clone(),
            payload: Some(Payload {
                content: Some(payload::Content::Json(self.data()?)),
            }),
            retention: v1::Retention::from(self.retention).into(),
            idempotency_key: self.key.clone().unwrap_or_default(),
            expected_head: self.expect.clone(),
            actor_user_id: self.actor.clone().unwrap_or_default(),
            ..PublishRequest::default()
        })
    }

    fn data(&self) -> Result<String, Failure> {
        let text = match self.data.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::Undone(format!("cannot read {path}: {error}")))?,
            None => self.data.clone(),
        };
        // The gateway would refuse it too; here the error has its place, which helps with a shell's quoting.
        serde_json::from_str::<serde::de::IgnoredAny>(&text)
            .map_err(|error| Failure::Usage(format!("--data is not JSON: {error}")))?;
        Ok(text)
    }
}

impl Api {
    fn channel(&self) -> Result<Channel, Failure> {
        Port::Grpc.check(&self.url).map_err(Failure::Usage)?;
        channel(&self.url, self.timeout)
    }

    /// Formats a status in one line. One without a reason is from this side, or from a server that is no gateway.
    fn refusal(&self, status: &Status) -> Failure {
        if status.get_error_details().error_info().is_some() {
            return refusal(status);
        }
        let unreached = |cause| Unreached {
            url: &self.url,
            port: Port::Grpc,
            cause,
        };
        Failure::Undone(match (status.source(), status.code()) {
            (_, Code::DeadlineExceeded | Code::Cancelled) => format!(
                "{}; whether it was published is not known, repeating it with --key is safe",
                unreached(Cause::Silent(self.timeout))
            ),
            (Some(error), _) => unreached(Cause::of(error, self.timeout)).to_string(),
            // Statuses of an HTTP server without gRPC.
            (None, Code::Unknown | Code::Internal | Code::Unimplemented | Code::Unavailable) => {
                unreached(Cause::OtherProtocol).to_string()
            }
            (None, _) => return refusal(status),
        })
    }

    /// Builds the call with its deadline and its credential.
    fn call<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) => read_secret(path)?,
            (None, None) => return Ok(request),
        };
        request.metadata_mut().insert("authorization", bearer(&token)?);
        Ok(request)
    }
}

/// Returns a channel to the gRPC API that connects on first use.
///
/// # Errors
/// [`Failure::Usage`] when the URL is invalid.
pub fn channel(url: &str, timeout: Duration) -> Result<Channel, Failure> {
    let wrong =
        |error: tonic::transport::Error| Failure::Usage(format!("{}: {}", crate::url::shown(url), chain(&error)));
    let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(wrong)?;
    if url.starts_with("https:") {
        let tls = ClientTlsConfig::new().with_enabled_roots();
        endpoint = endpoint.tls_config(tls).map_err(wrong)?;
    }
    Ok(endpoint.connect_timeout(timeout).connect_lazy())
}

/// Returns the value of `authorization` for a service token.
///
/// # Errors
/// [`Failure::Usage`] when the token has characters that no token has.
pub fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Failure> {
    format!("Bearer {token}")
        .parse()
        .map_err(|_| Failure::Usage("the token has characters no token has".to_owned()))
}

fn expected(text: &str) -> Result<Position, String> {
    let (epoch, offset) = text.split_once('/').unwrap_or(("", text));
    let offset = offset
        .parse()
        .map_err(|_| "expected OFFSET or EPOCH/OFFSET".to_owned())?;
    Ok(Position {
        epoch: epoch.to_owned(),
        offset,
    })
}

/// Formats the status in one line: its stable reason first, which the documentation lists.
fn refusal(status: &Status) -> Failure {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    let mut text = match reason {
        Some(reason) => format!("{reason}: {}", status.message()),
        None => format!("{:?}: {}", status.code(), chain(status)),
    };
    if let Some(retry) = details.retry_info().and_then(|info| info.retry_delay) {
        let _ = write!(text, " (again after {retry:?})");
    }
    if let Some(head) = head(status) {
        let _ = write!(text, " (it is at {}/{})", head.epoch, head.offset);
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => Failure::Undone(text),
        _ => Failure::No(text),
    }
}

/// Returns the room's head, if the refusal has it.
fn head(status: &Status) -> Option<Position> {
    let rich = tonic_types::pb::Status::decode(status.details()).ok()?;
    let conflict = rich
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/roomcast.v1.VersionConflict"))?;
    VersionConflict::decode(&*conflict.value).ok()?.head
}

fn as_text(result: &PublishResult) -> String {
    let place = match &result.position {
        Some(position) => format!("{}/{}", position.epoch, position.offset),
        None => "no position".to_owned(),
    };
    let note = if result.duplicate { " (published before)" } else { "" };
    let reached = match result.reached {
        Some(reached) => format!(" reached {reached}"),
        None => String::new(),
    };
    format!("{} {place}{reached}{note}", result.room.escape_debug())
}

fn as_json(answer: &PublishResponse) -> serde_json::Value {
    let result = |result: &PublishResult| {
        json!({
            "room": result.room,
            "position": result.position.as_ref().map(|at| json!({"epoch": at.epoch, "offset": at.offset})),
            "duplicate": result.duplicate,
            "reached": result.reached,
        })
    };
    json!({ "results": answer.results.iter().map(result).collect::<Vec<_>>() })
}
