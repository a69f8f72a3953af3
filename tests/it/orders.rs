//! What a backend does to clients: puts them into rooms, takes them out, sends them away, withdraws access, watches.

mod ask;
mod restore;
mod revoke;
mod watch;

use roomcast::gateway::Config;
use roomcast::policy::{ActionName, RuleConfig};
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, Join, PresenceMode, Refresh, RoomChangeCause, RoomLeft};
use roomcast::proto::v1;
use roomcast::proto::v1::disconnect_request::Session;
use serde_json::json;
use tonic::{Code, Status};

use crate::support::{
    Caller, Client, Encoding, InRoom as _, Node, TENANT, home_rooms, over_encodings, reason, rule, user,
};

over_encodings! {
    a_backend_puts_a_user_into_a_room_whatever_the_rules_say,
    a_backend_takes_a_user_out_of_a_room,
    a_backend_sends_clients_away,
    what_a_refreshed_token_no_longer_allows_is_left,
    presence_a_refreshed_token_does_not_allow_ends,
}

async fn join(backend: &Caller, room: &str, member: v1::join_room_request::Member) -> Result<u32, Status> {
    let request = v1::JoinRoomRequest {
        tenant: TENANT.to_owned(),
        room: room.to_owned(),
        member: Some(member),
        ..Default::default()
    };
    let response = backend.rooms.clone().join_room(request).await?;
    Ok(response.into_inner().joined_connection_count)
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
        assert_eq!(pushed.cause(), RoomChangeCause::Backend);
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
    let nobody = join(&backend, "s", connection(&"1".repeat(32))).await.unwrap_err();
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
        reason: "project_closed".to_owned(),
        message: "the project is closed".to_owned(),
        member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
        ..Default::default()
    };
    let left = backend
        .rooms
        .clone()
        .leave_room(leave.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(left.left_connection_count, 1);
    assert_eq!(backend.publish("r", "unheard", json!({})).await.reached, Some(0));
    let told = expect_left(&mut ada, "r", RoomChangeCause::Backend).await;
    assert_eq!(
        (told.reason.as_str(), told.message.as_str()),
        ("project_closed", "the project is closed")
    );
    let left = backend.rooms.clone().leave_room(leave).await.unwrap().into_inner();
    assert_eq!(left.left_connection_count, 0);
    ada.join("r").await;
    backend.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn expect_left(client: &mut Client, room: &str, why: RoomChangeCause) -> RoomLeft {
    match client.push().await {
        Said::RoomLeft(left) if left.room == room && left.cause() == why => left,
        other => panic!("{client} is not told that it left `{room}`: {other:?}"),
    }
}

/// What a client was pushed last, which is why it is disconnected.
fn told_why(client: &mut Client) -> (u32, String, String) {
    match client.take_pushes().pop() {
        Some(Said::Disconnected(told)) => (told.code, told.reason, told.message),
        other => panic!("{client} is not told why: {other:?}"),
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
            reason: "moving".to_owned(),
            message: "we are moving".to_owned(),
            may_reconnect,
            ..Default::default()
        };
        let mut connections = backend.connections.clone();
        async move {
            connections
                .disconnect(request)
                .await
                .map(|closed| closed.into_inner().closed_connection_count)
        }
    };
    assert_eq!(
        disconnect(Session::ConnectionId(phone.id.clone()), true).await.unwrap(),
        1
    );
    assert_eq!(phone.expect_close(4004).await, "moving");
    assert_eq!(
        told_why(&mut phone),
        (4004, "moving".to_owned(), "we are moving".to_owned())
    );
    assert_eq!(disconnect(Session::UserId("ada".to_owned()), false).await.unwrap(), 1);
    assert_eq!(laptop.expect_close(4503).await, "moving");
    assert_eq!(
        told_why(&mut laptop),
        (4503, "moving".to_owned(), "we are moving".to_owned())
    );
    let gone = disconnect(Session::ConnectionId(phone.id.clone()), true)
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(disconnect(Session::UserId("ada".to_owned()), false).await.unwrap(), 0);
    ben.join("r").await;
    node.connect(user("ada")).await.join("r").await;
    node.finish().await;
}

async fn presence_a_refreshed_token_does_not_allow_ends(encoding: Encoding) {
    let settings = |config: &mut Config| {
        home_rooms(config);
        let rules = ["r", "user:{id}"].into_iter().flat_map(|room| {
            let sees = RuleConfig {
                when: Some("claims.sees".to_owned()),
                ..rule(&format!("see {room}"), room, &[ActionName::Presence])
            };
            [rule(&format!("join {room}"), room, &[ActionName::Join]), sees]
        });
        config.policy.rules = rules.collect();
    };
    let node = Node::with(encoding, settings).await;
    let backend = node.backend();
    let token = |sees: bool| user("ada").claim("sees", json!(sees));
    let mut ada = node.connect(token(true)).await;
    // One by its own right, and one that the server has put it into.
    let rooms = ["r", "user:ada"];
    for room in rooms {
        ada.join_to_see(room).await;
    }
    let refresh = Refresh {
        token: token(false).token(),
    };
    let Ok(Said::Refreshed(_)) = ada.ask(Command::Refresh(refresh)).await else {
        panic!("not refreshed")
    };
    let mut told = Vec::new();
    while told.len() < rooms.len() {
        match ada.push().await {
            Said::RoomJoined(pushed) if pushed.cause() == RoomChangeCause::TokenChanged => {
                let joined = pushed.joined.unwrap();
                assert!(joined.presence.is_none(), "{joined:?}");
                told.push(joined.room);
            }
            // Its own coming, told before the refresh.
            Said::PresenceDelta(_) if told.is_empty() => {}
            other => panic!("{other:?}"),
        }
    }
    told.sort();
    assert_eq!(told, rooms);
    // Its membership goes on, and nobody who comes is shown to it.
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    backend.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    let again = Join {
        presence: PresenceMode::Members.into(),
        ..Join::in_room("r")
    };
    assert_eq!(ada.try_join(again).await.unwrap_err().code(), ErrorCode::Forbidden);
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
    let refresh = Refresh {
        token: token("blue", &["2", "3"]).token(),
    };
    let Ok(Said::Refreshed(_)) = ada.ask(Command::Refresh(refresh)).await else {
        panic!("not refreshed")
    };
    let (mut left, mut joined) = (Vec::new(), Vec::new());
    while joined.is_empty() || left.is_empty() {
        match ada.push().await {
            Said::RoomLeft(pushed) if pushed.cause() == RoomChangeCause::TokenChanged => left.push(pushed.room),
            Said::RoomJoined(pushed) if pushed.cause() == RoomChangeCause::TokenChanged => {
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
