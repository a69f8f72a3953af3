//! Many at once: joins beside a running publisher, and everybody of a killed node coming back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::proto::client_v1::{ErrorCode, Join};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, FleetOptions};
use crate::support::{Caller, Carries as _, InRoom as _, NotOpen, user};

/// Between two events of one room's publisher.
const PACE: Duration = Duration::from_millis(3);

/// What one join took.
#[derive(Debug)]
struct Took {
    /// To open the connection and show the token.
    opening: Duration,
    /// From asking to join to the answer.
    joining: Duration,
    /// How many events were published to the room.
    published: usize,
}

/// The how manyth storm on its fleet, how many joins, and of how many at once.
async fn join_storm(fleet: &Arc<Fleet>, storm: usize, joins: usize, at_once: usize) {
    let start = Instant::now();
    let gate = Arc::new(Semaphore::new(at_once));
    let mut joining = JoinSet::new();
    let mut all = Vec::new();
    for number in 0..joins {
        let permit = Arc::clone(&gate).acquire_owned().await.expect("it is open");
        let fleet = Arc::clone(fleet);
        joining.spawn(async move {
            let took = join(&fleet, storm, number).await;
            drop(permit);
            took
        });
        while let Some(joined) = joining.try_join_next() {
            all.push(joined.expect("nothing is missed"));
        }
    }
    while let Some(joined) = joining.join_next().await {
        all.push(joined.expect("nothing is missed"));
    }
    let took = start.elapsed();
    let published: usize = all.iter().map(|took| took.published).sum();
    println!(
        "{joins} joins, {at_once} at once, beside publishers on another node: 0 missed of {published}, {took:.1?}; \
         opening {}; joining {}",
        spread(all.iter().map(|took| took.opening)),
        spread(all.iter().map(|took| took.joining)),
    );
}

/// Median and 99th percentile.
fn spread(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("p50 {:.1?}, p99 {:.1?}", at(50), at(99))
}

/// Joins a room nobody on the node is in, while somebody publishes to it on another node: gets all that comes after the
/// position it was told.
async fn join(fleet: &Fleet, storm: usize, number: usize) -> Took {
    let (here, there) = (number % fleet.gateways.len(), (number + 1) % fleet.gateways.len());
    let room = format!("join-{storm}-{number}");
    let began = Instant::now();
    let mut client = fleet.gateways[here].connect(user(&format!("u-{number}"))).await;
    let opening = began.elapsed();
    let backend = fleet.backend(there);
    let first = backend.publish(&room, "first", json!({})).await;
    let stop = CancellationToken::new();
    let mut publisher = JoinSet::new();
    publisher.spawn(publish(backend.clone(), room.clone(), stop.clone()));
    let began = Instant::now();
    let joined = client.join(&room).await.head.expect("a join tells the position");
    let joining = began.elapsed();
    assert!(joined.offset >= first.position.expect("it is stored").offset);
    // One more is asked for after the acknowledgement; what was under way may come as well.
    let mark = backend.publish(&room, "mark", json!({})).await;
    let mark = mark.position.expect("it is stored").offset;
    stop.cancel();
    let offsets = publisher.join_all().await.concat();
    let published = offsets.len() + 2;
    let mut expected: Vec<u64> = offsets.into_iter().filter(|&offset| offset > joined.offset).collect();
    expected.push(mark);
    expected.sort_unstable();
    let mut got = Vec::new();
    while got.len() < expected.len() {
        got.push(client.event().await.offset);
    }
    assert_eq!(got, expected, "`{room}`, joined at {joined:?}");
    client.crash();
    Took {
        opening,
        joining,
        published,
    }
}

/// Publishes one event after the other until it is told to stop; the offsets.
async fn publish(backend: Caller, room: String, stop: CancellationToken) -> Vec<u64> {
    let mut offsets = Vec::new();
    let mut due = interval(PACE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0.. {
        if stop.run_until_cancelled(due.tick()).await.is_none() {
            break;
        }
        let stored = backend.publish(&room, "n", json!({ "n": n })).await;
        offsets.push(stored.position.expect("it is stored").offset);
    }
    offsets
}

/// Kills a gateway with so many clients in so many rooms, and has all of them come back elsewhere. How long that took.
async fn resume_storm(fleet: &Fleet, clients: usize, rooms: usize) -> Duration {
    let room = |index: usize| format!("resume-{}", index % rooms);
    let publish_everywhere = async |count: usize, gateway: usize| {
        for n in 0..count {
            for index in 0..rooms {
                fleet
                    .backend(gateway)
                    .publish(&room(index), "n", json!({ "n": n }))
                    .await;
            }
        }
    };
    let mut before = Vec::new();
    for index in 0..clients {
        let mut client = fleet.gateways[0].connect(user(&format!("u-{index}"))).await;
        client.join(&room(index)).await;
        before.push(client);
    }
    publish_everywhere(3, 1).await;
    let killed = Instant::now();
    fleet.gateways[0].kill();
    publish_everywhere(5, 1).await;
    let mut storm = JoinSet::new();
    for (index, mut client) in before.into_iter().enumerate() {
        let elsewhere = 1 + index % (fleet.gateways.len() - 1);
        let opening = fleet.gateways[elsewhere].opening();
        let room = room(index);
        storm.spawn(async move {
            client.end().await;
            let since = client.position(&room);
            let seen = client.take_pushes().len();
            // Its descriptors are needed again.
            drop(client);
            // A gateway lets in only so many at once, and sends the others away for a moment.
            let mut client = loop {
                match opening.clone().try_open().await {
                    Ok(client) => break client,
                    Err(NotOpen::Refused(refused)) => assert_eq!(refused.status(), 503),
                    Err(NotOpen::Broken(_)) => {}
                }
                sleep(Duration::from_millis(200 + 7 * (index as u64 % 100))).await;
            };
            let connected = client.authenticate(&user(&format!("u-{index}")), Vec::new()).await;
            connected.expect("the token is accepted");
            let joined = loop {
                let join = Join {
                    since: Some(since.clone()),
                    ..Join::in_room(&room)
                };
                match client.try_join(join).await {
                    Ok(joined) => break joined,
                    Err(refused) => assert_eq!(refused.code(), ErrorCode::Unavailable, "{refused:?}"),
                }
                sleep(Duration::from_millis(500)).await;
            };
            assert!(joined.recovered, "`{room}` from {since:?}");
            // The chain is checked by the client itself; here, that nothing is left out at the end.
            assert_eq!(seen + count(&mut client, &room).await, 8, "`{room}` from {since:?}");
            (client, killed.elapsed())
        });
    }
    let mut slowest = Duration::ZERO;
    let mut back = HashMap::new();
    while let Some(returned) = storm.join_next().await {
        let (client, took) = returned.expect("everybody comes back with what it missed");
        slowest = slowest.max(took);
        back.insert(client.id.clone(), client);
    }
    fleet.gateways[0].restart().await;
    println!("{clients} clients of a killed node in {rooms} rooms, back with all they missed: {slowest:.1?}");
    slowest
}

/// Reads the room's events up to the last; how many.
async fn count(client: &mut crate::support::Client, room: &str) -> usize {
    let mut events = 0;
    loop {
        let event = client.event().await;
        assert_eq!(event.room, room);
        events += 1;
        if event.json()["n"] == 4 {
            return events;
        }
    }
}

async fn two() -> Fleet {
    let options = FleetOptions {
        gateways: 2,
        ..FleetOptions::default()
    };
    Fleet::on_one(options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_beside_a_publisher_on_another_node_misses_nothing_after_the_answer() {
    join_storm(&Arc::new(two().await), 0, 300, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn long_join_storm() {
    let fleet = Arc::new(two().await);
    for (storm, at_once) in [50, 200].into_iter().enumerate() {
        join_storm(&fleet, storm, 10_000, at_once).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_of_a_killed_node_come_back_elsewhere_with_exactly_what_they_missed() {
    resume_storm(&two().await, 200, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn long_resume_storm() {
    let took = resume_storm(&two().await, 5_000, 50).await;
    assert!(took <= Duration::from_secs(15), "{took:?}");
}
