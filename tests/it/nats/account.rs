//! Whole gateways in an account with the documented permissions, and no others.

use std::collections::BTreeSet;

use async_nats::{Client, ConnectOptions, HeaderMap, Message};
use bytes::Bytes;
use futures_util::StreamExt as _;
use roomcast::nats::Credentials;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::{HistoryQuery, Join, PresenceQuery};
use roomcast::proto::v1;
use serde_json::json;

use super::over;
use super::permissions::documented;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::{
    Caller, Encoding, InRoom as _, Node, TENANT, draft, eventually, home_rooms, to_room, user, within,
};

async fn start(server: &NatsServer) -> Node {
    let over = over(&server.url());
    Node::several(Encoding::Json, 2, move |config| {
        over(config);
        home_rooms(config);
        let nats = config.nats.as_mut().unwrap();
        nats.credentials = Credentials::Password {
            user: "gateway".to_owned(),
            password: "change me".to_owned(),
        };
    })
    .await
}

async fn publish_everything(backend: &Caller) {
    let of_class = |retention: v1::Retention, name: &str| v1::PublishRequest {
        targets: vec![to_room("r")],
        retention: retention.into(),
        ..draft(name, json!({}))
    };
    backend.send(of_class(v1::Retention::Reliable, "said")).await.unwrap();
    backend
        .send(of_class(v1::Retention::Ephemeral, "typing"))
        .await
        .unwrap();
    backend.send(of_class(v1::Retention::LastValue, "price")).await.unwrap();
    for duplicate in [false, true] {
        let keyed = v1::PublishRequest {
            idempotency_key: "k".to_owned(),
            ..of_class(v1::Retention::Reliable, "paid")
        };
        let told = backend.send(keyed).await.unwrap().results.remove(0);
        assert_eq!(told.duplicate, duplicate);
    }
    let head = backend.stats("r").await.head;
    for accepted in [true, false] {
        let expecting = v1::PublishRequest {
            expected_head: head.clone(),
            ..of_class(v1::Retention::Reliable, "expected")
        };
        assert_eq!(backend.send(expecting).await.is_ok(), accepted);
    }
    let requests = (0..20).map(|_| backend.stamped(of_class(v1::Retention::Reliable, "many")));
    let batch = v1::PublishBatchRequest {
        requests: requests.collect(),
    };
    backend.publishing.clone().publish_batch(batch).await.unwrap();
}

async fn ask_everything(backend: &Caller) {
    let (tenant, mut rooms) = (TENANT.to_owned(), backend.rooms.clone());
    for room in ["r", "nobody is here"] {
        let history = v1::ListHistoryRequest {
            tenant: tenant.clone(),
            room: room.to_owned(),
            ..Default::default()
        };
        rooms.list_history(history).await.unwrap();
        let members = v1::ListMembersRequest {
            tenant: tenant.clone(),
            room: room.to_owned(),
            ..Default::default()
        };
        rooms.list_members(members).await.unwrap();
        backend.stats(room).await;
    }
    let of_user = v1::ListUserRoomsRequest {
        tenant,
        user_id: "ben".to_owned(),
        ..Default::default()
    };
    backend.users.clone().list_user_rooms(of_user).await.unwrap();
}

async fn order_everything(backend: &Caller, connection: String) {
    let (tenant, mut rooms) = (TENANT.to_owned(), backend.rooms.clone());
    let join = v1::JoinRoomRequest {
        tenant: tenant.clone(),
        room: "s".to_owned(),
        member: Some(v1::join_room_request::Member::UserId("ben".to_owned())),
        ..Default::default()
    };
    assert_eq!(
        rooms
            .join_room(join)
            .await
            .unwrap()
            .into_inner()
            .joined_connection_count,
        1
    );
    let leave = v1::LeaveRoomRequest {
        tenant: tenant.clone(),
        room: "s".to_owned(),
        member: Some(v1::leave_room_request::Member::ConnectionId(connection)),
        ..Default::default()
    };
    assert_eq!(
        rooms
            .leave_room(leave)
            .await
            .unwrap()
            .into_inner()
            .left_connection_count,
        1
    );
    let revoke = v1::RevokeRequest {
        tenant: tenant.clone(),
        subject: Some(v1::revoke_request::Subject::UserId("ben".to_owned())),
        scope: Some(v1::revoke_request::Scope::Room("r".to_owned())),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    let revoked = backend.access.clone().revoke(revoke).await.unwrap().into_inner();
    assert_eq!(
        (revoked.confirmed_node_ids.len(), revoked.removed_membership_count),
        (2, 1)
    );
    let disconnect = v1::DisconnectRequest {
        tenant,
        session: Some(v1::disconnect_request::Session::UserId("ben".to_owned())),
        ..Default::default()
    };
    let closed = backend
        .connections
        .clone()
        .disconnect(disconnect)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(closed.closed_connection_count, 1);
}

/// The subjects that clients named in one of the protocol's operations, as the server's trace shows them.
fn named(log: &str, operations: &[&str]) -> BTreeSet<String> {
    let named = |line: &str| {
        let said = line.split_once("<<- [")?.1;
        let (operation, rest) = said.split_once(' ')?;
        operations.contains(&operation).then(|| {
            let subject = rest.split([' ', ']']).next().unwrap_or_default();
            subject.to_owned()
        })
    };
    log.lines().filter_map(named).collect()
}

/// Whether a subject is one of a pattern's.
fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// What the documented block allows, of one kind.
fn allowed(kind: &str) -> Vec<String> {
    let documented = documented();
    let block = documented.split(&format!("{kind} {{")).nth(1).unwrap();
    let list = block.split(['[', ']']).nth(1).unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn gateways_need_the_documented_permissions_and_no_others() {
    let options = NatsOptions {
        config: format!("{}\ntrace: true", documented()),
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).await;
    let node = start(&server).await;
    let (backend, other) = (node.of_several(0).backend(), node.of_several(1).backend());
    let request = v1::WatchRequest {
        tenants: vec![TENANT.to_owned()],
        ..Default::default()
    };
    let _watch = other.watching.clone().watch(request).await.unwrap();
    let mut ada = node.of_several(0).connect(user("ada")).await;
    ada.join_to_see("r").await;
    let mut ben = node.of_several(1).connect(user("ben")).await;
    ben.join("r").await;
    publish_everything(&backend).await;
    ask_everything(&other).await;
    while ben.event().await.event_name != "many" {}
    let since = ben.position("r");
    ben.crash();
    backend.publish("r", "missed", json!({})).await;
    let mut ben = node.of_several(1).connect(user("ben")).await;
    assert!(ben.join_since("r", &since).await.recovered);
    ben.ask(Command::PresenceQuery(PresenceQuery { room: "r".to_owned() }))
        .await
        .unwrap();
    ben.ask(Command::HistoryQuery(HistoryQuery {
        room: "r".to_owned(),
        limit: 10,
        ..Default::default()
    }))
    .await
    .unwrap();
    let mut late = node.of_several(0).connect(user("late")).await;
    let rewound = Join {
        rewind: 5,
        ..Join::in_room("nobody was here")
    };
    late.try_join(rewound).await.unwrap();
    let id = ben.id.clone();
    order_everything(&backend, id).await;
    node.finish().await;

    let log = server.log();
    let violations: Vec<&str> = log.lines().filter(|line| line.contains("Violation")).collect();
    assert!(violations.is_empty(), "{violations:#?}");
    for (kind, operations) in [("publish", ["PUB", "HPUB"]), ("subscribe", ["SUB", "SUB"])] {
        let (allowed, used) = (allowed(kind), named(&log, &operations));
        let unused: Vec<_> = allowed
            .iter()
            .filter(|pattern| !used.iter().any(|subject| matches(pattern, subject)))
            .collect();
        assert!(unused.is_empty(), "nobody needs to {kind} {unused:?}; used: {used:#?}");
    }
}

/// Where the events of the room `r` come live.
const LIVE: &str = "roomcast.l.acme=00r.r";

/// Waits until what a client has subscribed to is in effect: the server has answered it something later.
async fn in_effect(client: &Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    within("an echo", echo.next()).await;
}

/// A message like this one, at another place of the room.
fn forged(message: &Message, sequence: u64, previous: u64) -> HeaderMap {
    let mut headers = message.headers.clone().unwrap();
    headers.insert("Nats-Sequence", sequence.to_string());
    headers.insert("Nats-Last-Sequence", previous.to_string());
    headers
}

#[tokio::test]
async fn with_a_nodes_own_permissions_nobody_forges_an_event() {
    let options = NatsOptions {
        config: documented(),
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).await;
    let node = start(&server).await;
    let mut ada = node.of_several(0).connect(user("ada")).await;
    ada.join("r").await;
    let forger = ConnectOptions::with_user_and_password("gateway".to_owned(), "change me".to_owned())
        .custom_inbox_prefix("roomcast.i.forger")
        .connect(server.url())
        .await
        .unwrap();
    let mut live = forger.subscribe("roomcast.l.*.*").await.unwrap();
    in_effect(&forger).await;
    node.of_several(0).backend().publish("r", "true", json!({})).await;
    let message = within("the event to come live", live.next()).await.unwrap();
    assert_eq!(message.subject.as_str(), LIVE);
    let next = message.headers.as_ref().unwrap().get("Nats-Sequence").unwrap().as_str();
    let next: u64 = next.parse().unwrap();
    let headers = forged(&message, next + 1, next);
    forger
        .publish_with_headers(LIVE, headers, message.payload.clone())
        .await
        .unwrap();
    eventually("the server to refuse it", || async {
        let log = server.log();
        let refused = |line: &str| line.contains("Publish Violation") && line.contains(LIVE);
        log.lines().any(refused).then_some(())
    })
    .await;
    node.of_several(0).backend().publish("r", "end", json!({})).await;
    ada.expect_event("r", "true").await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

/// Who may publish there is trusted with the next event of a room. What does not follow on the room's last event is not
/// shown, whoever wrote it.
#[tokio::test]
async fn what_does_not_belong_into_a_rooms_chain_is_not_shown() {
    let server = NatsServer::start().await;
    let node = Node::several(Encoding::Json, 2, over(&server.url())).await;
    let mut ada = node.of_several(0).connect(user("ada")).await;
    ada.join("r").await;
    let forger = async_nats::connect(server.url()).await.unwrap();
    let mut live = forger.subscribe(LIVE).await.unwrap();
    in_effect(&forger).await;
    let backend = node.of_several(0).backend();
    backend.publish("r", "true", json!({})).await;
    let message = within("the event to come live", live.next()).await.unwrap();
    ada.expect_event("r", "true").await;
    let last: u64 = message
        .headers
        .as_ref()
        .unwrap()
        .get("Nats-Sequence")
        .unwrap()
        .as_str()
        .parse()
        .unwrap();
    for (headers, payload) in [
        // The same again; one from before; one that follows on what never was; what is no event at all.
        (forged(&message, last, last - 1), message.payload.clone()),
        (forged(&message, 1_000_000, 999_999), message.payload.clone()),
        (forged(&message, last, last + 1), message.payload.clone()),
        (forged(&message, last + 1, last), Bytes::from_static(b"no event")),
        (HeaderMap::new(), message.payload.clone()),
    ] {
        forger.publish_with_headers(LIVE, headers, payload).await.unwrap();
    }
    forger.flush().await.unwrap();
    for number in 0..10 {
        backend.publish("r", &format!("true {number}"), json!({})).await;
    }
    for number in 0..10 {
        ada.expect_event("r", &format!("true {number}")).await;
    }
    node.finish().await;
}
