//! What a backend does to clients: puts them into rooms, takes them out, sends them away, withdraws access, watches.

use roomcast::gateway::Config;
use roomcast::policy::{ActionName, RuleConfig};
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, HistoryQuery, Join, PresenceQuery, RoomChangeReason, RoomLeft};
use roomcast::proto::v1;
use roomcast::proto::v1::watch_response::Event as Happened;
use roomcast::rate::Rate;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::support::{
    Caller, Client, Encoding, InRoom as _, Node, TENANT, home_rooms, over_encodings, reason, rule, user, within,
};

over_encodings! {
    a_backend_puts_a_user_into_a_room_whatever_the_rules_say,
    a_backend_takes_a_user_out_of_a_room,
    a_backend_sends_clients_away,
    after_a_revocation_returns_nothing_of_the_room_arrives,
    a_revocation_refuses_joins_history_and_presence,
    a_revocation_by_pattern_hits_what_matches_and_nothing_else,
    what_a_refreshed_token_no_longer_allows_is_left,
}

async fn join(backend: &Caller, room: &str, member: v1::join_room_request::Member) -> Result<u32, Status> {
    let request = v1::JoinRoomRequest {
        tenant: TENANT.to_owned(),
        room: room.to_owned(),
        member: Some(member),
    };
    let response = backend.rooms.clone().join_room(request).await?;
    Ok(response.into_inner().connections_joined)
}

fn the_user(id: &str) -> v1::join_room_request::Member {
    v1::join_room_request::Member::UserId(id.to_owned())
}

async fn a_backend_puts_a_user_into_a_room_whatever_the_rules_say(encoding: Encoding) {
    let nothing = |config: &mut Config| config.policy.rules.clear();
    let node = Node::with(encoding, nothing).await;
    let backend = node.backend();
    let mut phone = node.connect(user("ada")).await;
    let mut laptop = node.connect(user("ada")).await;
    assert_eq!(
        phone.try_join(Join::in_room("r")).await.unwrap_err().code(),
        ErrorCode::Forbidden
    );
    backend.publish("r", "before", json!({})).await;
    assert_eq!(join(&backend, "r", the_user("ada")).await.unwrap(), 2);
    backend.publish("r", "after", json!({})).await;
    for client in [&mut phone, &mut laptop] {
        let Said::RoomJoined(pushed) = client.push().await else {
            panic!("no push")
        };
        assert_eq!(pushed.reason(), RoomChangeReason::Backend);
        assert_eq!(pushed.joined.unwrap().room, "r");
        client.expect_nothing_before("after").await;
    }
    // Again: it is there already, and is not told a second time.
    assert_eq!(join(&backend, "r", the_user("ada")).await.unwrap(), 2);
    assert_eq!(join(&backend, "r", the_user("nobody")).await.unwrap(), 0);
    let connection = |id: &str| v1::join_room_request::Member::ConnectionId(id.to_owned());
    assert_eq!(join(&backend, "s", connection(&phone.id)).await.unwrap(), 1);
    let Said::RoomJoined(_) = phone.push().await else {
        panic!("no push")
    };
    let nobody = join(&backend, "s", connection(&"0".repeat(32))).await.unwrap_err();
    assert_eq!(
        (nobody.code(), reason(&nobody).as_str()),
        (Code::NotFound, "CONNECTION_NOT_FOUND")
    );
    // Whoever may act in one tenant finds nobody in another.
    let stranger = node.connect(user("zoe").tenant("other")).await;
    assert_eq!(
        join(&backend, "s", connection(&stranger.id)).await.unwrap_err().code(),
        Code::NotFound
    );
    for room in ["r", "s"] {
        backend.publish(room, "end", json!({})).await;
    }
    phone.expect_event("r", "end").await;
    phone.expect_event("s", "end").await;
    laptop.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_backend_takes_a_user_out_of_a_room(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let leave = v1::LeaveRoomRequest {
        tenant: TENANT.to_owned(),
        room: "r".to_owned(),
        reason: "the project is closed".to_owned(),
        member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
    };
    let left = backend
        .rooms
        .clone()
        .leave_room(leave.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(left.connections_left, 1);
    assert_eq!(backend.publish("r", "unheard", json!({})).await.reached, 0);
    let told = expect_left(&mut ada, "r", RoomChangeReason::Backend).await;
    assert_eq!(told.message, "the project is closed");
    let left = backend.rooms.clone().leave_room(leave).await.unwrap().into_inner();
    assert_eq!(left.connections_left, 0);
    ada.join("r").await;
    backend.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn expect_left(client: &mut Client, room: &str, why: RoomChangeReason) -> RoomLeft {
    match client.push().await {
        Said::RoomLeft(left) if left.room == room && left.reason() == why => left,
        other => panic!("{client} is not told that it left `{room}`: {other:?}"),
    }
}

async fn a_backend_sends_clients_away(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let (mut phone, mut laptop) = (node.connect(user("ada")).await, node.connect(user("ada")).await);
    let mut ben = node.connect(user("ben")).await;
    let disconnect = |session, may_reconnect| {
        let request = v1::DisconnectRequest {
            tenant: TENANT.to_owned(),
            session: Some(session),
            reason: String::new(),
            may_reconnect,
        };
        let mut rooms = backend.rooms.clone();
        async move {
            rooms
                .disconnect(request)
                .await
                .map(|closed| closed.into_inner().connections_closed)
        }
    };
    use v1::disconnect_request::Session;
    assert_eq!(
        disconnect(Session::ConnectionId(phone.id.clone()), true).await.unwrap(),
        1
    );
    phone.expect_close(4004).await;
    assert_eq!(disconnect(Session::UserId("ada".to_owned()), false).await.unwrap(), 1);
    laptop.expect_close(4503).await;
    let gone = disconnect(Session::ConnectionId(phone.id.clone()), true)
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(disconnect(Session::UserId("ada".to_owned()), false).await.unwrap(), 0);
    ben.join("r").await;
    node.connect(user("ada")).await.join("r").await;
    node.finish().await;
}

fn revocation(user: &str, scope: v1::revoke_request::Scope) -> v1::RevokeRequest {
    v1::RevokeRequest {
        tenant: TENANT.to_owned(),
        user_id: user.to_owned(),
        scope: Some(scope),
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        reason: String::new(),
    }
}

async fn revoke(backend: &Caller, user: &str, scope: v1::revoke_request::Scope) -> v1::RevokeResponse {
    let response = backend
        .rooms
        .clone()
        .revoke(revocation(user, scope))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.confirmed_node_ids, ["node-0"]);
    response
}

fn the_room(room: &str) -> v1::revoke_request::Scope {
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
        let removed = revoke(&backend, &name, the_room("r")).await.memberships_removed;
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
                Said::RoomLeft(left) => told = left.room == "r" && left.reason() == RoomChangeReason::Revoked,
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
    assert_eq!(revoke(&backend, "ada", the_room("r")).await.memberships_removed, 2);
    for client in [&mut phone, &mut laptop] {
        client.expect_event("r", "seen").await;
        expect_left(client, "r", RoomChangeReason::Revoked).await;
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
    assert_eq!(backend.publish("r", "end", json!({})).await.reached, 1);
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
    assert_eq!(revoke(&backend, "ada", scope).await.memberships_removed, 2);
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

async fn what_a_refreshed_token_no_longer_allows_is_left(encoding: Encoding) {
    let settings = |config: &mut Config| {
        home_rooms(config);
        config.policy.auto_join.push("team:{team}".to_owned());
        config.policy.rules = vec![RuleConfig {
            when: Some("room.project in claims.projects".to_owned()),
            ..rule("projects", "project:{project}", &[ActionName::Join])
        }];
    };
    let node = Node::with(encoding, settings).await;
    let backend = node.backend();
    let token = |team: &str, projects: &[&str]| user("ada").claim("team", team).claim("projects", json!(projects));
    let mut ada = node.connect(token("red", &["1", "2"])).await;
    ada.join("project:1").await;
    ada.join("project:2").await;
    let refresh = roomcast::proto::client_v1::Refresh {
        token: token("blue", &["2", "3"]).token(),
    };
    let Ok(Said::Refreshed(_)) = ada.ask(Command::Refresh(refresh)).await else {
        panic!("not refreshed")
    };
    let (mut left, mut joined) = (Vec::new(), Vec::new());
    while joined.is_empty() || left.is_empty() {
        match ada.push().await {
            Said::RoomLeft(pushed) if pushed.reason() == RoomChangeReason::TokenChanged => left.push(pushed.room),
            Said::RoomJoined(pushed) if pushed.reason() == RoomChangeReason::TokenChanged => {
                joined.push(pushed.joined.unwrap().room);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (left, joined),
        (vec!["project:1".to_owned()], vec!["team:blue".to_owned()])
    );
    ada.join("project:3").await;
    assert_eq!(
        ada.try_join(Join::in_room("project:1")).await.unwrap_err().code(),
        ErrorCode::Forbidden
    );
    backend.publish("project:1", "unheard", json!({})).await;
    backend.publish("project:2", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

/// A watch that is in effect.
async fn watch(backend: &Caller, request: v1::WatchRequest) -> Streaming<v1::WatchResponse> {
    let mut watch = backend.watching.clone().watch(request).await.unwrap().into_inner();
    assert!(matches!(happened(&mut watch).await, Happened::Started(_)));
    watch
}

async fn happened(watch: &mut Streaming<v1::WatchResponse>) -> Happened {
    let told = within("something to happen", watch.message()).await.unwrap();
    let told = told.expect("the watch goes on");
    let event = told.event.expect("something happened");
    let started = matches!(event, Happened::Started(_));
    assert_eq!(told.tenant, if started { "" } else { TENANT });
    event
}

#[tokio::test]
async fn a_watch_tells_who_comes_and_goes_in_order() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let request = v1::WatchRequest {
        tenants: vec![TENANT.to_owned()],
        ..Default::default()
    };
    let mut watch = watch(&backend, request).await;
    // Not of the watched tenant.
    node.connect(user("zoe").tenant("other")).await.join("r").await;
    let mut phone = node.connect(user("ada")).await;
    phone.join("r").await;
    let mut laptop = node.connect(user("ada")).await;
    laptop.join("r").await;
    phone.leave("r").await;
    let laptop_id = laptop.id.clone();
    laptop.crash();
    let mut told = Vec::new();
    loop {
        let event = happened(&mut watch).await;
        let ended = matches!(&event, Happened::ConnectionClosed(closed) if closed.connection_id == laptop_id);
        told.push(event);
        if ended {
            break;
        }
    }
    let opened: Vec<_> = told
        .iter()
        .filter(|event| matches!(event, Happened::ConnectionOpened(_)))
        .collect();
    assert_eq!(opened.len(), 2);
    let rooms: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Happened::MemberJoined(joined) => Some(("joined", joined.room.as_str())),
            Happened::MemberLeft(left) => Some(("left", left.room.as_str())),
            Happened::RoomOccupied(room) => Some(("occupied", room.room.as_str())),
            Happened::RoomVacated(room) => Some(("vacated", room.room.as_str())),
            _ => None,
        })
        .collect();
    let mut sorted = rooms.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [("joined", "r"), ("left", "r"), ("occupied", "r"), ("vacated", "r")],
        "{told:?}"
    );
    let at = |what| rooms.iter().position(|(kind, _)| *kind == what).unwrap();
    assert!(at("joined") < at("left") && at("occupied") < at("vacated"));
    node.finish().await;
}

#[tokio::test]
async fn a_watch_is_narrowed_by_kind_and_room() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let request = v1::WatchRequest {
        tenants: vec![TENANT.to_owned()],
        kinds: vec![v1::WatchKind::MemberJoined.into()],
        room_pattern: "doc:*".to_owned(),
        ..Default::default()
    };
    let mut watch = watch(&backend, request).await;
    let mut ada = node.connect(user("ada")).await;
    for room in ["chat", "doc:1", "doc:2"] {
        ada.join(room).await;
        ada.leave(room).await;
    }
    for room in ["doc:1", "doc:2"] {
        let Happened::MemberJoined(joined) = happened(&mut watch).await else {
            panic!("another kind")
        };
        assert_eq!((joined.room.as_str(), joined.user_id.as_str()), (room, "ada"));
    }
    node.finish().await;
}
