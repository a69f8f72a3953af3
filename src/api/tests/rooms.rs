//! Every unary service but `PublishService`, apart from history: members, orders, revocations, explanations.

mod access;
mod ask;
mod orders;

use tonic::Code;

use super::support::{Api, Caller, ROOT, Setup, refusal};
use crate::api::Config;
use crate::proto::v1;
fn members_of(name: &str) -> v1::ListMembersRequest {
    v1::ListMembersRequest {
        tenant: "a".to_owned(),
        room: name.to_owned(),
        ..v1::ListMembersRequest::default()
    }
}

#[tokio::test]
async fn members_are_counted_per_user_and_listed_in_pages() {
    let api = Api::start().await;
    for user in ["cyd", "ada", "bob", "ada"] {
        api.enter("r", user);
    }
    let mut steward = api.steward().await;
    let mut request = members_of("r");
    request.page_size = 2;
    let first = steward.list_members(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        (first.member_count, first.connection_count, first.counts_only),
        (3, 4, false)
    );
    let listed: Vec<_> = first
        .members
        .iter()
        .map(|m| (m.user_id.as_str(), m.connection_count))
        .collect();
    assert_eq!(listed, [("ada", 2), ("bob", 1)]);
    assert!(first.members[0].join_time.is_some());
    request.page_token = first.next_page_token;
    let second = steward.list_members(request.clone()).await.unwrap().into_inner();
    assert_eq!(
        (second.members[0].user_id.as_str(), second.next_page_token.as_str()),
        ("cyd", "")
    );

    // A token belongs to its query.
    request.room = "other".to_owned();
    for token in [request.page_token.clone(), "guessed".to_owned(), "AAAA".to_owned()] {
        request.page_token = token;
        let status = steward.list_members(request.clone()).await.unwrap_err();
        let expected = (
            Code::InvalidArgument,
            "INVALID_PAGE_TOKEN".to_owned(),
            "page_token".to_owned(),
        );
        assert_eq!(refusal(&status), expected);
    }
    let mut negative = members_of("r");
    negative.page_size = -1;
    let status = steward.list_members(negative).await.unwrap_err();
    assert_eq!(
        refusal(&status),
        (
            Code::InvalidArgument,
            "INVALID_FIELD".to_owned(),
            "page_size".to_owned()
        )
    );
    let mut counts = members_of("r");
    counts.counts_only = true;
    let counts = steward.list_members(counts).await.unwrap().into_inner();
    assert_eq!((counts.members.len(), counts.member_count), (0, 3));
    let empty = steward
        .list_members(members_of("nobody is here"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (empty.members.len(), empty.member_count, empty.counts_only),
        (0, 0, false)
    );
}

#[tokio::test]
async fn rooms_of_a_user_are_listed_in_pages_with_all_its_connections() {
    let api = Api::start().await;
    for name in ["r2", "r1", "r3", "r1"] {
        api.enter(name, "ada");
    }
    let mut users = api.users_of(Caller::with(ROOT)).await;
    let mut request = v1::ListUserRoomsRequest {
        tenant: "a".to_owned(),
        user_id: "ada".to_owned(),
        page_size: 2,
        ..v1::ListUserRoomsRequest::default()
    };
    let first = users.list_user_rooms(request.clone()).await.unwrap().into_inner();
    let listed: Vec<_> = first
        .rooms
        .iter()
        .map(|r| (r.room.as_str(), r.connection_count))
        .collect();
    assert_eq!(listed, [("r1", 2), ("r2", 1)]);
    assert_eq!(first.connection_count, 4);
    request.page_token = first.next_page_token;
    let second = users.list_user_rooms(request.clone()).await.unwrap().into_inner();
    assert_eq!((second.rooms.len(), second.rooms[0].room.as_str()), (1, "r3"));
    assert_eq!(second.next_page_token, "");

    request.tenant = "b".to_owned();
    request.page_token.clear();
    let elsewhere = users.list_user_rooms(request).await.unwrap().into_inner();
    assert_eq!((elsewhere.rooms.len(), elsewhere.connection_count), (0, 0));
}

#[tokio::test]
async fn stats_tell_members_head_and_history() {
    let api = Api::start().await;
    api.enter("r", "ada");
    let published = api
        .publisher()
        .await
        .publish(super::support::event())
        .await
        .unwrap()
        .into_inner();
    let request = v1::GetRoomStatsRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
    };
    let stats = api.steward().await.get_room_stats(request).await.unwrap().into_inner();
    assert_eq!(
        (stats.member_count, stats.connection_count, stats.history_count),
        (1, 1, 1)
    );
    assert_eq!(stats.head, published.results[0].position);
    assert!(stats.history_bytes > 0);
}

#[tokio::test]
async fn a_large_room_is_told_in_counts_only() {
    let config = Config {
        members_listed_max: 2,
        ..Config::default()
    };
    let api = Api::with(Setup {
        config,
        ..Setup::default()
    })
    .await;
    let mut steward = api.steward().await;
    for (user, counts_only, listed) in [("ada", false, 1), ("bob", false, 2), ("cyd", true, 0)] {
        api.enter("r", user);
        let told = steward.list_members(members_of("r")).await.unwrap().into_inner();
        assert_eq!((told.counts_only, told.members.len()), (counts_only, listed));
    }
    let counts = steward.list_members(members_of("r")).await.unwrap().into_inner();
    assert_eq!((counts.member_count, counts.connection_count), (3, 3));
}
