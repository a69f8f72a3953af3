//! Every "at most" of the contract, in the contract's unit: what is just within it is accepted, one more is refused or, where
//! the contract says so, handled as the most. The texts are made of characters of two bytes, so that a bound in the other
//! unit is seen.

mod lists;
mod pages;

use tonic::Code;

use super::http::call;
use super::support::mirror::{publish_body, revoke_body};
use super::support::{Api, Caller, ROOT, Setup, event, json as payload, refusal, to_room, token};
use crate::api::{self, Credentials};
use crate::proto::v1;
use crate::proto::v1::revoke_request::{Scope, Subject};
use crate::proto::v1::target::Target;

/// `len` bytes of text.
fn bytes(len: usize) -> String {
    "é".repeat(len / 2) + &"x".repeat(len % 2)
}

/// `len` characters of text, each of two bytes.
fn chars(len: usize) -> String {
    "é".repeat(len)
}

fn user(id: String) -> v1::Target {
    v1::Target {
        target: Some(Target::UserId(id)),
    }
}

fn head(epoch: String, offset: u64) -> v1::Position {
    v1::Position { epoch, offset }
}

/// The expected refusal of a publish; empty if it is accepted.
type Told = Option<(&'static str, &'static str)>;

/// A bound: its size, what it makes of a request that has `n` of it, and what is told within it and above it.
struct Bound<R> {
    max: usize,
    make: fn(&mut R, usize),
    within: Told,
    above: (&'static str, &'static str),
}

const fn bound<R>(max: usize, make: fn(&mut R, usize), above: (&'static str, &'static str)) -> Bound<R> {
    Bound {
        max,
        make,
        within: None,
        above,
    }
}

fn of_publish() -> Vec<Bound<v1::PublishRequest>> {
    vec![
        bound(64, |event, n| event.tenant = bytes(n), ("INVALID_TENANT", "tenant")),
        bound(
            255,
            |event, n| event.targets = vec![to_room(&bytes(n))],
            ("INVALID_ROOM", "targets[0].room"),
        ),
        bound(
            128,
            |event, n| event.targets = vec![user(bytes(n))],
            ("INVALID_FIELD", "targets[0].user_id"),
        ),
        bound(
            100,
            |event, n| event.targets = (0..n).map(|n| to_room(&n.to_string())).collect(),
            ("INVALID_TARGET", "targets"),
        ),
        bound(
            128,
            |event, n| event.event_name = bytes(n),
            ("INVALID_EVENT_NAME", "event_name"),
        ),
        bound(
            64 << 10,
            |event, n| event.payload = payload(&format!("\"{}\"", bytes(n - 2))),
            ("PAYLOAD_TOO_LARGE", "payload"),
        ),
        bound(
            32,
            |event, n| event.payload = payload(&format!("{}{}", "[".repeat(n), "]".repeat(n))),
            ("INVALID_PAYLOAD", "payload.json"),
        ),
        bound(
            64,
            |event, n| event.idempotency_key = chars(n),
            ("INVALID_IDEMPOTENCY_KEY", "idempotency_key"),
        ),
        Bound {
            max: 64,
            make: |event, n| event.expected_head = Some(head(chars(n), 0)),
            // No bus has written it.
            within: Some(("VERSION_CONFLICT", "")),
            above: ("INVALID_FIELD", "expected_head.epoch"),
        },
        Bound {
            max: (1 << 53) - 1,
            make: |event, n| event.expected_head = Some(head(String::new(), n as u64)),
            within: Some(("VERSION_CONFLICT", "")),
            above: ("INVALID_FIELD", "expected_head.offset"),
        },
        bound(
            100,
            |event, n| event.exclude_connection_ids = (1..=n).map(|n| format!("{n:016x}{n:016x}")).collect(),
            ("INVALID_FIELD", "exclude_connection_ids"),
        ),
        bound(
            100,
            |event, n| event.exclude_user_ids = (0..n).map(|n| n.to_string()).collect(),
            ("INVALID_FIELD", "exclude_user_ids"),
        ),
        bound(
            128,
            |event, n| event.exclude_user_ids = vec![bytes(n)],
            ("INVALID_FIELD", "exclude_user_ids[0]"),
        ),
        bound(
            128,
            |event, n| event.actor_user_id = bytes(n),
            ("INVALID_FIELD", "actor_user_id"),
        ),
        Bound {
            max: 32,
            make: |event, n| event.required_features = vec![chars(65); n],
            within: Some(("UNSUPPORTED_FEATURE", "")),
            above: ("INVALID_FIELD", "required_features"),
        },
    ]
}

fn of_revoke() -> Vec<Bound<v1::RevokeRequest>> {
    vec![
        bound(64, |revoke, n| revoke.tenant = bytes(n), ("INVALID_TENANT", "tenant")),
        bound(
            128,
            |revoke, n| revoke.subject = Some(Subject::UserId(bytes(n))),
            ("INVALID_FIELD", "user_id"),
        ),
        bound(
            256,
            |revoke, n| revoke.subject = Some(Subject::TokenId(bytes(n))),
            ("INVALID_FIELD", "token_id"),
        ),
        bound(
            255,
            |revoke, n| revoke.scope = Some(Scope::Room(bytes(n))),
            ("INVALID_ROOM", "room"),
        ),
        bound(
            4,
            |revoke, n| revoke.scope = Some(Scope::RoomPattern("é*".repeat(n))),
            ("INVALID_ROOM", "room_pattern"),
        ),
        bound(
            30 * 24 * 3600,
            |revoke, n| {
                revoke.ttl = Some(prost_types::Duration {
                    seconds: i64::try_from(n).unwrap(),
                    nanos: 0,
                });
            },
            ("INVALID_FIELD", "ttl"),
        ),
        bound(
            64,
            |revoke, n| revoke.reason = "a".repeat(n),
            ("INVALID_FIELD", "reason"),
        ),
        bound(100, |revoke, n| revoke.message = bytes(n), ("INVALID_FIELD", "message")),
        Bound {
            max: 32,
            make: |revoke, n| revoke.required_features = vec![chars(65); n],
            within: Some(("UNSUPPORTED_FEATURE", "")),
            above: ("INVALID_FIELD", "required_features"),
        },
    ]
}

fn revoke() -> v1::RevokeRequest {
    v1::RevokeRequest {
        tenant: "a".to_owned(),
        subject: Some(Subject::UserId("ada".to_owned())),
        scope: Some(Scope::Everything(v1::EverythingScope {})),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..v1::RevokeRequest::default()
    }
}

/// Reason and field of a gRPC refusal.
fn told<T>(answered: Result<T, tonic::Status>) -> Option<(String, String)> {
    let (_, reason, field) = refusal(&answered.err()?);
    Some((reason, field))
}

/// The same of the mirror.
async fn told_over_http(api: &Api, path: &str, body: &str) -> Option<(String, String)> {
    let (status, _, answer) = call(api, "POST", path, ROOT, body).await;
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    (status != 200).then(|| (text("reason"), text("field")))
}

fn owned(told: Told) -> Option<(String, String)> {
    told.map(|(reason, field)| (reason.to_owned(), field.to_owned()))
}

#[tokio::test]
async fn a_publish_is_bounded_in_the_units_of_the_contract() {
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    for (index, bound) in of_publish().into_iter().enumerate() {
        for (n, expected) in [(bound.max, bound.within), (bound.max + 1, Some(bound.above))] {
            let mut request = event();
            (bound.make)(&mut request, n);
            let body = publish_body(&request);
            let expected = owned(expected);
            assert_eq!(told(publisher.publish(request).await), expected, "{index}: {n}");
            let over_http = told_over_http(&api, "/v1/publish", &body).await;
            assert_eq!(over_http, expected, "{index}: {n} over HTTP");
        }
    }
}

#[tokio::test]
async fn a_revocation_is_bounded_in_the_units_of_the_contract() {
    let api = Api::start().await;
    let mut access = api.access().await;
    for (index, bound) in of_revoke().into_iter().enumerate() {
        for (n, expected) in [(bound.max, bound.within), (bound.max + 1, Some(bound.above))] {
            let mut request = revoke();
            (bound.make)(&mut request, n);
            let body = revoke_body(&request);
            let expected = owned(expected);
            assert_eq!(told(access.revoke(request).await), expected, "{index}: {n}");
            let over_http = told_over_http(&api, "/v1/revoke", &body).await;
            assert_eq!(over_http, expected, "{index}: {n} over HTTP");
        }
    }
}

#[tokio::test]
async fn what_only_grpc_has_is_bounded_in_the_units_of_the_contract() {
    let api = Api::start().await;
    let (mut connections, mut rooms) = (api.connections_of(Caller::with(ROOT)).await, api.steward().await);
    let field = |field: &str| Some(("INVALID_FIELD".to_owned(), field.to_owned()));
    for (reason, message, expected) in [
        ("a".repeat(64), bytes(100), None),
        ("a".repeat(65), String::new(), field("reason")),
        (String::new(), bytes(101), field("message")),
    ] {
        let member = api.enter("r", "ada");
        let leave = v1::LeaveRoomRequest {
            tenant: "a".to_owned(),
            room: "r".to_owned(),
            member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
            reason: reason.clone(),
            message: message.clone(),
            ..Default::default()
        };
        assert_eq!(told(rooms.leave_room(leave).await), expected);
        let disconnect = v1::DisconnectRequest {
            tenant: "a".to_owned(),
            session: Some(v1::disconnect_request::Session::ConnectionId(
                member.connection.to_string(),
            )),
            reason,
            message,
            ..Default::default()
        };
        assert_eq!(told(connections.disconnect(disconnect).await), expected);
    }
    let history = |chars| v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        after: Some(head(self::chars(chars), 0)),
        ..Default::default()
    };
    let not_kept = told(rooms.list_history(history(64)).await);
    assert_ne!(not_kept, field("after.epoch"), "64 characters are looked at");
    assert_eq!(told(rooms.list_history(history(65)).await), field("after.epoch"));
    let mut publisher = api.publisher().await;
    for (count, expected) in [(100, None), (101, Some(Code::InvalidArgument))] {
        let batch = v1::PublishBatchRequest {
            requests: vec![event(); count],
        };
        let answered = publisher.publish_batch(batch).await.map(drop);
        assert_eq!(answered.err().map(|status| status.code()), expected, "{count}");
    }
    let explain = |bytes: usize| v1::ExplainRequest {
        tenant: "a".to_owned(),
        action: v1::Action::Join.into(),
        room: "project:7".to_owned(),
        subject: Some(v1::explain_request::Subject::ClaimsJson(format!(
            "{{\"sub\":\"ada\",\"x\":\"{}\"}}",
            self::bytes(bytes - 20)
        ))),
        ..Default::default()
    };
    let mut access = api.access().await;
    let claims = explain(8 << 10);
    let Some(v1::explain_request::Subject::ClaimsJson(text)) = &claims.subject else {
        panic!("no claims");
    };
    assert_eq!(text.len(), 8 << 10);
    assert_eq!(told(access.explain(claims).await), None);
    let refused = told(access.explain(explain((8 << 10) + 1)).await);
    assert_eq!(refused.map(|(reason, _)| reason).as_deref(), Some("INVALID_FIELD"));
}

#[tokio::test]
async fn a_backend_token_is_bounded_in_bytes() {
    const MAX: usize = 8 << 10;
    let accepted: &'static str = "x".repeat(MAX).leak();
    let refused: &'static str = "x".repeat(MAX + 1).leak();
    let mut setup = Setup::default();
    let grants = [accepted, refused].map(|text| token(text, &api::Scope::ALL, None));
    setup.credentials = Credentials::none().with_tokens(grants);
    let api = Api::with(setup).await;
    for (text, code, status) in [(accepted, None, 200), (refused, Some(Code::Unauthenticated), 401)] {
        let mut publisher = api.publisher_of(Caller::with(text)).await;
        let answered = publisher.publish(event()).await;
        assert_eq!(answered.err().map(|status| status.code()), code, "{}", text.len());
        let over_http = call(&api, "POST", "/v1/publish", text, &publish_body(&event())).await.0;
        assert_eq!(over_http, status, "{} over HTTP", text.len());
    }
}
