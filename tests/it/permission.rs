//! Who may do what: nothing, unless a rule or the application says so.

use std::time::Duration;

use roomcast::backend;
use roomcast::gateway::Config;
use roomcast::policy::{ActionName, AuthorizerConfig, RuleConfig};
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{
    ErrorCode, ErrorReply, HistoryQuery, Join, Payload, PresenceQuery, Publish, Request, UserRoomsQuery,
};
use roomcast::proto::v1;
use roomcast::proto::v1::handle_event_response::Outcome as EventOutcome;
use roomcast::proto::v1::handle_request_response::Outcome as RequestOutcome;
use serde_json::json;
use tonic::Status;

use crate::support::{
    Answer, Application, Carries as _, Client, Encoding, InRoom as _, Node, TENANT, ToRoom as _, allow, deny,
    over_encodings, payload, rule, user,
};

over_encodings! {
    a_refused_join_says_the_same_whether_or_not_the_room_exists,
    every_action_is_allowed_by_itself,
    rules_see_claims_rooms_and_events,
    who_does_not_meet_the_conditions_is_not_let_in,
    the_authorizer_decides_where_a_rule_asks_it,
    an_authorizer_that_does_not_answer_is_a_denial,
    an_authorizer_may_refuse_a_connection,
    the_application_accepts_rewrites_takes_and_denies_events,
    an_application_that_does_not_answer_stops_the_event,
    a_request_is_answered_by_the_application,
    without_an_application_a_request_is_refused,
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
        presence: true,
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
        eve.expect_close(4501).await;
    }
    node.connect(user("ada").claim("email_verified", true))
        .await
        .join("r")
        .await;
    node.finish().await;
}

fn asking(app: &Application, timeout: Duration) -> impl Fn(&mut Config) + Send + Sync + 'static {
    let url = app.url();
    move |config| {
        config.policy.authorizer = Some(AuthorizerConfig {
            timeout,
            ..AuthorizerConfig::at(url.clone())
        });
        let every = [
            ActionName::Join,
            ActionName::Publish,
            ActionName::Presence,
            ActionName::History,
        ];
        config.policy.rules = vec![
            RuleConfig {
                authorizer: true,
                ..rule("ask", "ask:{n}", &every)
            },
            rule("free", "free", &every),
        ];
    }
}

const LONG: Duration = Duration::from_secs(15);

async fn the_authorizer_decides_where_a_rule_asks_it(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, asking(&app, LONG)).await;
    let mut ada = node.connect(user("ada").claim("team", "red")).await;
    app.authorizes(
        |question| match (question.action(), &*question.room, &*question.event) {
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
    app.authorizes(|_| Answer::Say(v1::AuthorizeResponse::default()));
    assert_forbidden(ada.try_join(Join::in_room("ask:1")).await);
    app.authorizes(|_| {
        Answer::Say(v1::AuthorizeResponse {
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
    eve.expect_close(4501).await;
    let mut silent = node.open().await;
    let refusal = silent.authenticate(&user("silent"), Vec::new()).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::Unavailable);
    silent.expect_close(4006).await;
    node.finish().await;
}

fn validating(app: &Application, timeout: Duration) -> impl Fn(&mut Config) + Send + Sync + 'static {
    let url = app.url();
    move |config| {
        config.backend = Some(backend::Config {
            timeout,
            ..backend::Config::at(url.clone())
        });
        config.policy.rules[0].validate = true;
    }
}

fn outcome(outcome: EventOutcome) -> Answer<v1::HandleEventResponse> {
    Answer::Say(v1::HandleEventResponse { outcome: Some(outcome) })
}

async fn the_application_accepts_rewrites_takes_and_denies_events(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, validating(&app, LONG)).await;
    let mut ada = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    ada.join("r").await;
    ben.join("r").await;
    app.handles_events(|event| {
        assert_eq!((event.room.as_str(), event.class()), ("r", v1::EventClass::Reliable));
        match event.event.as_str() {
            "rewritten" => outcome(EventOutcome::Rewrite(v1::RewriteEvent {
                event: "other".to_owned(),
                payload: Some(payload(json!({"by": "the application"}))),
                echo: Some(false),
            })),
            "taken" => outcome(EventOutcome::Handled(v1::HandledEvent {})),
            "denied" => outcome(EventOutcome::Deny(v1::Denial {
                reason: "too_late".to_owned(),
                message: "the auction is over".to_owned(),
            })),
            "undecided" => Answer::Say(v1::HandleEventResponse::default()),
            _ => outcome(EventOutcome::Accept(v1::AcceptEvent { echo: None })),
        }
    });
    assert_eq!(ada.publish("r", "as it is", json!(1)).await.reached, 2);
    let rewritten = ada.publish("r", "rewritten", json!(2)).await;
    assert_eq!(rewritten.reached, 1);
    let taken = ada.publish("r", "taken", json!(3)).await;
    assert_eq!((taken.position, taken.reached), (None, 0));
    let denied = ada.try_publish(Publish::to("r", "denied", json!(4))).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.reason.as_str()),
        (ErrorCode::Forbidden, "too_late")
    );
    let undecided = ada
        .try_publish(Publish::to("r", "undecided", json!(5)))
        .await
        .unwrap_err();
    assert_eq!(
        undecided.code(),
        ErrorCode::Unavailable,
        "junk is no answer: {undecided:?}"
    );
    ada.publish("r", "end", json!(6)).await;
    ada.expect_event("r", "as it is").await;
    ada.expect_passed("r").await;
    ada.expect_nothing_before("end").await;
    ben.expect_event("r", "as it is").await;
    let other = ben.expect_event("r", "other").await;
    assert_eq!(
        (other.json(), other.actor_user_id.as_str()),
        (json!({"by": "the application"}), "ada")
    );
    ben.expect_nothing_before("end").await;
    node.finish().await;
}

async fn an_application_that_does_not_answer_stops_the_event(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, validating(&app, Duration::from_millis(200))).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    app.handles_events(|_| Answer::Silence);
    let refusal = ada.try_publish(Publish::to("r", "lost", json!(1))).await.unwrap_err();
    assert!(
        matches!(refusal.code(), ErrorCode::UnknownOutcome | ErrorCode::Unavailable),
        "{refusal:?}"
    );
    drop(app);
    let refusal = ada.try_publish(Publish::to("r", "lost", json!(2))).await.unwrap_err();
    assert!(
        matches!(refusal.code(), ErrorCode::UnknownOutcome | ErrorCode::Unavailable),
        "{refusal:?}"
    );
    node.backend().publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

fn request(method: &str) -> Command {
    Command::Request(Request {
        method: method.to_owned(),
        room: "r".to_owned(),
        payload: Some(Payload {
            content: Some(Content::Json("{\"n\":1}".to_owned())),
        }),
    })
}

async fn a_request_is_answered_by_the_application(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, validating(&app, LONG)).await;
    app.handles_requests(|request| {
        assert_eq!(
            (request.room.as_str(), request.subject.unwrap().user_id.as_str()),
            ("r", "ada")
        );
        assert!(!request.request_id.is_empty());
        let outcome = match request.method.as_str() {
            "ask" => Some(RequestOutcome::Reply(payload(json!({"answer": 42})))),
            "ask for bytes" => Some(RequestOutcome::Reply(v1::Payload {
                content: Some(v1::payload::Content::Binary(vec![0, 255].into())),
            })),
            "beg" => Some(RequestOutcome::Deny(v1::Denial {
                reason: "no_such_thing".to_owned(),
                message: String::new(),
            })),
            _ => None,
        };
        Answer::Say(v1::HandleRequestResponse { outcome })
    });
    let mut ada = node.connect(user("ada")).await;
    let Ok(Said::Reply(reply)) = ada.ask(request("ask")).await else {
        panic!("no reply")
    };
    assert_eq!(
        reply.payload.unwrap().content,
        Some(Content::Json("{\"answer\":42}".to_owned()))
    );
    let Ok(Said::Reply(reply)) = ada.ask(request("ask for bytes")).await else {
        panic!("no reply")
    };
    assert_eq!(
        reply.payload.unwrap().content,
        Some(Content::Binary(vec![0, 255].into()))
    );
    let refusal = ada.ask(request("beg")).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.reason.as_str()),
        (ErrorCode::Forbidden, "no_such_thing")
    );
    assert!(ada.ask(request("mumble")).await.is_err());
    // One that waits does not hold up what comes behind it.
    app.handles_requests(|_| Answer::Silence);
    ada.say(request("ask")).await;
    ada.join("r").await;
    node.finish().await;
}

async fn without_an_application_a_request_is_refused(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let refusal = ada.ask(request("ask")).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.reason.as_str()),
        (ErrorCode::Unimplemented, "no_backend")
    );
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
            event: String::new(),
            subject: Some(subject),
        };
        let mut rooms = backend.rooms.clone();
        async move { rooms.explain(request).await.unwrap().into_inner() }
    };
    let open = || v1::explain_request::Subject::ConnectionId(ada.id.clone());
    let allowed = explain(open(), "project:7").await;
    assert_eq!(
        (allowed.decision(), allowed.rule.as_str()),
        (v1::Decision::Allow, "members")
    );
    let denied = explain(open(), "project:8").await;
    assert_eq!(denied.decision(), v1::Decision::Deny);
    assert!(!denied.reason.is_empty());
    let claims = user("zoe").claim("projects", json!(["8"])).claims();
    let claims = v1::explain_request::Subject::ClaimsJson(claims);
    assert_eq!(explain(claims, "project:8").await.decision(), v1::Decision::Allow);
    assert_eq!(explain(open(), "elsewhere").await.rule, "default");
    node.finish().await;
}
