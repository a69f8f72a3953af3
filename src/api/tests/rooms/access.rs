//! Rights: revocations, explanations, scopes and tenants.

use tonic::Code;

use super::super::support::{Api, Caller, Setup, refusal, room, token};
use crate::api::{Credentials, Scope};
use crate::policy::{Action, Policy as _, Question};
use crate::proto::v1;

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
