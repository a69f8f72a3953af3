//! Sizes of pages: more than the most is the most, and no refusal.

use super::super::http::call;
use super::super::support::{Api, Caller, ROOT, Setup, event};
use super::revoke;
use crate::api::Config;
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::bus::memory;
use crate::proto::v1;
use crate::proto::v1::revoke_request::Subject;
/// An API whose rooms hold more than any page.
async fn larger_than_a_page() -> Api {
    let limits = HistoryLimits {
        events_max: 1_000,
        ..HistoryLimits::default()
    };
    let mut setup = Setup {
        config: Config {
            members_listed_max: 2_000,
            ..Config::default()
        },
        bus: memory::Config {
            history: HistoryRules::new([], limits),
            ..memory::Config::default()
        },
        ..Setup::default()
    };
    setup.presence.listed_max = 2_000;
    Api::with(setup).await
}

/// Page sizes that are asked for, and the sizes of the pages, where the most is `max`.
fn page_sizes(max: i32) -> [(i32, usize); 5] {
    [
        (0, 100),
        (max - 1, max - 1),
        (max, max),
        (max + 1, max),
        (i32::MAX, max),
    ]
    .map(|(asked, size)| (asked, usize::try_from(size).unwrap()))
}

/// The number of elements of `name` on the mirror's first page, and whether another follows.
async fn page_over_http(api: &Api, path: &str, asked: i32, name: &str) -> (usize, bool) {
    let path = format!("{path}?tenant=a&pageSize={asked}");
    let (status, _, answer) = call(api, "GET", &path, ROOT, "").await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["nextPageToken"].as_str().unwrap_or_default();
    (answer[name].as_array().unwrap().len(), !token.is_empty())
}

#[tokio::test]
async fn a_page_of_history_is_capped_not_refused() {
    let api = larger_than_a_page().await;
    let mut publisher = api.publisher().await;
    for count in [100, 100, 100, 1] {
        let requests = vec![event(); count];
        publisher
            .publish_batch(v1::PublishBatchRequest { requests })
            .await
            .unwrap();
    }
    let mut rooms = api.steward().await;
    for (asked, size) in page_sizes(300) {
        for order in [v1::HistoryOrder::OldestFirst, v1::HistoryOrder::NewestFirst] {
            let request = v1::ListHistoryRequest {
                tenant: "a".to_owned(),
                room: "r".to_owned(),
                page_size: asked,
                order: order.into(),
                ..Default::default()
            };
            let page = rooms.list_history(request).await.unwrap().into_inner();
            let found = (page.events.len(), !page.next_page_token.is_empty());
            assert_eq!(found, (size, true), "{asked} {order:?}");
        }
    }
}

#[tokio::test]
async fn a_page_of_members_is_capped_not_refused() {
    let api = larger_than_a_page().await;
    for n in 0..=1_000 {
        api.enter("r", &format!("user-{n}"));
    }
    let mut rooms = api.steward().await;
    for (asked, size) in page_sizes(1_000) {
        let request = v1::ListMembersRequest {
            tenant: "a".to_owned(),
            room: "r".to_owned(),
            page_size: asked,
            ..Default::default()
        };
        let page = rooms.list_members(request).await.unwrap().into_inner();
        let found = (page.members.len(), !page.next_page_token.is_empty());
        assert_eq!(found, (size, true), "{asked}");
        let over_http = page_over_http(&api, "/v1/rooms/r/members", asked, "members").await;
        assert_eq!(over_http, found, "{asked} over HTTP");
    }
}

#[tokio::test]
async fn a_page_of_user_rooms_is_capped_not_refused() {
    let api = larger_than_a_page().await;
    for n in 0..=1_000 {
        api.enter(&format!("room-{n}"), "ada");
    }
    let mut users = api.users_of(Caller::with(ROOT)).await;
    for (asked, size) in page_sizes(1_000) {
        let request = v1::ListUserRoomsRequest {
            tenant: "a".to_owned(),
            user_id: "ada".to_owned(),
            page_size: asked,
            ..Default::default()
        };
        let page = users.list_user_rooms(request).await.unwrap().into_inner();
        let found = (page.rooms.len(), !page.next_page_token.is_empty());
        assert_eq!(found, (size, true), "{asked}");
    }
}

#[tokio::test]
async fn a_page_of_revocations_is_capped_not_refused() {
    let api = larger_than_a_page().await;
    let mut access = api.access().await;
    for n in 0..=1_000 {
        let revoke = v1::RevokeRequest {
            subject: Some(Subject::UserId(n.to_string())),
            ..revoke()
        };
        access.revoke(revoke).await.unwrap();
    }
    for (asked, size) in page_sizes(1_000) {
        let request = v1::ListRevocationsRequest {
            tenant: "a".to_owned(),
            page_size: asked,
            ..Default::default()
        };
        let page = access.list_revocations(request).await.unwrap().into_inner();
        let found = (page.revocations.len(), !page.next_page_token.is_empty());
        assert_eq!(found, (size, true), "{asked}");
        let over_http = page_over_http(&api, "/v1/revocations", asked, "revocations").await;
        assert_eq!(over_http, found, "{asked} over HTTP");
    }
}
