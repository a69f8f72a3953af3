//! The end of a session at its time, and its renewal by another token.

use std::time::Duration;

use roomcast::gateway::Config;
use roomcast::proto::client_v1::ErrorCode;
use roomcast::proto::client_v1::server_frame::Message as Said;
use serde_json::json;

use super::{now_ms, refresh};
use crate::support::{Encoding, Node, in_seconds, over_encodings, user};
over_encodings! {
    a_session_is_told_that_it_ends_and_ends_on_time,
    a_refreshed_session_goes_on,
    a_token_of_somebody_else_refreshes_nothing,
}

async fn a_session_is_told_that_it_ends_and_ends_on_time(encoding: Encoding) {
    let prompt = |config: &mut Config| {
        config.session.expiry_notice = Duration::from_secs(2);
        config.auth.leeway = Duration::from_secs(1);
    };
    let node = Node::with(encoding, prompt).await;
    let ends = in_seconds(8);
    let mut ada = node.connect(user("ada").expires_at(ends - 1)).await;
    ada.join("r").await;
    let Said::SessionExpiring(notice) = ada.push().await else {
        panic!("no notice")
    };
    assert_eq!(notice.expires_at_ms, ends * 1000);
    let told = now_ms();
    assert!(
        told >= ends * 1000 - 2200,
        "told {} ms before the end",
        ends * 1000 - told
    );
    let Said::Error(error) = ada.push().await else {
        panic!("no error")
    };
    assert_eq!(error.reason, "token_expired");
    ada.expect_close(4502).await;
    let late = now_ms() - ends * 1000;
    assert!(late >= 0, "{late} ms late");
    node.until_connections(0).await;
    assert_eq!(node.backend().publish("r", "unheard", json!({})).await.reached, Some(0));
    node.finish().await;
}

async fn a_refreshed_session_goes_on(encoding: Encoding) {
    let exact = |config: &mut Config| {
        config.session.expiry_notice = Duration::from_secs(1);
        config.auth.leeway = Duration::ZERO;
    };
    let node = Node::with(encoding, exact).await;
    let ends = in_seconds(8);
    let mut ada = node.connect(user("ada").expires_at(ends)).await;
    let mut other = node.connect(user("ada").expires_at(ends)).await;
    ada.join("r").await;
    other.join("r").await;
    let renewed = user("ada").expires_at(ends + 3600);
    assert_eq!(refresh(&mut ada, &renewed).await.unwrap(), (ends + 3600) * 1000);
    // The connection that was not refreshed shows that the time is over.
    other.expect_close(4502).await;
    node.assert_reached(node.backend().publish("r", "still here", json!({})).await.reached, 1);
    ada.expect_nothing_before("still here").await;
    // Nor does a token that was refused change when the session ends.
    let refusal = refresh(&mut ada, &renewed.expires_in(-3600)).await.unwrap_err();
    assert_eq!(refusal.reason, "token_expired");
    ada.join("s").await;
    // A shorter token ends it sooner.
    let soon = in_seconds(5);
    refresh(&mut ada, &user("ada").expires_at(soon)).await.unwrap();
    ada.expect_close(4502).await;
    node.finish().await;
}

async fn a_token_of_somebody_else_refreshes_nothing(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    for other in [user("eve"), user("ada").tenant("other")] {
        let refusal = refresh(&mut ada, &other).await.unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::Forbidden);
    }
    node.backend().publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}
