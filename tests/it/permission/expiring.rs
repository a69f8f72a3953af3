//! What the authorizer allows for a time, and a token that is replaced meanwhile.

use std::time::Duration;

use roomcast::gateway::Config;
use roomcast::proto::backend::v1 as backend_v1;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{Refresh, RoomChangeCause};
use roomcast::proto::v1;
use serde_json::json;

use super::application::{LONG, asking};
use crate::support::{Answer, Application, Client, Encoding, Node, User, allow, over_encodings, user};

over_encodings! {
    a_membership_ends_by_what_the_authorizer_said_of_the_newest_token,
    a_session_ends_by_what_the_authorizer_said_of_the_newest_token,
}

async fn refresh(client: &mut Client, user: &User) -> i64 {
    match client.ask(Command::Refresh(Refresh { token: user.token() })).await {
        Ok(Said::Refreshed(refreshed)) => refreshed.expires_at_ms,
        other => panic!("refreshed: {other:?}"),
    }
}

/// Allows until this time, or without an end.
fn allow_until(seconds: Option<i64>) -> Answer<backend_v1::AuthorizeResponse> {
    Answer::Say(backend_v1::AuthorizeResponse {
        decision: v1::Decision::Allow.into(),
        expire_time: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        ..Default::default()
    })
}

/// One shard, so that whoever sees a membership end knows that all that end with it have ended.
fn asked_at_connect(app: &Application) -> impl Fn(&mut Config) + Send + Sync + 'static {
    let usual = asking(app, LONG);
    move |config| {
        usual(config);
        config.shards = 1;
        // No notice comes between what the tests wait for.
        config.session.expiry_notice = Duration::ZERO;
        config.policy.connect.authorizer = true;
    }
}

async fn a_membership_ends_by_what_the_authorizer_said_of_the_newest_token(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, asked_at_connect(&app)).await;
    let end = crate::support::in_seconds(8);
    app.authorizes(move |question| {
        let is = |plan: &str| question.subject.as_ref().unwrap().claims_json.contains(plan);
        match question.action() {
            v1::Action::Connect if is("at home") => Answer::Say(backend_v1::AuthorizeResponse {
                decision: v1::Decision::Allow.into(),
                join_rooms: vec!["ask:1".to_owned()],
                ..Default::default()
            }),
            v1::Action::Connect => allow(),
            _ if is("longer") => allow_until(Some(end + 3600)),
            _ if is("ever") => allow_until(None),
            _ if is("over") => allow_until(Some(crate::support::in_seconds(1))),
            _ => allow_until(Some(end)),
        }
    });
    let mut stays = Vec::new();
    for (id, plan) in [("a", "longer"), ("b", "ever"), ("c", "at home")] {
        let mut client = node.connect(user(id)).await;
        client.join("ask:1").await;
        refresh(&mut client, &user(id).claim("plan", plan)).await;
        stays.push(client);
    }
    let mut left = node.connect(user("bob")).await;
    left.join("ask:1").await;
    expect_expired(&mut left).await;
    node.backend().publish("ask:1", "still here", json!({})).await;
    for client in &mut stays {
        client.expect_event("ask:1", "still here").await;
    }
    // Nor does the newest token have to allow more than the one before.
    let [longer, ..] = &mut stays[..] else { unreachable!() };
    refresh(longer, &user("a").claim("plan", "over")).await;
    expect_expired(longer).await;
    node.finish().await;
}

async fn expect_expired(client: &mut Client) {
    match client.push().await {
        Said::RoomLeft(left) => assert_eq!(
            (left.room.as_str(), left.cause(), left.reason.as_str()),
            ("ask:1", RoomChangeCause::Expired, "expired")
        ),
        other => panic!("the membership ends: {other:?}"),
    }
}

async fn a_session_ends_by_what_the_authorizer_said_of_the_newest_token(encoding: Encoding) {
    let app = Application::start().await;
    let node = Node::with(encoding, asked_at_connect(&app)).await;
    let end = crate::support::in_seconds(8);
    app.authorizes(move |question| {
        let is = |plan: &str| question.subject.as_ref().unwrap().claims_json.contains(plan);
        allow_until(match () {
            () if is("longer") => Some(end + 600),
            () if is("ever") => None,
            () if is("sooner") => Some(crate::support::in_seconds(2)),
            () => Some(end),
        })
    });
    let (ada, bob) = (user("ada"), user("bob"));
    let (mut longer, mut left) = (node.connect(ada.clone()).await, node.connect(bob.clone()).await);
    longer.join("free").await;
    let renewed = refresh(&mut longer, &ada.clone().claim("plan", "longer")).await;
    assert_eq!(renewed, (end + 600) * 1_000);
    // Without an answer of its own, the token's end counts again.
    let lasting = refresh(&mut longer, &ada.clone().claim("plan", "ever")).await;
    assert!(lasting > renewed, "{lasting}");
    // And one that says the same prolongs nothing.
    assert_eq!(refresh(&mut left, &bob.claim("plan", "same")).await, end * 1_000);
    left.expect_close(4502).await;
    node.backend().publish("free", "still here", json!({})).await;
    longer.expect_event("free", "still here").await;
    // What ends sooner ends the session sooner.
    refresh(&mut longer, &ada.claim("plan", "sooner")).await;
    longer.expect_close(4502).await;
    node.finish().await;
}
