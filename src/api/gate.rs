//! What every call passes before its method: the credential, the deadline, and the drain.
//!
//! Refusals that tonic makes by itself leave here with the same details as ours.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Extensions, HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::Shared;
use super::credentials::Caller;
use super::listener::Peer;
use super::status::{Invalid, Refusal};

/// How much earlier than the caller the gateway gives up at most, so that the caller still hears why.
const DEADLINE_MARGIN_MAX: Duration = Duration::from_millis(50);

/// Makes gates.
#[derive(Clone)]
pub(super) struct GateLayer(pub(super) Arc<Shared>);

impl Layer<Routes> for GateLayer {
    type Service = Gate;

    fn layer(&self, inner: Routes) -> Gate {
        Gate {
            inner,
            shared: self.0.clone(),
        }
    }
}

/// Stands before all gRPC methods.
#[derive(Clone)]
pub(super) struct Gate {
    inner: Routes,
    shared: Arc<Shared>,
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone that was made ready has to be the one that is called.
        let unready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, unready);
        let shared = self.shared.clone();
        Box::pin(async move {
            let kind = Kind::of(request.uri().path());
            if kind != Kind::Health {
                match shared.admit(request.headers(), request.extensions()).await {
                    Ok(caller) => request.extensions_mut().insert(caller),
                    Err(refusal) => return Ok(Status::from(refusal).into_http()),
                };
            }
            if kind != Kind::Unary {
                return inner.call(request).await.map(dress);
            }
            let allowed = match shared.time_allowed(request.headers()) {
                Ok(allowed) => allowed,
                Err(refusal) => return Ok(Status::from(refusal).into_http()),
            };
            match tokio::time::timeout(allowed, inner.call(request)).await {
                Ok(response) => response.map(dress),
                Err(_) => Ok(Status::from(Refusal::DeadlineExceeded).into_http()),
            }
        })
    }
}

/// What the gate asks of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing: probes have no credential.
    Health,
    /// A credential.
    Stream,
    /// A credential and a deadline.
    Unary,
}

impl Kind {
    fn of(path: &str) -> Self {
        match path {
            "/roomcast.v1.PublishService/PublishStream" | "/roomcast.v1.WatchService/Watch" => Self::Stream,
            _ if path.starts_with("/roomcast.v1.") => Self::Unary,
            _ if path.starts_with("/grpc.health.v1.Health/") => Self::Health,
            _ => Self::Stream,
        }
    }
}

impl Shared {
    /// Who calls, unless the node shuts down.
    pub(super) async fn admit(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Arc<Caller>, Refusal> {
        if self.draining.is_cancelled() {
            return Err(Refusal::Draining);
        }
        let peer = extensions.get::<Peer>().and_then(|peer| peer.0.as_deref());
        self.context.credentials.authenticate(headers, peer).await
    }

    /// How long a unary call may take.
    fn time_allowed(&self, headers: &HeaderMap) -> Result<Duration, Refusal> {
        let wanted = match headers.get("grpc-timeout") {
            Some(value) => Some(
                value
                    .to_str()
                    .ok()
                    .and_then(parse_timeout)
                    .ok_or_else(|| Refusal::field("grpc-timeout", "is not a duration of the gRPC protocol"))?,
            ),
            None => None,
        };
        let allowed = wanted
            .or(self.config.deadline_default)
            .ok_or(Refusal::DeadlineRequired)?;
        let margin = DEADLINE_MARGIN_MAX.min(allowed / 10);
        Ok(allowed.saturating_sub(margin).min(self.config.deadline_max))
    }
}

/// Reads a `grpc-timeout` (gRPC over HTTP/2, "Timeout"): at most 8 digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Gives a refusal that tonic made by itself a reason. Ours carry details; tonic's do not.
fn dress(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if !headers.contains_key("grpc-status") || headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    match Status::from_header_map(headers).and_then(|status| reason_of(&status)) {
        Some(refusal) => Status::from(refusal).into_http(),
        None => response,
    }
}

/// Which of our refusals one of tonic's is, if it is one.
pub(super) fn reason_of(status: &Status) -> Option<Refusal> {
    let undecodable = |why: &str| Refusal::invalid(Invalid::Undecodable, "", why);
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Some(Refusal::MessageTooLarge),
        Code::Internal => Some(undecodable("the message does not decode")),
        Code::Unimplemented if status.message().is_empty() => Some(Refusal::Unimplemented("method")),
        Code::Unimplemented => Some(Refusal::Unimplemented("compression")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_the_protocol_writes_it() {
        let read = [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ];
        for (text, expected) in read {
            assert_eq!(parse_timeout(text), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "100000000S", "1\u{b5}"] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }
}
