//! Publishes one event into the stream.
//!
//! Every publish has an identifier by which the stream deduplicates, derived from its idempotency key or random. An
//! unacknowledged attempt is repeated under the same identifier. An attempt has one of three outcomes: it is settled;
//! nothing was stored and another attempt may be made; or the outcome is unknown.

mod verdict;

use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout_at};

use super::partition::Partition;
use super::shared::{NatsBusInner, REFUSED as OTHER_SETTINGS};
use super::wire;
use crate::bus::{PublishError, Published};
use crate::event::{Publish, Retention};
use crate::nats::Live;
use crate::proto::node_v1::StoredEvent;
pub(super) use verdict::{Verdict, settle};

const AWAY: PublishError = PublishError::NotStored("nats unavailable");
const FULL: PublishError = PublishError::NotStored("the storage of nats is full");
const DENIED: PublishError = PublishError::NotStored("nats denies publishing");
const REFUSED: PublishError = PublishError::NotStored("nats refused the event");
const UNANSWERED: PublishError = PublishError::UnknownOutcome("nats timed out");

/// The most bytes that a last value adds around the event: its position, its time and its epoch.
const LAST_VALUE_BYTES: usize = 64;

/// The time to wait for a lost connection before anything was submitted: a reconnect to another server takes less, and a caller
/// learns of a longer outage before its own deadline.
const AWAY_MAX: Duration = Duration::from_secs(1);

/// The pause between two attempts: short beside an election's seconds, long enough not to burden a server.
const PAUSE: Duration = Duration::from_millis(100);

/// A publish in progress.
pub(super) struct Draft<'s> {
    pub publish: Publish,
    pub partition: &'s Partition,
    stored: StoredEvent,
    subject: String,
    message_id: String,
    payload: Bytes,
    /// The sequence that the stream is to expect; `None` for any.
    expected: Option<u64>,
    deadline: Instant,
    attempts: u32,
    /// An attempt was submitted and not acknowledged.
    ambiguous: bool,
    /// The next attempt needs no pause.
    at_once: bool,
}

/// A submitted attempt.
pub(super) struct Attempt {
    ack: PublishAckFuture,
    /// The newest sequence that was known before it.
    known: u64,
    _turn: OwnedSemaphorePermit,
}

impl<'s> Draft<'s> {
    pub(super) fn new(shared: &'s NatsBusInner, publish: Publish) -> Self {
        let partition = shared.partitions.of(&publish.room);
        let stored = wire::stored(&publish);
        Self {
            subject: shared.server.nats.subjects().history(partition.number, &publish.room),
            message_id: wire::message_id(&publish),
            payload: stored.encode_to_vec().into(),
            expected: publish.expected.map(|expected| expected.0),
            deadline: Instant::now() + shared.server.nats.config().publish_timeout,
            attempts: 0,
            ambiguous: false,
            at_once: false,
            stored,
            publish,
            partition,
        }
    }

    /// Returns the error when no more attempts are made.
    pub(super) const fn given_up(&self) -> PublishError {
        self.unless_ambiguous(AWAY)
    }

    /// Returns a refusal of this attempt, unless the outcome of an earlier attempt is unknown.
    const fn unless_ambiguous(&self, refusal: PublishError) -> PublishError {
        if self.ambiguous { UNANSWERED } else { refusal }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, self.message_id.as_str());
        if let Some(expected) = self.expected {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        }
        wire::add_trace(&mut headers);
        headers
    }

    /// Refuses an event that exceeds the maximum message size of NATS.
    fn fits(&self, headers: &HeaderMap, message_bytes_max: usize) -> Result<(), PublishError> {
        let extra = match self.publish.retention {
            Retention::LastValue => LAST_VALUE_BYTES,
            Retention::Ephemeral | Retention::Reliable => 0,
        };
        fits(
            &self.publish,
            self.payload.len() + header_bytes(headers) + extra,
            message_bytes_max,
        )
    }

    /// Pauses, and reports whether another attempt may be made.
    pub(super) async fn pause(&mut self) -> bool {
        if std::mem::take(&mut self.at_once) {
            return Instant::now() < self.deadline;
        }
        let go_on = Instant::now() + PAUSE < self.deadline;
        if go_on {
            sleep(PAUSE).await;
        }
        go_on
    }
}

/// Takes a permit for an unacknowledged publish, if one is available now.
pub(super) fn turn_now(shared: &NatsBusInner) -> Option<OwnedSemaphorePermit> {
    shared.publishes.try_take()
}

/// Submits an attempt.
pub(super) async fn submit(
    shared: &NatsBusInner,
    draft: &mut Draft<'_>,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<Attempt, PublishError> {
    if !shared.agreement.holds() {
        return Err(PublishError::NotStored(OTHER_SETTINGS));
    }
    if shared.health.denies_events() {
        return Err(draft.unless_ambiguous(DENIED));
    }
    let turn = match turn {
        Some(turn) => turn,
        None => match timeout_at(draft.deadline, shared.publishes.take(1)).await {
            Ok(Some(turn)) => turn,
            Ok(None) | Err(_) => return Err(PublishError::NotStored("too many publishes in flight")),
        },
    };
    // On the first attempt nothing was submitted yet. So the caller gets "not stored" early, before its own deadline
    // leaves the outcome unknown.
    let patience = if draft.attempts == 0 {
        draft.deadline.min(Instant::now() + AWAY_MAX)
    } else {
        draft.deadline
    };
    if timeout_at(patience, connected(shared)).await.is_err() {
        return Err(draft.given_up());
    }
    let headers = draft.headers();
    draft.fits(&headers, shared.server.nats.control().client().max_payload())?;
    // Before submitting: an acknowledgement at or below it shows that the stream has gone back.
    let known = draft.partition.highest();
    let message = jetstream::message::PublishMessage::build()
        .headers(headers)
        .payload(draft.payload.clone());
    let sending = async {
        let _order = shared.server.nats.control().in_order().await;
        let context = shared.server.context();
        context.send_publish(draft.subject.clone(), message).await
    };
    match timeout_at(draft.deadline, sending).await {
        Ok(Ok(ack)) => {
            draft.attempts += 1;
            Ok(Attempt {
                ack,
                known,
                _turn: turn,
            })
        }
        Ok(Err(_)) | Err(_) => Err(draft.given_up()),
    }
}

/// Waits for the connection. A message submitted without one would be sent whenever it is back.
async fn connected(shared: &NatsBusInner) {
    let control = shared.server.nats.control();
    if control.is_connected() {
        return;
    }
    let mut standing = control.standing();
    while !control.is_connected() {
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { sleep(PAUSE).await },
            () = sleep(PAUSE) => {}
        }
    }
}

/// Refuses an event whose message exceeds the bound.
fn fits(publish: &Publish, message_bytes: usize, message_bytes_max: usize) -> Result<(), PublishError> {
    if message_bytes <= message_bytes_max {
        return Ok(());
    }
    let around = message_bytes - publish.payload.bytes_len();
    let bytes_max = message_bytes_max.saturating_sub(around);
    Err(PublishError::TooLarge { bytes_max })
}

/// Returns the bytes of headers in a message: the version, a line for each, an empty line.
fn header_bytes(headers: &HeaderMap) -> usize {
    let line = |name: &str, value: &str| name.len() + value.len() + 4;
    let lines = headers.iter().flat_map(|(name, values)| {
        let name = name.to_string();
        values.iter().map(move |value| line(&name, value.as_str()))
    });
    12 + lines.sum::<usize>()
}

/// Publishes one event by itself.
pub(super) async fn one(shared: &NatsBusInner, publish: Publish) -> Result<Published, PublishError> {
    if publish.retention == Retention::Ephemeral {
        return pass_on(shared, &publish).await;
    }
    let mut draft = Draft::new(shared, publish);
    until_settled(shared, &mut draft).await
}

/// Makes attempts until one settles it or the deadline passes.
pub(super) async fn until_settled(shared: &NatsBusInner, draft: &mut Draft<'_>) -> Result<Published, PublishError> {
    loop {
        let attempt = submit(shared, draft, None).await?;
        if let Verdict::Settled(outcome) = settle(shared, draft, attempt).await {
            return outcome;
        }
        if !draft.pause().await {
            return Err(draft.given_up());
        }
    }
}

/// Publishes an ephemeral event: sent once, to the current subscribers (at-most-once). It uses the connection of the
/// nudges and subscriptions, so it does not overtake events acknowledged before.
pub(super) async fn pass_on(shared: &NatsBusInner, publish: &Publish) -> Result<Published, PublishError> {
    if !shared.agreement.holds() {
        return Err(PublishError::NotStored(OTHER_SETTINGS));
    }
    let nats = &shared.server.nats;
    if !nats.control().is_connected() {
        return Err(AWAY);
    }
    let subject = nats.subjects().live_of(&publish.room, Live::Ephemeral);
    let mut headers = HeaderMap::new();
    wire::add_trace(&mut headers);
    let sending = async {
        let order = nats.control().in_order().await;
        let sent = wire::ephemeral(publish, shared.sender, nats.control().connects());
        let (client, payload) = (order.client(), Bytes::from(sent.encode_to_vec()));
        fits(publish, payload.len() + header_bytes(&headers), client.max_payload())?;
        let sent = if headers.is_empty() {
            client.publish(subject, payload).await
        } else {
            client.publish_with_headers(subject, headers, payload).await
        };
        sent.map_err(|_| AWAY)
    };
    match tokio::time::timeout(nats.config().request_timeout, sending).await {
        Ok(Ok(())) => Ok(Published {
            position: None,
            duplicate: false,
        }),
        Ok(Err(refused)) => Err(refused),
        Err(_) => Err(AWAY),
    }
}
