//! What the application behind the gateway decides: permissions, and what becomes of events and requests.

use std::time::Duration;

use roomcast::backend;
use roomcast::gateway::Config;
use roomcast::policy::{ActionName, AuthorizerConfig, RuleConfig};
use roomcast::proto::backend::v1 as backend_v1;
use roomcast::proto::backend::v1::answer_response::Outcome as RequestOutcome;
use roomcast::proto::backend::v1::handle_response::Outcome as EventOutcome;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, Join, Payload, Position, Publish, Request, RoomChangeCause, RoomPosition};
use roomcast::proto::v1;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{assert_forbidden, may_publish, may_read, may_see};
use crate::support::{
    Answer, Application, Caller, Carries as _, Encoding, InRoom as _, Node, TENANT, ToRoom as _, allow, deny,
    eventually, home_rooms, over_encodings, payload, rule, user,
};

over_encodings! {
    the_authorizer_decides_where_a_rule_asks_it,
    an_authorizer_that_does_not_answer_is_a_denial,
    an_authorizer_may_refuse_a_connection,
    who_goes_while_the_authorizer_is_asked_leaves_nothing_behind,
    what_comes_while_the_authorizer_is_asked_is_neither_lost_nor_doubled,
    the_application_accepts_rewrites_takes_and_denies_events,
    an_application_that_does_not_answer_stops_the_event,
    a_request_is_answered_by_the_application,
    without_an_application_a_request_is_refused,
    a_request_that_no_rule_allows_never_reaches_the_application,
    the_authorizer_decides_requests_with_and_without_a_room,
    a_membership_ends_when_the_authorizer_said_and_may_be_joined_again,
    a_session_ends_when_the_authorizer_said,
}

pub(super) fn asking(app: &Application, timeout: Duration) -> impl Fn(&mut Config) + Send + Sync + 'static {
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

pub const LONG: Duration = Duration::from_secs(15);

pub fn validating(app: &Application, timeout: Duration) -> impl Fn(&mut Config) + Send + Sync + 'static {
    let url = app.url();
    move |config| {
        config.backend = Some(backend::Config {
            timeout,
            ..backend::Config::at(url.clone())
        });
        config.policy.rules[0].validate = true;
    }
}

pub fn outcome(outcome: EventOutcome) -> Answer<backend_v1::HandleResponse> {
    Answer::Say(backend_v1::HandleResponse { outcome: Some(outcome) })
}

fn request(method: &str) -> Command {
    request_about("r", method)
}

fn request_about(room: &str, method: &str) -> Command {
    Command::Request(Request {
        method: method.to_owned(),
        room: room.to_owned(),
        payload: Some(Payload {
            content: Some(Content::Json("{\"n\":1}".to_owned())),
        }),
    })
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

async fn the_application_accepts_rewrites_takes_and_denies_events(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, validating(&app, LONG)).await;
    let mut ada = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    ada.join("r").await;
    ben.join("r").await;
    app.handles_events(|event| {
        assert_eq!((event.room.as_str(), event.retention()), ("r", v1::Retention::Reliable));
        match event.event_name.as_str() {
            "rewritten" => outcome(EventOutcome::Rewrite(backend_v1::RewriteEvent {
                event_name: "other".to_owned(),
                payload: Some(payload(&json!({"by": "the application"}))),
                echo: Some(false),
            })),
            "taken" => outcome(EventOutcome::Handled(backend_v1::HandledEvent {
                reply: Some(payload(&json!({"seat": 4}))),
                ..Default::default()
            })),
            "denied" => outcome(EventOutcome::Deny(backend_v1::Denial {
                reason: "too_late".to_owned(),
                message: "the auction is over".to_owned(),
            })),
            "undecided" => Answer::Say(backend_v1::HandleResponse::default()),
            _ => outcome(EventOutcome::Accept(backend_v1::AcceptEvent { echo: None })),
        }
    });
    node.assert_reached(ada.publish("r", "as it is", json!(1)).await.reached, 2);
    let rewritten = ada.publish("r", "rewritten", json!(2)).await;
    node.assert_reached(rewritten.reached, 1);
    let taken = ada.publish("r", "taken", json!(3)).await;
    assert_eq!((taken.position, taken.reached), (None, None));
    assert_eq!(
        taken.reply.and_then(|reply| reply.payload?.content),
        Some(Content::Json("{\"seat\":4}".to_owned()))
    );
    let denied = ada.try_publish(Publish::to("r", "denied", json!(4))).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.reason.as_str(), denied.message.as_str()),
        (ErrorCode::Forbidden, "too_late", "the auction is over")
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
            "ask" => Some(RequestOutcome::Reply(payload(&json!({"answer": 42})))),
            "ask for bytes" => Some(RequestOutcome::Reply(v1::Payload {
                content: Some(v1::payload::Content::Binary(vec![0, 255].into())),
            })),
            "beg" => Some(RequestOutcome::Deny(backend_v1::Denial {
                reason: "no_such_thing".to_owned(),
                message: "the shop is closed".to_owned(),
            })),
            "beg in silence" => Some(RequestOutcome::Deny(backend_v1::Denial {
                reason: "no_such_thing".to_owned(),
                message: String::new(),
            })),
            _ => None,
        };
        Answer::Say(backend_v1::AnswerResponse { outcome })
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
    for (method, message) in [("beg", "the shop is closed"), ("beg in silence", "the backend refused")] {
        let refusal = ada.ask(request(method)).await.unwrap_err();
        assert_eq!(
            (refusal.code(), refusal.reason.as_str(), refusal.message.as_str()),
            (ErrorCode::Forbidden, "no_such_thing", message)
        );
    }
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

async fn a_request_that_no_rule_allows_never_reaches_the_application(encoding: Encoding) {
    let app = Application::start().await;
    let url = app.url();
    let node = Node::with(encoding, move |config| {
        config.backend = Some(backend::Config {
            timeout: LONG,
            ..backend::Config::at(url.clone())
        });
        let all_but_requests = [
            ActionName::Join,
            ActionName::Publish,
            ActionName::Presence,
            ActionName::History,
        ];
        let tasks = RuleConfig {
            methods: vec!["task:*".to_owned()],
            when: Some("room.id in claims.projects".to_owned()),
            ..rule("tasks", "project:{id}", &[ActionName::Request])
        };
        let roomless = RuleConfig {
            room: None,
            methods: vec!["ping".to_owned()],
            ..rule("roomless", "", &[ActionName::Request])
        };
        config.policy.rules = vec![rule("all", "{any*}", &all_but_requests), tasks, roomless];
    })
    .await;
    let (asked, mut reached) = tokio::sync::mpsc::channel(8);
    app.handles_requests(move |request| {
        asked.try_send((request.room, request.method)).unwrap();
        Answer::Say(backend_v1::AnswerResponse {
            outcome: Some(RequestOutcome::Reply(payload(&json!({})))),
        })
    });
    let mut ada = node.connect(user("ada").claim("projects", json!(["7"]))).await;
    // In a room the client is in, in one it could join, and in none.
    ada.join("project:8").await;
    for (room, method) in [
        ("project:8", "task:close"),
        ("project:9", "task:close"),
        ("project:7", "tidy"),
        ("elsewhere", "ping"),
        ("", "task:close"),
    ] {
        assert_forbidden(ada.ask(request_about(room, method)).await);
    }
    for (room, method) in [("project:7", "task:close"), ("", "ping")] {
        let reply = ada.ask(request_about(room, method)).await;
        assert!(matches!(reply, Ok(Said::Reply(_))), "{reply:?}");
        assert_eq!(
            reached.try_recv(),
            Ok((room.to_owned(), method.to_owned())),
            "what was refused was shown to nobody"
        );
    }
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
