//! Orders to connections: join, remove, disconnect.

use tonic::Code;

use super::super::support::{Api, Caller, ROOT, refusal};
use crate::proto::v1;
#[tokio::test]
async fn a_backend_joins_and_removes_connections() {
    use v1::join_room_request::Member;
    let api = Api::start().await;
    let connection = api.shard.connect("a", "ada");
    api.shard.connect("a", "ada");
    let mut steward = api.steward().await;
    let mut join = v1::JoinRoomRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        member: Some(Member::UserId("ada".to_owned())),
        ..v1::JoinRoomRequest::default()
    };
    let joined = steward.join_room(join.clone()).await.unwrap().into_inner();
    assert_eq!(joined.joined_connection_count, 2);
    assert!(joined.head.is_some());
    join.member = Some(Member::ConnectionId(connection.to_string()));
    assert_eq!(
        steward
            .join_room(join.clone())
            .await
            .unwrap()
            .into_inner()
            .joined_connection_count,
        1
    );
    // The same connection does not exist in another tenant.
    join.tenant = "b".to_owned();
    let status = steward.join_room(join.clone()).await.unwrap_err();
    assert_eq!(refusal(&status).1, "CONNECTION_NOT_FOUND");
    join.member = Some(Member::UserId("nobody".to_owned()));
    assert_eq!(
        steward
            .join_room(join.clone())
            .await
            .unwrap()
            .into_inner()
            .joined_connection_count,
        0
    );
    join.member = None;
    assert_eq!(refusal(&steward.join_room(join).await.unwrap_err()).2, "member");

    let leave = v1::LeaveRoomRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
        reason: "moved".to_owned(),
        message: "The room has moved.".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        steward
            .leave_room(leave.clone())
            .await
            .unwrap()
            .into_inner()
            .left_connection_count,
        2
    );
    for (reason, message, field) in [
        ("Not a word", String::new(), "reason"),
        ("", "x".repeat(101), "message"),
        ("", "two\nlines".to_owned(), "message"),
    ] {
        let mut wrong = leave.clone();
        (wrong.reason, wrong.message) = (reason.to_owned(), message);
        assert_eq!(refusal(&steward.leave_room(wrong).await.unwrap_err()).2, field);
    }
    let orders = api.shard.orders.lock().unwrap().clone();
    assert_eq!(
        orders,
        ["join r", "join r", "join r", "leave r moved: The room has moved."]
    );
}

#[tokio::test]
async fn a_connection_that_cannot_be_joined_is_an_error() {
    let api = Api::start().await;
    let connection = api.shard.connect("a", "ada");
    *api.shard.full.lock().unwrap() = true;
    let join = v1::JoinRoomRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        member: Some(v1::join_room_request::Member::ConnectionId(connection.to_string())),
        ..v1::JoinRoomRequest::default()
    };
    let status = api.steward().await.join_room(join).await.unwrap_err();
    assert_eq!(
        (status.code(), refusal(&status).1.as_str()),
        (Code::FailedPrecondition, "ROOM_LIMIT")
    );
}

#[tokio::test]
async fn a_backend_disconnects_for_now_or_for_good() {
    use v1::disconnect_request::Session;
    let api = Api::start().await;
    let connection = api.shard.connect("a", "ada");
    let mut steward = api.connections_of(Caller::with(ROOT)).await;
    let mut request = v1::DisconnectRequest {
        tenant: "a".to_owned(),
        session: Some(Session::UserId("ada".to_owned())),
        reason: "maintenance".to_owned(),
        message: "Back in a minute.".to_owned(),
        may_reconnect: true,
        ..v1::DisconnectRequest::default()
    };
    assert_eq!(
        steward
            .disconnect(request.clone())
            .await
            .unwrap()
            .into_inner()
            .closed_connection_count,
        1
    );
    request.session = Some(Session::ConnectionId(connection.to_string()));
    request.may_reconnect = false;
    assert_eq!(
        steward
            .disconnect(request.clone())
            .await
            .unwrap()
            .into_inner()
            .closed_connection_count,
        1
    );
    request.tenant = "b".to_owned();
    let status = steward.disconnect(request).await.unwrap_err();
    assert_eq!(refusal(&status).1, "CONNECTION_NOT_FOUND");
    let orders = api.shard.orders.lock().unwrap().clone();
    let expected = [
        "disconnect disconnected maintenance: Back in a minute.",
        "disconnect kicked maintenance: Back in a minute.",
    ];
    assert_eq!(orders[..2], expected);
}
