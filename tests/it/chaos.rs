//! Faults, and the proof that nothing is lost, doubled, reordered, passed over in silence or shown to the wrong person.
//!
//! Real gateways in processes of their own, on a real NATS; publishers and clients that write everything down; a fault in the
//! midst of it; a checker that compares what they wrote with what the stream holds. A few rounds run with the other tests;
//! `make chaos` runs as many as one likes. Rounds are seeded: `SEED=7 make chaos` repeats who did what, though not what the
//! network and the scheduler made of it.

mod check;
mod faults;
mod fleet;
mod log;
mod publisher;
mod reader;
mod round;
mod scene;
mod stream;
mod table;

use std::time::Instant;

use self::faults::Fault;
use self::fleet::{Fleet, FleetOptions};
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
};

const LARGE: Size = Size {
    rooms: 12,
    readers: 60,
    joined: 6,
    victims: 8,
    publishers: 1,
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_when_gateways_and_their_server_fail() {
    let fleet = Fleet::on_one(FleetOptions::default()).await;
    let mut table = Table::default();
    rounds(&fleet, "one", &Fault::ON_ONE, SMALL, 1, &mut table).await;
    assert_clean(&table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scratch"]
async fn scratch() {
    let fleet = Fleet::on_one(FleetOptions { gateways: 1, ..FleetOptions::default() }).await;
    let mut table = Table::default();
    rounds(&fleet, "one", &[Fault::Nothing, Fault::GatewayPaused(5)], SMALL, 1, &mut table).await;
    assert_clean(&table);
}
