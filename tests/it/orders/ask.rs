//! A backend asks one client of the native protocol.

use std::sync::mpsc;

use roomcast::gateway::Config;
use roomcast::proto::backend::v1::AcceptEvent;
use roomcast::proto::backend::v1::handle_response::Outcome;
use roomcast::proto::client_v1::answer::Answer as Given;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{Answer, AnswerError, Answered, Ask, Connect, ErrorReply, Payload, Ping, Publish};
use roomcast::proto::v1;
use roomcast::proto::v1::ask_response::Answer as Told;
use roomcast::proto::v1::revoke_request::Scope;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::permission::application::{LONG, outcome, validating};
use crate::support::{
    Application, Caller, Client, Encoding, Node, ToRoom as _, ask_of, over_encodings, payload, reason, revocation_of,
    user,
};

over_encodings! {
    a_backend_asks_one_client_and_gets_its_answer,
    an_answer_that_nobody_waits_for_is_said_to_be_so,
    an_ask_that_has_no_answer_says_why,
    an_answer_waits_for_no_command,
    no_ask_is_delivered_after_a_revocation_of_everything;
    alone: asks_are_bounded_for_each_connection, asks_keep_their_place_among_events
}

/// A client that answers asks.
async fn connect(node: &Node, id: &str) -> Client {
    let mut client = node.opening().open().await.unwrap();
    let connect = Connect {
        features: vec!["asks".to_owned()],
        ..Connect::default()
    };
    client.authenticate_with(&user(id), connect).await.unwrap();
    client
}

async fn expect_ask(client: &mut Client, method: &str) -> Ask {
    match client.push().await {
        Said::Ask(ask) if ask.method == method => ask,
        other => panic!("{client} is not asked {method}: {other:?}"),
    }
}

async fn answer(client: &mut Client, ask_id: u32, given: Given) -> Result<bool, ErrorReply> {
    let answer = Some(given);
    match client.ask(Command::Answer(Answer { ask_id, answer })).await? {
        Said::Answered(Answered { accepted }) => Ok(accepted),
        other => panic!("answered: {other:?}"),
    }
}

fn content(content: Content) -> Given {
    Given::Payload(Payload { content: Some(content) })
}

fn said(json: &Value) -> Given {
    content(Content::Json(json.to_string()))
}

fn told(json: &Value) -> Told {
    Told::Payload(payload(json))
}

/// An ask whose answer is waited for by a task.
fn asking(backend: &Caller, request: v1::AskRequest) -> tokio::task::JoinHandle<Result<Told, Status>> {
    let backend = backend.clone();
    TaskTracker::new().spawn(async move { backend.ask(request).await })
}

fn refused(asked: Result<Told, Status>) -> (Code, String, String) {
    let status = asked.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    let delivered = info.metadata.get("delivered").cloned().unwrap_or_default();
    (status.code(), reason(&status), delivered)
}

fn milliseconds(count: i32) -> prost_types::Duration {
    prost_types::Duration {
        seconds: 0,
        nanos: count * 1_000_000,
    }
}

async fn a_backend_asks_one_client_and_gets_its_answer(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let (mut phone, mut laptop) = (connect(&node, "ada").await, connect(&node, "ada").await);
    let confirm = ask_of(&phone.id, "confirm", &json!({"amount": 7}));
    let first = asking(&backend, confirm.clone());
    let ask = expect_ask(&mut phone, "confirm").await;
    assert!(ask.ask_id > 0);
    assert_eq!(
        ask.payload.unwrap().content,
        Some(Content::Json(json!({"amount": 7}).to_string()))
    );
    // Another one meanwhile, answered before.
    let bytes = v1::Payload {
        content: Some(v1::payload::Content::Binary(vec![0, 255].into())),
    };
    let second = v1::AskRequest {
        payload: Some(bytes.clone()),
        ..ask_of(&phone.id, "sign", &json!(0))
    };
    let second = asking(&backend, second);
    let sign = expect_ask(&mut phone, "sign").await;
    assert_eq!(
        sign.payload.unwrap().content,
        Some(Content::Binary(vec![0, 255].into()))
    );
    let signed = answer(&mut phone, sign.ask_id, content(Content::Binary(vec![0, 255].into()))).await;
    assert!(signed.unwrap());
    assert_eq!(second.await.unwrap().unwrap(), Told::Payload(bytes));
    assert!(
        answer(&mut phone, ask.ask_id, said(&json!({"yes": 1.0})))
            .await
            .unwrap()
    );
    assert_eq!(first.await.unwrap().unwrap(), told(&json!({"yes": 1.0})));
    // The client's own refusal.
    let third = asking(&backend, confirm);
    let ask = expect_ask(&mut phone, "confirm").await;
    let error = Given::Error(AnswerError {
        reason: "busy".to_owned(),
        message: "Not now.".to_owned(),
    });
    assert!(answer(&mut phone, ask.ask_id, error).await.unwrap());
    let (reason, message) = ("busy".to_owned(), "Not now.".to_owned());
    assert_eq!(
        third.await.unwrap().unwrap(),
        Told::Error(v1::AnswerError { reason, message })
    );
    // Nobody else was asked.
    laptop.join("r").await;
    backend.publish("r", "end", json!({})).await;
    laptop.expect_nothing_before("end").await;
    node.finish().await;
}

async fn an_answer_that_nobody_waits_for_is_said_to_be_so(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let (mut ada, mut eve) = (connect(&node, "ada").await, connect(&node, "eve").await);
    let asked = asking(&node.backend(), ask_of(&ada.id, "confirm", &json!(1)));
    let ask = expect_ask(&mut ada, "confirm").await;
    for made_up in [0, ask.ask_id + 1] {
        assert!(!answer(&mut ada, made_up, said(&json!(0))).await.unwrap());
    }
    // Nor can another client answer in its place.
    assert!(!answer(&mut eve, ask.ask_id, said(&json!(0))).await.unwrap());
    assert!(answer(&mut ada, ask.ask_id, said(&json!(1))).await.unwrap());
    assert!(!answer(&mut ada, ask.ask_id, said(&json!(2))).await.unwrap());
    assert_eq!(asked.await.unwrap().unwrap(), told(&json!(1)));
    // Neither an answer nor an error, and both in one text.
    let nothing = Command::Answer(Answer {
        ask_id: 1,
        answer: None,
    });
    assert_eq!(ada.ask(nothing).await.unwrap_err().reason, "invalid_argument");
    let long = Given::Error(AnswerError {
        reason: String::new(),
        message: "x".repeat(101),
    });
    let refused = answer(&mut ada, 1, long).await.unwrap_err();
    assert_eq!(refused.reason, "invalid_argument");
    node.finish().await;
}

async fn an_ask_that_has_no_answer_says_why(encoding: Encoding) {
    // Less than a message may have: a larger one ends the connection.
    let small = |config: &mut Config| config.session.payload_bytes_max = 1000;
    let node = Node::with(encoding, small).await;
    let backend = node.backend();
    let mut ada = connect(&node, "ada").await;
    let older = node.connect(user("ben")).await;
    let cannot = backend.ask(ask_of(&older.id, "confirm", &json!(1))).await;
    let nothing = String::new();
    assert_eq!(
        refused(cannot),
        (Code::FailedPrecondition, "CANNOT_ANSWER".to_owned(), nothing.clone())
    );
    let not_found = (Code::NotFound, "CONNECTION_NOT_FOUND".to_owned(), nothing);
    assert_eq!(
        refused(backend.ask(ask_of(&"1".repeat(32), "confirm", &json!(1))).await),
        not_found
    );
    let elsewhere = v1::AskRequest {
        tenant: "other".to_owned(),
        ..ask_of(&ada.id, "confirm", &json!(1))
    };
    assert_eq!(refused(backend.ask(elsewhere).await), not_found);
    let short = v1::AskRequest {
        timeout: Some(milliseconds(100)),
        ..ask_of(&ada.id, "confirm", &json!(1))
    };
    assert_eq!(
        refused(backend.ask(short).await),
        (Code::DeadlineExceeded, "NO_ANSWER".to_owned(), "true".to_owned())
    );
    let late = expect_ask(&mut ada, "confirm").await;
    // On another node the ask may still wait there, and is not waited for here.
    let _ = answer(&mut ada, late.ask_id, said(&json!(1))).await;
    // An answer that is too large: client and backend learn it.
    let asked = asking(&backend, ask_of(&ada.id, "report", &json!(1)));
    let ask = expect_ask(&mut ada, "report").await;
    let large = answer(&mut ada, ask.ask_id, said(&json!("x".repeat(1000)))).await;
    assert_eq!(large.unwrap_err().reason, "payload_too_large");
    assert_eq!(
        refused(asked.await.unwrap()),
        (Code::FailedPrecondition, "ANSWER_INVALID".to_owned(), "true".to_owned())
    );
    // The connection ends before it answers.
    let asked = asking(&backend, ask_of(&ada.id, "confirm", &json!(1)));
    expect_ask(&mut ada, "confirm").await;
    ada.close().await;
    assert_eq!(
        refused(asked.await.unwrap()),
        (Code::Unavailable, "CONNECTION_LOST".to_owned(), "true".to_owned())
    );
    node.finish().await;
}

/// A backend asks back in the course of the client's own event, which holds the client's next commands.
async fn an_answer_waits_for_no_command(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, validating(&app, LONG)).await;
    let (entered, has_entered) = mpsc::sync_channel(1);
    let (answered, is_answered) = mpsc::sync_channel(1);
    app.handles_events(move |_| {
        entered.send(()).unwrap();
        is_answered.recv().unwrap();
        outcome(Outcome::Accept(AcceptEvent::default()))
    });
    let mut ada = connect(&node, "ada").await;
    let publish = ada.say(Command::Publish(Publish::to("r", "order", json!(1)))).await;
    tokio::task::spawn_blocking(move || has_entered.recv().unwrap())
        .await
        .unwrap();
    let asked = asking(&node.backend(), ask_of(&ada.id, "confirm", &json!(1)));
    let ask = expect_ask(&mut ada, "confirm").await;
    assert!(answer(&mut ada, ask.ask_id, said(&json!(true))).await.unwrap());
    assert_eq!(asked.await.unwrap().unwrap(), told(&json!(true)));
    assert!(ada.reply_if_any(publish).is_none(), "the event still waits");
    answered.send(()).unwrap();
    assert!(matches!(ada.reply(publish).await, Ok(Said::Published(_))));
    node.finish().await;
}

async fn no_ask_is_delivered_after_a_revocation_of_everything(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut ada = connect(&node, "ada").await;
    let asked = asking(&backend, ask_of(&ada.id, "before", &json!(1)));
    let ask = expect_ask(&mut ada, "before").await;
    let revoke = |scope| revocation_of("ada", scope);
    // Of one room: an ask is of none.
    let access = &backend.access;
    access
        .clone()
        .revoke(revoke(Scope::Room("r".to_owned())))
        .await
        .unwrap();
    let everything = revoke(Scope::Everything(v1::EverythingScope {}));
    access.clone().revoke(everything).await.unwrap();
    assert_eq!(
        refused(asked.await.unwrap()),
        (Code::Unavailable, "CONNECTION_LOST".to_owned(), "true".to_owned())
    );
    assert!(!answer(&mut ada, ask.ask_id, said(&json!(1))).await.unwrap());
    assert_eq!(
        refused(backend.ask(ask_of(&ada.id, "after", &json!(1))).await),
        (Code::Unavailable, "NOT_STORED".to_owned(), String::new())
    );
    ada.ask(Command::Ping(Ping {})).await.unwrap();
    assert!(ada.take_pushes().is_empty());
    node.finish().await;
}

async fn asks_are_bounded_for_each_connection(encoding: Encoding) {
    let node = Node::with(encoding, |config: &mut Config| config.session.asked_max = 2).await;
    let backend = node.backend();
    let (mut ada, mut ben) = (connect(&node, "ada").await, connect(&node, "ben").await);
    let request = ask_of(&ada.id, "confirm", &json!(1));
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(asking(&backend, request.clone()));
        expect_ask(&mut ada, "confirm").await;
    }
    let limit = (Code::ResourceExhausted, "ASK_LIMIT".to_owned(), String::new());
    assert_eq!(refused(backend.ask(request.clone()).await), limit);
    let other = asking(&backend, ask_of(&ben.id, "confirm", &json!(1)));
    let ask = expect_ask(&mut ben, "confirm").await;
    assert!(answer(&mut ben, ask.ask_id, said(&json!(1))).await.unwrap());
    other.await.unwrap().unwrap();
    // A caller that goes makes room.
    waiting.pop().unwrap().abort();
    let (asked, ask) = loop {
        let mut asked = asking(&backend, request.clone());
        tokio::select! {
            ended = &mut asked => assert_eq!(refused(ended.unwrap()), limit),
            ask = expect_ask(&mut ada, "confirm") => break (asked, ask),
        }
    };
    assert!(answer(&mut ada, ask.ask_id, said(&json!(1))).await.unwrap());
    assert_eq!(asked.await.unwrap().unwrap(), told(&json!(1)));
    node.finish().await;
}

async fn asks_keep_their_place_among_events(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut ada = connect(&node, "ada").await;
    ada.join("r").await;
    for n in 0..20 {
        backend.publish("r", "e", json!(n)).await;
        ada.expect_event("r", "e").await;
        let asked = asking(&backend, ask_of(&ada.id, "confirm", &json!(n)));
        let ask = expect_ask(&mut ada, "confirm").await;
        assert!(answer(&mut ada, ask.ask_id, said(&json!(n))).await.unwrap());
        assert_eq!(asked.await.unwrap().unwrap(), told(&json!(n)));
    }
    node.finish().await;
}
