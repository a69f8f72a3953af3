//! An application written in Python, behind a gateway: what `roomcast.backend.v1` promises to who implements it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use roomcast::backend;
use roomcast::policy::{ActionName, AuthorizerConfig, RuleConfig};
use roomcast::proto::client_v1::client_frame::Command as Say;
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, Join, Payload, Publish, Request};
use serde_json::{Value, json};

use crate::support::{Carries as _, Encoding, InRoom as _, Node, ToRoom as _, rule, user};
use crate::tools;

/// How long a call to it may take, on a machine with other worries.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A running application; it ends with this value.
struct Application {
    process: Child,
    url: String,
}

impl Application {
    fn start() -> Self {
        let folder = tools::root().join("tests/clients/python");
        let mut process = Command::new(tools::installed("tests/clients/python/.venv/bin/python"))
            .current_dir(&folder)
            .env("PYTHONPATH", "gen")
            .arg("backend.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        assert!(
            url.starts_with("http://"),
            "the application says where it listens: {url}"
        );
        Self { process, url }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn start(url: String) -> Node {
    Node::with(Encoding::Json, move |config| {
        config.backend = Some(backend::Config {
            timeout: TIMEOUT,
            ..backend::Config::at(url.clone())
        });
        config.policy.authorizer = Some(AuthorizerConfig {
            timeout: TIMEOUT,
            ..AuthorizerConfig::at(url.clone())
        });
        let asked = |name: &str, room: &str, allow: &[ActionName]| RuleConfig {
            authorizer: true,
            ..rule(name, room, allow)
        };
        config.policy.rules = vec![
            RuleConfig {
                validate: true,
                ..asked("seats", "seats:{hall}", &[ActionName::Join, ActionName::Publish])
            },
            asked("private", "private:{user}", &[ActionName::Join]),
            rule("requests", "seats:{hall}", &[ActionName::Request]),
        ];
    })
    .await
}

fn take(seat: u32, key: &str) -> Publish {
    Publish {
        idempotency_key: key.to_owned(),
        ..Publish::to("seats:1", "seat:take", json!({"seat": seat}))
    }
}

fn value(payload: Option<Payload>) -> Option<Value> {
    match payload?.content? {
        Content::Json(text) => serde_json::from_str(&text).ok(),
        Content::Binary(_) => None,
    }
}

#[tokio::test]
async fn a_backend_in_python_decides_replies_and_emits() {
    let application = Application::start();
    let node = start(application.url.clone()).await;
    let (mut ada, mut ben) = (node.connect(user("ada")).await, node.connect(user("ben")).await);
    for client in [&mut ada, &mut ben] {
        client.join("seats:1").await;
    }
    ada.join("private:ada").await;
    let refusal = ben.try_join(Join::in_room("private:ada")).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::Forbidden);

    // A client that repeats itself is told the same, and nobody hears of it twice.
    for _ in 0..2 {
        let taken = ada.try_publish(take(4, "one")).await.unwrap();
        assert_eq!((taken.position.as_ref(), taken.reached), (None, None));
        assert_eq!(
            value(taken.reply.and_then(|reply| reply.payload)),
            Some(json!({"seat": 4}))
        );
    }
    ada.expect_passed("seats:1").await;
    let heard = ben.expect_event("seats:1", "seat:taken").await;
    assert_eq!(
        (heard.json(), heard.actor_user_id.as_str()),
        (json!({"seat": 4}), "ada")
    );
    let refusal = ben.try_publish(take(4, "two")).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.reason.as_str(), refusal.message.as_str()),
        (ErrorCode::Forbidden, "seat_taken", "Seat 4 is taken.")
    );
    ben.publish("seats:1", "chat", json!("well")).await;
    for client in [&mut ada, &mut ben] {
        client.expect_event("seats:1", "chat").await;
    }
    let ask = Say::Request(Request {
        method: "seats:sold".to_owned(),
        room: "seats:1".to_owned(),
        payload: Some(Payload {
            content: Some(Content::Json("null".to_owned())),
        }),
    });
    let Ok(Said::Reply(reply)) = ben.ask(ask).await else {
        panic!("no reply")
    };
    assert_eq!(value(reply.payload), Some(json!([4])));
    node.finish().await;
}
