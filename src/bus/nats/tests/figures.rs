//! Figures, not tests: `cargo test --profile bench --lib bus::nats::tests::figures -- --ignored --nocapture --test-threads 1`.

use std::fs;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::servers::NatsServer;
use super::{Node, keeping, settings};
use crate::bus::conformance::{Recorder, event, room};
use crate::bus::history::HistoryLimits;
use crate::bus::{Bus as _, Parcel};
use crate::event::Envelope;

/// Returns the resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Returns the processor time used by this process, in milliseconds.
fn cpu_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

async fn node(server: &NatsServer) -> Node {
    Node::start(&settings(server), keeping(HistoryLimits::default())).await
}

#[tokio::test]
#[ignore = "figures"]
async fn a_room_with_members_costs() {
    let server = NatsServer::start().await;
    let node = node(&server).await;
    let member = Recorder::new(0);
    for rooms in [1_000, 10_000, 20_000] {
        let (before, started, cpu) = (resident_kib(), Instant::now(), cpu_ms());
        let names: Vec<_> = (0..rooms).map(|number| room(&format!("{rooms} {number}"))).collect();
        let joins = names.iter().map(|room| node.bus.subscribe(room, member.clone()));
        let joins: Vec<_> = joins.collect();
        let joined: Vec<_> = stream::iter(joins).buffer_unordered(512).collect().await;
        assert!(joined.iter().all(Result::is_ok));
        let bytes = (resident_kib() - before) * 1024 / rooms;
        println!(
            "{rooms} rooms: joined in {:?}, {} us of processor time and {bytes} bytes each",
            started.elapsed(),
            (cpu_ms() - cpu) * 1000 / rooms,
        );
    }
}

#[tokio::test]
#[ignore = "figures"]
async fn publishing_costs() {
    const EVENTS: usize = 20_000;
    let server = NatsServer::start().await;
    let node = node(&server).await;
    for (rooms, together) in [(1, 1), (1, 100), (100, 100), (1_000, 100)] {
        let names: Vec<_> = (0..rooms).map(|number| room(&format!("{rooms} {number}"))).collect();
        let count = if together == 1 { EVENTS / 10 } else { EVENTS };
        let (started, cpu) = (Instant::now(), cpu_ms());
        for start in (0..count).step_by(together) {
            let parcels = (start..start + together).map(|number| Parcel {
                envelope: Envelope(event(&names[number % rooms], "0123456789").0),
                span: tracing::Span::none(),
            });
            let outcomes = node.bus.publish_all(parcels.collect()).await;
            assert!(outcomes.iter().all(Result::is_ok));
        }
        let (took, cpu) = (started.elapsed(), cpu_ms() - cpu);
        println!(
            "{count} events to {rooms} rooms, {together} together: {:.0} events/s, {} us of processor time each",
            f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
            cpu * 1000 / u64::try_from(count).unwrap(),
        );
    }
}
