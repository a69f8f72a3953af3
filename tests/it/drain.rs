//! A gateway that goes: clients are told, and sent away one after the other.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roomcast::proto::client_v1::server_frame::Message as Said;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Client, Encoding, Node, over_encodings, user};

over_encodings! {
    clients_are_told_to_reconnect_and_sent_away_one_after_the_other,
    what_was_accepted_before_the_end_is_delivered,
}

const WINDOW: Duration = Duration::from_secs(2);

async fn clients_are_told_to_reconnect_and_sent_away_one_after_the_other(encoding: Encoding) {
    // A machine that stands still for a second sees them off together; then the window has to be longer.
    for window in [WINDOW, WINDOW * 4] {
        if is_spread(&see_all_off(encoding, window).await, window) {
            return;
        }
    }
    panic!("the clients are not spread over the window");
}

/// Neither all at once nor all at the end of the window.
fn is_spread(ends: &[Duration], window: Duration) -> bool {
    let span = ends[ends.len() - 1].saturating_sub(ends[0]);
    let early = ends.iter().filter(|end| **end < window / 2).count();
    println!("of {} {early} in the first half, all within {span:?}", ends.len());
    span > window / 2 && (3..=17).contains(&early)
}

/// When each of twenty clients was sent away, in order.
async fn see_all_off(encoding: Encoding, window: Duration) -> Vec<Duration> {
    const COUNT: u32 = 20;
    let mut node = Node::with(encoding, move |config| config.drain_window = window).await;
    let mut clients = Vec::new();
    for n in 0..COUNT {
        clients.push(node.connect(user(&format!("user {n}"))).await);
    }
    let address = node.client_address();
    let start = Instant::now();
    let watch = clients.iter_mut().map(|client| see_off(client, start, window));
    let (mut ends, ()) = tokio::join!(join_all(watch), node.shut_down());
    ends.sort_unstable();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    ends
}

/// Reads the advice and the end; answers when the end came.
async fn see_off(client: &mut Client, start: Instant, window: Duration) -> Duration {
    let Said::ReconnectAdvice(advice) = client.push().await else {
        panic!("no advice")
    };
    assert_eq!(Duration::from_millis(advice.jitter_ms.into()), window);
    assert_eq!(client.expect_close(4000).await, "draining");
    start.elapsed()
}

async fn what_was_accepted_before_the_end_is_delivered(encoding: Encoding) {
    let mut node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    for n in 0..100 {
        backend.publish("r", "n", json!(n)).await;
    }
    node.shut_down().await;
    ada.expect_close(4000).await;
    // The advice overtakes events that are on their way.
    let events = ada
        .take_pushes()
        .into_iter()
        .filter(|push| matches!(push, Said::Event(_)));
    assert_eq!(events.count(), 100);
}

#[tokio::test]
async fn a_gateway_without_clients_ends_at_once() {
    let mut node = Node::with(Encoding::Json, |config| config.drain_window = Duration::from_secs(3600)).await;
    let start = Instant::now();
    node.shut_down().await;
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_keep_the_gateway() {
    let mut node = Node::start(Encoding::Json).await;
    let mut deaf = node.connect(user("deaf")).await;
    deaf.join("r").await;
    let backend = node.backend();
    let padding = "x".repeat(16 * 1024);
    for _ in 0..60 {
        backend.publish("r", "n", json!(padding)).await;
    }
    node.shut_down().await;
}
