//! Features a caller requires: one that is not known refuses the call at every door, by its name, and nothing is done.

use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::http::call;
use super::stream::item;
use super::subscribe::subscriber;
use super::support::{Api, Caller, ROOT, event};
use super::watch::watcher;
use crate::proto::v1;
use crate::proto::v1::publish_batch_result::Outcome as BatchOutcome;
use crate::proto::v1::publish_stream_response::Outcome as StreamOutcome;

const FEATURE: &str = "targets.except_rooms";

fn features() -> Vec<String> {
    vec![FEATURE.to_owned()]
}

fn filtered() -> v1::PublishRequest {
    v1::PublishRequest {
        required_features: features(),
        ..event()
    }
}

#[track_caller]
fn expect_refused(status: &Status) {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(
        (status.code(), info.reason.as_str(), info.metadata["feature"].as_str()),
        (Code::Unimplemented, "UNSUPPORTED_FEATURE", FEATURE)
    );
}

#[tokio::test]
async fn an_unknown_feature_refuses_every_call_that_may_narrow() {
    let api = Api::start().await;
    let connection = api.shard.connect("a", "ada");
    expect_refused(&api.publisher().await.publish(filtered()).await.unwrap_err());
    let join = v1::JoinRoomRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        member: Some(v1::join_room_request::Member::UserId("ada".to_owned())),
        required_features: features(),
    };
    expect_refused(&api.steward().await.join_room(join).await.unwrap_err());
    let leave = v1::LeaveRoomRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
        required_features: features(),
        ..v1::LeaveRoomRequest::default()
    };
    expect_refused(&api.steward().await.leave_room(leave).await.unwrap_err());
    let disconnect = v1::DisconnectRequest {
        tenant: "a".to_owned(),
        session: Some(v1::disconnect_request::Session::ConnectionId(connection.to_string())),
        required_features: features(),
        ..v1::DisconnectRequest::default()
    };
    let mut connections = api.connections_of(Caller::with(ROOT)).await;
    expect_refused(&connections.disconnect(disconnect).await.unwrap_err());
    let revoke = v1::RevokeRequest {
        tenant: "a".to_owned(),
        subject: Some(v1::revoke_request::Subject::UserId("ada".to_owned())),
        scope: Some(v1::revoke_request::Scope::Everything(v1::EverythingScope {})),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        required_features: features(),
        ..v1::RevokeRequest::default()
    };
    expect_refused(&api.access().await.revoke(revoke).await.unwrap_err());
    let restore = v1::RestoreRequest {
        tenant: "a".to_owned(),
        revocation_id: "f".repeat(32),
        required_features: features(),
    };
    expect_refused(&api.access().await.restore(restore).await.unwrap_err());
    let watch = v1::WatchRequest {
        required_features: features(),
        ..v1::WatchRequest::default()
    };
    expect_refused(&watcher(&api, ROOT).await.watch(watch).await.unwrap_err());
    let subscribe = v1::SubscribeRequest {
        required_features: features(),
        ..v1::SubscribeRequest::default()
    };
    expect_refused(&subscriber(&api, ROOT).await.subscribe(subscribe).await.unwrap_err());
    assert!(api.shard.orders.lock().unwrap().is_empty(), "nothing is done");
    expect_no_event(&api).await;
}

#[tokio::test]
async fn an_unknown_feature_refuses_one_item_of_a_batch_and_of_a_stream() {
    let api = Api::start().await;
    let expected = (Code::Unimplemented, "UNSUPPORTED_FEATURE".to_owned(), String::new());
    let requests = vec![filtered(), event()];
    let mut publisher = api.publisher().await;
    let batch = publisher.publish_batch(v1::PublishBatchRequest { requests }).await;
    let outcomes: Vec<_> = batch.unwrap().into_inner().results;
    let [refused, accepted] = &*outcomes else {
        panic!("two results")
    };
    assert!(matches!(accepted.outcome, Some(BatchOutcome::Response(_))));
    let Some(BatchOutcome::Error(error)) = &refused.outcome else {
        panic!("{refused:?}")
    };
    assert_eq!(item(error), expected);

    let sent = tokio_stream::iter([filtered(), event()].map(|request| v1::PublishStreamRequest {
        sequence: 7,
        request: Some(request),
    }));
    let mut answers = publisher.publish_stream(sent).await.unwrap().into_inner();
    let Some(StreamOutcome::Error(error)) = answers.message().await.unwrap().unwrap().outcome else {
        panic!("a required feature was skipped")
    };
    assert_eq!(item(&error), expected);
    let next = answers.message().await.unwrap().unwrap().outcome;
    assert!(matches!(next, Some(StreamOutcome::Response(_))));
}

/// A filter may also be a new kind of target, which decodes as none.
#[tokio::test]
async fn an_unknown_kind_of_target_is_refused() {
    let api = Api::start().await;
    // Field 15, a text.
    let unknown = [0x7a, 1, b'r'];
    let target: v1::Target = prost::Message::decode(&unknown[..]).unwrap();
    let request = v1::PublishRequest {
        targets: vec![target, event().targets.remove(0)],
        ..event()
    };
    let status = api.publisher().await.publish(request).await.unwrap_err();
    let expected = (
        Code::InvalidArgument,
        "INVALID_TARGET".to_owned(),
        "targets[0]".to_owned(),
    );
    assert_eq!(super::support::refusal(&status), expected);
    expect_no_event(&api).await;
}

#[tokio::test]
async fn an_unknown_feature_refuses_a_call_over_http() {
    let api = Api::start().await;
    let body = json!({
        "tenant": "a",
        "targets": [{"room": "r"}],
        "eventName": "e",
        "payload": 1,
        "requiredFeatures": [FEATURE],
    });
    let (status, _, answer) = call(&api, "POST", "/v1/publish", ROOT, &body.to_string()).await;
    assert_eq!((status, &answer["reason"]), (501, &json!("UNSUPPORTED_FEATURE")));
    assert!(answer["message"].as_str().unwrap().contains(FEATURE), "{answer}");
    let body = json!({
        "tenant": "a",
        "userId": "ada",
        "everything": {},
        "ttl": "60s",
        "requiredFeatures": [FEATURE],
    });
    let (status, _, answer) = call(&api, "POST", "/v1/revoke", ROOT, &body.to_string()).await;
    assert_eq!((status, &answer["reason"]), (501, &json!("UNSUPPORTED_FEATURE")));
    let body = json!({"tenant": "a", "revocationId": "f".repeat(32), "requiredFeatures": [FEATURE]});
    let (status, _, answer) = call(&api, "POST", "/v1/restore", ROOT, &body.to_string()).await;
    assert_eq!((status, &answer["reason"]), (501, &json!("UNSUPPORTED_FEATURE")));
    assert!(api.shard.orders.lock().unwrap().is_empty(), "nothing is done");
    // A kind of target that is not known is none.
    let body = json!({"tenant": "a", "targets": [{"segment": "r"}], "eventName": "e", "payload": 1});
    let (status, _, answer) = call(&api, "POST", "/v1/publish", ROOT, &body.to_string()).await;
    assert_eq!(status, 400, "{answer}");
    expect_no_event(&api).await;
}

#[tokio::test]
async fn the_names_of_required_features_are_bounded() {
    let api = Api::start().await;
    let request = v1::PublishRequest {
        required_features: vec!["f".to_owned(); 33],
        ..event()
    };
    let status = api.publisher().await.publish(request).await.unwrap_err();
    assert_eq!(super::support::refusal(&status).2, "required_features");
    let request = v1::PublishRequest {
        required_features: vec!["f".repeat(10_000)],
        ..event()
    };
    let status = api.publisher().await.publish(request).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["feature"], "f".repeat(64), "not told back at length");
}

async fn expect_no_event(api: &Api) {
    let request = v1::GetRoomStatsRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
    };
    let stats = api.steward().await.get_room_stats(request).await.unwrap().into_inner();
    assert_eq!(stats.history_count, 0);
}
