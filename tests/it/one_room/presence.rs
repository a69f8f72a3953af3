//! A user is one, over whatever protocols and nodes.

use serde_json::json;

use super::entering::Start;
use super::heard::Kind;
use super::listener::Listener;
use super::{House, on_one_and_on_three};
use crate::support::{eventually, user};

on_one_and_on_three! {
    a_user_of_all_protocols_is_one_member,
}

async fn a_user_of_all_protocols_is_one_member(count: usize) {
    let house = House::new(count).await;
    let ada = |_| user("ada");
    let mut watchers = Vec::new();
    for (listener, _) in house
        .enter_all("r", |kind| user(&format!("{kind:?} watching")), &Start::Watching)
        .await
    {
        watchers.push(listener);
    }
    let watching = Kind::ALL.len();
    // Each watcher is told of those behind it.
    for (number, watcher) in watchers.iter_mut().enumerate() {
        let mut come = Vec::new();
        while come.len() < watching - 1 - number {
            let told = watcher.expect_notice("presenceDelta").await;
            assert_eq!(told["left"], json!([]));
            come.extend(
                told["joined"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|user| user.as_str().unwrap().to_owned()),
            );
        }
        let mut later: Vec<String> = Kind::ALL[number + 1..]
            .iter()
            .map(|kind| format!("{kind:?} watching"))
            .collect();
        // Those of one moment have no order.
        come.sort();
        later.sort();
        assert_eq!(come, later, "{:?}", watcher.kind);
    }
    let hers = house.enter_all("r", ada, &Start::Now).await;
    for watcher in &mut watchers {
        let told = watcher.expect_notice("presenceDelta").await;
        assert_eq!(told, json!({"joined": ["ada"], "left": []}), "{:?}", watcher.kind);
    }
    eventually("the statistics of all nodes", || async {
        let stats = house.backend(1).stats("r").await;
        let members = u32::try_from(watching + 1).unwrap();
        (stats.member_count == members && stats.connection_count == members - 1 + u32::try_from(hers.len()).unwrap())
            .then_some(())
    })
    .await;
    // A newcomer of each kind sees her once, with all her connections.
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        let (newcomer, entered) = Listener::enter(&house.at(number), kind, &user("ada"), "r", Start::Watching)
            .await
            .unwrap();
        let of_her: Vec<u64> = entered
            .roster
            .iter()
            .filter(|(id, _)| id == "ada")
            .map(|(_, connections)| *connections)
            .collect();
        assert_eq!(of_her.len(), 1, "{kind:?}: {entered:?}");
        assert_eq!(of_her[0], u64::try_from(hers.len() + 1).unwrap(), "{kind:?}");
        newcomer.close().await;
        // The next one is to find it gone.
        eventually("the newcomer to be gone", || async {
            let stats = house.backend(number).stats("r").await;
            (stats.connection_count == u32::try_from(watching + hers.len()).unwrap()).then_some(())
        })
        .await;
    }
    // She is there until the last one has gone.
    for (listener, _) in hers {
        assert_eq!(
            house.backend(0).stats("r").await.member_count,
            u32::try_from(watching + 1).unwrap()
        );
        listener.close().await;
    }
    for watcher in &mut watchers {
        let told = watcher.expect_notice("presenceDelta").await;
        assert_eq!(told, json!({"joined": [], "left": ["ada"]}), "{:?}", watcher.kind);
    }
    for watcher in watchers {
        watcher.close().await;
    }
    house.finish().await;
}
