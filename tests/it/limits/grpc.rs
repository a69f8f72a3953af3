//! What a caller of gRPC may not do.

use std::time::Duration;

use roomcast::admission::Tenants;
use roomcast::api::{Credentials, Grant, Scope, TokenDigest};
use roomcast::gateway::{Config, Gateway, Listeners};
use roomcast::proto::v1;
use roomcast::rate::Rate;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    Caller, Encoding, Node, TENANT, draft, payload, reason, retry_after, revocation_of, to_room, user, usual,
};

fn to_r(event: &str) -> v1::PublishRequest {
    v1::PublishRequest {
        tenant: TENANT.to_owned(),
        targets: vec![to_room("r")],
        ..draft(event, json!({}))
    }
}

fn told(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

async fn refusal(caller: &Caller, request: v1::PublishRequest) -> (Code, String) {
    told(&caller.send(request).await.unwrap_err())
}

#[tokio::test]
async fn a_backend_that_publishes_too_fast_is_told_when_to_come_back() {
    let slow = |config: &mut Config| {
        config.api.publish_rate = Rate {
            per_second: 2,
            burst: 3,
        };
    };
    let node = Node::with(Encoding::Json, slow).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let mut accepted = 0;
    let refused = loop {
        match backend.send(to_r("accepted")).await {
            Ok(_) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert!(accepted >= 3);
    assert_eq!(told(&refused), (Code::ResourceExhausted, "RATE_LIMITED".to_owned()));
    let wait = retry_after(&refused).expect("when to come back");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    tokio::time::sleep(wait).await;
    backend.send(to_r("end")).await.unwrap();
    for _ in 0..accepted {
        ada.expect_event("r", "accepted").await;
    }
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

#[tokio::test]
async fn only_a_service_with_the_right_scope_and_tenant_gets_in() {
    let node = Node::with(Encoding::Json, |config| {
        let one = |token: &str, scopes: &[Scope], tenants: &[&str]| {
            let grant = Grant {
                name: token.to_owned(),
                scopes: scopes.to_vec(),
                tenants: Some(tenants.iter().map(ToString::to_string).collect()),
                publish_rate: None,
            };
            (TokenDigest::of(token), grant)
        };
        config.credentials = Credentials::none().with_tokens([
            one("publisher", &[Scope::Publish], &[TENANT]),
            one("reader", &[Scope::Read], &[TENANT]),
            one("elsewhere", &Scope::ALL, &["other"]),
            one(crate::support::ROOT, &Scope::ALL, &[TENANT, "other"]),
        ]);
    })
    .await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let unauthenticated = (Code::Unauthenticated, "UNAUTHENTICATED".to_owned());
    let clients_token = user("ada").token();
    for token in ["", "guess", clients_token.as_str()] {
        assert_eq!(
            refusal(&node.caller(token), to_r("no")).await,
            unauthenticated,
            "{token}"
        );
    }
    let no_scope = (Code::PermissionDenied, "SCOPE_MISSING".to_owned());
    let no_tenant = (Code::PermissionDenied, "TENANT_FORBIDDEN".to_owned());
    assert_eq!(refusal(&node.caller("reader"), to_r("no")).await, no_scope);
    assert_eq!(refusal(&node.caller("elsewhere"), to_r("no")).await, no_tenant);
    let stats = v1::GetRoomStatsRequest {
        tenant: TENANT.to_owned(),
        room: "r".to_owned(),
    };
    let mut publisher = node.caller("publisher");
    assert_eq!(
        told(&publisher.rooms.get_room_stats(stats.clone()).await.unwrap_err()),
        no_scope
    );
    let watch = v1::WatchRequest::default();
    assert_eq!(told(&publisher.watching.watch(watch).await.unwrap_err()), no_scope);
    let revoke = revocation_of("ada", v1::revoke_request::Scope::Everything(v1::EverythingScope {}));
    assert_eq!(
        told(&node.caller("reader").access.revoke(revoke).await.unwrap_err()),
        no_scope
    );
    // One tenant's right finds nobody of another, by whatever name.
    let disconnect = v1::DisconnectRequest {
        tenant: "other".to_owned(),
        session: Some(v1::disconnect_request::Session::ConnectionId(ada.id.clone())),
        ..Default::default()
    };
    let found = node
        .caller("elsewhere")
        .connections
        .disconnect(disconnect)
        .await
        .unwrap_err();
    assert_eq!(told(&found), (Code::NotFound, "CONNECTION_NOT_FOUND".to_owned()));
    node.caller("reader").rooms.get_room_stats(stats).await.unwrap();
    node.caller("publisher").send(to_r("end")).await.unwrap();
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

#[tokio::test]
async fn the_grpc_listener_does_not_start_without_authentication() {
    let listeners = || async {
        Listeners {
            client: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            grpc: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            admin: None,
        }
    };
    let everywhere = Listeners {
        grpc: TcpListener::bind("0.0.0.0:0").await.unwrap(),
        ..listeners().await
    };
    let nothing = Config {
        credentials: Credentials::none(),
        ..usual()
    };
    let everybody = |dev: bool| Config {
        credentials: Credentials::everybody(),
        dev: dev.then(Tenants::default),
        ..usual()
    };
    assert!(Gateway::start(nothing, listeners().await).await.is_err());
    assert!(Gateway::start(everybody(false), listeners().await).await.is_err());
    assert!(Gateway::start(everybody(true), everywhere).await.is_err());
    let gateway = Gateway::start(everybody(true), listeners().await).await.unwrap();
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_flood_of_continuation_frames_is_cut_off() {
    let node = Node::start(Encoding::Json).await;
    let mut flooding = node.raw_grpc().await;
    flooding
        .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        .await;
    // HEADERS of stream 1 that never end: a literal header, then as much of its kind as is taken.
    flooding.send(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await;
    let header = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x1e][..], &[b'y'; 4096]].concat();
    let length = u32::try_from(header.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], 9, 0, 0, 0, 0, 1];
    let frame = [&head[..], &header].concat();
    for _ in 0..4096 {
        flooding.send(&frame).await;
    }
    flooding.until_closed().await;
    // Others are served.
    node.backend().publish("r", "fine", json!({})).await;
    node.finish().await;
}

#[tokio::test]
async fn what_is_too_large_or_has_no_deadline_is_refused() {
    let node = Node::start(Encoding::Json).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let large = |bytes: usize| v1::PublishRequest {
        payload: Some(payload(&json!("x".repeat(bytes)))),
        ..to_r("large")
    };
    assert_eq!(
        refusal(&backend, large(64 * 1024 - 1)).await,
        (Code::InvalidArgument, "PAYLOAD_TOO_LARGE".to_owned())
    );
    let huge = backend.send(large(1 << 20)).await.unwrap_err();
    assert!(
        matches!(huge.code(), Code::ResourceExhausted | Code::OutOfRange),
        "{huge}"
    );
    let batch = |count| v1::PublishBatchRequest {
        requests: vec![to_r("batch"); count],
    };
    let too_many = backend.publishing.clone().publish_batch(batch(101)).await.unwrap_err();
    assert_eq!(told(&too_many), (Code::InvalidArgument, "BATCH_TOO_LARGE".to_owned()));
    let details = too_many.get_details_bad_request().expect("the field is named");
    assert_eq!(details.field_violations[0].field, "requests");
    let mut hasty = Request::new(to_r("no deadline"));
    let authorization = format!("Bearer {}", crate::support::ROOT);
    hasty
        .metadata_mut()
        .insert("authorization", authorization.parse().unwrap());
    let bare = tonic::transport::Endpoint::from_shared(format!("http://{}", node.grpc_address())).unwrap();
    let mut bare = v1::publish_service_client::PublishServiceClient::new(bare.connect_lazy());
    let refused = bare.publish(hasty).await.unwrap_err();
    assert_eq!(told(&refused), (Code::InvalidArgument, "DEADLINE_REQUIRED".to_owned()));
    backend.send(large(64 * 1024 - 2)).await.unwrap();
    backend.publishing.clone().publish_batch(batch(100)).await.unwrap();
    ada.expect_event("r", "large").await;
    for _ in 0..100 {
        ada.expect_event("r", "batch").await;
    }
    node.finish().await;
}

#[tokio::test]
async fn an_idempotency_key_is_bounded() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let keyed = |key: &str| v1::PublishRequest {
        idempotency_key: key.to_owned(),
        ..to_r("keyed")
    };
    let (long, exact) = ("k".repeat(65), "k".repeat(64));
    for key in [long.as_str(), "a\nb", "\0"] {
        assert_eq!(
            refusal(&backend, keyed(key)).await,
            (Code::InvalidArgument, "INVALID_IDEMPOTENCY_KEY".to_owned()),
            "{key:?}"
        );
    }
    backend.send(keyed(&exact)).await.unwrap();
    assert!(backend.send(keyed(&exact)).await.unwrap().results[0].duplicate);
    let mut ada = node.connect(user("ada")).await;
    let publish = roomcast::proto::client_v1::Publish {
        idempotency_key: long,
        ..crate::support::ToRoom::to("r", "keyed", json!({}))
    };
    assert_eq!(ada.try_publish(publish).await.unwrap_err().reason, "invalid_argument");
    node.finish().await;
}
