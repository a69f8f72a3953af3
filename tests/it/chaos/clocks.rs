//! A gateway whose wall clock is wrong: what it does, what it must not do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, Join, Ping};
use roomcast::proto::v1;
use serde_json::json;

use super::clock::Clock;
use super::fleet::{Fleet, FleetOptions};
use crate::support::{Caller, Client, InRoom as _, TENANT, User, draft, in_seconds, to_room, user};

const HOUR: Duration = Duration::from_secs(3600);

/// Two gateways, each with a clock of its own.
pub async fn two_with_clocks() -> Fleet {
    let options = FleetOptions {
        gateways: 2,
        clocks: true,
        ..FleetOptions::default()
    };
    Fleet::on_one(options).await
}

/// Somebody whose token outlasts whatever a clock does here.
fn patient(id: &str) -> User {
    user(id).expires_in(7 * 86_400)
}

/// How far a gateway's wall clock is ahead, by its own word, in seconds.
async fn ahead(client: &mut Client) -> i64 {
    let Ok(Said::Pong(pong)) = client.ask(Command::Ping(Ping::default())).await else {
        panic!("no pong")
    };
    pong.server_time_ms / 1000 - in_seconds(0)
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    now.as_millis()
        .try_into()
        .expect("it is long before the year 292,278,994")
}

async fn history(backend: &Caller, room: &str) -> Vec<u64> {
    let request = v1::ListHistoryRequest {
        tenant: TENANT.to_owned(),
        room: room.to_owned(),
        order: v1::HistoryOrder::OldestFirst.into(),
        page_size: 100,
        ..Default::default()
    };
    let page = backend.rooms.clone().list_history(request).await;
    let events = page.expect("a page of history").into_inner().events;
    events
        .into_iter()
        .map(|event| event.position.unwrap_or_default().offset)
        .collect()
}

/// Events are given out, kept, recovered, recognized and dated as if nothing were.
async fn events(wrong: impl FnOnce(&Clock), seconds: i64) {
    let fleet = two_with_clocks().await;
    let (here, there) = (fleet.backend(0), fleet.backend(1));
    let mut ada = fleet.gateways[0].connect(patient("ada")).await;
    let mut ben = fleet.gateways[1].connect(patient("ben")).await;
    let start = ada.join("r").await.head.expect("a join tells the position");
    ben.join("r").await;
    assert!(ahead(&mut ada).await.abs() <= 1);
    let keyed = v1::PublishRequest {
        targets: vec![to_room("r")],
        idempotency_key: "once".to_owned(),
        ..draft("keyed", json!({}))
    };
    here.send(keyed.clone()).await.expect("it is stored");
    wrong(&fleet.clocks[0]);
    let off = ahead(&mut ada).await - seconds;
    assert!(
        off.abs() <= 1,
        "the gateway's clock is off by {off} s more than was asked for"
    );
    assert!(ahead(&mut ben).await.abs() <= 1);

    here.publish("r", "here", json!({})).await;
    there.publish("r", "there", json!({})).await;
    for backend in [&here, &there] {
        let answer = backend.send(keyed.clone()).await.expect("it is known");
        assert!(answer.results[0].duplicate);
    }
    let mut offsets = Vec::new();
    for client in [&mut ada, &mut ben] {
        offsets = Vec::new();
        for name in ["keyed", "here", "there"] {
            let event = client.expect_event("r", name).await;
            assert!(
                (now_ms() - event.time_ms).abs() < 60_000,
                "dated {} at {}",
                event.time_ms,
                now_ms()
            );
            offsets.push(event.offset);
        }
    }
    // Of a room with members, of one without on that gateway, and from the start by somebody who comes back.
    assert_eq!(history(&here, "r").await, offsets);
    let other = there
        .publish("other", "n", json!({}))
        .await
        .position
        .expect("it is stored");
    assert_eq!(history(&here, "other").await, [other.offset]);
    ada.crash();
    let mut ada = fleet.gateways[0].connect(patient("ada")).await;
    let back = ada.join_since("r", &start).await;
    assert!(back.recovered);
    assert_eq!(ada.events(3).await.len(), 3);
    // An event that only this gateway sees, and only now.
    let last = here
        .publish("r", "last", json!({}))
        .await
        .position
        .expect("it is stored");
    assert_eq!(ada.expect_event("r", "last").await.offset, last.offset);
    assert_eq!(ben.expect_event("r", "last").await.offset, last.offset);
    // Neither was told that anything is wrong, and a lease that had lapsed would have been told.
    assert!(ada.take_pushes().is_empty() && ben.take_pushes().is_empty());
    fleet.assert_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_clock_is_an_hour_ahead_keeps_and_gives_out_all_events() {
    events(|clock| clock.ahead(HOUR), 3600).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_clock_is_an_hour_behind_keeps_and_gives_out_all_events() {
    events(|clock| clock.behind(HOUR), -3600).await;
}

async fn revoke(backend: &Caller, user: &str, ttl: Duration) -> v1::RevokeResponse {
    let request = v1::RevokeRequest {
        tenant: TENANT.to_owned(),
        subject: Some(v1::revoke_request::Subject::UserId(user.to_owned())),
        scope: Some(v1::revoke_request::Scope::Room("r".to_owned())),
        ttl: Some(ttl.try_into().expect("a short time")),
        ..Default::default()
    };
    let revoked = backend.access.clone().revoke(request).await;
    revoked.expect("the revocation is stored").into_inner()
}

async fn assert_shut_out(fleet: &Fleet, gateway: usize, id: &str) {
    let mut client = fleet.gateways[gateway].connect(patient(id)).await;
    let refused = client
        .try_join(Join::in_room("r"))
        .await
        .expect_err("the right was taken");
    assert_eq!(refused.code(), ErrorCode::Forbidden, "{id} at {gateway}");
    client.close().await;
}

/// A revocation that is shorter than the clock is wrong holds on this gateway as on others, also after it was started anew.
async fn revocations(wrong: impl FnOnce(&Clock)) {
    let fleet = two_with_clocks().await;
    let mut ada = fleet.gateways[0].connect(patient("ada")).await;
    ada.join("r").await;
    wrong(&fleet.clocks[0]);
    for (gateway, user) in ["ada", "ben"].into_iter().enumerate() {
        let revoked = revoke(&fleet.backend(1 - gateway), user, HOUR / 4).await;
        assert_eq!(
            (revoked.confirmed_node_ids.len(), revoked.unconfirmed_node_ids.len()),
            (2, 0)
        );
    }
    let Said::RoomLeft(_) = ada.push().await else {
        panic!("ada is in the room")
    };
    for gateway in [0, 1] {
        assert_shut_out(&fleet, gateway, "ada").await;
        assert_shut_out(&fleet, gateway, "ben").await;
    }
    ada.close().await;
    fleet.gateways[0].stop().await;
    fleet.gateways[0].restart().await;
    assert_shut_out(&fleet, 0, "ada").await;
    assert_shut_out(&fleet, 0, "ben").await;
    // Who may still deliver is known by the stream's time: the one that is stopped is named, and no other.
    fleet.gateways[1].pause().await;
    let revoked = revoke(&fleet.backend(0), "eve", HOUR / 4).await;
    assert_eq!(revoked.unconfirmed_node_ids, ["node-1"]);
    fleet.gateways[1].resume();
    fleet.assert_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_clock_is_an_hour_ahead_obeys_revocations() {
    revocations(|clock| clock.ahead(HOUR)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_clock_is_an_hour_behind_obeys_revocations() {
    revocations(|clock| clock.behind(HOUR)).await;
}

/// Tokens end by the wall clock, whatever it says: of those who have one only whose token ends is closed, and where the
/// clock is right it is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_ended_by_a_clock_that_jumped_is_refused_there_and_nothing_else_breaks() {
    let fleet = two_with_clocks().await;
    let short = user("ada").expires_in(1800);
    let mut ada = fleet.gateways[0].connect(short.clone()).await;
    let mut ben = fleet.gateways[0].connect(patient("ben")).await;
    ada.join("r").await;
    ben.join("r").await;
    fleet.clocks[0].ahead(HOUR);
    loop {
        match ada.push().await {
            Said::SessionExpiring(_) => {}
            Said::Error(error) => break assert_eq!(error.reason, "token_expired"),
            other => panic!("{other:?}"),
        }
    }
    ada.expect_close(4502).await;
    let mut ada = fleet.gateways[0].opening().open().await.expect("anybody may open one");
    let refused = ada.authenticate(&short, Vec::new()).await.expect_err("it has ended");
    assert_eq!(refused.reason, "token_expired");
    let mut ada = fleet.gateways[1].connect(short).await;
    ada.join("r").await;
    fleet.backend(0).publish("r", "n", json!({})).await;
    ada.expect_event("r", "n").await;
    ben.expect_event("r", "n").await;
    fleet.assert_sound();
}

/// A clock that is set back just before a token ends does not make it last for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_also_after_the_clock_was_set_back_and_forth() {
    let fleet = two_with_clocks().await;
    // It ends 5 s from now: the leeway of 10 s counts.
    let mut ada = fleet.gateways[0].connect(user("ada").expires_in(-5)).await;
    fleet.clocks[0].behind(HOUR);
    let ends = in_seconds(7);
    while in_seconds(0) < ends {
        assert!(ahead(&mut ada).await < -3500);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fleet.clocks[0].mend();
    ada.expect_close(4502).await;
}
