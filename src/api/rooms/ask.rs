//! Asks: a backend asks one connection and gets its client's answer.

use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{UnaryServices, membership};
use crate::api::credentials::{Caller, Scope};
use crate::api::status::{Invalid, Refusal};
use crate::api::{ApiServices, caller, convert, span};
use crate::cluster::{Asked, ClusterError};
use crate::event::EventName;
use crate::hub::{Ask, AskEnd, AskRefusal, Audience};
use crate::proto::v1;

/// The longest timeout of an ask that is accepted; the call's deadline is usually shorter.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The most by which the end of an ask precedes the call's deadline, so that the caller learns whether it was delivered.
const MARGIN_MAX: Duration = Duration::from_millis(50);

/// The largest answer that is relayed without an allowance: as small as other replies that have none.
const SMALL_BYTES_MAX: usize = 4096;

/// The deadline of a call whose method has to know it.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct CallDeadline(pub(in crate::api) Instant);

impl UnaryServices {
    pub(super) async fn ask_client(
        &self,
        request: Request<v1::AskRequest>,
    ) -> Result<Response<v1::AskResponse>, Status> {
        let caller = caller(&request)?;
        let span = span::room(request.metadata(), &caller, "ask");
        let (_, extensions, request) = request.into_parts();
        let asking = async {
            let response = self.0.ask(&caller, request, &extensions).await?;
            let allowance = self.0.ask_allowance(&response, &extensions).await?;
            let mut response = Response::new(response);
            if let Some(allowance) = allowance {
                response.extensions_mut().insert(allowance);
            }
            Ok::<_, Refusal>(response)
        };
        Ok(asking.instrument(span).await?)
    }
}

impl ApiServices {
    pub(in crate::api) async fn ask(
        &self,
        caller: &Caller,
        request: v1::AskRequest,
        extensions: &Extensions,
    ) -> Result<v1::AskResponse, Refusal> {
        use v1::ask_request::Session;
        caller.check_scope(Scope::Manage)?;
        let tenant = convert::tenant(&request.tenant)?;
        caller.check(Scope::Manage, tenant.as_str())?;
        convert::required(&request.required_features)?;
        let audience = match &request.session {
            Some(Session::ConnectionId(connection)) => membership::of_connection(tenant, connection)?,
            None => return Err(Refusal::field("session", "a connection is required")),
        };
        let Audience::Connection(tenant, connection) = audience else {
            return Err(Refusal::Internal);
        };
        let method =
            EventName::parse(&request.method).map_err(|error| Refusal::invalid(Invalid::EventName, "method", error))?;
        let payload = convert::payload_in(request.payload, self.config.payload_bytes_max)?;
        let deadline = deadline(timeout(request.timeout)?, extensions);
        let ask = Ask {
            tenant,
            connection,
            method,
            payload,
        };
        answer(self.context.cluster.ask(ask, deadline).await)
    }

    /// Waits for room for a large answer. Taken once the answer is here: an ask that waits for its client reserves nothing.
    pub(in crate::api) async fn ask_allowance(
        &self,
        response: &v1::AskResponse,
        extensions: &Extensions,
    ) -> Result<Option<Arc<crate::api::unread::Allowance>>, Refusal> {
        if prost::Message::encoded_len(response) <= SMALL_BYTES_MAX {
            return Ok(None);
        }
        let deadline = extensions.get::<CallDeadline>().ok_or(Refusal::Internal)?.0;
        let left = deadline.saturating_duration_since(Instant::now());
        self.allowance(extensions, left).await.map(Some)
    }
}

/// Reads how long to wait; `None` where the request does not say.
fn timeout(timeout: Option<prost_types::Duration>) -> Result<Option<Duration>, Refusal> {
    let Some(timeout) = timeout else { return Ok(None) };
    let timeout = crate::proto::time::duration(timeout);
    let timeout = timeout.filter(|timeout| (TIMEOUT_MIN..=TIMEOUT_MAX).contains(timeout));
    timeout
        .map(Some)
        .ok_or_else(|| Refusal::field("timeout", "is 1 ms to 5 min"))
}

/// The end of an ask: its own timeout, or a little before the call's deadline.
fn deadline(timeout: Option<Duration>, extensions: &Extensions) -> Instant {
    let now = Instant::now();
    let own = now + timeout.unwrap_or(TIMEOUT_MAX);
    let Some(CallDeadline(call)) = extensions.get() else {
        return own;
    };
    let left = call.saturating_duration_since(now);
    own.min(now + left.saturating_sub(MARGIN_MAX.min(left / 10)))
}

fn answer(asked: Result<Asked, ClusterError>) -> Result<v1::AskResponse, Refusal> {
    use v1::ask_response::Answer;
    let answer = match asked {
        Ok(Asked::Ended(AskEnd::Answered(payload))) => Answer::Payload(convert::payload(&payload)),
        Ok(Asked::Ended(AskEnd::Error(error))) => Answer::Error(v1::AnswerError {
            reason: error.reason().to_owned(),
            message: error.message().to_owned(),
        }),
        Ok(asked) => return Err(refusal(&asked)),
        Err(ClusterError::Silent(nodes)) => {
            tracing::warn!(?nodes, "nodes did not answer in time");
            // Looking for a connection changes nothing.
            return Err(Refusal::NotStored("not every node has answered"));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(v1::AskResponse { answer: Some(answer) })
}

fn refusal(asked: &Asked) -> Refusal {
    match asked {
        Asked::NotFound => Refusal::ConnectionNotFound,
        Asked::Refused(AskRefusal::CannotAnswer) => Refusal::CannotAnswer,
        Asked::Refused(AskRefusal::TooMany) => Refusal::AskLimit,
        Asked::Refused(AskRefusal::Unavailable) => Refusal::NotStored("the connection cannot be asked now"),
        Asked::Ended(AskEnd::Unreadable) => Refusal::AnswerInvalid,
        Asked::Ended(AskEnd::Lost) => Refusal::ConnectionLost,
        Asked::TimedOut(delivered) => Refusal::NoAnswer { delivered: *delivered },
        Asked::Silent(_) => Refusal::UnknownOutcome {
            why: "the node of the connection has not answered",
            stored: 0,
        },
        // These are answers.
        Asked::Ended(AskEnd::Answered(_) | AskEnd::Error(_)) => Refusal::Internal,
    }
}
