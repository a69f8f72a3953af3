//! How clients are sent away, and who comes back by himself.

use std::time::Duration;

use futures_util::future::join_all;
use roomcast::gateway::Config;
use roomcast::proto::v1;
use roomcast::proto::v1::disconnect_request::Session;
use serde_json::{Value, json};

use super::entering::Start;
use super::heard::Kind;
use super::listener::Listener;
use super::told::Told;
use super::{House, on_one_and_on_three};
use crate::subscribe::{Reader, to};
use crate::support::{TENANT, reason};

on_one_and_on_three! {
    all_are_told_that_their_token_ends_and_hear_nothing_after_it,
    all_are_told_of_a_drain_and_come_back,
    a_kicked_client_stays_away_and_a_disconnected_one_comes_back,
}

/// What is told up to the end, but for events; and whether the client comes back.
async fn until_ended(listener: &mut Listener) -> (Vec<(&'static str, Value)>, bool) {
    let mut notices = Vec::new();
    loop {
        match listener.next().await {
            Told::Notice(name, fields) => notices.push((name, fields)),
            Told::Ended { comes_back } => return (notices, comes_back),
            Told::Event(_) | Told::Passed(_) => {}
        }
    }
}

async fn all_are_told_that_their_token_ends_and_hear_nothing_after_it(count: usize) {
    let early = |config: &mut Config| config.session.expiry_notice = Duration::from_secs(60);
    let house = House::with(count, early).await;
    let ending = |kind: Kind| kind.user().expires_in(4);
    let mut everybody = house.enter_all("r", ending, &Start::Now).await;
    let ends = join_all(everybody.iter_mut().map(|(listener, _)| until_ended(listener))).await;
    for (kind, (notices, comes_back)) in Kind::ALL.into_iter().zip(ends) {
        assert_eq!(notices, [("sessionExpiring", json!({}))], "{kind:?}");
        // A stock client evaluates its token anew when it comes back; a page has to open another stream.
        let is_stock = matches!(kind, Kind::WebSocket | Kind::Polling | Kind::Upgraded);
        assert_eq!(comes_back, is_stock, "{kind:?}");
    }
    house.node.until_connections(0).await;
    house.finish().await;
}

async fn all_are_told_of_a_drain_and_come_back(count: usize) {
    let mut house = House::new(count).await;
    let mut everybody = house.enter_all("r", Kind::user, &Start::Now).await;
    let mut reader = Reader::begin(&house.backend(1), to(&["r"])).await;
    let ending = join_all(everybody.iter_mut().map(|(listener, _)| until_ended(listener)));
    let (ends, status, ()) = tokio::join!(ending, reader.end(), house.node.shut_down());
    for (kind, (notices, comes_back)) in Kind::ALL.into_iter().zip(ends) {
        // The next poll may be refused before it waits: `socketio::polling` has one that waits.
        let may_be_late = matches!(kind, Kind::Polling | Kind::Upgraded) && notices.is_empty();
        let told = [("reconnectAdvice", json!({"reason": "draining"}))];
        assert!(may_be_late || notices == told, "{kind:?}: {notices:?}");
        assert!(comes_back, "{kind:?}");
    }
    assert_eq!(reason(&status), "DRAINING");
}

async fn a_kicked_client_stays_away_and_a_disconnected_one_comes_back(count: usize) {
    let house = House::new(count).await;
    for may_reconnect in [false, true] {
        let mut everybody = house.enter_all("r", Kind::user, &Start::Now).await;
        for (number, (listener, _)) in everybody.iter_mut().enumerate() {
            let request = v1::DisconnectRequest {
                tenant: TENANT.to_owned(),
                session: Some(Session::UserId(listener.kind.user().id)),
                reason: "moving".to_owned(),
                may_reconnect,
                ..Default::default()
            };
            // At another node than the client's.
            house.backend(number + 1).connections.disconnect(request).await.unwrap();
            let (notices, comes_back) = until_ended(listener).await;
            // The poll of one that may come back ends with an error, which tells nothing.
            let is_polled = matches!(listener.kind, Kind::Polling | Kind::Upgraded);
            let told = [("disconnected", json!({"reason": "moving"}))];
            let told = if is_polled && may_reconnect { &[][..] } else { &told };
            assert_eq!(notices, told, "{:?}", listener.kind);
            assert_eq!(comes_back, may_reconnect, "{:?}", listener.kind);
        }
        for (listener, _) in everybody {
            listener.close().await;
        }
        house.node.until_connections(0).await;
    }
    house.finish().await;
}
