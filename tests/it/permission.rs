//! Who may do what: nothing, unless a rule or the application says so.

pub mod application;
mod emitted;
mod expiring;

use roomcast::gateway::Config;
use roomcast::policy::{ActionName, RuleConfig};
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{
    ErrorCode, ErrorReply, HistoryQuery, Join, PresenceMode, PresenceQuery, Publish, UserRoomsQuery,
};
use roomcast::proto::v1;
use serde_json::json;

use crate::support::{Client, Encoding, InRoom as _, Node, TENANT, ToRoom as _, over_encodings, rule, user};

over_encodings! {
    a_refused_join_says_the_same_whether_or_not_the_room_exists,
    every_action_is_allowed_by_itself,
    rules_see_claims_rooms_and_events,
    who_does_not_meet_the_conditions_is_not_let_in,
    of_others_one_sees_the_rooms_whose_presence_one_may_see,
}

fn rules(rules: Vec<RuleConfig>) -> impl Fn(&mut Config) + Send + Sync + 'static {
    move |config| config.policy.rules.clone_from(&rules)
}

async fn may_publish(client: &mut Client, room: &str, event: &str) -> Result<(), ErrorReply> {
    client.try_publish(Publish::to(room, event, json!({}))).await.map(drop)
}

async fn may_see(client: &mut Client, room: &str) -> Result<(), ErrorReply> {
    let query = PresenceQuery { room: room.to_owned() };
    client.ask(Command::PresenceQuery(query)).await.map(drop)
}

async fn may_read(client: &mut Client, room: &str) -> Result<(), ErrorReply> {
    let query = HistoryQuery {
        room: room.to_owned(),
        ..Default::default()
    };
    client.ask(Command::HistoryQuery(query)).await.map(drop)
}

fn assert_forbidden<T: std::fmt::Debug>(result: Result<T, ErrorReply>) {
    let refusal = result.expect_err("it is not allowed");
    assert_eq!(
        (refusal.code(), refusal.reason.as_str()),
        (ErrorCode::Forbidden, "forbidden"),
        "{refusal:?}"
    );
}

async fn a_refused_join_says_the_same_whether_or_not_the_room_exists(encoding: Encoding) {
    let every = [
        ActionName::Join,
        ActionName::Publish,
        ActionName::Presence,
        ActionName::History,
    ];
    let secret = RuleConfig {
        when: Some("user.id == \"ben\"".to_owned()),
        ..rule("secret", "secret:{n}", &every)
    };
    let node = Node::with(encoding, rules(vec![secret])).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("secret:1").await;
    node.backend().publish("secret:1", "kept", json!({})).await;
    let mut ada = node.connect(user("ada")).await;
    let there = ada.try_join(Join::in_room("secret:1")).await.unwrap_err();
    let not_there = ada.try_join(Join::in_room("secret:2")).await.unwrap_err();
    let no_rule = ada.try_join(Join::in_room("elsewhere")).await.unwrap_err();
    assert_eq!((&there, &there), (&not_there, &no_rule));
    assert_forbidden::<()>(Err(there));
    for room in ["secret:1", "secret:2"] {
        assert_forbidden(may_publish(&mut ada, room, "e").await);
        assert_forbidden(may_see(&mut ada, room).await);
        assert_forbidden(may_read(&mut ada, room).await);
    }
    node.backend().publish("secret:1", "end", json!({})).await;
    ben.expect_event("secret:1", "kept").await;
    ben.expect_nothing_before("end").await;
    node.finish().await;
}

async fn every_action_is_allowed_by_itself(encoding: Encoding) {
    let only = [
        rule("join", "join", &[ActionName::Join]),
        rule("publish", "publish", &[ActionName::Publish]),
        rule("presence", "presence", &[ActionName::Presence]),
        rule("history", "history", &[ActionName::History]),
    ];
    let node = Node::with(encoding, rules(only.to_vec())).await;
    let mut ada = node.connect(user("ada")).await;
    for room in ["join", "publish", "presence", "history"] {
        let results = [
            ("join", ada.try_join(Join::in_room(room)).await.map(drop)),
            ("publish", may_publish(&mut ada, room, "e").await),
            ("presence", may_see(&mut ada, room).await),
            ("history", may_read(&mut ada, room).await),
        ];
        for (action, result) in results {
            if action == room {
                result.unwrap_or_else(|refusal| panic!("{action}: {refusal:?}"));
            } else {
                assert_forbidden(result);
            }
        }
    }
    // What a join asks for on top needs the right to it.
    let with_presence = Join {
        presence: PresenceMode::Members.into(),
        ..Join::in_room("join")
    };
    assert_forbidden(ada.try_join(with_presence).await);
    let with_past = Join {
        rewind: 1,
        ..Join::in_room("join")
    };
    assert_forbidden(ada.try_join(with_past).await);
    node.backend().publish("join", "past", json!({})).await;
    ada.expect_event("join", "past").await;
    let mut since = ada.position("join");
    since.offset -= 1;
    let joined = ada.join_since("join", &since).await;
    assert_eq!((joined.recovered, joined.replayed), (false, 0));
    node.finish().await;
}

async fn rules_see_claims_rooms_and_events(encoding: Encoding) {
    let project = RuleConfig {
        when: Some("claims.tenant_id == room.tenant && room.project in claims.projects".to_owned()),
        ..rule("project", "project:{project}", &[ActionName::Join])
    };
    let tasks = RuleConfig {
        events: vec!["task:*".to_owned(), "hello".to_owned()],
        when: Some("event.name != \"task:deleted\" || claims.role == \"owner\"".to_owned()),
        ..rule("tasks", "project:{project}", &[ActionName::Publish])
    };
    let node = Node::with(encoding, rules(vec![project, tasks])).await;
    let mut ada = node.connect(user("ada").claim("projects", json!(["7", "8"]))).await;
    let mut eve = node.connect(user("eve")).await;
    let mut zoe = node.connect(user("zoe").claim("role", "owner")).await;
    ada.join("project:7").await;
    ada.join("project:8").await;
    assert_forbidden(ada.try_join(Join::in_room("project:9")).await);
    assert_forbidden(ada.try_join(Join::in_room("project:7:x")).await);
    assert_forbidden(eve.try_join(Join::in_room("project:7")).await);
    may_publish(&mut ada, "project:7", "task:created").await.unwrap();
    may_publish(&mut ada, "project:7", "hello").await.unwrap();
    assert_forbidden(may_publish(&mut ada, "project:7", "hello!").await);
    assert_forbidden(may_publish(&mut ada, "project:7", "task:deleted").await);
    may_publish(&mut zoe, "project:7", "task:deleted").await.unwrap();
    for name in ["task:created", "hello", "task:deleted"] {
        ada.expect_event("project:7", name).await;
    }
    node.finish().await;
}

async fn who_does_not_meet_the_conditions_is_not_let_in(encoding: Encoding) {
    let verified = |config: &mut Config| config.policy.connect.when = vec!["claims.email_verified == true".to_owned()];
    let node = Node::with(encoding, verified).await;
    for who in [
        user("eve"),
        user("eve").claim("email_verified", false),
        user("eve").claim("email_verified", "true"),
    ] {
        let mut eve = node.open().await;
        assert_forbidden(eve.authenticate(&who, Vec::new()).await);
        assert_eq!(eve.expect_close(4505).await, "forbidden");
    }
    node.connect(user("ada").claim("email_verified", true))
        .await
        .join("r")
        .await;
    node.finish().await;
}

async fn of_others_one_sees_the_rooms_whose_presence_one_may_see(encoding: Encoding) {
    let every = [ActionName::Join, ActionName::Presence];
    let private = rule("private", "private:{n}", &[ActionName::Join]);
    let node = Node::with(encoding, rules(vec![rule("open", "open:{n}", &every), private])).await;
    let mut ada = node.connect(user("ada")).await;
    for room in ["private:1", "open:2", "open:1"] {
        ada.join(room).await;
    }
    let mut ben = node.connect(user("ben")).await;
    assert_eq!(rooms_of(&mut ben, "ada").await, ["open:1", "open:2"]);
    assert_eq!(rooms_of(&mut ada, "").await, ["open:1", "open:2", "private:1"]);
    assert_eq!(rooms_of(&mut ben, "nobody").await, Vec::<String>::new());
    let mut stranger = node.connect(user("cy").tenant("other")).await;
    assert_eq!(rooms_of(&mut stranger, "ada").await, Vec::<String>::new());
    node.finish().await;
}

async fn rooms_of(client: &mut Client, user: &str) -> Vec<String> {
    let query = UserRoomsQuery {
        user_id: user.to_owned(),
    };
    match client.ask(Command::UserRoomsQuery(query)).await {
        Ok(Said::UserRooms(rooms)) => rooms.rooms,
        other => panic!("no rooms: {other:?}"),
    }
}

#[tokio::test]
async fn explain_names_the_rule_that_decided() {
    let members = RuleConfig {
        when: Some("room.project in claims.projects".to_owned()),
        ..rule("members", "project:{project}", &[ActionName::Join])
    };
    let node = Node::with(Encoding::Json, rules(vec![members])).await;
    let ada = node.connect(user("ada").claim("projects", json!(["7"]))).await;
    let backend = node.backend();
    let explain = |subject, room: &str| {
        let request = v1::ExplainRequest {
            tenant: TENANT.to_owned(),
            action: v1::Action::Join.into(),
            room: room.to_owned(),
            subject: Some(subject),
            ..Default::default()
        };
        let mut access = backend.access.clone();
        async move { access.explain(request).await.unwrap().into_inner() }
    };
    let open = || v1::explain_request::Subject::ConnectionId(ada.id.clone());
    let allowed = explain(open(), "project:7").await;
    assert_eq!(
        (allowed.decision(), allowed.rule.as_str()),
        (v1::Decision::Allow, "members")
    );
    let denied = explain(open(), "project:8").await;
    assert_eq!(denied.decision(), v1::Decision::Deny);
    assert!(!denied.message.is_empty());
    let claims = user("zoe").claim("projects", json!(["8"])).claims();
    let claims = v1::explain_request::Subject::ClaimsJson(claims);
    assert_eq!(explain(claims, "project:8").await.decision(), v1::Decision::Allow);
    assert_eq!(explain(open(), "elsewhere").await.rule, "default");
    node.finish().await;
}

#[tokio::test]
async fn explain_shows_what_a_false_condition_compared() {
    let members = RuleConfig {
        when: Some("room.project in claims.projects".to_owned()),
        ..rule("members", "project:{project}", &[ActionName::Join])
    };
    let node = Node::with(Encoding::Json, rules(vec![members])).await;
    let mut access = node.backend().access;
    let request = v1::ExplainRequest {
        tenant: TENANT.to_owned(),
        action: v1::Action::Join.into(),
        room: "project:7".to_owned(),
        // The commonest mistake: a number, where the room has a text.
        subject: Some(v1::explain_request::Subject::ClaimsJson(
            user("ada").claim("projects", json!([7])).claims(),
        )),
        ..Default::default()
    };
    let answer = access.explain(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), v1::Decision::Deny);
    let [asked] = &*answer.considered else {
        panic!("one rule was asked: {answer:?}")
    };
    assert_eq!(asked.rule, "members");
    for part in ["room.project", "\"7\"", "string", "[7]", "list"] {
        assert!(asked.message.contains(part), "{part}: {}", asked.message);
    }
    node.finish().await;
}

#[tokio::test]
async fn explain_answers_for_requests_with_and_without_a_room() {
    let in_room = RuleConfig {
        methods: vec!["task:*".to_owned()],
        ..rule("tasks", "project:{project}", &[ActionName::Request])
    };
    let in_none = RuleConfig {
        room: None,
        ..rule("roomless", "", &[ActionName::Request])
    };
    let node = Node::with(Encoding::Json, rules(vec![in_room, in_none])).await;
    let mut backend = node.backend();
    for (room, method, by) in [
        ("project:7", "task:close", "tasks"),
        ("project:7", "tidy", "default"),
        ("", "tidy", "roomless"),
        ("elsewhere", "tidy", "default"),
    ] {
        let request = v1::ExplainRequest {
            tenant: TENANT.to_owned(),
            action: v1::Action::Request.into(),
            room: room.to_owned(),
            method: method.to_owned(),
            subject: Some(v1::explain_request::Subject::ClaimsJson(user("ada").claims())),
            ..Default::default()
        };
        let answer = backend.access.explain(request).await.unwrap().into_inner();
        let decision = if by == "default" {
            v1::Decision::Deny
        } else {
            v1::Decision::Allow
        };
        assert_eq!(
            (answer.decision(), answer.rule.as_str()),
            (decision, by),
            "{method} in `{room}`"
        );
    }
    node.finish().await;
}
