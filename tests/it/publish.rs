//! From a publish to every member of a room.

use roomcast::proto::client_v1::{EventClass, Publish};
use roomcast::proto::v1;
use roomcast::proto::v1::payload::Content;
use roomcast::proto::v1::publish_batch_result::Outcome as BatchOutcome;
use roomcast::proto::v1::publish_stream_response::Outcome as StreamOutcome;
use roomcast::proto::v1::target::Target;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    Carries as _, Encoding, Node, ToRoom as _, draft, home_rooms, over_encodings, reason, to_room, user,
};

over_encodings! {
    what_a_backend_publishes_reaches_every_member_once_and_in_order,
    a_room_nobody_is_in_answers_0_and_counts,
    two_tenants_with_a_room_of_the_same_name_never_meet,
    who_has_left_gets_nothing_more,
    a_client_publishes_and_the_server_says_who_it_was,
    one_publish_to_several_rooms_is_one_event_with_a_position_in_each,
    a_user_is_reached_over_all_connections_and_a_tenant_over_all_users,
    a_connection_is_reached_alone_and_nobody_elses,
    who_is_left_out_gets_the_link_and_not_the_event,
    an_ephemeral_event_has_no_position_and_is_not_kept,
    a_late_joiner_gets_the_newest_value_of_each_name_once,
    a_repeated_key_publishes_once_and_answers_the_first_position,
    a_client_that_repeats_its_key_publishes_once,
    payloads_are_relayed_as_they_were_written,
}

fn target(target: Target) -> v1::Target {
    v1::Target { target: Some(target) }
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
        assert_eq!((result.room.as_str(), result.reached), ("r", 3));
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
        assert_eq!(result.reached, 0);
        result.position.expect("a reliable event has a position").offset
    });
    assert!(0 < offsets[0] && offsets[0] < offsets[1], "{offsets:?}");
    let mut ada = node.connect(user("ada")).await;
    let joined = ada.join("r").await;
    assert_eq!((joined.position.unwrap().offset, joined.replayed), (offsets[1], 0));
    node.finish().await;
}

async fn two_tenants_with_a_room_of_the_same_name_never_meet(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada").tenant("a")).await;
    let mut ben = node.connect(user("ben").tenant("b")).await;
    ada.join("r").await;
    ben.join("r").await;
    let (to_a, to_b) = (node.backend().of("a"), node.backend().of("b"));
    assert_eq!(to_a.publish("r", "for a", json!({})).await.reached, 1);
    assert_eq!(to_b.publish("r", "for b", json!({})).await.reached, 1);
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
    assert_eq!(backend.publish("r", "gone", json!({})).await.reached, 0);
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
    assert_eq!((published.reached, published.duplicate), (1, false));
    let event = ada.expect_event("r", "hello").await;
    assert_eq!(event.actor_user_id, "ben");
    assert_eq!(event.json(), json!({"actor": "eve", "n": 1.5}));
    assert_eq!(published.position.unwrap().offset, event.offset);
    node.finish().await;
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
    let told: Vec<_> = results
        .iter()
        .map(|result| (result.room.as_str(), result.reached))
        .collect();
    assert_eq!(told, [("r", 1), ("s", 1), ("nobody", 0)]);
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
    assert_eq!(backend.send(to_ada).await.unwrap().results[0].reached, 2);
    let to_all = v1::PublishRequest {
        targets: vec![target(Target::Everyone(v1::TenantTarget {}))],
        ..draft("for all", json!({}))
    };
    assert_eq!(backend.send(to_all).await.unwrap().results[0].reached, 3);
    for own in [&mut phone, &mut laptop] {
        let mut names = own
            .events(2)
            .await
            .into_iter()
            .map(|event| event.name)
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
        class: v1::EventClass::Ephemeral.into(),
        ..draft("for the phone", json!({"n": 1}))
    };
    let result = backend.send(to_phone.clone()).await.unwrap().results.remove(0);
    assert_eq!((result.reached, result.position, result.room.as_str()), (1, None, ""));
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
    assert_eq!(backend.send(but_for_ada).await.unwrap().results[0].reached, 2);
    assert_eq!(backend.send(but_for_the_phone).await.unwrap().results[0].reached, 2);
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

async fn an_ephemeral_event_has_no_position_and_is_not_kept(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let before = ada.join("r").await.position.unwrap();
    let cursor = v1::PublishRequest {
        targets: vec![to_room("r")],
        class: v1::EventClass::Ephemeral.into(),
        ..draft("cursor", json!([1, 2]))
    };
    let result = node.backend().send(cursor).await.unwrap().results.remove(0);
    assert_eq!((result.reached, result.position), (1, None));
    let event = ada.expect_event("r", "cursor").await;
    assert_eq!((event.epoch.as_str(), event.class()), ("", EventClass::Ephemeral));
    let published = ada
        .try_publish(Publish {
            class: EventClass::Ephemeral.into(),
            ..Publish::to("r", "cursor", json!([3, 4]))
        })
        .await
        .unwrap();
    assert_eq!((published.reached, published.position), (1, None));
    ada.expect_event("r", "cursor").await;
    let mut ben = node.connect(user("ben")).await;
    let joined = ben.join_since("r", &before).await;
    assert_eq!(
        (joined.recovered, joined.replayed, joined.position),
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
            class: v1::EventClass::LastValue.into(),
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
        (title.json(), price.json(), price.class()),
        (json!(2), json!(3), EventClass::LastValue)
    );
    backend.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_repeated_key_publishes_once_and_answers_the_first_position(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let keyed = |event: &str, n: u32| v1::PublishRequest {
        targets: vec![to_room("r")],
        idempotency_key: "k".to_owned(),
        ..draft(event, json!(n))
    };
    let first = backend.send(keyed("paid", 1)).await.unwrap().results.remove(0);
    let again = backend.send(keyed("paid", 1)).await.unwrap().results.remove(0);
    assert_eq!((first.duplicate, first.reached), (false, 1));
    assert_eq!(
        (again.duplicate, again.reached, again.position),
        (true, 0, first.position)
    );
    for other in [keyed("paid", 2), keyed("refunded", 1)] {
        let refused = backend.send(other).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED")
        );
    }
    // The key is the room's and the tenant's own.
    let elsewhere = v1::PublishRequest {
        targets: vec![to_room("s")],
        ..keyed("paid", 2)
    };
    assert!(!backend.send(elsewhere).await.unwrap().results[0].duplicate);
    assert!(
        !backend
            .clone()
            .of("other")
            .send(keyed("paid", 2))
            .await
            .unwrap()
            .results[0]
            .duplicate
    );
    backend.publish("r", "end", json!({})).await;
    ada.expect_event("r", "paid").await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_client_that_repeats_its_key_publishes_once(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let keyed = |n: u32| Publish {
        idempotency_key: "k".to_owned(),
        ..Publish::to("r", "said", json!(n))
    };
    let first = ada.try_publish(keyed(1)).await.unwrap();
    let again = ada.try_publish(keyed(1)).await.unwrap();
    assert_eq!(
        (again.duplicate, again.reached, again.position),
        (true, 0, first.position)
    );
    assert_eq!(ada.try_publish(keyed(2)).await.unwrap_err().reason, "key_reused");
    ada.expect_event("r", "said").await;
    ada.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn payloads_are_relayed_as_they_were_written(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let texts = [
        r#"{"n":1.10,"big":123456789012345678901234567890,"a":"\u00e9\n","twice":1,"twice":2}"#,
        "null",
        "\"\u{1f980}\"",
        "[ 1 ,  2 ]",
    ];
    let mut contents: Vec<Content> = texts.map(|text| Content::Json(text.to_owned())).to_vec();
    contents.push(Content::Binary((0..=255u8).collect::<Vec<_>>().into()));
    contents.push(Content::Binary(Vec::new().into()));
    for content in &contents {
        let request = v1::PublishRequest {
            targets: vec![to_room("r")],
            event: "as it is".to_owned(),
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

#[tokio::test]
async fn of_two_racing_publishers_one_wins_and_the_other_learns_the_version() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let at = |offset| v1::PublishRequest {
        targets: vec![to_room("r")],
        expected_position: Some(v1::Position {
            epoch: String::new(),
            offset,
        }),
        ..draft("edited", json!({}))
    };
    let first = backend.send(at(0)).await.unwrap().results.remove(0).position.unwrap();
    let racers = [backend.send(at(first.offset)), backend.send(at(first.offset))];
    let (mut won, mut lost) = (Vec::new(), Vec::new());
    for result in futures_util::future::join_all(racers).await {
        match result {
            Ok(response) => won.push(response.results[0].position.clone().unwrap()),
            Err(status) => lost.push(status),
        }
    }
    assert_eq!((won.len(), lost.len()), (1, 1));
    assert_eq!(
        (lost[0].code(), reason(&lost[0]).as_str()),
        (Code::Aborted, "VERSION_CONFLICT")
    );
    let conflict = version_conflict(&lost[0]);
    assert_eq!((conflict.room.as_str(), conflict.current), ("r", Some(won[0].clone())));
    // Another epoch is another order.
    let stale = v1::PublishRequest {
        expected_position: Some(v1::Position {
            epoch: "0000000000000000".to_owned(),
            offset: won[0].offset,
        }),
        ..at(0)
    };
    assert_eq!(backend.send(stale).await.unwrap_err().code(), Code::Aborted);
    node.finish().await;
}

fn version_conflict(status: &tonic::Status) -> v1::VersionConflict {
    use prost::Message as _;
    let status = tonic_types::pb::Status::decode(status.details()).unwrap();
    let detail = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("VersionConflict"));
    v1::VersionConflict::decode(detail.expect("the current version is told").value.as_slice()).unwrap()
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_one_failure_stops_nothing() {
    let node = Node::start(Encoding::Json).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let one = |event: &str| {
        backend.stamped(v1::PublishRequest {
            targets: vec![to_room("r")],
            ..draft(event, json!({}))
        })
    };
    let requests = vec![one("one"), one("a\u{7}b"), one("two")];
    let request = v1::PublishBatchRequest { requests };
    let results = backend
        .publishing
        .clone()
        .publish_batch(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let outcomes: Vec<_> = results.into_iter().map(|result| result.outcome.unwrap()).collect();
    assert!(matches!(&outcomes[0], BatchOutcome::Response(_)));
    let BatchOutcome::Error(error) = &outcomes[1] else {
        panic!("a control character in a name is refused")
    };
    assert_eq!(error.code, i32::from(Code::InvalidArgument));
    assert!(matches!(&outcomes[2], BatchOutcome::Response(_)));
    ada.expect_event("r", "one").await;
    ada.expect_event("r", "two").await;
    node.finish().await;
}

#[tokio::test]
async fn a_stream_answers_each_event_in_the_order_sent_and_ends_when_all_are_answered() {
    const COUNT: u64 = 500;
    let node = Node::start(Encoding::Protobuf).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let requests: Vec<_> = (0..COUNT)
        .map(|n| {
            let event = if n == 7 { "error" } else { "n" };
            v1::PublishStreamRequest {
                sequence: n * 3,
                request: Some(backend.stamped(v1::PublishRequest {
                    targets: vec![to_room("r")],
                    ..draft(event, json!(n))
                })),
            }
        })
        .collect();
    let stream = tokio_stream::iter(requests);
    let mut answers = backend
        .publishing
        .clone()
        .publish_stream(stream)
        .await
        .unwrap()
        .into_inner();
    let mut offset = 0;
    for n in 0..COUNT {
        let answer = answers.message().await.unwrap().expect("one answer for each event");
        assert_eq!(answer.sequence, n * 3);
        match answer.outcome.unwrap() {
            StreamOutcome::Response(response) => {
                let now = response.results[0].position.as_ref().unwrap().offset;
                assert!(now > offset);
                offset = now;
            }
            StreamOutcome::Error(error) => {
                assert_eq!(
                    (n, error.code),
                    (7, i32::from(Code::InvalidArgument)),
                    "{}",
                    error.message
                );
            }
        }
    }
    assert_eq!(answers.message().await.unwrap(), None);
    for n in (0..COUNT).filter(|n| *n != 7) {
        assert_eq!(ada.expect_event("r", "n").await.json(), json!(n));
    }
    node.finish().await;
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
