//! Names in lists: required features, event names, rooms of a watch.

use super::super::support::{Api, Caller, ROOT};
use super::super::watch::watcher;
use super::{Bound, bound, bytes, chars, owned, told};
use crate::proto::v1;
/// Asserts what is said of `n` required features: unknown within the bound, out of bounds above it.
async fn expect_bounded<T>(what: &str, mut call: impl AsyncFnMut(Vec<String>) -> Result<T, tonic::Status>) {
    for (n, expected) in [
        (32, ("UNSUPPORTED_FEATURE", "")),
        (33, ("INVALID_FIELD", "required_features")),
    ] {
        let answered = call(vec![chars(65); n]).await;
        assert_eq!(told(answered), owned(Some(expected)), "{n} of {what}");
    }
}

#[tokio::test]
async fn required_features_are_bounded_in_every_order() {
    let api = Api::start().await;
    let (connections, rooms, access) = (
        api.connections_of(Caller::with(ROOT)).await,
        api.steward().await,
        api.access().await,
    );
    let (tenant, room) = (|| "a".to_owned(), || "r".to_owned());
    expect_bounded("JoinRoom", async |required_features| {
        let member = Some(v1::join_room_request::Member::UserId("ada".to_owned()));
        let request = v1::JoinRoomRequest {
            tenant: tenant(),
            room: room(),
            member,
            required_features,
        };
        rooms.clone().join_room(request).await
    })
    .await;
    expect_bounded("LeaveRoom", async |required_features| {
        let request = v1::LeaveRoomRequest {
            tenant: tenant(),
            room: room(),
            member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
            required_features,
            ..Default::default()
        };
        rooms.clone().leave_room(request).await
    })
    .await;
    expect_bounded("Disconnect", async |required_features| {
        let request = v1::DisconnectRequest {
            tenant: tenant(),
            session: Some(v1::disconnect_request::Session::UserId("ada".to_owned())),
            required_features,
            ..Default::default()
        };
        connections.clone().disconnect(request).await
    })
    .await;
    expect_bounded("Restore", async |required_features| {
        let request = v1::RestoreRequest {
            tenant: tenant(),
            revocation_id: "f".repeat(32),
            required_features,
        };
        access.clone().restore(request).await
    })
    .await;
}

#[tokio::test]
async fn names_in_lists_are_bounded_in_bytes() {
    let api = Api::start().await;
    let (rooms, users, access) = (
        api.steward().await,
        api.users_of(Caller::with(ROOT)).await,
        api.access().await,
    );
    for (max, reason, field) in [
        (255, "INVALID_ROOM", "room"),
        (128, "INVALID_FIELD", "user_id"),
        (64, "INVALID_TENANT", "tenant"),
    ] {
        for (n, expected) in [(max, None), (max + 1, owned(Some((reason, field))))] {
            let named = |name: &str, usual: &str| if name == field { bytes(n) } else { usual.to_owned() };
            let (tenant, room, user_id) = (named("tenant", "a"), named("room", "r"), named("user_id", "ada"));
            if field != "user_id" {
                let members = v1::ListMembersRequest {
                    tenant: tenant.clone(),
                    room: room.clone(),
                    ..Default::default()
                };
                assert_eq!(
                    told(rooms.clone().list_members(members).await),
                    expected,
                    "members: {n} of {field}"
                );
                let stats = v1::GetRoomStatsRequest {
                    tenant: tenant.clone(),
                    room: room.clone(),
                };
                assert_eq!(
                    told(rooms.clone().get_room_stats(stats).await),
                    expected,
                    "stats: {n} of {field}"
                );
                let history = v1::ListHistoryRequest {
                    tenant: tenant.clone(),
                    room,
                    ..Default::default()
                };
                assert_eq!(
                    told(rooms.clone().list_history(history).await),
                    expected,
                    "history: {n} of {field}"
                );
            }
            if field != "room" {
                let listed = v1::ListUserRoomsRequest {
                    tenant: tenant.clone(),
                    user_id: user_id.clone(),
                    ..Default::default()
                };
                assert_eq!(
                    told(users.clone().list_user_rooms(listed).await),
                    expected,
                    "rooms: {n} of {field}"
                );
                let revocations = v1::ListRevocationsRequest {
                    tenant,
                    user_id,
                    ..Default::default()
                };
                let listed = access.clone().list_revocations(revocations).await;
                assert_eq!(told(listed), expected, "revocations: {n} of {field}");
            }
        }
    }
}

#[tokio::test]
async fn a_watch_is_bounded_in_the_units_of_the_contract() {
    let api = Api::start().await;
    let mut client = watcher(&api, ROOT).await;
    let bounds = [
        bound(
            100,
            |watch: &mut v1::WatchRequest, n| watch.tenants = (0..n).map(|n| n.to_string()).collect(),
            ("INVALID_FIELD", "tenants"),
        ),
        bound(
            4,
            |watch, n| watch.room_pattern = "é*".repeat(n),
            ("INVALID_ROOM", "room_pattern"),
        ),
        Bound {
            max: 32,
            make: |watch, n| watch.required_features = vec![chars(65); n],
            within: Some(("UNSUPPORTED_FEATURE", "")),
            above: ("INVALID_FIELD", "required_features"),
        },
    ];
    for (index, bound) in bounds.into_iter().enumerate() {
        for (n, expected) in [(bound.max, bound.within), (bound.max + 1, Some(bound.above))] {
            let mut request = v1::WatchRequest::default();
            (bound.make)(&mut request, n);
            assert_eq!(told(client.watch(request).await), owned(expected), "{index}: {n}");
        }
    }
}
