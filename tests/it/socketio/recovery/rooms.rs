//! The rooms of a session that was recovered are those that it was in.

use roomcast::proto::v1;
use serde_json::json;

use super::{Person, node, numbers, recovering, said};
use crate::socketio::speakers::with_socketio;
use crate::support::{Encoding, Node, TENANT, home_rooms, user};

#[tokio::test]
async fn a_room_that_was_left_is_left_and_one_that_was_joined_again_begins_there() {
    let node = node().await;
    let backend = node.backend();
    let mut ada = Person::begin(&node, &user("ada")).await;
    ada.join("a").await;
    ada.join("b").await;
    backend.publish("a", "said", json!({"n": 1})).await;
    assert_eq!(ada.event().await, said(1));
    ada.command("leave", &json!({"room": "a"})).await;
    ada.command("leave", &json!({"room": "b"})).await;
    backend.publish("b", "said", json!({"n": 2})).await;
    ada.join("b").await;
    let kept = ada.cut(&node).await;
    for (n, room) in [(3, "a"), (4, "b")] {
        backend.publish(room, "said", json!({"n": n})).await;
    }
    let ada = Person::back(&node, &user("ada"), &kept).await;
    assert_eq!((ada.recovered, numbers(&ada.missed)), (true, vec![4]));
    ada.cut(&node).await;
    node.finish().await;
}

#[tokio::test]
async fn a_room_by_a_backends_order_is_recovered_until_the_order_is_taken_back() {
    let node = node().await;
    let mut backend = node.backend();
    let ada = Person::begin(&node, &user("ada")).await;
    for room in ["stays", "goes"] {
        let join = v1::JoinRoomRequest {
            tenant: TENANT.to_owned(),
            room: room.to_owned(),
            member: Some(v1::join_room_request::Member::UserId("ada".to_owned())),
            ..Default::default()
        };
        backend.rooms.join_room(join).await.unwrap();
    }
    let leave = v1::LeaveRoomRequest {
        tenant: TENANT.to_owned(),
        room: "goes".to_owned(),
        member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
        ..Default::default()
    };
    backend.rooms.leave_room(leave).await.unwrap();
    // It has read nothing of all that.
    let kept = ada.cut(&node).await;
    for (n, room) in [(1, "stays"), (2, "goes")] {
        node.backend().publish(room, "said", json!({"n": n})).await;
    }
    let ada = Person::back(&node, &user("ada"), &kept).await;
    assert_eq!((ada.recovered, numbers(&ada.missed)), (true, vec![1]));
    ada.cut(&node).await;
    node.finish().await;
}

#[tokio::test]
async fn home_rooms_and_presence_are_as_before_and_the_roster_is_told_anew() {
    let node = Node::with(Encoding::Json, |config| {
        home_rooms(config);
        with_socketio(config, recovering);
    })
    .await;
    let mut ada = Person::begin(&node, &user("ada")).await;
    assert_eq!(ada.any_event().await.name, "roomcast:connected");
    ada.command(
        "join",
        &json!({"room": "r", "presence": "members", "state": {"mood": "fine"}}),
    )
    .await;
    let kept = ada.cut(&node).await;
    let mut bob = node.connect(user("bob")).await;
    bob.join("r").await;
    let mut ada = Person::back(&node, &user("ada"), &kept).await;
    assert!(ada.recovered);
    let connected = ada.any_event().await;
    assert_eq!(connected.name, "roomcast:connected");
    let rooms = connected.payload["rooms"].as_array().unwrap().clone();
    let of_r = rooms.iter().find(|room| room["room"] == "r").unwrap();
    assert_eq!(of_r["recovered"], true);
    let members: Vec<_> = of_r["presence"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["userId"].clone())
        .collect();
    assert_eq!(members, [json!("ada"), json!("bob")]);
    assert_eq!(of_r["presence"]["members"][0]["state"], json!({"mood": "fine"}));
    assert!(rooms.len() > 1, "{rooms:?}");
    bob.close().await;
    assert_eq!(ada.any_event().await.name, "roomcast:presenceDelta");
    ada.cut(&node).await;
    node.finish().await;
}
