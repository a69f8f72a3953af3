//! What the application behind the gateway decides: permissions, and what becomes of events and requests.

mod authorizer;

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
use roomcast::proto::client_v1::{ErrorCode, Payload, Publish, Request};
use roomcast::proto::v1;
use serde_json::json;

use super::assert_forbidden;
use crate::support::{
    Answer, Application, Carries as _, Encoding, Node, ToRoom as _, over_encodings, payload, rule, user,
};
over_encodings! {
    the_application_accepts_rewrites_takes_and_denies_events,
    an_application_that_does_not_answer_stops_the_event,
    a_request_is_answered_by_the_application,
    without_an_application_a_request_is_refused,
    a_request_that_no_rule_allows_never_reaches_the_application,
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
