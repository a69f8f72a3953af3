//! Publishes one event into the stream.
//!
//! Every publish has an identifier by which the stream deduplicates, derived from its idempotency key or random. An
//! unacknowledged attempt is repeated under the same identifier. An attempt has one of three outcomes: it is settled;
//! nothing was stored and another attempt may be made; or the outcome is unknown.

use std::error::Error as _;
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishAckFuture, PublishError as Refused, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
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
use crate::nats::request::RequestFailed;
use crate::position::Offset;
use crate::proto::node_v1::StoredEvent;

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

/// The outcome of an attempt.
pub(super) enum Verdict {
    /// The publish is settled.
    Settled(Result<Published, PublishError>),
    /// Another attempt may settle it.
    Again,
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

/// Waits for the acknowledgement of an attempt, and judges it. Rare work is boxed: hundreds of these futures wait
/// together, and each is moved.
pub(super) async fn settle(shared: &NatsBusInner, draft: &mut Draft<'_>, attempt: Attempt) -> Verdict {
    let Attempt { ack, known, _turn } = attempt;
    match timeout_at(draft.deadline, ack.into_future()).await {
        Ok(Ok(ack)) => accepted(shared, draft, &ack, known).await,
        Ok(Err(refused)) => Box::pin(refusal(shared, draft, &refused)).await,
        Err(_) => {
            draft.ambiguous = true;
            Verdict::Settled(Err(UNANSWERED))
        }
    }
}

async fn accepted(shared: &NatsBusInner, draft: &Draft<'_>, ack: &PublishAck, known: u64) -> Verdict {
    let mut duplicate = false;
    if ack.duplicate {
        match Box::pin(compare(shared, draft, ack.sequence)).await {
            Ok(KeyHolder::Own) => {}
            Ok(KeyHolder::Earlier) => duplicate = true,
            Ok(KeyHolder::Other) => return Verdict::Settled(Err(PublishError::KeyReused)),
            Err(_) => return Verdict::Settled(Err(UNANSWERED)),
        }
    } else if ack.sequence <= known {
        // The stream has gone back: the acknowledgement belongs to another history.
        if Box::pin(shared.renew(draft.partition)).await.is_err() {
            return Verdict::Settled(Err(UNANSWERED));
        }
    }
    draft.partition.has(ack.sequence);
    // Before the acknowledgement is returned: a read here must not miss an event that this node has acknowledged.
    if let Some(live) = draft.partition.room(&draft.publish.room) {
        let mut state = live.lock();
        state.acked = state.acked.max(ack.sequence);
    }
    // The republished copy may have been lost with the acknowledgement, so the room's nodes get a nudge.
    if ack.duplicate || draft.attempts > 1 {
        Box::pin(shared.nudge(&draft.publish.room, ack.sequence)).await;
    }
    let position = draft.partition.position(ack.sequence);
    if draft.publish.retention == Retention::LastValue {
        let kept = Box::pin(super::last_values::keep(shared, draft, &draft.stored, position));
        if !matches!(timeout_at(draft.deadline, kept).await, Ok(Ok(()))) {
            return Verdict::Settled(Err(PublishError::UnknownOutcome("last value write timed out")));
        }
    }
    Verdict::Settled(Ok(Published {
        position: Some(position),
        duplicate,
    }))
}

/// The stored event that holds a publish's idempotency key.
enum KeyHolder {
    /// An earlier attempt of this publish.
    Own,
    /// The same event, of an earlier publish.
    Earlier,
    /// Another event.
    Other,
}

/// Compares a duplicate with the stored event.
async fn compare(shared: &NatsBusInner, draft: &Draft<'_>, seq: u64) -> Result<KeyHolder, RequestFailed> {
    if draft.publish.key.is_none() {
        return Ok(KeyHolder::Own);
    }
    let Some(payload) = shared.server.message(&draft.partition.stream, seq).await? else {
        // Dropped before the window was over: there is nothing to compare with.
        return Ok(KeyHolder::Earlier);
    };
    let Ok(stored) = StoredEvent::decode(payload) else {
        return Ok(KeyHolder::Other);
    };
    let is_own = draft.attempts > 1 && stored.id == draft.stored.id;
    Ok(match stored.fingerprint == draft.stored.fingerprint {
        true if is_own => KeyHolder::Own,
        true => KeyHolder::Earlier,
        false => KeyHolder::Other,
    })
}

async fn refusal(shared: &NatsBusInner, draft: &mut Draft<'_>, refused: &Refused) -> Verdict {
    match refused.kind() {
        PublishErrorKind::WrongLastSequence => conflict(shared, draft).await,
        PublishErrorKind::StreamNotFound => {
            draft.partition.doubt();
            shared.health.check_soon();
            Verdict::Again
        }
        PublishErrorKind::Other => {
            let refused = refused
                .source()
                .and_then(|source| source.downcast_ref::<jetstream::Error>());
            match refused.map(|refused| (refused.error_code(), refused.code())) {
                // A cluster uses this code for events that are not yet stored by all replicas.
                Some((ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT, _)) => conflict(shared, draft).await,
                // The previous message of this identifier is not yet stored by all replicas.
                Some((ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT, _)) => Verdict::Again,
                Some((ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM, _)) => {
                    let refusal = too_large(shared, draft).await;
                    Verdict::Settled(Err(draft.unless_ambiguous(refusal)))
                }
                // Freeing space takes longer than a publish may last: report it at once.
                Some((
                    ErrorCode::INSUFFICIENT_RESOURCES
                    | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                    | ErrorCode::STORAGE_RESOURCES_EXCEEDED
                    | ErrorCode::MEMORY_RESOURCES_EXCEEDED,
                    _,
                )) => Verdict::Settled(Err(draft.unless_ambiguous(FULL))),
                // The leader could not write it, but other replicas may have; or the refusal could not be decoded.
                Some((ErrorCode::STREAM_STORE_FAILED, _)) | None => ambiguous(draft),
                // Refused for its content, so another attempt is useless.
                Some((_, 400..=499)) => Verdict::Settled(Err(draft.unless_ambiguous(REFUSED))),
                Some(_) => Verdict::Again,
            }
        }
        _ => ambiguous(draft),
    }
}

/// Returns the error for an event that exceeds an operator's bound on the stream's messages.
async fn too_large(shared: &NatsBusInner, draft: &Draft<'_>) -> PublishError {
    let stream = shared.server.context().get_stream(&draft.partition.stream).await;
    let bound = stream.map(|stream| stream.cached_info().config.max_message_size);
    let bound = bound
        .ok()
        .and_then(|bound| usize::try_from(bound).ok())
        .unwrap_or_default();
    draft.fits(&draft.headers(), bound).err().unwrap_or(REFUSED)
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

const fn ambiguous(draft: &mut Draft<'_>) -> Verdict {
    draft.ambiguous = true;
    Verdict::Again
}

/// Handles a room head other than the expected one. A room without events has head 0, and every head that may have been
/// reported for it: any position that all its later events come after.
async fn conflict(shared: &NatsBusInner, draft: &mut Draft<'_>) -> Verdict {
    let expected = draft.publish.expected.unwrap_or_default().0;
    let (stream, subject) = (&draft.partition.stream, &draft.subject);
    let asked = async {
        let state = shared.state(draft.partition).await?;
        let next = match expected.checked_add(1) {
            Some(after) if after <= state.last => shared.server.next(stream, subject, after).await?,
            _ => None,
        };
        let head = shared.server.head(stream, subject).await?;
        let none_after = head.is_none()
            && draft.expected != Some(0)
            && expected <= state.last
            && shared.is_unbroken(draft.partition, expected, None).await?;
        Ok::<_, RequestFailed>((state, next, head, none_after))
    };
    let Ok(Ok((state, next, head, none_after))) = timeout_at(draft.deadline, asked).await else {
        return Verdict::Settled(Err(draft.given_up()));
    };
    // Servers differ in what they check first, the identifier or the expectation. The event that follows the expected
    // head may be this publish, stored by an earlier attempt.
    if let Some((sequence, Some(id))) = next
        && id == draft.message_id
    {
        let again = PublishAck {
            sequence,
            duplicate: true,
            ..PublishAck::default()
        };
        return accepted(shared, draft, &again, 0).await;
    }
    if none_after {
        draft.expected = Some(0);
        draft.at_once = true;
        return Verdict::Again;
    }
    let current = draft.partition.position(head.map_or(state.last, |stored| stored.seq));
    if current.offset == Offset(expected) {
        // The room reached the expected head during the check.
        return Verdict::Again;
    }
    Verdict::Settled(Err(PublishError::VersionConflict { current }))
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
