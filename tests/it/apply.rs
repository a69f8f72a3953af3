//! Other rules, keys and limits for a gateway that runs.

use std::time::Duration;

use roomcast::gateway::{ApplyError, Settings};
use roomcast::policy::{ActionName, AuthorizerConfig, RuleConfig};
use roomcast::proto::backend::v1 as backend_v1;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, Join, PresenceMode, RoomChangeCause};
use roomcast::proto::v1;
use serde_json::json;

use crate::support::{
    Answer, Application, Client, Encoding, InRoom as _, Node, TENANT, over_encodings, over_nats, revocation_of, rule,
    user,
};

over_encodings! {
    rules_are_swapped_and_memberships_rechecked,
    revocations_outlive_the_rules,
    answers_of_an_authorizer_that_was_replaced_are_not_used,
    keys_are_swapped_and_open_sessions_stay,
    limits_hold_for_what_comes_next,
    what_cannot_change_is_refused_by_name_and_nothing_changes;
    alone: rules_are_swapped_on_each_of_two_nodes,
}

const EVERY: [ActionName; 4] = [
    ActionName::Join,
    ActionName::Publish,
    ActionName::Presence,
    ActionName::History,
];

/// Allows everything in these rooms.
fn only(rooms: &'static [&'static str]) -> impl Fn(&mut Settings) {
    move |settings| settings.policy.rules = rooms.iter().map(|room| rule(room, room, &EVERY)).collect()
}

async fn expect_left(client: &mut Client, room: &str) {
    match client.push().await {
        Said::RoomLeft(left) => assert_eq!(
            (left.room.as_str(), left.cause(), left.reason.as_str()),
            (room, RoomChangeCause::Revoked, "policy_changed")
        ),
        other => panic!("{other:?}"),
    }
}

async fn is_refused(client: &mut Client, room: &str) {
    let refusal = client.try_join(Join::in_room(room)).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::Forbidden, "{refusal:?}");
}

async fn put_into(node: &Node, room: &str, id: &str) {
    let join = v1::JoinRoomRequest {
        tenant: TENANT.to_owned(),
        room: room.to_owned(),
        member: Some(v1::join_room_request::Member::UserId(id.to_owned())),
        ..Default::default()
    };
    let answer = node.backend().rooms.join_room(join).await.unwrap().into_inner();
    assert_eq!(answer.joined_connection_count, 1);
}

async fn rules_are_swapped_and_memberships_rechecked(encoding: Encoding) {
    let node = Node::with(encoding, |_| {}).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    for room in ["gone", "kept"] {
        ada.join(room).await;
    }
    put_into(&node, "given", "ada").await;
    assert!(matches!(ada.push().await, Said::RoomJoined(_)));
    let applied = node.apply(only(&["kept", "new"])).await.unwrap();
    assert_eq!((applied.changed, applied.ended), (vec!["policy.rules"], 1));
    expect_left(&mut ada, "gone").await;
    backend.publish("gone", "unheard", json!({})).await;
    backend.publish("given", "heard", json!({})).await;
    ada.expect_event("given", "heard").await;
    backend.publish("kept", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    is_refused(&mut ada, "gone").await;
    ada.join("new").await;
    // Nothing changed is nothing looked at.
    let applied = node.apply(|_| {}).await.unwrap();
    assert_eq!((applied.changed, applied.ended), (vec![], 0));
    node.finish().await;
}

async fn rules_are_swapped_on_each_of_two_nodes(encoding: Encoding) {
    over_nats(Box::pin(async move {
        let node = Node::start(encoding).await;
        let backend = node.backend();
        let (one, other) = (node.of_several(0), node.of_several(1));
        let (mut ada, mut ben) = (one.connect(user("ada")).await, other.connect(user("ben")).await);
        for client in [&mut ada, &mut ben] {
            client.join("gone").await;
            client.join("kept").await;
        }
        assert_eq!(one.apply(only(&["kept"])).await.unwrap().ended, 1);
        expect_left(&mut ada, "gone").await;
        is_refused(&mut ada, "gone").await;
        // The other node has its own rules still.
        backend.publish("gone", "heard", json!({})).await;
        ben.expect_event("gone", "heard").await;
        assert_eq!(other.apply(only(&["kept"])).await.unwrap().ended, 1);
        expect_left(&mut ben, "gone").await;
        backend.publish("kept", "end", json!({})).await;
        ada.expect_nothing_before("end").await;
        ben.expect_nothing_before("end").await;
        node.finish().await;
    }))
    .await;
}

async fn revocations_outlive_the_rules(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let revoke = revocation_of("ada", v1::revoke_request::Scope::Room("r".to_owned()));
    node.backend().access.revoke(revoke).await.unwrap();
    assert!(matches!(ada.push().await, Said::RoomLeft(left) if left.cause() == RoomChangeCause::Revoked));
    node.apply(only(&["r", "s"])).await.unwrap();
    is_refused(&mut ada, "r").await;
    ada.join("s").await;
    node.finish().await;
}

async fn answers_of_an_authorizer_that_was_replaced_are_not_used(encoding: Encoding) {
    let (old, new) = (Application::start().await, Application::start().await);
    let kept = || {
        Answer::Say(backend_v1::AuthorizeResponse {
            decision: v1::Decision::Allow.into(),
            cache_ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..Default::default()
        })
    };
    old.authorizes(move |_| kept());
    new.authorizes(move |_| crate::support::deny("no"));
    let asking = |app: &Application| {
        let authorizer = AuthorizerConfig {
            timeout: Duration::from_secs(15),
            ..AuthorizerConfig::at(app.url())
        };
        move |settings: &mut Settings| {
            settings.policy.authorizer = Some(authorizer.clone());
            settings.policy.rules = ["ask:{n}", "free"]
                .map(|room| RuleConfig {
                    authorizer: room != "free",
                    ..rule(room, room, &EVERY)
                })
                .into();
        }
    };
    let node = Node::start(encoding).await;
    node.apply(asking(&old)).await.unwrap();
    let mut ada = node.connect(user("ada")).await;
    for _ in 0..2 {
        ada.join("ask:1").await;
    }
    assert_eq!(old.take_asked().len(), 1, "the answer is kept");
    // Other rules and the same authorizer: what it said stays.
    let more = asking(&old);
    let applied = node.apply(|settings| {
        more(settings);
        settings.policy.rules.push(rule("more", "more", &EVERY));
    });
    assert_eq!(applied.await.unwrap().ended, 0);
    ada.join("ask:1").await;
    assert_eq!(old.take_asked(), []);
    let applied = node.apply(asking(&new)).await.unwrap();
    assert_eq!(
        (applied.changed, applied.ended),
        (vec!["policy.rules", "policy.authorizer"], 1)
    );
    expect_left(&mut ada, "ask:1").await;
    is_refused(&mut ada, "ask:1").await;
    assert_eq!(old.take_asked(), []);
    assert!(!new.take_asked().is_empty());
    node.finish().await;
}

async fn keys_are_swapped_and_open_sessions_stay(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let applied = node.apply(|settings| {
        settings.auth.issuers[0].keys[0].secret = Some(roomcast::auth::Secret::new("another secret ".repeat(4)));
    });
    let applied = applied.await.unwrap();
    assert_eq!((applied.changed, applied.ended), (vec!["auth.issuers"], 0));
    let mut ben = node.open().await;
    let refusal = ben.authenticate(&user("ben"), Vec::new()).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::Unauthenticated);
    ben.expect_close(4501).await;
    // A removed key ends no session.
    backend.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn limits_hold_for_what_comes_next(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let second = node.connect(user("ada")).await;
    ada.join("a").await;
    ada.join("b").await;
    let applied = node.apply(|settings| {
        settings.session.rooms_max = 1;
        settings.connections.per_user_max = 1;
    });
    let applied = applied.await.unwrap();
    assert_eq!(applied.changed, ["session.rooms_max", "connections.per_user_max"]);
    let refusal = ada.try_join(Join::in_room("c")).await.unwrap_err();
    assert_eq!(refusal.reason, "room_limit");
    let mut third = node.open().await;
    let refusal = third.authenticate(&user("ada"), Vec::new()).await.unwrap_err();
    assert_eq!(refusal.reason, "connection_limit");
    third.expect_close(4504).await;
    // Nobody has left a room or was closed.
    for room in ["a", "b"] {
        node.backend().publish(room, "end", json!({})).await;
        ada.expect_event(room, "end").await;
    }
    node.apply(|settings| settings.session.rooms_max = 3).await.unwrap();
    ada.join("c").await;
    second.close().await;
    node.finish().await;
}

async fn what_cannot_change_is_refused_by_name_and_nothing_changes(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let refused = node.apply(|settings| {
        settings.policy.rules.clear();
        settings.session.heartbeat_interval += Duration::from_secs(1);
        settings.session.state_bytes_max += 1;
    });
    match refused.await.unwrap_err() {
        ApplyError::Fixed(names) => assert_eq!(names, ["session.heartbeat_interval", "presence.state_bytes_max"]),
        other => panic!("{other:?}"),
    }
    let refused = node.apply(|settings| {
        settings.auth.issuers.clear();
        settings.connections.per_user_max = 0;
        settings.policy.rules[0].when = Some("claims.".to_owned());
    });
    assert!(matches!(refused.await.unwrap_err(), ApplyError::Policy(_)));
    let refused = node.apply(|settings| {
        settings.policy.rules.clear();
        settings.auth.issuers[0].keys.clear();
    });
    assert!(matches!(refused.await.unwrap_err(), ApplyError::Auth(_)));
    let mut ben = node.connect(user("ben")).await;
    let seen = Join {
        presence: PresenceMode::Members.into(),
        ..Join::in_room("r")
    };
    ben.try_join(seen).await.unwrap();
    node.backend().publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}
