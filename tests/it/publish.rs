//! From a publish to every member of a room.

mod many;
mod once;
mod targets;

use roomcast::proto::client_v1::{ErrorCode, Join, PresenceMode, Publish, Retention};
use roomcast::proto::v1;
use roomcast::proto::v1::payload::Content;
use serde_json::json;

use crate::support::{Carries as _, Encoding, InRoom as _, Node, ToRoom as _, draft, over_encodings, to_room, user};

over_encodings! {
    what_a_backend_publishes_reaches_every_member_once_and_in_order,
    a_room_nobody_is_in_answers_0_and_counts,
    two_tenants_with_a_room_of_the_same_name_never_meet,
    who_has_left_gets_nothing_more,
    a_client_publishes_and_the_server_says_who_it_was,
    an_ephemeral_event_has_no_position_and_is_not_kept,
    a_late_joiner_gets_the_newest_value_of_each_name_once,
    payloads_are_relayed_as_they_were_written,
    an_unknown_feature_refuses_what_a_client_publishes_and_joins,
}

async fn what_a_backend_publishes_reaches_every_member_once_and_in_order(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut members = Vec::new();
    for name in ["ada", "ben", "cy"] {
        let mut member = node.connect(user(name)).await;
        member.join("r").await;
        members.push(member);
    }
    let backend = node.backend();
    for n in 0..20 {
        let result = backend.publish("r", "n", json!(n)).await;
        assert_eq!(result.room, "r");
        node.assert_reached(result.reached, 3);
    }
    backend.publish("r", "end", json!(null)).await;
    for member in &mut members {
        for n in 0..20 {
            let event = member.expect_event("r", "n").await;
            assert_eq!(event.json(), json!(n));
        }
        member.expect_nothing_before("end").await;
    }
    node.finish().await;
}

async fn a_room_nobody_is_in_answers_0_and_counts(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let offsets = [
        backend.publish("r", "first", json!(1)).await,
        backend.publish("r", "second", json!(2)).await,
    ]
    .map(|result| {
        assert_eq!(result.reached, Some(0));
        result.position.expect("a reliable event has a position").offset
    });
    assert!(0 < offsets[0] && offsets[0] < offsets[1], "{offsets:?}");
    let mut ada = node.connect(user("ada")).await;
    let joined = ada.join("r").await;
    assert_eq!((joined.head.unwrap().offset, joined.replayed), (offsets[1], 0));
    node.finish().await;
}

async fn two_tenants_with_a_room_of_the_same_name_never_meet(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada").tenant("a")).await;
    let mut ben = node.connect(user("ben").tenant("b")).await;
    ada.join("r").await;
    ben.join("r").await;
    let (to_a, to_b) = (node.backend().of("a"), node.backend().of("b"));
    node.assert_reached(to_a.publish("r", "for a", json!({})).await.reached, 1);
    node.assert_reached(to_b.publish("r", "for b", json!({})).await.reached, 1);
    ada.publish("r", "from ada", json!({})).await;
    ben.publish("r", "from ben", json!({})).await;
    ada.expect_event("r", "for a").await;
    ada.expect_event("r", "from ada").await;
    ben.expect_event("r", "for b").await;
    ben.expect_event("r", "from ben").await;
    to_a.publish("r", "end", json!({})).await;
    to_b.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    ben.expect_nothing_before("end").await;
    node.finish().await;
}

async fn who_has_left_gets_nothing_more(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    ada.join("s").await;
    ada.leave("r").await;
    ada.leave("r").await;
    let backend = node.backend();
    assert_eq!(backend.publish("r", "gone", json!({})).await.reached, Some(0));
    backend.publish("s", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_client_publishes_and_the_server_says_who_it_was(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    ada.join("r").await;
    let published = ben.publish("r", "hello", json!({"actor": "eve", "n": 1.5})).await;
    assert!(!published.duplicate);
    node.assert_reached(published.reached, 1);
    let event = ada.expect_event("r", "hello").await;
    assert_eq!(event.actor_user_id, "ben");
    assert_eq!(event.json(), json!({"actor": "eve", "n": 1.5}));
    assert_eq!(published.position.unwrap().offset, event.offset);
    node.finish().await;
}

async fn an_ephemeral_event_has_no_position_and_is_not_kept(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let before = ada.join("r").await.head.unwrap();
    let cursor = v1::PublishRequest {
        targets: vec![to_room("r")],
        retention: v1::Retention::Ephemeral.into(),
        ..draft("cursor", json!([1, 2]))
    };
    let result = node.backend().send(cursor).await.unwrap().results.remove(0);
    assert_eq!((result.reached, result.position), (Some(1), None));
    let event = ada.expect_event("r", "cursor").await;
    assert_eq!((event.epoch.as_str(), event.retention()), ("", Retention::Ephemeral));
    let published = ada
        .try_publish(Publish {
            retention: Retention::Ephemeral.into(),
            ..Publish::to("r", "cursor", json!([3, 4]))
        })
        .await
        .unwrap();
    assert_eq!((published.reached, published.position), (Some(1), None));
    ada.expect_event("r", "cursor").await;
    let mut ben = node.connect(user("ben")).await;
    let joined = ben.join_since("r", &before).await;
    assert_eq!(
        (joined.recovered, joined.replayed, joined.head),
        (true, 0, Some(before))
    );
    node.finish().await;
}

async fn a_late_joiner_gets_the_newest_value_of_each_name_once(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    for (name, value) in [("price", 1), ("title", 2), ("price", 3)] {
        let request = v1::PublishRequest {
            targets: vec![to_room("r")],
            retention: v1::Retention::LastValue.into(),
            ..draft(name, json!(value))
        };
        backend.send(request).await.unwrap();
    }
    backend.publish("r", "no value", json!({})).await;
    let mut ada = node.connect(user("ada")).await;
    assert_eq!(ada.join("r").await.replayed, 2);
    let title = ada.expect_event("r", "title").await;
    let price = ada.expect_event("r", "price").await;
    assert_eq!(
        (title.json(), price.json(), price.retention()),
        (json!(2), json!(3), Retention::LastValue)
    );
    backend.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn payloads_are_relayed_as_they_were_written(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let long = format!("[{},1e400,-1E-400,0.{}1]", "9".repeat(401), "0".repeat(400));
    let texts = [
        &long,
        r#"{"n":1.10,"big":123456789012345678901234567890,"a":"\u00e9\n","twice":1,"twice":2}"#,
        "null",
        "\"\u{1f980}\"",
        "[ 1 ,  2 ]",
    ];
    // A client's are relayed as a backend's are, and so are states.
    let mut ben = node.connect(user("ben")).await;
    for text in texts {
        let content = roomcast::proto::client_v1::payload::Content::Json(text.to_owned());
        let publish = Publish {
            payload: Some(roomcast::proto::client_v1::Payload { content: Some(content) }),
            ..Publish::to("r", "as it is", json!({}))
        };
        ben.try_publish(publish).await.unwrap();
    }
    for text in texts {
        let event = ada.expect_event("r", "as it is").await;
        let content = event.payload.unwrap().content.unwrap();
        assert_eq!(
            content,
            roomcast::proto::client_v1::payload::Content::Json(text.to_owned())
        );
    }
    let with_state = Join {
        state_json: Some(long.clone()),
        presence: PresenceMode::Members.into(),
        ..Join::in_room("r")
    };
    let roster = ben.try_join(with_state).await.unwrap().presence.unwrap();
    let own = roster.members.iter().find(|member| member.user_id == "ben").unwrap();
    assert_eq!(own.state_json.as_ref(), Some(&long));
    let mut contents: Vec<Content> = texts.map(|text| Content::Json(text.to_owned())).to_vec();
    contents.push(Content::Binary((0..=255u8).collect::<Vec<_>>().into()));
    contents.push(Content::Binary(Vec::new().into()));
    for content in &contents {
        let request = v1::PublishRequest {
            targets: vec![to_room("r")],
            event_name: "as it is".to_owned(),
            payload: Some(v1::Payload {
                content: Some(content.clone()),
            }),
            ..Default::default()
        };
        backend.send(request).await.unwrap();
    }
    for content in contents {
        use roomcast::proto::client_v1::payload::Content as Got;
        let event = ada.expect_event("r", "as it is").await;
        match (content, event.payload.unwrap().content.unwrap()) {
            (Content::Json(sent), Got::Json(got)) => assert_eq!(sent, got),
            (Content::Binary(sent), Got::Binary(got)) => assert_eq!(sent, got),
            other => panic!("another kind of payload: {other:?}"),
        }
    }
    node.finish().await;
}

async fn an_unknown_feature_refuses_what_a_client_publishes_and_joins(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let required_features = vec!["except_users".to_owned()];
    let publish = Publish {
        required_features: required_features.clone(),
        ..Publish::to("r", "leak", json!(1))
    };
    let join = Join {
        required_features,
        ..Join::in_room("r")
    };
    let refused = [
        ada.try_publish(publish).await.unwrap_err(),
        ada.try_join(join).await.unwrap_err(),
    ];
    for refusal in refused {
        assert_eq!(
            (refusal.code(), refusal.reason.as_str()),
            (ErrorCode::Unimplemented, "unsupported")
        );
        assert!(refusal.message.contains("except_users"), "{refusal:?}");
    }
    ada.join("r").await;
    node.backend().publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    assert_eq!(
        node.backend().stats("r").await.history_count,
        1,
        "nothing was published"
    );
    node.finish().await;
}
