//! Publishes several events together: pipelined submissions, completed as their acknowledgements arrive.
//!
//! The events of one room are a lane. They are submitted in their order without waiting for each other. When one has to
//! be submitted again, the lane stops. Those behind it were submitted already, and if one of them was stored, the one
//! before it must not be stored after it.

use std::collections::{HashMap, VecDeque};

use futures_util::future::join_all;
use tracing::{Instrument as _, Span};

use super::publish::{self, Attempt, Draft, Verdict};
use super::shared::NatsBusInner;
use crate::bus::{Parcel, PublishError, Published};
use crate::event::{Publish, Retention};
use crate::room::Room;

/// The most events of one lane that wait for an acknowledgement. All behind one that has to be submitted
/// again wait for it, so it must not be long; 256 fill a round trip of some milliseconds.
const WINDOW_MAX: usize = 256;

type Outcome = Result<Published, PublishError>;

/// An event of a lane, and its index in the batch.
struct Item {
    index: usize,
    publish: Publish,
    span: Span,
}

struct Waiting<'s> {
    index: usize,
    draft: Draft<'s>,
    attempt: Attempt,
    span: Span,
}

/// Publishes several events in their order.
pub(super) async fn all(shared: &NatsBusInner, parcels: Vec<Parcel>) -> Vec<Outcome> {
    let count = parcels.len();
    let mut lanes: Vec<Vec<Item>> = Vec::new();
    let mut lane_of: HashMap<Room, usize> = HashMap::new();
    for (index, Parcel { envelope, span }) in parcels.into_iter().enumerate() {
        let publish = envelope.into_inner();
        let lane = *lane_of.entry(publish.room.clone()).or_insert_with(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        lanes[lane].push(Item { index, publish, span });
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    outcomes.resize(count, Err(PublishError::NotStored("not submitted")));
    for lane in join_all(lanes.into_iter().map(|items| run(shared, items))).await {
        for (index, outcome) in lane {
            outcomes[index] = outcome;
        }
    }
    outcomes
}

async fn run(shared: &NatsBusInner, items: Vec<Item>) -> Vec<(usize, Outcome)> {
    let mut done = Vec::with_capacity(items.len());
    let mut waiting: VecDeque<Waiting<'_>> = VecDeque::new();
    for Item { index, publish, span } in items {
        if publish.retention == Retention::Ephemeral {
            // An ephemeral event must not overtake the events before it.
            settle_all(shared, &mut waiting, &mut done).await;
            let passed = Box::pin(publish::pass_on(shared, &publish).instrument(span)).await;
            done.push((index, passed));
            continue;
        }
        if publish.expected.is_some() {
            // It may take several attempts to find out the room's head.
            settle_all(shared, &mut waiting, &mut done).await;
            let outcome = Box::pin(publish::one(shared, publish).instrument(span)).await;
            done.push((index, outcome));
            continue;
        }
        let mut turn = publish::turn_now(shared);
        if waiting.len() >= WINDOW_MAX || (turn.is_none() && !waiting.is_empty()) {
            settle_all(shared, &mut waiting, &mut done).await;
            turn = turn.or_else(|| publish::turn_now(shared));
        }
        let mut draft = Draft::new(shared, publish);
        match publish::submit(shared, &mut draft, turn).instrument(span.clone()).await {
            Ok(attempt) => waiting.push_back(Waiting {
                index,
                draft,
                attempt,
                span,
            }),
            Err(error) => done.push((index, Err(error))),
        }
    }
    settle_all(shared, &mut waiting, &mut done).await;
    done
}

/// Waits for the acknowledgements of all submitted events, and submits again where needed.
async fn settle_all(shared: &NatsBusInner, waiting: &mut VecDeque<Waiting<'_>>, done: &mut Vec<(usize, Outcome)>) {
    let settling = waiting.drain(..).map(|mut one| async move {
        let settling = publish::settle(shared, &mut one.draft, one.attempt).instrument(one.span.clone());
        let verdict = settling.await;
        (one.index, one.draft, one.span, verdict)
    });
    let answered = join_all(settling).await;
    let stored = |verdict: &Verdict| matches!(verdict, Verdict::Settled(Ok(_)));
    let last_stored = answered.iter().rposition(|(.., verdict)| stored(verdict));
    for (place, (index, mut draft, span, verdict)) in answered.into_iter().enumerate() {
        let outcome = match verdict {
            Verdict::Settled(outcome) => outcome,
            // A later event of the lane is stored: storing this one now would reverse their order.
            Verdict::Again if last_stored.is_some_and(|last| last > place) => Err(draft.given_up()),
            Verdict::Again => Box::pin(publish::until_settled(shared, &mut draft).instrument(span)).await,
        };
        done.push((index, outcome));
    }
}
