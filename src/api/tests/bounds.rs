//! Every "at most" of the contract, in the contract's unit: what is just within it is accepted, one more is refused or, where
//! the contract says so, handled as the most. The texts are made of characters of two bytes, so that a bound in the other
//! unit is seen.

use tonic::Code;

use super::http::call;
use super::support::mirror::{publish_body, revoke_body};
use super::support::{Api, Caller, ROOT, Setup, event, json as payload, refusal, to_room, token};
use super::watch::watcher;
use crate::api::{self, Config, Credentials};
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::bus::memory;
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

/// Asserts what is said of `n` required features: unknown within the bound, out of bounds above it.
async fn expect_bounded<T>(what: &str, mut call: impl AsyncFnMut(Vec<String>) -> Result<T, tonic::Status>) {
    for (n, expected) in [
        (32, ("UNSUPPORTED_FEATURE", "")),
        (33, ("INVALID_FIELD", "required_features")),
    ] {
        let answered = call(vec![chars(65); n]).await;
        assert_eq!(told(answered), owned(Some(expected)), "{n} of {what}");
    }
}

#[tokio::test]
async fn required_features_are_bounded_in_every_order() {
    let api = Api::start().await;
    let (connections, rooms, access) = (
        api.connections_of(Caller::with(ROOT)).await,
        api.steward().await,
        api.access().await,
    );
    let (tenant, room) = (|| "a".to_owned(), || "r".to_owned());
    expect_bounded("JoinRoom", async |required_features| {
        let member = Some(v1::join_room_request::Member::UserId("ada".to_owned()));
        let request = v1::JoinRoomRequest {
            tenant: tenant(),
            room: room(),
            member,
            required_features,
        };
        rooms.clone().join_room(request).await
    })
    .await;
    expect_bounded("LeaveRoom", async |required_features| {
        let request = v1::LeaveRoomRequest {
            tenant: tenant(),
            room: room(),
            member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
            required_features,
            ..Default::default()
        };
        rooms.clone().leave_room(request).await
    })
    .await;
    expect_bounded("Disconnect", async |required_features| {
        let request = v1::DisconnectRequest {
            tenant: tenant(),
            session: Some(v1::disconnect_request::Session::UserId("ada".to_owned())),
            required_features,
            ..Default::default()
        };
        connections.clone().disconnect(request).await
    })
    .await;
    expect_bounded("Restore", async |required_features| {
        let request = v1::RestoreRequest {
            tenant: tenant(),
            revocation_id: "f".repeat(32),
            required_features,
        };
        access.clone().restore(request).await
    })
    .await;
}

#[tokio::test]
async fn names_in_lists_are_bounded_in_bytes() {
    let api = Api::start().await;
    let (rooms, users, access) = (
        api.steward().await,
        api.users_of(Caller::with(ROOT)).await,
        api.access().await,
    );
    for (max, reason, field) in [
        (255, "INVALID_ROOM", "room"),
        (128, "INVALID_FIELD", "user_id"),
        (64, "INVALID_TENANT", "tenant"),
    ] {
        for (n, expected) in [(max, None), (max + 1, owned(Some((reason, field))))] {
            let named = |name: &str, usual: &str| if name == field { bytes(n) } else { usual.to_owned() };
            let (tenant, room, user_id) = (named("tenant", "a"), named("room", "r"), named("user_id", "ada"));
            if field != "user_id" {
                let members = v1::ListMembersRequest {
                    tenant: tenant.clone(),
                    room: room.clone(),
                    ..Default::default()
                };
                assert_eq!(
                    told(rooms.clone().list_members(members).await),
                    expected,
                    "members: {n} of {field}"
                );
                let stats = v1::GetRoomStatsRequest {
                    tenant: tenant.clone(),
                    room: room.clone(),
                };
                assert_eq!(
                    told(rooms.clone().get_room_stats(stats).await),
                    expected,
                    "stats: {n} of {field}"
                );
                let history = v1::ListHistoryRequest {
                    tenant: tenant.clone(),
                    room,
                    ..Default::default()
                };
                assert_eq!(
                    told(rooms.clone().list_history(history).await),
                    expected,
                    "history: {n} of {field}"
                );
            }
            if field != "room" {
                let listed = v1::ListUserRoomsRequest {
                    tenant: tenant.clone(),
                    user_id: user_id.clone(),
                    ..Default::default()
                };
                assert_eq!(
                    told(users.clone().list_user_rooms(listed).await),
                    expected,
                    "rooms: {n} of {field}"
                );
                let revocations = v1::ListRevocationsRequest {
                    tenant,
                    user_id,
                    ..Default::default()
                };
                let listed = access.clone().list_revocations(revocations).await;
                assert_eq!(told(listed), expected, "revocations: {n} of {field}");
            }
        }
    }
}

#[tokio::test]
async fn a_watch_is_bounded_in_the_units_of_the_contract() {
    let api = Api::start().await;
    let mut client = watcher(&api, ROOT).await;
    let bounds = [
        bound(
            100,
            |watch: &mut v1::WatchRequest, n| watch.tenants = (0..n).map(|n| n.to_string()).collect(),
            ("INVALID_FIELD", "tenants"),
        ),
        bound(
            4,
            |watch, n| watch.room_pattern = "é*".repeat(n),
            ("INVALID_ROOM", "room_pattern"),
        ),
        Bound {
            max: 32,
            make: |watch, n| watch.required_features = vec![chars(65); n],
            within: Some(("UNSUPPORTED_FEATURE", "")),
            above: ("INVALID_FIELD", "required_features"),
        },
    ];
    for (index, bound) in bounds.into_iter().enumerate() {
        for (n, expected) in [(bound.max, bound.within), (bound.max + 1, Some(bound.above))] {
            let mut request = v1::WatchRequest::default();
            (bound.make)(&mut request, n);
            assert_eq!(told(client.watch(request).await), owned(expected), "{index}: {n}");
        }
    }
}

/// An API whose rooms hold more than any page.
async fn larger_than_a_page() -> Api {
    let limits = HistoryLimits {
        events_max: 1_000,
        ..HistoryLimits::default()
    };
    let mut setup = Setup {
        config: Config {
            members_listed_max: 2_000,
            ..Config::default()
        },
        bus: memory::Config {
            history: HistoryRules::new([], limits),
            ..memory::Config::default()
        },
        ..Setup::default()
    };
    setup.presence.listed_max = 2_000;
    Api::with(setup).await
}

/// Page sizes that are asked for, and the sizes of the pages, where the most is `max`.
fn page_sizes(max: i32) -> [(i32, usize); 5] {
    [
        (0, 100),
        (max - 1, max - 1),
        (max, max),
        (max + 1, max),
        (i32::MAX, max),
    ]
    .map(|(asked, size)| (asked, usize::try_from(size).unwrap()))
}

/// The number of elements of `name` on the mirror's first page, and whether another follows.
async fn page_over_http(api: &Api, path: &str, asked: i32, name: &str) -> (usize, bool) {
    let path = format!("{path}?tenant=a&pageSize={asked}");
    let (status, _, answer) = call(api, "GET", &path, ROOT, "").await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["nextPageToken"].as_str().unwrap_or_default();
    (answer[name].as_array().unwrap().len(), !token.is_empty())
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

#[tokio::test]
async fn a_page_of_history_is_capped_not_refused() {
    let api = larger_than_a_page().await;
    let mut publisher = api.publisher().await;
    for count in [100, 100, 100, 1] {
        let requests = vec![event(); count];
        publisher
            .publish_batch(v1::PublishBatchRequest { requests })
            .await
            .unwrap();
    }
    let mut rooms = api.steward().await;
    for (asked, size) in page_sizes(300) {
        for order in [v1::HistoryOrder::OldestFirst, v1::HistoryOrder::NewestFirst] {
            let request = v1::ListHistoryRequest {
                tenant: "a".to_owned(),
                room: "r".to_owned(),
                page_size: asked,
                order: order.into(),
                ..Default::default()
            };
            let page = rooms.list_history(request).await.unwrap().into_inner();
            let found = (page.events.len(), !page.next_page_token.is_empty());
            assert_eq!(found, (size, true), "{asked} {order:?}");
        }
    }
}

#[tokio::test]
async fn a_page_of_members_is_capped_not_refused() {
    let api = larger_than_a_page().await;
    for n in 0..=1_000 {
        api.enter("r", &format!("user-{n}"));
    }
    let mut rooms = api.steward().await;
    for (asked, size) in page_sizes(1_000) {
        let request = v1::ListMembersRequest {
            tenant: "a".to_owned(),
            room: "r".to_owned(),
            page_size: asked,
            ..Default::default()
        };
        let page = rooms.list_members(request).await.unwrap().into_inner();
        let found = (page.members.len(), !page.next_page_token.is_empty());
        assert_eq!(found, (size, true), "{asked}");
        let over_http = page_over_http(&api, "/v1/rooms/r/members", asked, "members").await;
        assert_eq!(over_http, found, "{asked} over HTTP");
    }
}

#[tokio::test]
async fn a_page_of_user_rooms_is_capped_not_refused() {
    let api = larger_than_a_page().await;
    for n in 0..=1_000 {
        api.enter(&format!("room-{n}"), "ada");
    }
    let mut users = api.users_of(Caller::with(ROOT)).await;
    for (asked, size) in page_sizes(1_000) {
        let request = v1::ListUserRoomsRequest {
            tenant: "a".to_owned(),
            user_id: "ada".to_owned(),
            page_size: asked,
            ..Default::default()
        };
        let page = users.list_user_rooms(request).await.unwrap().into_inner();
        let found = (page.rooms.len(), !page.next_page_token.is_empty());
        assert_eq!(found, (size, true), "{asked}");
    }
}

#[tokio::test]
async fn a_page_of_revocations_is_capped_not_refused() {
    let api = larger_than_a_page().await;
    let mut access = api.access().await;
    for n in 0..=1_000 {
        let revoke = v1::RevokeRequest {
            subject: Some(Subject::UserId(n.to_string())),
            ..revoke()
        };
        access.revoke(revoke).await.unwrap();
    }
    for (asked, size) in page_sizes(1_000) {
        let request = v1::ListRevocationsRequest {
            tenant: "a".to_owned(),
            page_size: asked,
            ..Default::default()
        };
        let page = access.list_revocations(request).await.unwrap().into_inner();
        let found = (page.revocations.len(), !page.next_page_token.is_empty());
        assert_eq!(found, (size, true), "{asked}");
        let over_http = page_over_http(&api, "/v1/revocations", asked, "revocations").await;
        assert_eq!(over_http, found, "{asked} over HTTP");
    }
}
