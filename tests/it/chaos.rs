//! Faults, and the proof that nothing is lost, doubled, reordered, passed over in silence or shown to the wrong person.
//!
//! Real gateways in processes of their own, on a real NATS; publishers and clients that write everything down; a fault in the
//! midst of it; a checker that compares what they wrote with what the stream holds. A few rounds run with the other tests;
//! `make chaos` runs as many as one likes. Rounds are seeded: `SEED=7 make chaos` repeats who did what, though not what the
//! network and the scheduler made of it.

mod changes;
mod check;
mod clock;
mod clocks;
mod disk;
mod faults;
mod fleet;
mod hands;
mod log;
mod namespace;
mod presence;
mod publisher;
mod reader;
mod round;
mod scene;
mod socket;
mod storms;
mod stream;
mod table;

use std::time::Instant;

use self::changes::Change;
use self::check::Outcome;
use self::disk::Disk;
use self::faults::Fault;
use self::fleet::{Fleet, FleetOptions, Logs};
use self::hands::{Hand, Streams};
use self::namespace::Namespace;
use self::round::is_clean;
use self::scene::Size;
use self::table::{Table, tell};

/// As much as two busy cores can take beside other tests.
const SMALL: Size = Size {
    rooms: 8,
    readers: 18,
    joined: 4,
    victims: 4,
    publishers: 1,
    streams: 0,
};

const LARGE: Size = Size {
    rooms: 12,
    readers: 60,
    joined: 6,
    victims: 8,
    publishers: 1,
    streams: 0,
};

async fn rounds(fleet: &Fleet, on: &'static str, faults: &[Fault], size: Size, seed: u64, table: &mut Table) {
    for (number, &fault) in (seed..).zip(faults) {
        let start = Instant::now();
        let outcome = round::run(fleet, fault, size, number, &format!("{on}-{number}")).await;
        let verdict = if is_clean(&outcome) { "clean" } else { "WRONG" };
        println!(
            "seed {number}: {fault} on {on}: {verdict}, {} deliveries, {:.1?}",
            outcome.deliveries,
            start.elapsed()
        );
        print!("{}", tell(&outcome));
        table.add(fault, on, outcome);
    }
}

fn assert_clean(table: &Table) {
    println!("{table}");
    let sum = table.sum();
    assert!(is_clean(&sum), "{}", tell(&sum));
}

/// Shared by rounds that need nothing of their own.
async fn on_one() -> Fleet {
    Fleet::on_one(FleetOptions::default()).await
}

/// Each gateway has a wall clock of its own.
async fn with_clocks() -> Fleet {
    let options = FleetOptions {
        clocks: true,
        ..FleetOptions::default()
    };
    Fleet::on_one(options).await
}

/// The first server has a small disk.
fn with_small_disk() -> FleetOptions {
    FleetOptions {
        disk: true,
        ..FleetOptions::default()
    }
}

async fn on_small_disk() -> Fleet {
    Fleet::on_one(with_small_disk()).await
}

/// What the gateways log is much, and goes into pipes that nobody reads.
async fn with_unread_logs() -> Fleet {
    let options = FleetOptions {
        logs: Logs::Unread,
        config: "[telemetry]\nlog = \"roomcast=trace\"".to_owned(),
        ..FleetOptions::default()
    };
    Fleet::on_one(options).await
}

/// The first gateway has a network of its own.
async fn in_namespace() -> Fleet {
    let options = FleetOptions {
        namespace: true,
        ..FleetOptions::default()
    };
    Fleet::on_one(options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_gateways_fail() {
    let mut table = Table::default();
    let faults = [Fault::GatewayKilled, Fault::GatewayPaused(5), Fault::RollingRestart];
    rounds(&on_one().await, "one", &faults, SMALL, 1, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_a_gateway_is_parted_from_nats() {
    let mut table = Table::default();
    let faults = [Fault::Partition(5), Fault::MuteGateway(5)];
    rounds(&on_one().await, "one", &faults, SMALL, 11, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_packets_between_a_gateway_and_nats_are_lost() {
    if let Err(why) = Namespace::is_allowed() {
        println!("left out: no network namespaces here: {why}");
        return;
    }
    let mut table = Table::default();
    rounds(
        &in_namespace().await,
        "one",
        &[Fault::PacketsLost(6)],
        SMALL,
        51,
        &mut table,
    )
    .await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_the_clock_of_a_gateway_jumps() {
    let mut table = Table::default();
    let faults = [Fault::ClockJumps(3600)];
    rounds(&with_clocks().await, "one", &faults, SMALL, 81, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_the_disk_of_nats_is_full() {
    if let Err(why) = Disk::is_allowed() {
        println!("left out: no disks of one's own here: {why}");
        return;
    }
    let mut table = Table::default();
    rounds(
        &on_small_disk().await,
        "one",
        &[Fault::DiskFull(3)],
        SMALL,
        91,
        &mut table,
    )
    .await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn long_full_disk_of_one_of_three() {
    if let Err(why) = Disk::is_allowed() {
        println!("left out: no disks of one's own here: {why}");
        return;
    }
    let fleet = Fleet::on_three(with_small_disk()).await;
    let mut table = Table::default();
    rounds(&fleet, "three", &[Fault::DiskFull(5)], SMALL, 95, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_nats_fails() {
    let mut table = Table::default();
    let faults = [Fault::NatsKilled, Fault::StorageTaken(2)];
    rounds(&on_one().await, "one", &faults, SMALL, 21, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_servers_of_a_cluster_fail() {
    let fleet = Fleet::on_three(FleetOptions::default()).await;
    let mut table = Table::default();
    let faults = [Fault::LeadersStepDown, Fault::LeaderKilled];
    rounds(&fleet, "three", &faults, SMALL, 31, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_silence_when_streams_are_deleted_or_emptied() {
    let mut table = Table::default();
    let faults = [
        Fault::Hand(Streams::Histories, Hand::Emptied),
        Fault::Hand(Streams::Histories, Hand::RoomsPurged),
        Fault::Hand(Streams::LastValues, Hand::Deleted),
        Fault::Hand(Streams::Records, Hand::Deleted),
    ];
    rounds(&on_one().await, "one", &faults, SMALL, 101, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_silence_when_histories_are_restored_from_an_older_store() {
    let mut table = Table::default();
    let faults = [Fault::Hand(Streams::Histories, Hand::Older)];
    rounds(&on_one().await, "one", &faults, SMALL, 111, &mut table).await;
    assert_clean(&table);
    assert!(table.sum().restarted > 0, "everybody was to be told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_while_a_setting_is_changed_node_by_node() {
    let fleet = on_one().await;
    let mut table = Table::default();
    let changed = [Fault::Changed(Change::Events)];
    rounds(&fleet, "one", &changed, SMALL, 121, &mut table).await;
    assert_clean(&table);
    assert!(table.sum().restarted > 0, "the limit was to cut what somebody missed");
    rounds(&fleet, "one", &[Fault::Differs], SMALL, 122, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_nobody_reads_the_logs() {
    let mut table = Table::default();
    rounds(
        &with_unread_logs().await,
        "one",
        &[Fault::GatewayKilled],
        SMALL,
        131,
        &mut table,
    )
    .await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn long_hands_on_streams() {
    let mut table = Table::default();
    rounds(&on_one().await, "one", &Fault::by_hand(), SMALL, 141, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn long_changes_node_by_node() {
    let mut table = Table::default();
    rounds(&on_one().await, "one", &Fault::by_deployment(), SMALL, 161, &mut table).await;
    assert_clean(&table);
}

/// NATS keeps its streams in memory, and is killed: all histories begin anew, and everybody is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_lost_is_never_lost_in_silence() {
    let options = FleetOptions {
        section: "storage = \"memory\"\nstream_bytes_max = \"16 MiB\"".to_owned(),
        ..FleetOptions::default()
    };
    let fleet = Fleet::on_one(options).await;
    let mut table = Table::default();
    rounds(&fleet, "one, in memory", &[Fault::NatsKilled], SMALL, 61, &mut table).await;
    assert_clean(&table);
    assert!(table.sum().restarted > 0, "everybody was to be told");
}

/// The streams are so small that they let go of events while clients are away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn long_trimmed_streams() {
    let options = FleetOptions {
        section: "stream_bytes_max = \"128 KiB\"".to_owned(),
        ..FleetOptions::default()
    };
    let fleet = Fleet::on_one(options).await;
    let mut table = Table::default();
    let faults = [
        Fault::Nothing,
        Fault::GatewayKilled,
        Fault::GatewayPaused(5),
        Fault::NatsKilled,
        Fault::Partition(5),
    ];
    rounds(&fleet, "one, small", &faults, SMALL, 71, &mut table).await;
    assert_clean(&table);
}

/// Rights are taken while much is published; first nothing is the matter, then a node is stopped meanwhile.
async fn revocations(size: Size) -> Outcome {
    let mut table = Table::default();
    let faults = [Fault::Nothing, Fault::GatewayPaused(12)];
    rounds(&on_one().await, "one", &faults, size, 41, &mut table).await;
    assert_clean(&table);
    table.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_reaches_a_user_after_a_revocation_though_a_node_is_stopped() {
    let size = Size {
        victims: 16,
        publishers: 2,
        ..SMALL
    };
    revocations(size).await;
}

/// A hundred revocations race two thousand publishes a second. Unoptimized gateways need not keep up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn long_revocations() {
    let size = Size {
        rooms: 40,
        victims: 100,
        publishers: 2,
        streams: 34,
        ..SMALL
    };
    let outcome = revocations(size).await;
    assert_eq!(outcome.revoked, 200);
    let pace = outcome.pace.expect("the revocations took a while");
    assert!(cfg!(debug_assertions) || pace.asked >= 2000, "{pace:?}");
}

#[expect(clippy::disallowed_methods, reason = "not a setting of the gateway")]
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// As many rounds as one likes, over all faults, on one server and on three. `ROUNDS`, `SEED`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the better part of an hour: make chaos"]
async fn long_rounds() {
    let (count, seed) = (number("ROUNDS", 50), number("SEED", 1000));
    let mut table = Table::default();
    let mut begun = 0;
    while begun < count {
        let namespaced: &[Fault] = match Namespace::is_allowed() {
            Ok(()) => &Fault::IN_NAMESPACE,
            Err(why) => {
                println!("no network namespaces here, so no packets are lost: {why}");
                &[]
            }
        };
        let small_disk: &[Fault] = match Disk::is_allowed() {
            Ok(()) => &Fault::ON_SMALL_DISK,
            Err(why) => {
                println!("no disks of one's own here, so none gets full: {why}");
                &[]
            }
        };
        for (on, all) in [
            ("one", &Fault::ON_ONE[..]),
            ("clocks", &Fault::WITH_CLOCKS),
            ("small disk", small_disk),
            ("three, small disk", small_disk),
            ("namespace", namespaced),
            ("three", &Fault::ON_THREE),
        ] {
            let faults = &all[..all.len().min(usize::try_from(count.saturating_sub(begun)).unwrap())];
            if faults.is_empty() {
                continue;
            }
            let fleet = match on {
                "one" => on_one().await,
                "clocks" => with_clocks().await,
                "small disk" => on_small_disk().await,
                "three, small disk" => Fleet::on_three(with_small_disk()).await,
                "namespace" => in_namespace().await,
                _ => Fleet::on_three(FleetOptions::default()).await,
            };
            rounds(&fleet, on, faults, LARGE, seed + begun, &mut table).await;
            begun += faults.len() as u64;
            println!("{table}");
        }
    }
    assert_clean(&table);
}
