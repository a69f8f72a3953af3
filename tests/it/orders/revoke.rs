//! Withdrawing access: when the call returns, it is withdrawn.

use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, HistoryQuery, Join, PresenceQuery, RoomChangeCause};
use roomcast::proto::v1;
use roomcast::rate::Rate;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::expect_left;
use crate::support::{Encoding, InRoom as _, Node, TENANT, home_rooms, over_encodings, user, within};

over_encodings! {
    after_a_revocation_returns_nothing_of_the_room_arrives,
    who_has_not_read_everything_gets_nothing_more_after_a_revocation,
    a_revocation_refuses_joins_history_and_presence,
    a_revocation_by_pattern_hits_what_matches_and_nothing_else,
    a_revocation_of_everything_leaves_the_connection_open_and_in_no_room,
}

fn revocation(user: &str, scope: v1::revoke_request::Scope) -> v1::RevokeRequest {
    v1::RevokeRequest {
        tenant: TENANT.to_owned(),
        subject: Some(v1::revoke_request::Subject::UserId(user.to_owned())),
        scope: Some(scope),
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        reason: "project_left".to_owned(),
        message: "left the project".to_owned(),
        ..Default::default()
    }
}

async fn revoke(node: &Node, user: &str, scope: v1::revoke_request::Scope) -> v1::RevokeResponse {
    let response = node
        .backend()
        .access
        .clone()
        .revoke(revocation(user, scope))
        .await
        .unwrap()
        .into_inner();
    let mut confirmed = response.confirmed_node_ids.clone();
    confirmed.sort();
    assert_eq!((confirmed, response.unconfirmed_node_ids.len()), (node.ids(), 0));
    response
}

pub(super) fn the_room(room: &str) -> v1::revoke_request::Scope {
    v1::revoke_request::Scope::Room(room.to_owned())
}

async fn after_a_revocation_returns_nothing_of_the_room_arrives(encoding: Encoding) {
    let node = Node::with(encoding, |config| {
        let rate = Rate {
            per_second: 100_000,
            burst: 100_000,
        };
        config.session.join_rate = rate;
        config.connections.per_user_max = 1000;
    })
    .await;
    let stop = CancellationToken::new();
    let mut publishers = JoinSet::new();
    for _ in 0..2 {
        let (backend, stop) = (node.backend(), stop.clone());
        publishers.spawn(async move {
            while !stop.is_cancelled() {
                backend.publish("r", "n", json!({})).await;
            }
        });
    }
    let backend = node.backend();
    let mut witness = node.connect(user("ben")).await;
    witness.join("r").await;
    for turn in 0..30 {
        let name = format!("user {turn}");
        let mut ada = node.connect(user(&name)).await;
        ada.join("r").await;
        ada.event().await;
        let removed = revoke(&node, &name, the_room("r")).await.removed_membership_count;
        assert_eq!(removed, 1);
        // Every event published from here on has an offset after this one's.
        let barrier = backend.publish("r", "n", json!({})).await.position.unwrap().offset;
        assert_eq!(
            ada.try_join(Join::in_room("r")).await.unwrap_err().code(),
            ErrorCode::Forbidden
        );
        let mut told = false;
        for push in ada.take_pushes() {
            match push {
                Said::Event(event) => assert!(event.offset < barrier && !told, "{event:?} after {barrier}"),
                Said::RoomLeft(left) => told = left.room == "r" && left.cause() == RoomChangeCause::Revoked,
                other => panic!("{other:?}"),
            }
        }
        assert!(told, "who is taken out is told");
        ada.crash();
        witness.event().await;
    }
    stop.cancel();
    while let Some(ended) = within("the publishers", publishers.join_next()).await {
        ended.unwrap();
    }
    node.finish().await;
}

async fn who_has_not_read_everything_gets_nothing_more_after_a_revocation(encoding: Encoding) {
    let roomy = |config: &mut Config| config.sockets.outbox.outbox_bytes_max = 64 << 20;
    let node = Node::with(encoding, roomy).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    // More than the kernel takes for a client that does not read.
    let padding = "x".repeat(60 * 1024);
    let mut last = 0;
    for _ in 0..150 {
        last = backend.publish("r", "n", json!(padding)).await.position.unwrap().offset;
    }
    revoke(&node, "ada", the_room("r")).await;
    backend.publish("r", "n", json!(padding)).await;
    ada.expect_close(4004).await;
    let pushes = ada.take_pushes();
    assert!(pushes.len() < 150, "some of it was still on its way");
    let late = pushes
        .iter()
        .any(|push| matches!(push, Said::Event(event) if event.offset > last));
    assert!(!late, "an event from after the revocation");
    node.finish().await;
}

async fn a_revocation_refuses_joins_history_and_presence(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let (mut phone, mut laptop) = (node.connect(user("ada")).await, node.connect(user("ada")).await);
    let mut ben = node.connect(user("ben")).await;
    for client in [&mut phone, &mut laptop, &mut ben] {
        client.join("r").await;
    }
    backend.publish("r", "seen", json!({})).await;
    let since = ben.expect_event("r", "seen").await;
    for client in [&mut phone, &mut laptop] {
        client.expect_event("r", "seen").await;
    }
    assert_eq!(revoke(&node, "ada", the_room("r")).await.removed_membership_count, 2);
    for client in [&mut phone, &mut laptop] {
        let told = expect_left(client, "r", RoomChangeCause::Revoked).await;
        assert_eq!(told.message, "left the project");
        let room = || "r".to_owned();
        let history = HistoryQuery {
            room: room(),
            ..Default::default()
        };
        let commands = [
            Command::Join(Join::in_room("r")),
            Command::HistoryQuery(history),
            Command::PresenceQuery(PresenceQuery { room: room() }),
        ];
        for command in commands {
            let refusal = client.ask(command.clone()).await.unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::Forbidden, "{command:?}");
        }
    }
    // Resuming is no way around it, nor is a new connection.
    let mut again = node.connect(user("ada")).await;
    let mut join = Join::in_room("r");
    join.since = Some(roomcast::proto::client_v1::Position {
        epoch: since.epoch,
        offset: since.previous_offset,
    });
    assert_eq!(again.try_join(join).await.unwrap_err().code(), ErrorCode::Forbidden);
    node.assert_reached(backend.publish("r", "end", json!({})).await.reached, 1);
    ben.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_revocation_by_pattern_hits_what_matches_and_nothing_else(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    for room in ["doc:1", "doc:2", "document", "chat"] {
        ada.join(room).await;
    }
    let scope = v1::revoke_request::Scope::RoomPattern("doc:*".to_owned());
    assert_eq!(revoke(&node, "ada", scope).await.removed_membership_count, 2);
    let mut left = [ada.push().await, ada.push().await].map(|push| match push {
        Said::RoomLeft(left) => left.room,
        other => panic!("{other:?}"),
    });
    left.sort();
    assert_eq!(left, ["doc:1", "doc:2"]);
    assert_eq!(
        ada.try_join(Join::in_room("doc:3")).await.unwrap_err().code(),
        ErrorCode::Forbidden
    );
    for room in ["document", "chat"] {
        backend.publish(room, "still here", json!({})).await;
        ada.expect_event(room, "still here").await;
    }
    // Nobody else is hit: not of that name in another tenant, not of another name here.
    let mut ben = node.connect(user("ben")).await;
    ben.join("doc:1").await;
    let mut stranger = node.connect(user("ada").tenant("other")).await;
    stranger.join("doc:1").await;
    node.finish().await;
}

async fn a_revocation_of_everything_leaves_the_connection_open_and_in_no_room(encoding: Encoding) {
    let node = Node::with(encoding, home_rooms).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let everything = v1::revoke_request::Scope::Everything(v1::EverythingScope {});
    assert_eq!(revoke(&node, "ada", everything).await.removed_membership_count, 3);
    let mut left = Vec::new();
    for _ in 0..3 {
        let Said::RoomLeft(pushed) = ada.push().await else {
            panic!("not told")
        };
        left.push(pushed.room);
    }
    left.sort();
    assert_eq!(left, ["r", "tenant:acme", "user:ada"]);
    let refusal = ada.try_join(Join::in_room("s")).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::Forbidden);
    // Nor does a new connection get back into the rooms it was put into by itself.
    let mut again = node.open().await;
    let connected = again.authenticate(&user("ada"), Vec::new()).await.unwrap();
    assert_eq!(connected.rooms, []);
    node.assert_reached(backend.publish("user:ada", "unheard", json!({})).await.reached, 0);
    node.finish().await;
}
