//! The authorizer: permissions that the application decides.

use std::time::Duration;

use roomcast::policy::{ActionName, RuleConfig};
use roomcast::proto::backend::v1 as backend_v1;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, Join, Position, RoomChangeCause, RoomPosition};
use roomcast::proto::v1;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::{assert_forbidden, may_publish, may_read, may_see};
use super::{LONG, asking, request_about};
use crate::support::{
    Answer, Application, Caller, Encoding, InRoom as _, Node, TENANT, allow, deny, eventually, home_rooms,
    over_encodings, rule, user,
};
over_encodings! {
    the_authorizer_decides_where_a_rule_asks_it,
    an_authorizer_that_does_not_answer_is_a_denial,
    an_authorizer_may_refuse_a_connection,
    who_goes_while_the_authorizer_is_asked_leaves_nothing_behind,
    what_comes_while_the_authorizer_is_asked_is_neither_lost_nor_doubled,
    the_authorizer_decides_requests_with_and_without_a_room,
    a_membership_ends_when_the_authorizer_said_and_may_be_joined_again,
    a_session_ends_when_the_authorizer_said,
}

async fn the_authorizer_decides_where_a_rule_asks_it(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, asking(&app, LONG)).await;
    let mut ada = node.connect(user("ada").claim("team", "red")).await;
    app.authorizes(
        |question| match (question.action(), &*question.room, &*question.event_name) {
            (v1::Action::Join, "ask:1", "") | (v1::Action::Publish, "ask:1", "hello") => allow(),
            _ => deny("no"),
        },
    );
    ada.join("ask:1").await;
    may_publish(&mut ada, "ask:1", "hello").await.unwrap();
    assert_forbidden(may_publish(&mut ada, "ask:1", "bye").await);
    assert_forbidden(ada.try_join(Join::in_room("ask:2")).await);
    assert_forbidden(may_see(&mut ada, "ask:1").await);
    assert_forbidden(may_read(&mut ada, "ask:1").await);
    let asked = app.take_asked();
    assert_eq!(asked.len(), 6);
    let subject = asked[0].subject.clone().unwrap();
    assert_eq!(
        (&*subject.tenant, &*subject.user_id, &subject.connection_id),
        (TENANT, "ada", &ada.id)
    );
    let claims: serde_json::Value = serde_json::from_str(&subject.claims_json).unwrap();
    assert_eq!(claims["team"], "red");
    ada.join("free").await;
    assert_eq!(app.take_asked(), []);
    node.finish().await;
}

async fn an_authorizer_that_does_not_answer_is_a_denial(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, asking(&app, Duration::from_millis(200))).await;
    let mut ada = node.connect(user("ada")).await;
    app.authorizes(|_| Answer::Silence);
    assert_forbidden(ada.try_join(Join::in_room("ask:1")).await);
    app.authorizes(|_| Answer::Fail(Status::internal("broken")));
    assert_forbidden(ada.try_join(Join::in_room("ask:1")).await);
    app.authorizes(|_| Answer::Say(backend_v1::AuthorizeResponse::default()));
    assert_forbidden(ada.try_join(Join::in_room("ask:1")).await);
    app.authorizes(|_| {
        Answer::Say(backend_v1::AuthorizeResponse {
            decision: 77,
            ..Default::default()
        })
    });
    assert_forbidden(ada.try_join(Join::in_room("ask:1")).await);
    drop(app);
    assert_forbidden(ada.try_join(Join::in_room("ask:1")).await);
    // Where nobody has to be asked, all goes on.
    ada.join("free").await;
    node.finish().await;
}

async fn who_goes_while_the_authorizer_is_asked_leaves_nothing_behind(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, asking(&app, LONG)).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("free").await;
    app.authorizes(|_| Answer::Silence);
    ada.say(Command::Join(Join::in_room("ask:1"))).await;
    eventually("the question", || async { app.take_asked().pop() }).await;
    // What comes behind the question waits for its answer; who goes does not.
    ada.say(Command::Join(Join::in_room("free"))).await;
    ada.crash();
    node.until_connections(0).await;
    app.authorizes(|_| allow());
    let mut ben = node.connect(user("ben")).await;
    let roster = ben.join_to_see("ask:1").await;
    assert!(
        roster.members.iter().all(|member| member.user_id == "ben"),
        "{roster:?}"
    );
    node.finish().await;
}

/// Publishes without a pause until it is told to stop.
async fn publish_until(backend: Caller, stop: CancellationToken) {
    while !stop.is_cancelled() {
        backend.publish("tenant:acme", "n", json!({})).await;
    }
}

async fn what_comes_while_the_authorizer_is_asked_is_neither_lost_nor_doubled(encoding: Encoding) {
    let app = Application::start().await;
    let ask = asking(&app, LONG);
    // Going on in a room one is put into needs the right to its past, and that is the authorizer's to give.
    let node = Node::with(encoding, move |config| {
        ask(config);
        home_rooms(config);
        config.policy.rules.push(RuleConfig {
            authorizer: true,
            ..rule("past", "tenant:acme", &[ActionName::History])
        });
    })
    .await;
    app.authorizes(|_| allow());
    let stop = CancellationToken::new();
    let mut publisher = JoinSet::new();
    publisher.spawn(publish_until(node.backend(), stop.clone()));
    // On every shard somebody is in the room already, so its events come while the question is asked.
    let _others = [node.connect(user("ben")).await, node.connect(user("cy")).await];
    let mut since = Vec::new();
    for turn in 0..40 {
        let mut ada = node.open().await;
        let connected = ada.authenticate(&user("ada"), since).await.unwrap();
        let joined = connected
            .rooms
            .into_iter()
            .find(|joined| joined.room == "tenant:acme")
            .unwrap();
        assert_eq!(joined.recovered, turn > 0);
        // The client checks the chain of what it gets.
        let count = usize::try_from(joined.replayed).unwrap() + 3;
        let last = ada.events(count).await.pop().unwrap();
        since = vec![RoomPosition {
            room: last.room,
            position: Some(Position {
                epoch: last.epoch,
                offset: last.offset,
            }),
        }];
    }
    stop.cancel();
    publisher.join_all().await;
    node.finish().await;
}

async fn an_authorizer_may_refuse_a_connection(encoding: Encoding) {
    let app = Application::start().await;
    let usual = asking(&app, LONG);
    let node = Node::with(encoding, move |config| {
        usual(config);
        config.policy.connect.authorizer = true;
    })
    .await;
    app.authorizes(|question| match question.subject.unwrap().user_id.as_str() {
        "ada" => allow(),
        "silent" => Answer::Fail(Status::unavailable("down")),
        _ => deny("unknown"),
    });
    node.connect(user("ada")).await.join("free").await;
    let mut eve = node.open().await;
    assert_forbidden(eve.authenticate(&user("eve"), Vec::new()).await);
    assert_eq!(eve.expect_close(4505).await, "forbidden");
    let mut silent = node.open().await;
    let refusal = silent.authenticate(&user("silent"), Vec::new()).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::Unavailable);
    silent.expect_close(4006).await;
    node.finish().await;
}

async fn the_authorizer_decides_requests_with_and_without_a_room(encoding: Encoding) {
    let app = Application::start().await;
    let asking = asking(&app, LONG);
    let node = Node::with(encoding, move |config| {
        asking(config);
        let request = |name: &str, room: Option<&str>| RuleConfig {
            room: room.map(str::to_owned),
            authorizer: true,
            ..rule(name, "", &[ActionName::Request])
        };
        config.policy.rules = vec![request("in rooms", Some("ask:{n}")), request("in none", None)];
    })
    .await;
    app.authorizes(
        |question| match (question.action(), &*question.room, &*question.method) {
            (v1::Action::Request, "ask:1" | "", "close") => allow(),
            _ => deny("no"),
        },
    );
    let mut ada = node.connect(user("ada")).await;
    for (room, method, is_allowed) in [
        ("ask:1", "close", true),
        ("", "close", true),
        ("ask:2", "close", false),
        ("", "open", false),
    ] {
        let refusal = ada.ask(request_about(room, method)).await.unwrap_err();
        // There is no backend behind this node: what is allowed finds none.
        let reason = if is_allowed { "no_backend" } else { "forbidden" };
        assert_eq!(refusal.reason, reason, "{method} in `{room}`");
    }
    assert_eq!(app.take_asked().len(), 4);
    node.finish().await;
}

/// Allows for so many seconds, with this presence state.
fn allow_for(seconds: i64, state: &str) -> Answer<backend_v1::AuthorizeResponse> {
    Answer::Say(backend_v1::AuthorizeResponse {
        decision: v1::Decision::Allow.into(),
        expire_time: Some(prost_types::Timestamp {
            seconds: crate::support::in_seconds(seconds),
            nanos: 0,
        }),
        presence_state_json: state.to_owned(),
        ..Default::default()
    })
}

async fn a_membership_ends_when_the_authorizer_said_and_may_be_joined_again(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, asking(&app, LONG)).await;
    let mut ada = node.connect(user("ada")).await;
    app.authorizes(|_| allow_for(2, "{\"role\":\"guest\"}"));
    let roster = ada.join_to_see("ask:1").await;
    assert_eq!(roster.members[0].state_json.as_deref(), Some("{\"role\":\"guest\"}"));
    ada.join("free").await;
    match ada.push().await {
        Said::RoomLeft(left) => assert_eq!((left.room.as_str(), left.cause()), ("ask:1", RoomChangeCause::Expired)),
        other => panic!("the membership ends: {other:?}"),
    }
    node.backend().publish("ask:1", "unseen", json!({})).await;
    // One that has ended already is none, and one without an end stays.
    app.authorizes(|_| allow_for(-1, ""));
    assert_forbidden(ada.try_join(Join::in_room("ask:1")).await);
    app.authorizes(|_| allow());
    ada.join("ask:1").await;
    node.backend().publish("ask:1", "seen", json!({})).await;
    ada.expect_nothing_before("seen").await;
    node.finish().await;
}

async fn a_session_ends_when_the_authorizer_said(encoding: Encoding) {
    let app = Application::start().await;
    let usual = asking(&app, LONG);
    let node = Node::with(encoding, move |config| {
        usual(config);
        config.policy.connect.authorizer = true;
    })
    .await;
    app.authorizes(|_| allow_for(2, ""));
    let mut ada = node.open().await;
    let connected = ada.authenticate(&user("ada"), Vec::new()).await.unwrap();
    assert!(
        connected.expires_at_ms <= crate::support::in_seconds(2) * 1000,
        "{connected:?}"
    );
    ada.expect_close(4502).await;
    node.finish().await;
}
