//! Rooms, users, tenants and connections as targets, and who is left out.

use roomcast::policy::{ActionName, RuleConfig};
use roomcast::proto::client_v1::Join;
use roomcast::proto::v1;
use roomcast::proto::v1::target::Target;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    Carries as _, Encoding, InRoom as _, Node, draft, home_rooms, over_encodings, reason, rule, to_room, user,
};

over_encodings! {
    one_publish_to_several_rooms_is_one_event_with_a_position_in_each,
    a_user_is_reached_over_all_connections_and_a_tenant_over_all_users,
    a_connection_is_reached_alone_and_nobody_elses,
    who_is_left_out_gets_the_link_and_not_the_event,
    a_user_of_any_name_is_reached_and_nobody_else,
}

async fn one_publish_to_several_rooms_is_one_event_with_a_position_in_each(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    ada.join("s").await;
    let backend = node.backend();
    backend.publish("s", "before", json!({})).await;
    let request = v1::PublishRequest {
        targets: ["r", "s", "nobody"].map(to_room).to_vec(),
        ..draft("both", json!({}))
    };
    let results = backend.send(request).await.unwrap().results;
    let rooms: Vec<_> = results.iter().map(|result| result.room.as_str()).collect();
    assert_eq!(rooms, ["r", "s", "nobody"]);
    for (result, members) in results.iter().zip([1, 1, 0]) {
        node.assert_reached(result.reached, members);
    }
    assert!(results.iter().all(|result| result.position.is_some()));
    ada.expect_event("s", "before").await;
    let mut events = ada.events(2).await;
    events.sort_by(|a, b| a.room.cmp(&b.room));
    assert_eq!([events[0].room.as_str(), events[1].room.as_str()], ["r", "s"]);
    assert_eq!(events[0].id, events[1].id);
    for (event, result) in events.iter().zip(&results) {
        assert_eq!(event.offset, result.position.as_ref().unwrap().offset);
    }
    node.finish().await;
}

async fn a_user_is_reached_over_all_connections_and_a_tenant_over_all_users(encoding: Encoding) {
    let node = Node::with(encoding, home_rooms).await;
    let mut phone = node.connect(user("ada")).await;
    let mut laptop = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    let mut stranger = node.connect(user("ada").tenant("other")).await;
    let backend = node.backend();
    let to_ada = v1::PublishRequest {
        targets: vec![target(Target::UserId("ada".to_owned()))],
        ..draft("for ada", json!({}))
    };
    node.assert_reached(backend.send(to_ada).await.unwrap().results[0].reached, 2);
    let to_all = v1::PublishRequest {
        targets: vec![target(Target::Everyone(v1::TenantTarget {}))],
        ..draft("for all", json!({}))
    };
    node.assert_reached(backend.send(to_all).await.unwrap().results[0].reached, 3);
    for own in [&mut phone, &mut laptop] {
        let mut names = own
            .events(2)
            .await
            .into_iter()
            .map(|event| event.event_name)
            .collect::<Vec<_>>();
        names.sort();
        assert_eq!(names, ["for ada", "for all"]);
    }
    ben.expect_event("tenant:acme", "for all").await;
    backend.of("other").publish("tenant:other", "end", json!({})).await;
    stranger.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_connection_is_reached_alone_and_nobody_elses(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut phone = node.connect(user("ada")).await;
    let mut laptop = node.connect(user("ada")).await;
    let backend = node.backend();
    let to_phone = v1::PublishRequest {
        targets: vec![target(Target::ConnectionId(phone.id.clone()))],
        retention: v1::Retention::Ephemeral.into(),
        ..draft("for the phone", json!({"n": 1}))
    };
    let result = backend.send(to_phone.clone()).await.unwrap().results.remove(0);
    assert_eq!(
        (result.reached, result.position, result.room.as_str()),
        (Some(1), None, "")
    );
    let event = phone.expect_event("", "for the phone").await;
    assert_eq!(event.json(), json!({"n": 1}));

    let foreign = backend.clone().of("other").send(to_phone).await.unwrap_err();
    assert_eq!(
        (foreign.code(), reason(&foreign).as_str()),
        (Code::NotFound, "CONNECTION_NOT_FOUND")
    );
    for client in [&mut phone, &mut laptop] {
        client.join("r").await;
    }
    backend.publish("r", "end", json!({})).await;
    phone.expect_nothing_before("end").await;
    laptop.expect_nothing_before("end").await;
    node.finish().await;
}

async fn who_is_left_out_gets_the_link_and_not_the_event(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let mut phone = node.connect(user("ben")).await;
    let mut laptop = node.connect(user("ben")).await;
    for client in [&mut ada, &mut phone, &mut laptop] {
        client.join("r").await;
    }
    let backend = node.backend();
    let but_for_ada = v1::PublishRequest {
        targets: vec![to_room("r")],
        exclude_user_ids: vec!["ada".to_owned()],
        ..draft("not for ada", json!({}))
    };
    let but_for_the_phone = v1::PublishRequest {
        targets: vec![to_room("r")],
        exclude_connection_ids: vec![phone.id.clone()],
        ..draft("not for the phone", json!({}))
    };
    node.assert_reached(backend.send(but_for_ada).await.unwrap().results[0].reached, 2);
    node.assert_reached(backend.send(but_for_the_phone).await.unwrap().results[0].reached, 2);
    let passed = ada.expect_passed("r").await;
    ada.expect_event("r", "not for the phone").await;
    let event = phone.expect_event("r", "not for ada").await;
    assert_eq!(
        (passed.offset, passed.previous_offset),
        (event.offset, event.previous_offset)
    );
    phone.expect_passed("r").await;
    laptop.expect_event("r", "not for ada").await;
    laptop.expect_event("r", "not for the phone").await;

    // Neither live nor from the history.
    let mut again = node.connect(user("ada")).await;
    let since = v1_to_client(passed.epoch, passed.previous_offset);
    let joined = again.join_since("r", &since).await;
    assert_eq!((joined.recovered, joined.replayed), (true, 2));
    again.expect_passed("r").await;
    again.expect_event("r", "not for the phone").await;
    node.finish().await;
}

fn v1_to_client(epoch: String, offset: u64) -> roomcast::proto::client_v1::Position {
    roomcast::proto::client_v1::Position { epoch, offset }
}

#[tokio::test]
async fn one_bad_target_of_several_stores_nothing_anywhere() {
    let node = Node::start(Encoding::Json).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let request = v1::PublishRequest {
        targets: ["r", "a\nb"].map(to_room).to_vec(),
        ..draft("half", json!({}))
    };
    let refused = backend.send(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "INVALID_ROOM")
    );
    let details = refused.get_details_bad_request().expect("the field is named");
    assert_eq!(details.field_violations[0].field, "targets[1].room");
    let same = v1::PublishRequest {
        targets: ["r", "r"].map(to_room).to_vec(),
        ..draft("twice", json!({}))
    };
    assert_eq!(reason(&backend.send(same).await.unwrap_err()), "INVALID_TARGET");
    backend.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

fn target(target: Target) -> v1::Target {
    v1::Target { target: Some(target) }
}

async fn a_user_of_any_name_is_reached_and_nobody_else(encoding: Encoding) {
    let node = Node::with(encoding, |config| {
        home_rooms(config);
        config.policy.rules = vec![RuleConfig {
            when: Some("room.id == user.id".to_owned()),
            ..rule("own", "user:{id}", &[ActionName::Join, ActionName::History])
        }];
    })
    .await;
    let longest = format!("did:{}", "x".repeat(124));
    let names = [
        "eu-central-1:5f0c7a2e",
        "did:example:7",
        "did%3Aexample%3A7",
        "did",
        "50%",
        "a@b.example/ é",
        &longest,
    ];
    let mut clients = Vec::new();
    for name in names {
        let mut client = node.open().await;
        let connected = client.authenticate(&user(name), Vec::new()).await.unwrap();
        let home = connected.rooms.iter().find(|joined| joined.room.starts_with("user:"));
        clients.push((client, home.unwrap().room.clone()));
    }
    let backend = node.backend();
    for name in names {
        let to_user = v1::PublishRequest {
            targets: vec![target(Target::UserId(name.to_owned()))],
            ..draft("for one", json!(name))
        };
        node.assert_reached(backend.send(to_user).await.unwrap().results[0].reached, 1);
    }
    let homes: Vec<String> = clients.iter().map(|(_, home)| home.clone()).collect();
    for ((client, own), name) in clients.iter_mut().zip(names) {
        let event = client.expect_event(own, "for one").await;
        assert_eq!(event.json(), json!(name));
        for home in &homes {
            // The rule reads the name back, so it lets everybody into the own room and into no other.
            let joined = client.try_join(Join::in_room(home)).await;
            assert_eq!(joined.is_ok(), home == own, "{name} in {home}");
        }
    }
    node.finish().await;
}
