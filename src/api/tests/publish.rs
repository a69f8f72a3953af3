//! Publishing: what is stored and answered, and every refusal with its details.

use tonic::Code;

use super::support::{Api, Setup, event, json, refusal, to_room};
use crate::proto::v1;
use crate::proto::v1::target::Target;
use crate::room::RoomPattern;
use crate::rooms::HomeRooms;

fn to(target: Target) -> v1::Target {
    v1::Target { target: Some(target) }
}

#[tokio::test]
async fn a_publish_answers_position_and_members_reached() {
    let api = Api::start().await;
    api.enter("r", "ada");
    let bob = api.enter("r", "bob");
    let mut publisher = api.publisher().await;
    let first = publisher.publish(event()).await.unwrap().into_inner();
    let mut second = event();
    second.exclude_connection_ids = vec![bob.connection.to_string()];
    let second = publisher.publish(second).await.unwrap().into_inner();
    let (first, second) = (&first.results[0], &second.results[0]);
    assert_eq!(
        (first.room.as_str(), first.reached, first.duplicate),
        ("r", Some(2), false)
    );
    assert_eq!(second.reached, Some(1));
    let (first, second) = (first.position.as_ref().unwrap(), second.position.as_ref().unwrap());
    assert!(first.epoch == second.epoch && first.offset < second.offset);
}

#[tokio::test]
async fn a_room_nobody_is_in_answers_zero_and_counts() {
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    let first = publisher.publish(event()).await.unwrap().into_inner().results.remove(0);
    let second = publisher.publish(event()).await.unwrap().into_inner().results.remove(0);
    assert_eq!((first.reached, second.reached), (Some(0), Some(0)));
    assert!(first.position.unwrap().offset < second.position.unwrap().offset);
}

#[tokio::test]
async fn an_ephemeral_event_has_no_position() {
    let api = Api::start().await;
    let mut request = event();
    request.retention = v1::Retention::Ephemeral.into();
    let response = api.publisher().await.publish(request).await.unwrap().into_inner();
    assert_eq!(response.results[0].position, None);
}

#[tokio::test]
async fn a_repeated_key_answers_the_first_position_and_another_body_is_refused() {
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    let mut request = event();
    request.idempotency_key = "k1".to_owned();
    let first = publisher
        .publish(request.clone())
        .await
        .unwrap()
        .into_inner()
        .results
        .remove(0);
    let again = publisher
        .publish(request.clone())
        .await
        .unwrap()
        .into_inner()
        .results
        .remove(0);
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.position, again.reached), (first.position, None));
    request.payload = json("{\"text\":\"other\"}");
    let status = publisher.publish(request).await.unwrap_err();
    let (code, reason, _) = refusal(&status);
    assert_eq!((code, reason.as_str()), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
}

#[tokio::test]
async fn of_two_racing_publishers_one_wins_and_the_other_learns_the_position() {
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    let head = publisher
        .publish(event())
        .await
        .unwrap()
        .into_inner()
        .results
        .remove(0)
        .position;
    let mut request = event();
    request.expected_head = head;
    let (mut one, mut other) = (publisher.clone(), publisher.clone());
    let (left, right) = tokio::join!(one.publish(request.clone()), other.publish(request));
    let (won, lost) = if left.is_ok() { (left, right) } else { (right, left) };
    let newest = won.unwrap().into_inner().results.remove(0).position;
    let status = lost.unwrap_err();
    let (code, reason, _) = refusal(&status);
    assert_eq!((code, reason.as_str()), (Code::Aborted, "VERSION_CONFLICT"));
    let conflict: v1::VersionConflict = detail(&status, "roomcast.v1.VersionConflict");
    assert_eq!((conflict.room.as_str(), conflict.head), ("r", newest));
}

#[tokio::test]
async fn an_expected_head_of_another_epoch_is_a_conflict() {
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    let mut head = publisher
        .publish(event())
        .await
        .unwrap()
        .into_inner()
        .results
        .remove(0)
        .position
        .unwrap();
    for epoch in ["0000000000000000", "never written by a bus"] {
        head.epoch = epoch.to_owned();
        let mut request = event();
        request.expected_head = Some(head.clone());
        let status = publisher.publish(request).await.unwrap_err();
        assert_eq!(refusal(&status).1, "VERSION_CONFLICT");
    }
    head.epoch = String::new();
    let mut request = event();
    request.expected_head = Some(head);
    publisher.publish(request).await.unwrap();
}

#[tokio::test]
async fn targets_that_come_to_one_room_share_one_event() {
    let api = Api::start().await;
    let mut request = event();
    request.targets = vec![
        to_room("user:ada"),
        to_room("r"),
        to(Target::UserId("ada".to_owned())),
        to(Target::Everyone(v1::TenantTarget {})),
    ];
    let results = api
        .publisher()
        .await
        .publish(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let rooms: Vec<_> = results.iter().map(|result| result.room.as_str()).collect();
    assert_eq!(rooms, ["user:ada", "r", "user:ada", "tenant:a"]);
    assert_eq!(results[0], results[2]);
    assert_ne!(results[0].position, results[1].position);
}

#[tokio::test]
async fn a_target_without_a_home_room_is_refused() {
    let api = Api::with(Setup {
        home_rooms: HomeRooms::default(),
        ..Setup::default()
    })
    .await;
    for target in [Target::UserId("ada".to_owned()), Target::Everyone(v1::TenantTarget {})] {
        let mut request = event();
        request.targets = vec![to(target)];
        let status = api.publisher().await.publish(request).await.unwrap_err();
        assert_eq!(
            (status.code(), &*refusal(&status).1),
            (Code::FailedPrecondition, "NO_HOME_ROOM")
        );
    }
}

#[test]
fn home_rooms_hold_only_what_a_backend_names() {
    let pattern = |text| Some(RoomPattern::parse(text).unwrap());
    assert!(HomeRooms::new(pattern("{tenant}:user:{user}"), pattern("all")).is_ok());
    assert!(HomeRooms::new(pattern("everybody"), None).is_err());
    assert!(HomeRooms::new(pattern("{user}:{team}"), None).is_err());
    assert!(HomeRooms::new(pattern("{tenant}-{user}"), None).is_err());
    assert!(HomeRooms::new(None, pattern("{user}")).is_err());
}

#[tokio::test]
async fn one_connection_is_sent_to_directly() {
    let api = Api::start().await;
    let connection = api.shard.connect("a", "ada");
    let mut request = event();
    request.targets = vec![to(Target::ConnectionId(connection.to_string()))];
    let mut publisher = api.publisher().await;
    let status = publisher.publish(request.clone()).await.unwrap_err();
    assert_eq!(
        refusal(&status),
        (
            Code::InvalidArgument,
            "INVALID_FIELD".to_owned(),
            "retention".to_owned()
        )
    );

    request.retention = v1::Retention::Ephemeral.into();
    let result = publisher
        .publish(request.clone())
        .await
        .unwrap()
        .into_inner()
        .results
        .remove(0);
    assert_eq!(
        (result.reached, result.position, result.room.as_str()),
        (Some(1), None, "")
    );
    let sent = api.shard.sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].0, sent[0].1.name.as_str(), sent[0].1.room.name()),
        (connection, "greeting", "")
    );

    request.exclude_user_ids = vec!["ada".to_owned()];
    let spared = publisher.publish(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        (spared.results[0].reached, api.shard.sent.lock().unwrap().len()),
        (Some(0), 1)
    );

    // The same connection does not exist in another tenant.
    request.tenant = "b".to_owned();
    let status = publisher.publish(request).await.unwrap_err();
    let (code, reason, _) = refusal(&status);
    assert_eq!((code, reason.as_str()), (Code::NotFound, "CONNECTION_NOT_FOUND"));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn every_unacceptable_field_is_named() {
    type Change = Box<dyn Fn(&mut v1::PublishRequest)>;
    fn change(change: impl Fn(&mut v1::PublishRequest) + 'static) -> Change {
        Box::new(change)
    }
    let cases: Vec<(&str, &str, Change)> = vec![
        ("INVALID_TENANT", "tenant", change(|r| r.tenant.clear())),
        ("INVALID_TENANT", "tenant", change(|r| r.tenant = "t".repeat(65))),
        ("INVALID_TARGET", "targets", change(|r| r.targets.clear())),
        (
            "INVALID_TARGET",
            "targets",
            change(|r| r.targets = (0..101).map(|n| to_room(&n.to_string())).collect()),
        ),
        ("INVALID_TARGET", "targets[1]", change(|r| r.targets.push(to_room("r")))),
        (
            "INVALID_TARGET",
            "targets[1]",
            change(|r| r.targets.push(v1::Target::default())),
        ),
        (
            "INVALID_ROOM",
            "targets[1].room",
            change(|r| r.targets.push(to_room(""))),
        ),
        (
            "INVALID_ROOM",
            "targets[1].room",
            change(|r| r.targets.push(to_room("a\nb"))),
        ),
        (
            "INVALID_ROOM",
            "targets[1].room",
            change(|r| r.targets.push(to_room(&"x".repeat(256)))),
        ),
        (
            "INVALID_FIELD",
            "targets[0].user_id",
            change(|r| r.targets = vec![to(Target::UserId(String::new()))]),
        ),
        (
            "INVALID_FIELD",
            "targets[0].connection_id",
            change(|r| r.targets = vec![to(Target::ConnectionId("1".to_owned()))]),
        ),
        ("INVALID_EVENT_NAME", "event_name", change(|r| r.event_name.clear())),
        (
            "INVALID_EVENT_NAME",
            "event_name",
            change(|r| r.event_name = "connect".to_owned()),
        ),
        (
            "INVALID_EVENT_NAME",
            "event_name",
            change(|r| r.event_name = "e".repeat(129)),
        ),
        ("INVALID_PAYLOAD", "payload", change(|r| r.payload = None)),
        ("INVALID_PAYLOAD", "payload.json", change(|r| r.payload = json("{"))),
        (
            "INVALID_PAYLOAD",
            "payload.json",
            change(|r| r.payload = json(&"[".repeat(40))),
        ),
        (
            "INVALID_PAYLOAD",
            "payload.json",
            change(|r| r.payload = json("\"\\ud800\"")),
        ),
        (
            "PAYLOAD_TOO_LARGE",
            "payload",
            change(|r| r.payload = json(&format!("\"{}\"", "x".repeat(64 << 10)))),
        ),
        (
            "INVALID_IDEMPOTENCY_KEY",
            "idempotency_key",
            change(|r| r.idempotency_key = "k".repeat(65)),
        ),
        ("INVALID_FIELD", "retention", change(|r| r.retention = 9)),
        (
            "INVALID_FIELD",
            "exclude_connection_ids[0]",
            change(|r| r.exclude_connection_ids = vec!["x".to_owned()]),
        ),
        (
            "INVALID_FIELD",
            "exclude_user_ids",
            change(|r| r.exclude_user_ids = vec!["u".to_owned(); 101]),
        ),
        (
            "INVALID_FIELD",
            "actor_user_id",
            change(|r| r.actor_user_id = "u".repeat(129)),
        ),
        (
            "INVALID_FIELD",
            "expected_head.offset",
            change(|r| {
                r.expected_head = Some(v1::Position {
                    epoch: String::new(),
                    offset: 1 << 53,
                });
            }),
        ),
        (
            "INVALID_FIELD",
            "expected_head",
            change(|r| {
                r.expected_head = Some(v1::Position::default());
                r.targets.push(to_room("s"));
            }),
        ),
    ];
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    for (reason, field, change) in cases {
        let mut request = event();
        change(&mut request);
        let status = publisher.publish(request).await.unwrap_err();
        let expected = (Code::InvalidArgument, reason.to_owned(), field.to_owned());
        assert_eq!(refusal(&status), expected, "{}", status.message());
    }
}

/// The detail of this type.
pub(super) fn detail<M: prost::Message + Default>(status: &tonic::Status, name: &str) -> M {
    use prost::Message as _;
    let complete = tonic_types::Status::decode(status.details()).unwrap();
    let wanted = format!("type.googleapis.com/{name}");
    let found = complete.details.iter().find(|any| any.type_url == wanted);
    M::decode(&*found.unwrap().value).unwrap()
}
