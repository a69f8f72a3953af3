//! What an application says that takes an event for itself: a reply to the sender, and events to others.

use roomcast::event::Except;
use roomcast::gateway::Config;
use roomcast::proto::backend::v1::handle_response::Outcome;
use roomcast::proto::backend::v1::{EmittedEvent, HandledEvent};
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::{ErrorCode, Publish, Published};
use roomcast::proto::v1::target::Target as Kind;
use roomcast::proto::v1::{Payload, Retention, Target, TenantTarget};
use serde_json::{Value, json};

use super::application::{LONG, outcome, validating};
use crate::support::{
    Application, Carries as _, Client, Encoding, Node, ToRoom as _, home_rooms, over_encodings, payload, to_room, user,
};

over_encodings! {
    a_reply_goes_to_the_sender_and_emitted_events_to_their_targets,
    a_repeated_event_emits_nothing_twice,
    an_event_that_cannot_be_emitted_refuses_all_of_it,
}

async fn start(encoding: Encoding, app: &Application) -> Node {
    let validating = validating(app, LONG);
    Node::with(encoding, move |config: &mut Config| {
        home_rooms(config);
        validating(config);
    })
    .await
}

fn target(kind: Kind) -> Target {
    Target { target: Some(kind) }
}

fn emitted(name: &str, targets: Vec<Target>) -> EmittedEvent {
    EmittedEvent {
        targets,
        event_name: name.to_owned(),
        payload: Some(payload(&json!({"of": name}))),
        ..EmittedEvent::default()
    }
}

fn handled(reply: Option<Payload>, emit: Vec<EmittedEvent>) -> Outcome {
    Outcome::Handled(HandledEvent { reply, emit })
}

/// What the reply to a publish carries.
fn said(published: Published) -> Option<Value> {
    match published.reply?.payload?.content? {
        Content::Json(text) => Some(serde_json::from_str(&text).unwrap()),
        Content::Binary(_) => None,
    }
}

async fn a_reply_goes_to_the_sender_and_emitted_events_to_their_targets(encoding: Encoding) {
    let app = Application::start().await;
    let node = start(encoding, &app).await;
    let mut ada = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    for client in [&mut ada, &mut ben] {
        client.join("r").await;
    }
    let to_ada = ada.id.clone();
    app.handles_events(move |event| {
        assert_eq!((event.room.as_str(), event.event_name.as_str()), ("r", "seat:take"));
        let emit = vec![
            EmittedEvent {
                exclude_sender: true,
                ..emitted("seat:taken", vec![to_room("r")])
            },
            emitted("seat:yours", vec![target(Kind::UserId("ben".to_owned()))]),
            EmittedEvent {
                retention: Retention::LastValue.into(),
                ..emitted("seats:left", vec![target(Kind::Everyone(TenantTarget {}))])
            },
            EmittedEvent {
                retention: Retention::Ephemeral.into(),
                ..emitted("hint", vec![target(Kind::ConnectionId(to_ada.clone()))])
            },
        ];
        outcome(handled(Some(payload(&json!({"seat": 4}))), emit))
    });
    let published = ada.publish("r", "seat:take", json!({"seat": 4})).await;
    assert_eq!((published.position.clone(), published.reached), (None, None));
    assert_eq!(said(published), Some(json!({"seat": 4})));

    ada.expect_passed("r").await;
    ada.expect_event("tenant:acme", "seats:left").await;
    let hint = ada.expect_event("", "hint").await;
    assert_eq!((hint.actor_user_id.as_str(), hint.offset), ("ada", 0));
    let taken = ben.expect_event("r", "seat:taken").await;
    assert_eq!(
        (taken.json(), taken.actor_user_id.as_str()),
        (json!({"of": "seat:taken"}), "ada")
    );
    ben.expect_event("user:ben", "seat:yours").await;
    ben.expect_event("tenant:acme", "seats:left").await;
    expect_the_end(&node, [&mut ada, &mut ben]).await;
    node.finish().await;
}

async fn a_repeated_event_emits_nothing_twice(encoding: Encoding) {
    let app = Application::start().await;
    let node = start(encoding, &app).await;
    let mut ada = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    for client in [&mut ada, &mut ben] {
        client.join("r").await;
    }
    let mut times = 0;
    app.handles_events(move |event| {
        times += 1;
        // What it says the second time is another text: the first time stands.
        let told = EmittedEvent {
            payload: Some(payload(&json!({"key": event.idempotency_key, "time": times}))),
            ..emitted("told", vec![to_room("r"), to_room("s")])
        };
        outcome(handled(Some(payload(&json!(times))), vec![told.clone(), told]))
    });
    let publish = |key: &str| Publish {
        idempotency_key: key.to_owned(),
        ..Publish::to("r", "take", json!(1))
    };
    for (key, time) in [("one", 1), ("one", 2), ("two", 3)] {
        let published = ada.try_publish(publish(key)).await.unwrap();
        assert_eq!(said(published), Some(json!(time)));
    }
    // Another user's key of the same text is another key.
    ben.try_publish(publish("one")).await.unwrap();
    for client in [&mut ada, &mut ben] {
        for (key, time) in [("one", 1), ("two", 3), ("one", 4)] {
            for _ in 0..2 {
                let told = client.expect_event("r", "told").await;
                assert_eq!(told.json(), json!({"key": key, "time": time}));
            }
        }
    }
    expect_the_end(&node, [&mut ada, &mut ben]).await;
    node.finish().await;
}

async fn an_event_that_cannot_be_emitted_refuses_all_of_it(encoding: Encoding) {
    let app = Application::start().await;
    let node = start(encoding, &app).await;
    let mut ada = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    for client in [&mut ada, &mut ben] {
        client.join("r").await;
    }
    let good = || emitted("good", vec![to_room("r")]);
    let connection = || vec![target(Kind::ConnectionId(ada.id.clone()))];
    let junk = [
        vec![good(); 17],
        vec![good(), emitted("no targets", Vec::new())],
        vec![good(), emitted("many", vec![to_room("r"); Except::MAX + 1])],
        vec![good(), emitted("no kind", vec![Target { target: None }])],
        vec![good(), emitted("no room", vec![to_room("")])],
        vec![good(), emitted("a\nb", vec![to_room("r")])],
        vec![good(), emitted("kept for one", connection())],
        vec![
            good(),
            EmittedEvent {
                payload: None,
                ..good()
            },
        ],
        vec![
            good(),
            EmittedEvent {
                retention: 77,
                ..good()
            },
        ],
    ];
    for emit in junk {
        let (what, answer) = (format!("{:?}", emit.last()), handled(None, emit));
        app.handles_events(move |_| outcome(answer.clone()));
        let refusal = ada.try_publish(Publish::to("r", "take", json!(1))).await.unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::Unavailable, "{what}");
    }
    expect_the_end(&node, [&mut ada, &mut ben]).await;
    node.finish().await;
}

async fn expect_the_end(node: &Node, clients: [&mut Client; 2]) {
    node.backend().publish("r", "end", json!({})).await;
    for client in clients {
        client.expect_nothing_before("end").await;
    }
}
