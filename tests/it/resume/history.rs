//! Reading the history: pages, their bounds, their ends.

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::Position;
use roomcast::proto::client_v1::history_query::Anchor as Side;
use serde_json::json;

use super::{history, numbers};
use crate::support::{Encoding, Node, over_encodings, over_nats_in_protobuf, user};
over_encodings! {
    history_is_read_page_by_page_in_both_directions,
    a_page_says_whether_events_or_bytes_have_cut_it,
}

over_nats_in_protobuf! {
    a_page_says_whether_events_or_bytes_have_cut_it,
}

async fn history_is_read_page_by_page_in_both_directions(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    for n in 0..25 {
        backend.publish("r", "n", json!(n)).await;
    }
    let mut ada = node.connect(user("ada")).await;
    let newest = history(&mut ada, None, 10).await;
    assert_eq!((numbers(&newest), newest.more), ((15..25).collect(), true));
    let (mut oldest, mut seen) = (newest, Vec::new());
    while let Some(first) = oldest.events.first() {
        seen.splice(0..0, numbers(&oldest));
        let before = Position {
            epoch: first.epoch.clone(),
            offset: first.offset,
        };
        oldest = history(&mut ada, Some(Side::Before(before)), 10).await;
    }
    assert_eq!(seen, (0..25).collect::<Vec<u64>>());
    let head = oldest.head.clone().unwrap();
    let mut after = Position {
        offset: 0,
        ..head.clone()
    };
    let mut seen = Vec::new();
    loop {
        let page = history(&mut ada, Some(Side::After(after.clone())), 10).await;
        assert!(page.complete);
        seen.extend(numbers(&page));
        let Some(last) = page.events.last() else { break };
        after.offset = last.offset;
    }
    assert_eq!((seen, after), ((0..25).collect::<Vec<u64>>(), head));
    let stranger = Position {
        epoch: "0123456789abcdef".to_owned(),
        offset: 3,
    };
    let page = history(&mut ada, Some(Side::After(stranger)), 0).await;
    assert!(!page.complete && page.events.is_empty());
    node.finish().await;
}

/// Twenty events of which seventeen fit into the bytes of a page.
async fn a_page_says_whether_events_or_bytes_have_cut_it(encoding: Encoding) {
    let large = |config: &mut Config| {
        let limits = HistoryLimits {
            bytes_max: 16 << 20,
            ..Default::default()
        };
        config.bus.history = HistoryRules::new([], limits);
    };
    let node = Node::with(encoding, large).await;
    let backend = node.backend();
    let text = "x".repeat(60_000);
    for n in 0..20 {
        backend.publish("r", "n", json!([n, text])).await;
    }
    let mut ada = node.connect(user("ada")).await;
    let newest = history(&mut ada, None, 300).await;
    assert_eq!((newest.events.len(), newest.more), (17, true));
    let first = &newest.events[0];
    let before = Side::Before(Position {
        epoch: first.epoch.clone(),
        offset: first.offset,
    });
    let rest = history(&mut ada, Some(before.clone()), 300).await;
    assert_eq!((rest.events.len(), rest.more), (3, false));
    // A full page after which nothing comes, and one after which something does.
    for (limit, more) in [(3, false), (2, true)] {
        let page = history(&mut ada, Some(before.clone()), limit).await;
        assert_eq!((page.events.len(), page.more), (limit as usize, more));
    }
    let mut after = Position {
        offset: 0,
        ..newest.head.unwrap()
    };
    let (mut read, mut pages) = (0, 0);
    loop {
        let page = history(&mut ada, Some(Side::After(after.clone())), 10).await;
        assert!(page.complete);
        read += page.events.len();
        pages += 1;
        after.offset = page.events.last().unwrap().offset;
        if !page.more {
            break;
        }
    }
    assert_eq!((read, pages), (20, 2));
    node.finish().await;
}
