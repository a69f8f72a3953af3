//! Every unary service but `PublishService`, apart from history: members, orders, revocations, explanations.

use tonic::Code;

use super::support::{Api, Caller, ROOT, Setup, refusal, room, token};
use crate::api::{Config, Credentials, Scope};
use crate::policy::{Action, Policy as _, Question};
use crate::proto::v1;

fn members_of(name: &str) -> v1::ListMembersRequest {
    v1::ListMembersRequest {
        tenant: "a".to_owned(),
        room: name.to_owned(),
        ..v1::ListMembersRequest::default()
    }
}

#[tokio::test]
async fn members_are_counted_per_user_and_listed_in_pages() {
    let api = Api::start().await;
    for user in ["cyd", "ada", "bob", "ada"] {
        api.enter("r", user);
    }
    let mut steward = api.steward().await;
    let mut request = members_of("r");
    request.page_size = 2;
    let first = steward.list_members(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        (first.member_count, first.connection_count, first.counts_only),
        (3, 4, false)
    );
    let listed: Vec<_> = first
        .members
        .iter()
        .map(|m| (m.user_id.as_str(), m.connection_count))
        .collect();
    assert_eq!(listed, [("ada", 2), ("bob", 1)]);
    assert!(first.members[0].join_time.is_some());
    request.page_token = first.next_page_token;
    let second = steward.list_members(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        (second.members[0].user_id.as_str(), second.next_page_token.as_str()),
        ("cyd", "")
    );

    // A token belongs to its query.
    request.room = "other".to_owned();
    for token in [request.page_token.clone(), "guessed".to_owned(), "AAAA".to_owned()] {
        request.page_token = token;
        let status = steward.list_members(request.clone()).await.unwrap_err();
        let expected = (
            Code::InvalidArgument,
            "INVALID_PAGE_TOKEN".to_owned(),
            "page_token".to_owned(),
        );
        assert_eq!(refusal(&status), expected);
    }
    let mut negative = members_of("r");
    negative.page_size = -1;
    let status = steward.list_members(negative).await.unwrap_err();
    assert_eq!(
        refusal(&status),
        (
            Code::InvalidArgument,
            "INVALID_FIELD".to_owned(),
            "page_size".to_owned()
        )
    );
    let mut counts = members_of("r");
    counts.counts_only = true;
    let counts = steward.list_members(counts).await.unwrap().into_inner();
    assert_eq!((counts.members.len(), counts.member_count), (0, 3));
    let empty = steward
        .list_members(members_of("nobody is here"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (empty.members.len(), empty.member_count, empty.counts_only),
        (0, 0, false)
    );
}

#[tokio::test]
async fn rooms_of_a_user_are_listed_in_pages_with_all_its_connections() {
    let api = Api::start().await;
    for name in ["r2", "r1", "r3", "r1"] {
        api.enter(name, "ada");
    }
    let mut users = api.users_of(Caller::with(ROOT)).await;
    let mut request = v1::ListUserRoomsRequest {
        tenant: "a".to_owned(),
        user_id: "ada".to_owned(),
        page_size: 2,
        ..v1::ListUserRoomsRequest::default()
    };
    let first = users.list_user_rooms(request.clone()).await.unwrap().into_inner();
    let listed: Vec<_> = first
        .rooms
        .iter()
        .map(|r| (r.room.as_str(), r.connection_count))
        .collect();
    assert_eq!(listed, [("r1", 2), ("r2", 1)]);
    assert_eq!(first.connection_count, 4);
    request.page_token = first.next_page_token;
    let second = users.list_user_rooms(request.clone()).await.unwrap().into_inner();
    assert_eq!((second.rooms.len(), second.rooms[0].room.as_str()), (1, "r3"));
    assert_eq!(second.next_page_token, "");

    request.tenant = "b".to_owned();
    request.page_token.clear();
    let elsewhere = users.list_user_rooms(request).await.unwrap().into_inner();
    assert_eq!((elsewhere.rooms.len(), elsewhere.connection_count), (0, 0));
}

#[tokio::test]
async fn stats_tell_members_head_and_history() {
    let api = Api::start().await;
    api.enter("r", "ada");
    let published = api
        .publisher()
        .await
        .publish(super::support::event())
        .await
        .unwrap()
        .into_inner();
    let request = v1::GetRoomStatsRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
    };
    let stats = api.steward().await.get_room_stats(request).await.unwrap().into_inner();
    assert_eq!(
        (stats.member_count, stats.connection_count, stats.history_count),
        (1, 1, 1)
    );
    assert_eq!(stats.head, published.results[0].position);
    assert!(stats.history_bytes > 0);
}

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

#[tokio::test]
async fn a_revocation_reaches_the_policy_and_every_membership() {
    use v1::revoke_request::Scope as Revoked;
    let api = Api::start().await;
    let connection = api.shard.connect("a", "ada");
    let mut steward = api.access().await;
    let request = v1::RevokeRequest {
        tenant: "a".to_owned(),
        subject: Some(v1::revoke_request::Subject::UserId("ada".to_owned())),
        scope: Some(Revoked::RoomPattern("project:*".to_owned())),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        reason: "left".to_owned(),
        message: "left the company".to_owned(),
        ..v1::RevokeRequest::default()
    };
    let question = || Question {
        identity: api.shard.identity(connection),
        connection,
        room: room("a", "project:7"),
        action: Action::Join,
    };
    assert!(api.policy.authorize(question()).await.is_ok());
    let revoked = steward.revoke(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        (revoked.confirmed_node_ids, revoked.unconfirmed_node_ids),
        (vec!["node-1".to_owned()], vec![])
    );
    assert_eq!(revoked.removed_membership_count, 3);
    assert!(api.policy.authorize(question()).await.is_err());

    let mut everything = request.clone();
    everything.scope = Some(Revoked::Everything(v1::EverythingScope {}));
    steward.revoke(everything).await.unwrap();
    let orders = api.shard.orders.lock().unwrap().clone();
    assert_eq!(
        orders,
        [
            "revoke Pattern(\"project:*\") left: left the company",
            "revoke Everything left: left the company"
        ]
    );

    for (field, (seconds, nanos), scope) in [
        ("ttl", (0, 0), request.scope.clone()),
        ("ttl", (31 * 24 * 3600, 0), request.scope.clone()),
        ("ttl", (-1, 0), request.scope.clone()),
        ("ttl", (60, 2_000_000_000), request.scope.clone()),
        ("ttl", (60, -1), request.scope.clone()),
        ("scope", (60, 0), None),
        ("room_pattern", (60, 0), Some(Revoked::RoomPattern("*****".to_owned()))),
        ("room", (60, 0), Some(Revoked::Room(String::new()))),
    ] {
        let mut wrong = request.clone();
        wrong.ttl = Some(prost_types::Duration { seconds, nanos });
        wrong.scope = scope;
        assert_eq!(refusal(&steward.revoke(wrong).await.unwrap_err()).2, field);
    }
}

#[tokio::test]
async fn explain_names_the_rule_that_decides() {
    use v1::explain_request::Subject;
    let api = Api::start().await;
    let connection = api.shard.connect("a", "ada");
    let mut steward = api.access().await;
    let ask = |subject: Subject, action: v1::Action, room: &str| v1::ExplainRequest {
        tenant: "a".to_owned(),
        subject: Some(subject),
        action: action.into(),
        room: room.to_owned(),
        ..v1::ExplainRequest::default()
    };
    let claims = |text: &str| Subject::ClaimsJson(text.to_owned());
    let member = claims(r#"{"sub":"ada","projects":["7"]}"#);
    let (allow, deny) = (i32::from(v1::Decision::Allow), i32::from(v1::Decision::Deny));
    let cases = [
        (
            ask(member.clone(), v1::Action::Join, "project:7"),
            allow,
            "own projects",
        ),
        (ask(member.clone(), v1::Action::Join, "project:8"), deny, "default"),
        (
            ask(
                Subject::ConnectionId(connection.to_string()),
                v1::Action::Join,
                "project:7",
            ),
            allow,
            "own projects",
        ),
        (ask(member.clone(), v1::Action::Presence, "project:7"), deny, "default"),
        (
            ask(claims(r#"{"sub":"ada","plan":"pro"}"#), v1::Action::Connect, ""),
            allow,
            "default",
        ),
        // A number beyond every type takes no other claim away.
        (
            ask(
                claims(r#"{"sub":"ada","n":[1e400],"projects":["7"]}"#),
                v1::Action::Join,
                "project:7",
            ),
            allow,
            "own projects",
        ),
    ];
    for (request, decision, rule) in cases {
        let explained = steward.explain(request.clone()).await.unwrap().into_inner();
        assert_eq!(
            (explained.decision, explained.rule.as_str()),
            (decision, rule),
            "{request:?}"
        );
        assert!(!explained.message.is_empty());
    }
    let refused = steward
        .explain(ask(member.clone(), v1::Action::Connect, ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(refused.decision, deny);

    let wrong = [
        (ask(member.clone(), v1::Action::Unspecified, "r"), "INVALID_FIELD"),
        (ask(member.clone(), v1::Action::Request, "r"), "INVALID_EVENT_NAME"),
        (ask(member.clone(), v1::Action::Join, ""), "INVALID_ROOM"),
        (ask(member.clone(), v1::Action::Publish, "r"), "INVALID_EVENT_NAME"),
        (ask(claims("[]"), v1::Action::Join, "r"), "INVALID_FIELD"),
        (ask(claims("{}"), v1::Action::Join, "r"), "INVALID_FIELD"),
        (
            ask(Subject::ConnectionId("1".repeat(32)), v1::Action::Join, "r"),
            "CONNECTION_NOT_FOUND",
        ),
    ];
    for (request, reason) in wrong {
        assert_eq!(refusal(&steward.explain(request).await.unwrap_err()).1, reason);
    }
}

#[tokio::test]
async fn every_method_checks_scope_and_tenant() {
    let tokens = [
        token("publisher", &[Scope::Publish], None),
        token("of-b", &Scope::ALL, Some(&["b"])),
    ];
    let credentials = Credentials::none().with_tokens(tokens);
    let api = Api::with(Setup {
        credentials,
        ..Setup::default()
    })
    .await;
    for (name, reason) in [("publisher", "SCOPE_MISSING"), ("of-b", "TENANT_FORBIDDEN")] {
        let mut rooms = api.steward_of(Caller::with(name)).await;
        let mut users = api.users_of(Caller::with(name)).await;
        let mut connections = api.connections_of(Caller::with(name)).await;
        let mut access = api.access_of(Caller::with(name)).await;
        macro_rules! refused {
            ($($client:ident.$method:ident $request:ident),*) => {
                $({
                    let request = v1::$request { tenant: "a".to_owned(), ..v1::$request::default() };
                    let status = $client.$method(request).await.unwrap_err();
                    assert_eq!((status.code(), &*refusal(&status).1), (Code::PermissionDenied, reason));
                })*
            };
        }
        refused!(
            rooms.join_room JoinRoomRequest,
            rooms.leave_room LeaveRoomRequest,
            rooms.list_members ListMembersRequest,
            rooms.get_room_stats GetRoomStatsRequest,
            rooms.list_history ListHistoryRequest,
            users.list_user_rooms ListUserRoomsRequest,
            connections.disconnect DisconnectRequest,
            access.revoke RevokeRequest,
            access.restore RestoreRequest,
            access.list_revocations ListRevocationsRequest,
            access.explain ExplainRequest
        );
    }
}

#[tokio::test]
async fn a_large_room_is_told_in_counts_only() {
    let config = Config {
        members_listed_max: 2,
        ..Config::default()
    };
    let api = Api::with(Setup {
        config,
        ..Setup::default()
    })
    .await;
    let mut steward = api.steward().await;
    for (user, counts_only, listed) in [("ada", false, 1), ("bob", false, 2), ("cyd", true, 0)] {
        api.enter("r", user);
        let told = steward.list_members(members_of("r")).await.unwrap().into_inner();
        assert_eq!((told.counts_only, told.members.len()), (counts_only, listed));
    }
    let counts = steward.list_members(members_of("r")).await.unwrap().into_inner();
    assert_eq!((counts.member_count, counts.connection_count), (3, 3));
}
