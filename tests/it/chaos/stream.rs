//! The streams themselves, read around the gateways.

use std::collections::BTreeMap;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use roomcast::room::{Room, Tenant};

use super::check::{Finding, Wrong};
use super::faults::Fault;
use super::fleet::{Fleet, PARTITIONS};
use super::log::Truth;
use super::scene::Scene;
use crate::support::{TENANT, eventually};

/// Compares how many events the streams hold with what the gateways say, and notes from where on they hold all.
pub async fn compare(fleet: &Fleet, fault: Fault, scene: &Scene, truth: &mut BTreeMap<usize, Truth>) -> Vec<Finding> {
    let context = jetstream::new(fleet.nats().await);
    let subjects = Fleet::subjects();
    let tenant = Tenant::parse(TENANT).unwrap();
    let mut findings = Vec::new();
    for (&room, truth) in truth {
        let name = Room::parse(&tenant, &scene.room(room)).unwrap();
        let mut held = 0;
        for partition in 0..PARTITIONS {
            let subject = subjects.history(partition, &name);
            let (count, first) = eventually("what a stream holds", || count(&context, partition, &subject)).await;
            if count > 0 {
                truth.known_from = first;
            }
            held += count;
        }
        // Streams keep a little more than what is answered, so that it is proven to be complete.
        let is_less = fault.cuts_rooms() && truth.events.len() < held;
        if fault.cuts_rooms() {
            truth.known_from = truth.events.first().map_or(u64::MAX, |event| event.offset);
        }
        if held != truth.events.len() && !is_less {
            findings.push(Finding {
                wrong: Wrong::Untrue,
                count: held.abs_diff(truth.events.len()),
                what: format!(
                    "room {room}: the streams hold {held} events, the history says {}",
                    truth.events.len()
                ),
            });
        }
    }
    findings
}

/// How many events a stream holds of a subject, and its first sequence.
async fn count(context: &jetstream::Context, partition: u16, subject: &str) -> Option<(usize, u64)> {
    let stream = context.get_stream(Fleet::stream(partition)).await.ok()?;
    let first = stream.cached_info().state.first_sequence;
    let mut subjects = stream.info_with_subjects(subject).await.ok()?;
    let mut held = 0;
    while let Some(found) = subjects.next().await {
        held += found.ok()?.1;
    }
    Some((held, first))
}
