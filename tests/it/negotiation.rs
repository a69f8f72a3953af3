//! Clients and nodes of different versions: what each tells the other, and what becomes of what one of them does not know.

mod lists;

use std::collections::BTreeSet;

use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::*;
use roomcast::proto::v1;
use roomcast::rate::Rate;
use roomcast::session::FEATURES;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::native::mapping;
use crate::support::nats::NatsServer;
use crate::support::{
    Carries as _, Client, Encoding, InRoom as _, Node, Opening, TENANT, ToRoom as _, over_encodings, user,
};

over_encodings! {
    a_newer_client_is_told_what_this_node_does_not_know_and_stays,
    a_newer_client_may_begin_with_what_this_node_does_not_know,
    every_client_is_told_of_all_features,
    a_feature_that_is_known_may_be_required,
    an_older_client_gets_only_what_the_first_version_had;
    alone:
    a_client_moves_between_nodes_with_different_features,
}

/// The kinds of messages of the first version of the contract. One that is added belongs to a feature, and is sent only
/// to clients that name it.
const FIRST_KINDS: [&str; 22] = [
    "connected",
    "degraded",
    "disconnected",
    "error",
    "event",
    "history",
    "joined",
    "left",
    "passed",
    "pong",
    "presence",
    "presenceDelta",
    "presenceUpdated",
    "published",
    "reconnectAdvice",
    "refreshed",
    "reply",
    "resync",
    "roomJoined",
    "roomLeft",
    "sessionExpiring",
    "userRooms",
];

/// The kinds that came later, each with its feature. `orders::ask` shows that only a client that named it is asked.
const LATER_KINDS: [(&str, &str); 2] = [("answered", "asks"), ("ask", "asks")];

/// More commands than any rate would let through.
fn unhurried(config: &mut Config) {
    config.session.publish_rate = Rate {
        per_second: 100_000,
        burst: 100_000,
    };
    config.session.join_rate = config.session.publish_rate;
}

/// A command of another version, and what of it this node does not know.
fn unknown(encoding: Encoding, id: u32) -> (Message, &'static str) {
    let frame = |command: Command| {
        encoding.encode(&ClientFrame {
            id,
            command: Some(command),
        })
    };
    let feature = || vec!["history".to_owned(), "except_users".to_owned()];
    match (id % 4, encoding) {
        (0, Encoding::Json) => (Message::text(format!("{{\"id\":{id},\"fly\":{{}}}}")), "`fly`"),
        (1, Encoding::Json) => (
            Message::text(format!(
                "{{\"id\":{id},\"join\":{{\"room\":\"r\",\"colour\":\"red\"}}}}"
            )),
            "`colour` of `join`",
        ),
        // Field 99, with an empty message.
        (0 | 1, Encoding::Protobuf) => {
            let id = [&[0x08][..], &varint(id), &[0x9a, 0x06, 0]].concat();
            (Message::binary(id), "99")
        }
        (2, _) => {
            let publish = Publish {
                required_features: feature(),
                ..Publish::to("r", "narrowed", json!(1))
            };
            (frame(Command::Publish(publish)), "`except_users`")
        }
        _ => {
            let join = Join {
                required_features: feature(),
                ..Join::in_room("s")
            };
            (frame(Command::Join(join)), "`except_users`")
        }
    }
}

fn varint(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

async fn a_newer_client_is_told_what_this_node_does_not_know_and_stays(encoding: Encoding) {
    const FIRST: u32 = 10_000;
    let node = Node::with(encoding, unhurried).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    for n in 0..1_000 {
        let (command, named) = unknown(encoding, FIRST + n);
        ada.say_raw(command).await;
        let refusal = ada.reply(FIRST + n).await.unwrap_err();
        assert_eq!(
            (refusal.code(), refusal.reason.as_str(), refusal.retry_after_ms),
            (ErrorCode::Unimplemented, "unsupported", 0)
        );
        assert!(refusal.message.contains(named), "{named}: {refusal:?}");
        if n % 100 == 0 {
            ada.publish("r", "fine", json!(n)).await;
            assert_eq!(ada.expect_event("r", "fine").await.json(), json!(n));
        }
    }
    // Nothing of them was carried out, and what can be read counts for nothing: three unreadable messages may still come.
    assert_eq!(node.backend().stats("r").await.history_count, 10);
    assert_eq!(node.backend().stats("s").await.connection_count, 0);
    for _ in 0..3 {
        ada.say_raw(unreadable(encoding)).await;
        let Said::Error(refusal) = ada.push().await else {
            panic!("a complaint")
        };
        assert_eq!(refusal.reason, "malformed");
    }
    ada.ask(Command::Ping(Ping {})).await.unwrap();
    node.finish().await;
}

fn unreadable(encoding: Encoding) -> Message {
    match encoding {
        Encoding::Json => Message::text("{"),
        Encoding::Protobuf => Message::binary(vec![0xff; 3]),
    }
}

/// A `connect` with a field that this node does not know, and then one without.
async fn a_newer_client_may_begin_with_what_this_node_does_not_know(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.open().await;
    let (command, _) = unknown(encoding, 10_000);
    ada.say_raw(command).await;
    assert_eq!(ada.reply(10_000).await.unwrap_err().reason, "unsupported");
    if encoding == Encoding::Json {
        ada.say_raw(Message::text(
            r#"{"id":10001,"connect":{"token":"x","device":"watch"}}"#,
        ))
        .await;
        let refusal = ada.reply(10_001).await.unwrap_err();
        assert!(refusal.message.contains("`device` of `connect`"), "{refusal:?}");
    }
    ada.authenticate(&user("ada"), Vec::new()).await.unwrap();
    ada.join("r").await;
    node.finish().await;
}

/// Connects with features; what the server says of its own.
async fn connect(node: &Node, id: &str, features: &[&str]) -> (Client, Connected) {
    connect_by(node.opening(), id, features).await
}

async fn connect_by(opening: Opening, id: &str, features: &[&str]) -> (Client, Connected) {
    let mut client = opening.open().await.expect("the upgrade is accepted");
    let connect = Connect {
        features: features.iter().map(|name| (*name).to_owned()).collect(),
        ..Connect::default()
    };
    let connected = client.authenticate_with(&user(id), connect).await;
    (client, connected.expect("the token is accepted"))
}

async fn every_client_is_told_of_all_features(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let newer = [FEATURES, &["of_another_version"]].concat();
    for features in [&[][..], &["of_another_version"], &["history"], &newer] {
        let (_client, connected) = connect(&node, "ada", features).await;
        assert_eq!(connected.features, FEATURES, "{features:?}");
        assert_eq!(connected.server_version, env!("CARGO_PKG_VERSION"));
    }
    // Whoever is let in by the upgrade has not been able to say anything.
    let bearer = format!("{}, bearer.{}", encoding.subprotocol(), user("ben").token());
    let opening = node.opening().header("sec-websocket-protocol", &bearer);
    let mut ben = opening.open().await.unwrap();
    assert_eq!(ben.expect_connected(&user("ben")).await.features, FEATURES);
    node.finish().await;
}

async fn a_feature_that_is_known_may_be_required(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let required_features: Vec<String> = FEATURES.iter().map(|name| (*name).to_owned()).collect();
    let join = Join {
        required_features: required_features.clone(),
        ..Join::in_room("r")
    };
    ada.try_join(join).await.unwrap();
    let publish = Publish {
        required_features,
        ..Publish::to("r", "fine", json!(1))
    };
    ada.try_publish(publish).await.unwrap();
    ada.expect_event("r", "fine").await;
    node.finish().await;
}

/// The kinds of messages that a client is sent by everything that happens to it in a usual life.
async fn life(node: &Node, features: &[&str]) -> BTreeSet<String> {
    let (mut ada, connected) = connect(node, "ada", features).await;
    let mut told = vec![Said::Connected(connected.clone())];
    let backend = node.backend();
    let room = || "r".to_owned();
    let join = Join {
        presence: PresenceMode::Members.into(),
        ..Join::in_room("r")
    };
    let commands = [
        Command::Join(join),
        Command::Publish(Publish::to("r", "e", json!(1))),
        Command::PresenceUpdate(PresenceUpdate {
            room: room(),
            state_json: Some("1".to_owned()),
        }),
        Command::PresenceQuery(PresenceQuery { room: room() }),
        Command::UserRoomsQuery(UserRoomsQuery::default()),
        Command::HistoryQuery(HistoryQuery {
            room: room(),
            ..HistoryQuery::default()
        }),
        Command::Refresh(Refresh {
            token: user("ada").token(),
        }),
        Command::Ping(Ping {}),
    ];
    for command in commands {
        told.push(ada.ask(command).await.unwrap());
    }
    let refused = ada.try_publish(Publish::to("", "e", json!(1))).await.unwrap_err();
    told.push(Said::Error(refused));
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    told.extend(until(&mut ada, |said| matches!(said, Said::PresenceDelta(_))).await);
    let member = v1::join_room_request::Member::ConnectionId(connected.connection_id.clone());
    let request = v1::JoinRoomRequest {
        tenant: TENANT.to_owned(),
        room: "s".to_owned(),
        member: Some(member),
        ..Default::default()
    };
    backend.rooms.clone().join_room(request).await.unwrap();
    told.extend(until(&mut ada, |said| matches!(said, Said::RoomJoined(_))).await);
    told.push(ada.ask(Command::Leave(Leave { room: room() })).await.unwrap());
    let session = v1::disconnect_request::Session::ConnectionId(connected.connection_id);
    let request = v1::DisconnectRequest {
        tenant: TENANT.to_owned(),
        session: Some(session),
        ..Default::default()
    };
    backend.connections.clone().disconnect(request).await.unwrap();
    ada.end().await;
    told.extend(ada.take_pushes());
    told.iter().map(kind).collect()
}

/// Everything pushed up to a certain message.
async fn until(client: &mut Client, last: impl Fn(&Said) -> bool) -> Vec<Said> {
    let mut told = Vec::new();
    loop {
        told.push(client.push().await);
        if told.last().is_some_and(&last) {
            return told;
        }
    }
}

/// The kind of a message, by its name in JSON.
fn kind(said: &Said) -> String {
    let frame = ServerFrame {
        id: 0,
        message: Some(said.clone()),
    };
    let json = mapping::server_frame_to_json(&prost::Message::encode_to_vec(&frame));
    let mut names = json.as_object().unwrap().keys();
    names.next().unwrap().clone()
}

async fn an_older_client_gets_only_what_the_first_version_had(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let older = life(&node, &[]).await;
    let unlisted: Vec<_> = older
        .iter()
        .filter(|kind| !FIRST_KINDS.contains(&kind.as_str()))
        .collect();
    assert!(unlisted.is_empty(), "{unlisted:?}");
    // No feature adds to it yet, known or not.
    let newer = [FEATURES, &["of_another_version"]].concat();
    assert_eq!(life(&node, &newer).await, older);
    node.finish().await;
}

/// The features of the older node in a rolling update.
const FEWER: &[&str] = &["last_values", "presence", "presence_counts", "refresh"];

/// Those of the newer one: this version's, and one that no client of today knows.
const MORE: &[&str] = &[
    "history",
    "last_values",
    "of_another_version",
    "presence",
    "presence_counts",
    "presence_others",
    "refresh",
    "requests",
    "user_rooms",
];

/// Commands of this version, with what names each where the node has not heard of it.
fn of_features(encoding: Encoding) -> [(Command, String); 4] {
    let named = |feature| match (encoding, lists::refused_names(feature)) {
        (Encoding::Json, (name, _)) => name,
        (Encoding::Protobuf, (_, number)) => number,
    };
    let required_features = vec!["last_values".to_owned(), "history".to_owned()];
    let join = Join {
        required_features: required_features.clone(),
        ..Join::in_room("s")
    };
    let publish = Publish {
        required_features,
        ..Publish::to("r", "narrowed", json!(1))
    };
    let query = HistoryQuery {
        room: "r".to_owned(),
        ..HistoryQuery::default()
    };
    [
        (Command::HistoryQuery(query), named("history")),
        (Command::UserRoomsQuery(UserRoomsQuery::default()), named("user_rooms")),
        (Command::Join(join), lists::required_name("history")),
        (Command::Publish(publish), lists::required_name("history")),
    ]
}

/// What both nodes of a rolling update have goes on, on either; what one lacks is refused there, by name, and costs nothing.
async fn a_client_moves_between_nodes_with_different_features(encoding: Encoding) {
    let server = NatsServer::start().await;
    let url = server.url();
    let node = Node::several(encoding, 2, move |config| {
        unhurried(config);
        config.nats.as_mut().expect("there are several gateways").servers = vec![url.clone()];
        let is_older = config.node_id == "node-1";
        config.protocols = lists::protocols(if is_older { FEWER } else { MORE });
    })
    .await;
    let (newer, older) = (node.of_several(0), node.of_several(1));
    let backend = newer.backend();

    let (mut ada, connected) = connect_by(newer.opening(), "ada", FEATURES).await;
    assert_eq!(connected.features, MORE);
    ada.join("r").await;
    for (command, named) in of_features(encoding) {
        ada.ask(command).await.expect(&named);
    }
    ada.expect_event("r", "narrowed").await;
    let since = ada.position("r");
    ada.crash();
    backend.publish("r", "missed", json!({})).await;

    let (mut ada, connected) = connect_by(older.opening(), "ada", FEATURES).await;
    assert_eq!(connected.features, FEWER);
    assert!(ada.join_since("r", &since).await.recovered);
    ada.expect_event("r", "missed").await;
    // More often than any bound of misuse, and each time what the node has goes on.
    for n in 0..100 {
        for (command, named) in of_features(encoding) {
            let refused = ada.ask(command).await.expect_err(&named);
            assert_eq!(
                (refused.code(), refused.reason.as_str()),
                (ErrorCode::Unimplemented, "unsupported")
            );
            assert!(refused.message.contains(&named), "{named}: {refused:?}");
        }
        ada.publish("r", "fine", json!(n)).await;
        assert_eq!(ada.expect_event("r", "fine").await.json(), json!(n));
    }
    for _ in 0..3 {
        ada.say_raw(unreadable(encoding)).await;
        let Said::Error(refusal) = ada.push().await else {
            panic!("a complaint")
        };
        assert_eq!(refusal.reason, "malformed");
    }
    let required = Join {
        required_features: FEWER.iter().map(|name| (*name).to_owned()).collect(),
        ..Join::in_room("t")
    };
    ada.try_join(required).await.expect("the node has these");
    let since = ada.position("r");
    ada.crash();
    // Nothing that was refused was carried out.
    assert_eq!(backend.stats("r").await.history_count, 102);
    backend.publish("r", "missed again", json!({})).await;

    // Back on the newer node, all of it is there again; a client that knows none of its features is as well off.
    for features in [FEATURES, &[]] {
        let (mut ada, connected) = connect_by(newer.opening(), "ada", features).await;
        assert_eq!(connected.features, MORE);
        assert!(ada.join_since("r", &since).await.recovered);
        ada.expect_event("r", "missed again").await;
        let (history, _) = of_features(encoding).into_iter().next().expect("there are four");
        ada.ask(history).await.expect("the node has it again");
        ada.crash();
    }
    node.finish().await;
}

#[test]
fn what_is_added_to_the_first_version_belongs_to_a_feature() {
    let contract = prost_reflect::DescriptorPool::decode(roomcast::proto::FILE_DESCRIPTOR_SET).unwrap();
    let frame = contract.get_message_by_name("roomcast.client.v1.ServerFrame").unwrap();
    let kinds = frame.fields().filter(|field| field.containing_oneof().is_some());
    let kinds: BTreeSet<_> = kinds.map(|field| field.json_name().to_owned()).collect();
    let mut gated: BTreeSet<_> = FIRST_KINDS.map(str::to_owned).into();
    gated.extend(LATER_KINDS.map(|(kind, _)| kind.to_owned()));
    assert_eq!(kinds, gated, "a new kind needs a feature, and a gate where it is sent");
    assert!(LATER_KINDS.iter().all(|(_, feature)| FEATURES.contains(feature)));
    // So do values of the enums that the server sends.
    for (name, count) in [("Retention", 4), ("ErrorCode", 12), ("RoomChangeCause", 5)] {
        let values = contract
            .get_enum_by_name(&format!("roomcast.client.v1.{name}"))
            .unwrap();
        assert_eq!(values.values().count(), count, "{name}");
    }
}
