//! How clients begin: with the newest events, with last values, and where they were.

use roomcast::proto::v1;
use serde_json::json;

use super::entering::{Mark, Start};
use super::heard::{Heard, Kind};
use super::listener::Listener;
use super::{House, on_one_and_on_three};
use crate::subscribe::{Reader, to};
use crate::support::{Caller, draft, payload, to_room};

on_one_and_on_three! {
    a_rewind_brings_the_same_events_to_all,
    newcomers_of_all_kinds_get_the_same_last_values,
    all_go_on_where_they_were_and_are_not_told_what_passed_them,
}

fn names(events: &[Heard]) -> Vec<&str> {
    events.iter().map(|event| &*event.name).collect()
}

async fn a_rewind_brings_the_same_events_to_all(count: usize) {
    let house = House::new(count).await;
    for n in 0..6 {
        house.backend(n).publish("r", &format!("e{n}"), json!(n)).await;
    }
    for (mut listener, entered) in house.enter_all("r", Kind::user, &Start::Rewind(4)).await {
        assert_eq!((entered.recovered, entered.replayed), (false, 4), "{:?}", listener.kind);
        house.backend(1).publish("r", "live", json!(6)).await;
        let events = listener.events(5).await;
        assert_eq!(names(&events), ["e2", "e3", "e4", "e5", "live"], "{:?}", listener.kind);
        listener.close().await;
    }
    house.finish().await;
}

async fn newcomers_of_all_kinds_get_the_same_last_values(count: usize) {
    let house = House::new(count).await;
    let backend = house.backend(0);
    for (name, n) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
        backend.publish_last_value("r", name, json!(n)).await;
        backend.publish("r", "between", json!(n)).await;
    }
    let everybody = house.enter_all("r", Kind::user, &Start::Now).await;
    backend.publish("r", "live", json!(5)).await;
    for (mut listener, entered) in everybody {
        let kind = listener.kind;
        assert_eq!((entered.recovered, entered.replayed), (false, 3), "{kind:?}");
        let events = listener.events(4).await;
        assert_eq!(names(&events), ["b", "a", "c", "live"], "{kind:?}");
        listener.close().await;
    }
    house.finish().await;
}

async fn publish_but_for(backend: &Caller, name: &str, kind: Option<Kind>) {
    let request = v1::PublishRequest {
        targets: vec![to_room("r")],
        payload: Some(payload(&json!(name))),
        exclude_user_ids: kind.map(|kind| kind.user().id).into_iter().collect(),
        ..draft(name, json!(0))
    };
    backend.send(request).await.unwrap();
}

async fn all_go_on_where_they_were_and_are_not_told_what_passed_them(count: usize) {
    let house = House::new(count).await;
    let mut reader = Reader::begin(&house.backend(0), to(&["r"])).await;
    let everybody = house.enter_all("r", Kind::user, &Start::Now).await;
    publish_but_for(&house.backend(0), "before", None).await;
    let mut marks: Vec<(Kind, Mark)> = Vec::new();
    for (mut listener, _) in everybody {
        assert_eq!(listener.event().await.name, "before");
        marks.push((listener.kind, listener.mark()));
        listener.close().await;
    }
    house.node.until_connections(0).await;
    reader.events(1).await;
    let cursor = reader.cursor.clone();
    drop(reader);
    // Each is left out of one event.
    for kind in Kind::ALL {
        publish_but_for(&house.backend(1), &format!("not for {kind:?}"), Some(kind)).await;
    }
    let after = v1::SubscribeRequest { cursor, ..to(&["r"]) };
    let mut reader = Reader::resume(&house.backend(2), after).await;
    let missed = reader.events(Kind::ALL.len()).await;
    let missed: Vec<String> = missed.into_iter().map(|event| event.event_name).collect();
    let all: Vec<String> = Kind::ALL.iter().map(|kind| format!("not for {kind:?}")).collect();
    assert_eq!(missed, all, "a subscriber is left out of nothing");
    let mut listeners = Vec::new();
    for (number, (kind, mark)) in marks.into_iter().enumerate() {
        // At the next node.
        let at = house.at(number + 1);
        let entered = Listener::enter(&at, kind, &kind.user(), "r", Start::After(mark)).await;
        let (mut listener, entered) = entered.unwrap();
        assert!(entered.recovered, "{kind:?}");
        // A stock client knows the position of its join alone, and gets again what it has seen since.
        let is_stock = matches!(kind, Kind::WebSocket | Kind::Polling | Kind::Upgraded);
        let again = is_stock.then(|| "before".to_owned());
        let shown = all.iter().filter(|name| **name != format!("not for {kind:?}"));
        let expected: Vec<String> = again.into_iter().chain(shown.cloned()).collect();
        assert_eq!(names(&listener.events(expected.len()).await), expected, "{kind:?}");
        listeners.push(listener);
    }
    publish_but_for(&house.backend(0), "end", None).await;
    for mut listener in listeners {
        assert_eq!(listener.event().await.name, "end", "{:?}", listener.kind);
        listener.close().await;
    }
    house.finish().await;
}
