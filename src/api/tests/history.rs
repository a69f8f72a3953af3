//! Pages of history: complete in both directions, or refused.

use tonic::Code;

use super::publish::detail;
use super::support::{Api, Setup, event, refusal};
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::bus::memory;
use crate::proto::v1;

async fn publish(api: &Api, count: usize) -> Vec<v1::Position> {
    let mut publisher = api.publisher().await;
    let mut positions = Vec::new();
    for _ in 0..count {
        let response = publisher.publish(event()).await.unwrap().into_inner();
        positions.push(response.results[0].position.clone().unwrap());
    }
    positions
}

fn history() -> v1::ListHistoryRequest {
    v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        ..v1::ListHistoryRequest::default()
    }
}

/// All pages, as the offsets of their events.
async fn read(api: &Api, mut request: v1::ListHistoryRequest) -> Result<Vec<Vec<u64>>, tonic::Status> {
    let mut steward = api.steward().await;
    let mut pages = Vec::new();
    loop {
        let page = steward.list_history(request.clone()).await?.into_inner();
        let offsets = page.events.iter().map(|event| event.position.as_ref().unwrap().offset);
        pages.push(offsets.collect());
        if page.next_page_token.is_empty() {
            return Ok(pages);
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn history_is_read_in_both_directions_in_pages() {
    let api = Api::start().await;
    let at: Vec<u64> = publish(&api, 5)
        .await
        .into_iter()
        .map(|position| position.offset)
        .collect();
    let mut request = history();
    request.page_size = 2;
    let pages = read(&api, request.clone()).await.unwrap();
    assert_eq!(pages, [vec![at[0], at[1]], vec![at[2], at[3]], vec![at[4]]]);
    request.order = v1::HistoryOrder::NewestFirst.into();
    let pages = read(&api, request).await.unwrap();
    assert_eq!(pages, [vec![at[4], at[3]], vec![at[2], at[1]], vec![at[0]]]);
}

#[tokio::test]
async fn a_page_after_which_nothing_comes_has_no_token() {
    let api = Api::start().await;
    let at = publish(&api, 4).await;
    let pages = |request| async {
        read(&api, request)
            .await
            .unwrap()
            .iter()
            .map(Vec::len)
            .collect::<Vec<_>>()
    };
    for order in [v1::HistoryOrder::OldestFirst, v1::HistoryOrder::NewestFirst] {
        let request = |page_size, after: Option<usize>, before: Option<usize>| v1::ListHistoryRequest {
            page_size,
            order: order.into(),
            after: after.map(|index| at[index].clone()),
            before: before.map(|index| at[index].clone()),
            ..history()
        };
        assert_eq!(pages(request(4, None, None)).await, [4], "{order:?}");
        assert_eq!(pages(request(2, None, None)).await, [2, 2], "{order:?}");
        assert_eq!(pages(request(2, Some(1), None)).await, [2], "{order:?}");
        assert_eq!(pages(request(2, None, Some(2))).await, [2], "{order:?}");
        assert_eq!(pages(request(2, Some(0), Some(3))).await, [2], "{order:?}");
        assert_eq!(pages(request(1, Some(0), Some(3))).await, [1, 1], "{order:?}");
    }
}

#[tokio::test]
async fn a_page_that_bytes_have_cut_has_a_token() {
    let large = HistoryLimits {
        bytes_max: 16 << 20,
        ..HistoryLimits::default()
    };
    let bus = memory::Config {
        history: HistoryRules::new([], large),
        ..memory::Config::default()
    };
    let api = Api::with(Setup {
        bus,
        ..Setup::default()
    })
    .await;
    let mut publisher = api.publisher().await;
    for _ in 0..20 {
        let mut request = event();
        request.payload = super::support::json(&format!("\"{}\"", "x".repeat(60_000)));
        publisher.publish(request).await.unwrap();
    }
    for order in [v1::HistoryOrder::OldestFirst, v1::HistoryOrder::NewestFirst] {
        let request = v1::ListHistoryRequest {
            page_size: 300,
            order: order.into(),
            ..history()
        };
        let pages = read(&api, request).await.unwrap();
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [17, 3], "{order:?}");
    }
}

#[tokio::test]
async fn history_between_two_positions_is_what_lies_between_them() {
    let api = Api::start().await;
    let at = publish(&api, 6).await;
    let mut request = history();
    request.page_size = 2;
    request.after = Some(at[0].clone());
    request.before = Some(at[4].clone());
    let pages = read(&api, request.clone()).await.unwrap();
    assert_eq!(pages.concat(), [at[1].offset, at[2].offset, at[3].offset]);
    request.order = v1::HistoryOrder::NewestFirst.into();
    let pages = read(&api, request).await.unwrap();
    assert_eq!(pages.concat(), [at[3].offset, at[2].offset, at[1].offset]);
}

#[tokio::test]
async fn an_event_is_read_as_it_was_published() {
    let api = Api::start().await;
    let mut request = event();
    request.actor_user_id = "ada".to_owned();
    request.retention = v1::Retention::LastValue.into();
    api.publisher().await.publish(request.clone()).await.unwrap();
    let page = api.steward().await.list_history(history()).await.unwrap().into_inner();
    let read = &page.events[0];
    assert_eq!(
        (
            read.event_name.as_str(),
            read.room.as_str(),
            read.actor_user_id.as_str()
        ),
        ("greeting", "r", "ada")
    );
    assert_eq!((&read.payload, read.retention), (&request.payload, request.retention));
    assert_eq!((&read.position, read.id.len()), (&page.head, 32));
    assert!(read.publish_time.is_some());
}

#[tokio::test]
async fn an_empty_room_has_an_empty_history_also_after_its_head() {
    let api = Api::start().await;
    let mut request = history();
    request.room = "empty".to_owned();
    let page = api
        .steward()
        .await
        .list_history(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(page.events.is_empty() && page.next_page_token.is_empty());
    publish(&api, 3).await;
    request.after = page.head;
    for order in [v1::HistoryOrder::OldestFirst, v1::HistoryOrder::NewestFirst] {
        request.order = order.into();
        assert_eq!(read(&api, request.clone()).await.unwrap().concat(), [0; 0]);
    }
}

#[tokio::test]
async fn what_is_no_longer_all_there_is_refused_whole() {
    let two = HistoryLimits {
        events_max: 2,
        ..HistoryLimits::default()
    };
    let bus = memory::Config {
        history: HistoryRules::new([], two),
        ..memory::Config::default()
    };
    let api = Api::with(Setup {
        bus,
        ..Setup::default()
    })
    .await;
    let at = publish(&api, 5).await;
    let mut request = history();
    for order in [v1::HistoryOrder::OldestFirst, v1::HistoryOrder::NewestFirst] {
        request.order = order.into();
        request.after = Some(at[0].clone());
        let status = read(&api, request.clone()).await.unwrap_err();
        assert_eq!(
            (status.code(), &*refusal(&status).1),
            (Code::OutOfRange, "POSITION_NOT_RETAINED")
        );
        let retained: v1::PositionNotRetained = detail(&status, "roomcast.v1.PositionNotRetained");
        assert_eq!(
            (retained.oldest.as_ref(), retained.head.as_ref()),
            (Some(&at[3]), Some(&at[4]))
        );
        request.after = Some(at[2].clone());
        assert_eq!(read(&api, request.clone()).await.unwrap().concat().len(), 2);
    }
    request.after = Some(v1::Position {
        epoch: "0000000000000000".to_owned(),
        offset: at[4].offset,
    });
    let status = read(&api, request).await.unwrap_err();
    assert_eq!(refusal(&status).1, "POSITION_NOT_RETAINED");
}
