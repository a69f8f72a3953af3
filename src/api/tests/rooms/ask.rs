//! Asks of connections, over gRPC and over the mirror.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::super::http::call;
use super::super::support::{Api, Caller, ROOT, Setup, json as payload, refusal, token};
use crate::api::{Credentials, Scope};
use crate::proto::v1;
use crate::proto::v1::ask_request::Session;
use crate::proto::v1::ask_response::Answer;
use crate::proto::v1::payload::Content;

fn ask(connection: &str, method: &str) -> v1::AskRequest {
    v1::AskRequest {
        tenant: "a".to_owned(),
        session: Some(Session::ConnectionId(connection.to_owned())),
        method: method.to_owned(),
        payload: payload("{\"n\":1.0}"),
        ..v1::AskRequest::default()
    }
}

async fn asked(api: &Api, request: impl tonic::IntoRequest<v1::AskRequest>) -> Result<Answer, Status> {
    let mut connections = api.connections_of(Caller::with(ROOT)).await;
    let response = connections.ask(request).await?.into_inner();
    Ok(response.answer.unwrap())
}

fn delivered(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata.get("delivered").cloned().unwrap_or_default()
}

#[tokio::test]
async fn an_answer_is_what_the_client_said() {
    let api = Api::start().await;
    let ada = api.shard.connect("a", "ada").to_string();
    let answer = asked(&api, ask(&ada, "echo")).await.unwrap();
    assert_eq!(answer, Answer::Payload(payload("{\"n\":1.0}").unwrap()));
    let refused = asked(&api, ask(&ada, "refuse")).await.unwrap();
    let (reason, message) = ("busy".to_owned(), "Not now.".to_owned());
    assert_eq!(refused, Answer::Error(v1::AnswerError { reason, message }));
    let Answer::Payload(large) = asked(&api, ask(&ada, "large")).await.unwrap() else {
        panic!("no payload")
    };
    assert_eq!(large.content, Some(Content::Binary(vec![7; 60_000].into())));
    assert_eq!(api.unread_bytes(), 0, "what was read is accounted for no longer");
}

#[tokio::test]
async fn an_ask_that_is_not_answered_says_why() {
    let api = Api::start().await;
    let ada = api.shard.connect("a", "ada").to_string();
    for (method, code, reason, told) in [
        ("cannot", Code::FailedPrecondition, "CANNOT_ANSWER", ""),
        ("too_many", Code::ResourceExhausted, "ASK_LIMIT", ""),
        ("not_now", Code::Unavailable, "NOT_STORED", ""),
        ("mumble", Code::FailedPrecondition, "ANSWER_INVALID", "true"),
        ("leave", Code::Unavailable, "CONNECTION_LOST", "true"),
    ] {
        let status = asked(&api, ask(&ada, method)).await.unwrap_err();
        let (given, why, _) = refusal(&status);
        assert_eq!(
            (given, why.as_str(), delivered(&status).as_str()),
            (code, reason, told),
            "{method}"
        );
    }
    let stranger = api.shard.connect("b", "ada").to_string();
    for nobody in ["1".repeat(32), stranger] {
        let status = asked(&api, ask(&nobody, "echo")).await.unwrap_err();
        assert_eq!(refusal(&status).1, "CONNECTION_NOT_FOUND");
    }
}

#[tokio::test]
async fn an_ask_ends_at_its_timeout_or_before_the_calls_deadline() {
    let api = Api::start().await;
    let ada = api.shard.connect("a", "ada").to_string();
    let own = v1::AskRequest {
        timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        }),
        ..ask(&ada, "think")
    };
    let mut short = Request::new(ask(&ada, "think"));
    short.set_timeout(Duration::from_millis(300));
    for status in [
        asked(&api, own).await.unwrap_err(),
        asked(&api, short).await.unwrap_err(),
    ] {
        assert_eq!(
            (status.code(), refusal(&status).1.as_str(), delivered(&status).as_str()),
            (Code::DeadlineExceeded, "NO_ANSWER", "true")
        );
    }
    // The shard sees that nobody waits any more.
    let thinking = std::mem::take(&mut *api.shard.thinking.lock().unwrap());
    assert_eq!(thinking.len(), 2);
    assert!(thinking.iter().all(tokio::sync::oneshot::Sender::is_closed));
}

#[tokio::test]
async fn what_an_ask_must_say_is_checked() {
    let api = Api::with(Setup {
        credentials: Credentials::none().with_tokens([
            token(ROOT, &Scope::ALL, None),
            token("publisher", &[Scope::Publish, Scope::Read], None),
            token("of-b", &Scope::ALL, Some(&["b"])),
        ]),
        ..Setup::default()
    })
    .await;
    let ada = api.shard.connect("a", "ada").to_string();
    let good = ask(&ada, "echo");
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (request, reason, field) in [
        (
            v1::AskRequest {
                session: None,
                ..good.clone()
            },
            "INVALID_FIELD",
            "session",
        ),
        (ask("x", "echo"), "INVALID_FIELD", "connection_id"),
        (ask(&ada, ""), "INVALID_EVENT_NAME", "method"),
        (ask(&ada, "disconnect"), "INVALID_EVENT_NAME", "method"),
        (
            v1::AskRequest {
                payload: None,
                ..good.clone()
            },
            "INVALID_PAYLOAD",
            "payload",
        ),
        (
            v1::AskRequest {
                timeout: seconds(0),
                ..good.clone()
            },
            "INVALID_FIELD",
            "timeout",
        ),
        (
            v1::AskRequest {
                timeout: seconds(301),
                ..good.clone()
            },
            "INVALID_FIELD",
            "timeout",
        ),
        (
            v1::AskRequest {
                tenant: String::new(),
                ..good.clone()
            },
            "INVALID_TENANT",
            "tenant",
        ),
        (
            v1::AskRequest {
                required_features: vec!["x".to_owned()],
                ..good.clone()
            },
            "UNSUPPORTED_FEATURE",
            "",
        ),
    ] {
        let status = asked(&api, request).await.unwrap_err();
        let (_, why, wrong) = refusal(&status);
        assert_eq!((why.as_str(), wrong.as_str()), (reason, field));
    }
    for (token, reason) in [("publisher", "SCOPE_MISSING"), ("of-b", "TENANT_FORBIDDEN")] {
        let mut connections = api.connections_of(Caller::with(token)).await;
        let status = connections.ask(good.clone()).await.unwrap_err();
        assert_eq!(refusal(&status).1, reason);
    }
}

#[tokio::test]
async fn the_mirror_asks_as_well() {
    let api = Api::start().await;
    let ada = api.shard.connect("a", "ada").to_string();
    let body = |method: &str, further: &Value| {
        let mut body = json!({"tenant": "a", "connectionId": ada, "method": method});
        body.as_object_mut()
            .unwrap()
            .extend(further.as_object().unwrap().clone());
        body.to_string()
    };
    let plain = json!({"payload": {"n": 1}, "timeout": "5s"});
    for (method, further, status, expected) in [
        ("echo", &plain, 200, json!({"payload": {"n": 1}})),
        ("echo", &json!({"payload": null}), 200, json!({"payload": null})),
        (
            "echo",
            &json!({"payloadBase64": "AP8"}),
            200,
            json!({"payloadBase64": "AP8="}),
        ),
        (
            "refuse",
            &plain,
            200,
            json!({"error": {"reason": "busy", "message": "Not now."}}),
        ),
    ] {
        let (given, _, answer) = call(&api, "POST", "/v1/ask", ROOT, &body(method, further)).await;
        assert_eq!((given, answer), (status, expected), "{method}");
    }
    for (method, further, status, reason) in [
        ("cannot", &plain, 400, "CANNOT_ANSWER"),
        ("too_many", &plain, 429, "ASK_LIMIT"),
        ("not_now", &plain, 503, "NOT_STORED"),
        ("leave", &plain, 503, "CONNECTION_LOST"),
        ("think", &json!({"payload": 1, "timeout": "0.05s"}), 504, "NO_ANSWER"),
        ("echo", &json!({"payload": 1, "timeout": "x"}), 400, "INVALID_FIELD"),
        (
            "echo",
            &json!({"payload": 1, "userId": "ada"}),
            400,
            "UNDECODABLE_MESSAGE",
        ),
        ("echo", &json!({}), 400, "INVALID_PAYLOAD"),
    ] {
        let (given, _, answer) = call(&api, "POST", "/v1/ask", ROOT, &body(method, further)).await;
        assert_eq!(
            (given, &answer["reason"]),
            (status, &json!(reason)),
            "{method} {further}"
        );
    }
}
