//! The plainest calls as HTTP with JSON, for callers with curl and without gRPC.
//!
//! - `POST /v1/publish`: the fields of `PublishRequest`, with `payload` as the JSON value itself (or `payloadBase64`)
//! - `GET /v1/rooms/{room}/members?tenant=..`: `ListMembers`
//! - `GET /v1/rooms/{room}/stats?tenant=..`: `GetRoomStats`
//! - `POST /v1/ask`: the fields of `AskRequest`, with `payload` in the same way
//! - `POST /v1/revoke` and `POST /v1/restore`: the fields of `RevokeRequest` and `RestoreRequest`
//! - `GET /v1/revocations?tenant=..`: `ListRevocations`
//!
//! On the port of gRPC, with the same credentials, limits and refusals: `{"code", "reason", "message"}`, and `field`,
//! `head` (a version conflict) and the header `retry-after` where they apply. Names are those of the proto3 JSON mapping;
//! offsets are numbers, which are exact below 2^53.

mod access;
mod ask;
mod object;
mod publish;
mod query;
mod wire;

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body as AxumBody, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use futures_util::future::{BoxFuture, Either};
use http::header::{ORIGIN, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt as _};

use self::query::Query;
use super::ApiServices;
use super::credentials::Caller;
use super::rooms::CallDeadline;
use super::status::{Invalid, Refusal};
use crate::json::Fields;
use crate::proto::v1;

/// Routes the mirror's paths to it, and all else to gRPC. Refuses pages of other origins.
#[derive(Clone)]
pub(super) struct MirrorLayer {
    routes: Router,
    origins: Arc<[HeaderValue]>,
}

impl MirrorLayer {
    pub(super) fn new(shared: &Arc<ApiServices>) -> Self {
        let routes = Router::new()
            .route("/v1/publish", post(publish))
            .route("/v1/rooms/{room}/members", get(members))
            .route("/v1/rooms/{room}/stats", get(stats))
            .route("/v1/ask", post(ask::ask))
            .route("/v1/revoke", post(access::revoke))
            .route("/v1/restore", post(access::restore))
            .route("/v1/revocations", get(access::revocations))
            .fallback(nothing)
            .method_not_allowed_fallback(no_method)
            .layer(from_fn_with_state(shared.clone(), guard))
            .layer(DefaultBodyLimit::max(shared.config.message_bytes_max))
            .with_state(shared.clone());
        Self {
            routes,
            origins: shared.config.web_origins.as_slice().into(),
        }
    }
}

impl<S> Layer<S> for MirrorLayer {
    type Service = Mirror<S>;

    fn layer(&self, grpc: S) -> Mirror<S> {
        Mirror {
            routes: self.routes.clone(),
            origins: self.origins.clone(),
            grpc,
        }
    }
}

/// The mirror beside gRPC.
#[derive(Clone)]
pub(super) struct Mirror<S> {
    routes: Router,
    origins: Arc<[HeaderValue]>,
    grpc: S,
}

type Answer<E> = BoxFuture<'static, Result<http::Response<Body>, E>>;

impl<S> Service<http::Request<Body>> for Mirror<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<Answer<S::Error>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.grpc.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // Only browsers send an origin. A foreign page must not even cause an effect whose reply it could not read.
        let origin = request.headers().get(ORIGIN);
        if origin.is_some_and(|origin| !self.origins.contains(origin)) {
            let mut forbidden = http::Response::new(Body::empty());
            *forbidden.status_mut() = StatusCode::FORBIDDEN;
            return Either::Left(Box::pin(std::future::ready(Ok(forbidden))));
        }
        if !request.uri().path().starts_with("/v1/") {
            return Either::Right(self.grpc.call(request));
        }
        let answer = self.routes.clone().oneshot(request.map(AxumBody::new));
        Either::Left(Box::pin(async move {
            let Ok(response) = answer.await;
            Ok(response.map(Body::new))
        }))
    }
}

/// Checks the credential and the deadline of every call.
async fn guard(State(shared): State<Arc<ApiServices>>, mut request: Request, next: Next) -> Response {
    match shared.admit(request.headers(), request.extensions()).await {
        Ok(caller) => request.extensions_mut().insert(caller),
        Err(refusal) => return refusal.into_response(),
    };
    if !is_encoded(request.uri()) {
        return undecodable("`%` without two hexadecimal digits in the address").into_response();
    }
    let allowed = shared.config.deadline_default.unwrap_or(shared.config.deadline_max);
    if request.uri().path() == "/v1/ask" {
        request.extensions_mut().insert(CallDeadline(Instant::now() + allowed));
    }
    let call = async {
        let allowance = if is_large(request.uri().path()) {
            Some(shared.allowance(request.extensions(), allowed).await?)
        } else {
            None
        };
        let mut response = next.run(request).await;
        if let Some(allowance) = allowance {
            response.extensions_mut().insert(allowance);
        }
        Ok(response)
    };
    match tokio::time::timeout(allowed, call).await {
        Ok(answer) => answer.unwrap_or_else(Refusal::into_response),
        Err(_) => Refusal::DeadlineExceeded.into_response(),
    }
}

/// Reports whether a path's reply may be large.
fn is_large(path: &str) -> bool {
    path.ends_with("/members") || path == "/v1/revocations"
}

/// Reports whether each `%` of an address begins an encoded byte (RFC 3986 section 2.1). Any other would be taken
/// literally, here and perhaps not by a proxy in front.
fn is_encoded(uri: &http::Uri) -> bool {
    let address = uri.path_and_query().map_or("", |address| address.as_str()).as_bytes();
    let mut escapes = address.split(|byte| *byte == b'%').skip(1);
    escapes.all(|rest| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

async fn publish(
    State(shared): State<Arc<ApiServices>>,
    Extension(caller): Extension<Arc<Caller>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<wire::Published>, Refusal> {
    let request = self::body(body, publish::read)?;
    let response = shared.publish(&caller, request).await?;
    Ok(Json(response.into()))
}

async fn members(
    State(shared): State<Arc<ApiServices>>,
    Extension(caller): Extension<Arc<Caller>>,
    room: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Json<wire::Roster>, Refusal> {
    let page = Query::read(query.as_deref(), |query| v1::ListMembersRequest {
        tenant: query.text("tenant"),
        room: String::new(),
        page_size: query.integer("pageSize"),
        page_token: query.text("pageToken"),
        counts_only: query.flag("countsOnly"),
    })?;
    let request = v1::ListMembersRequest {
        room: self::room(room)?,
        ..page
    };
    let response = shared.list_members(&caller, request).await?;
    Ok(Json(response.into()))
}

async fn stats(
    State(shared): State<Arc<ApiServices>>,
    Extension(caller): Extension<Arc<Caller>>,
    room: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Json<wire::Stats>, Refusal> {
    let tenant = Query::read(query.as_deref(), |query| query.text("tenant"))?;
    let room = self::room(room)?;
    let request = v1::GetRoomStatsRequest { tenant, room };
    let response = shared.get_room_stats(&caller, request).await?;
    Ok(Json(response.into()))
}

/// Reads the JSON object of a body by `take`, which takes every known field.
fn body<T>(
    body: Result<Bytes, BytesRejection>,
    take: impl FnOnce(&mut Fields<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::MessageTooLarge,
        _ => undecodable("the body did not arrive"),
    })?;
    let text = std::str::from_utf8(&body).map_err(|_| undecodable("the body is not UTF-8"))?;
    object::read(text, take)
}

fn room(path: Result<Path<String>, PathRejection>) -> Result<String, Refusal> {
    // No other error is possible: the route has one variable part, and it is a text.
    let Path(room) = path.map_err(|_| Refusal::invalid(Invalid::Room, "room", "is not UTF-8"))?;
    Ok(room)
}

fn undecodable(why: &str) -> Refusal {
    Refusal::invalid(Invalid::Undecodable, "", why)
}

async fn nothing() -> http::Response<Body> {
    refused(StatusCode::NOT_FOUND, Refusal::Unimplemented("path"))
}

/// Refuses the method. The router adds the `allow` header.
async fn no_method() -> http::Response<Body> {
    refused(StatusCode::METHOD_NOT_ALLOWED, Refusal::Unimplemented("http method"))
}

/// Builds a refusal with an HTTP status of its own, where HTTP has a more precise one.
pub(super) fn refused(status: StatusCode, refusal: Refusal) -> http::Response<Body> {
    let mut response = refusal.into_response().map(Body::new);
    *response.status_mut() = status;
    response
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (http_status(self.code()), Json(wire::Error::from(&self))).into_response();
        if let Some(wait) = self.retry_after() {
            let seconds = wait.as_millis().div_ceil(1000);
            let seconds = HeaderValue::from_str(&seconds.to_string()).expect("digits make a header value");
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// Maps a gRPC code to an HTTP status, by google/rpc/code.proto.
const fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
