//! The gate of the gRPC port: checks credential, deadline and drain of every call before its method.
//!
//! Refusals that tonic or another library makes by itself leave here with the same details as the gateway's own.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use http::{Extensions, HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::ApiServices;
use super::credentials::Caller;
use super::listener::Connection;
use super::rooms::CallDeadline;
use super::single;
use super::status::{Invalid, Refusal};
use super::unread::{ANSWER_BYTES_MAX, Allowance};

/// The most by which the gateway's deadline precedes the caller's, so that the caller still receives the refusal.
const DEADLINE_MARGIN_MAX: Duration = Duration::from_millis(50);

/// Builds gates.
#[derive(Clone)]
pub(super) struct GateLayer(pub(super) Arc<ApiServices>);

impl Layer<Routes> for GateLayer {
    type Service = RequestGate;

    fn layer(&self, inner: Routes) -> RequestGate {
        RequestGate {
            inner,
            shared: self.0.clone(),
        }
    }
}

/// Stands before all gRPC methods.
#[derive(Clone)]
pub(super) struct RequestGate {
    inner: Routes,
    shared: Arc<ApiServices>,
}

impl Service<Request<Body>> for RequestGate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone that returned ready must be the one that is called (`tower::Service`).
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
            if single::takes_one(request.uri().path()) {
                request = request.map(single::only_one);
            }
            let is_large = match kind {
                Kind::Unary { is_large } => is_large,
                Kind::Stream => return inner.call(request).await.map(dress),
                Kind::Health => {
                    let answer = inner.call(request).await.map(dress);
                    return answer.map(|answer| dress_trailers(answer, None));
                }
                Kind::Reflection => {
                    let connection = request.extensions().get::<Arc<Connection>>();
                    let share =
                        connection.map(|connection| connection.unread().clone().acquire_many_owned(ANSWER_BYTES_MAX));
                    let share = OptionFuture::from(share).await.and_then(Result::ok);
                    let answer = inner.call(request).await.map(dress);
                    return answer.map(|answer| dress_trailers(answer, share));
                }
            };
            let allowed = match shared.time_allowed(request.headers()) {
                Ok(allowed) => allowed,
                Err(refusal) => return Ok(Status::from(refusal).into_http()),
            };
            if request.uri().path() == "/roomcast.v1.ConnectionService/Ask" {
                request.extensions_mut().insert(CallDeadline(Instant::now() + allowed));
            }
            let call = async {
                let allowance = if is_large {
                    Some(shared.allowance(request.extensions(), allowed).await?)
                } else {
                    None
                };
                let Ok(response) = inner.call(request).await.map(dress);
                Ok::<_, Refusal>((response, allowance))
            };
            Ok(match tokio::time::timeout(allowed, call).await {
                Ok(Ok((mut response, allowance))) => {
                    if let Some(allowance) = allowance {
                        response.extensions_mut().insert(allowance);
                    }
                    response
                }
                Ok(Err(refusal)) => Status::from(refusal).into_http(),
                Err(_) => Status::from(Refusal::DeadlineExceeded).into_http(),
            })
        })
    }
}

/// Requirements of the gate for a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// None: probes have no credential.
    Health,
    /// A credential, and a share of its connection's unread bytes: descriptors are large, and a library holds them.
    Reflection,
    /// A credential.
    Stream,
    /// A credential and a deadline.
    Unary {
        /// Set when its reply may be large, so it needs an allowance.
        is_large: bool,
    },
}

impl Kind {
    fn of(path: &str) -> Self {
        match path {
            "/roomcast.v1.PublishService/PublishStream"
            | "/roomcast.v1.SubscribeService/Subscribe"
            | "/roomcast.v1.WatchService/Watch" => Self::Stream,
            _ if path.starts_with("/roomcast.v1.") => Self::Unary {
                is_large: is_large(path),
            },
            _ if path.starts_with("/grpc.health.v1.Health/") => Self::Health,
            _ => Self::Reflection,
        }
    }
}

/// Reports whether a method's answer may be large: pages, and the results of many events.
pub(super) fn is_large(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    matches!(
        method,
        "ListHistory" | "ListMembers" | "ListUserRooms" | "ListRevocations" | "PublishBatch"
    )
}

impl ApiServices {
    /// Authenticates a call, unless the node is draining.
    pub(super) async fn admit(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Arc<Caller>, Refusal> {
        if self.draining.is_cancelled() {
            return Err(Refusal::Draining);
        }
        let connection = extensions.get::<Arc<Connection>>();
        let certificates = connection.and_then(|connection| connection.certificates());
        let caller = self.context.credentials.authenticate(headers, certificates).await?;
        if let Some(connection) = connection {
            connection.prove();
        }
        Ok(caller)
    }

    /// Waits until unread bytes leave room for a large reply. The call may take this long.
    pub(super) async fn allowance(
        &self,
        extensions: &Extensions,
        allowed: Duration,
    ) -> Result<Arc<Allowance>, Refusal> {
        let connection = extensions.get::<Arc<Connection>>().ok_or(Refusal::Internal)?;
        self.unread.allowance(connection, Instant::now() + allowed).await
    }

    /// Returns the time that a unary call may take.
    fn time_allowed(&self, headers: &HeaderMap) -> Result<Duration, Refusal> {
        let mut values = headers.get_all("grpc-timeout").iter();
        let wanted = match (values.next(), values.next()) {
            (Some(value), None) => Some(
                value
                    .to_str()
                    .ok()
                    .and_then(parse_timeout)
                    .ok_or_else(|| Refusal::field("grpc-timeout", "is not a duration of the gRPC protocol"))?,
            ),
            (None, _) => None,
            (Some(_), Some(_)) => return Err(Refusal::field("grpc-timeout", "is given more than once")),
        };
        let allowed = wanted
            .or(self.config.deadline_default)
            .ok_or(Refusal::DeadlineRequired)?;
        // A zero timer may fire before the call has begun or after it has ended.
        if allowed.is_zero() {
            return Err(Refusal::DeadlineExceeded);
        }
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

/// Adds a reason to a refusal that a library made by itself. The gateway's own carry details; a library's do not.
fn dress(response: Response<Body>) -> Response<Body> {
    match undressed(response.headers()) {
        Some(refusal) => Status::from(refusal).into_http(),
        None => response,
    }
}

/// Does the same for a refusal in the trailers. `share` is held until the reply has ended.
fn dress_trailers(response: Response<Body>, share: Option<OwnedSemaphorePermit>) -> Response<Body> {
    response.map(|body| {
        Body::new(body.map_frame(move |frame| match frame.into_trailers() {
            Ok(trailers) => Frame::trailers(match undressed(&trailers) {
                Some(refusal) => {
                    let mut dressed = HeaderMap::new();
                    // No refusal contains bytes that a header value cannot hold.
                    let written = Status::from(refusal).add_header(&mut dressed);
                    written.map_or(trailers, |()| dressed)
                }
                None => trailers,
            }),
            Err(frame) => {
                let _held = &share;
                frame
            }
        }))
    })
}

/// Maps headers or trailers with a status, but without details, to a refusal.
fn undressed(headers: &HeaderMap) -> Option<Refusal> {
    if !headers.contains_key("grpc-status") || headers.contains_key("grpc-status-details-bin") {
        return None;
    }
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok).then(|| reason_of(&status))
}

/// Maps a library's status to a refusal.
pub(super) fn reason_of(status: &Status) -> Refusal {
    let undecodable = |why: &str| Refusal::invalid(Invalid::Undecodable, "", why);
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Refusal::MessageTooLarge,
        Code::Internal => undecodable("the message does not decode"),
        Code::InvalidArgument => undecodable(status.message()),
        Code::Unimplemented if status.message().is_empty() => Refusal::Unimplemented("method"),
        Code::Unimplemented => Refusal::Unimplemented("compression"),
        Code::NotFound => Refusal::ServiceNotFound,
        Code::Cancelled => Refusal::Cancelled,
        Code::DeadlineExceeded => Refusal::DeadlineExceeded,
        _ => Refusal::Internal,
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
