//! The way of one event into the stream.
//!
//! Every publish has an identifier that the stream recognizes, of its key or of its own: an attempt that was not answered
//! is made again under the same one. What an attempt came to is one of three: it is settled; nothing was stored and
//! another attempt may be made; or nobody knows.

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
use super::server::Silence;
use super::shared::{REFUSED as OTHER_SETTINGS, Shared};
use super::wire;
use crate::bus::{PublishError, Published};
use crate::event::{Publish, Retention};
use crate::nats::Live;
use crate::position::Offset;
use crate::proto::node_v1::StoredEvent;

const AWAY: PublishError = PublishError::NotStored("nats does not answer");
const FULL: PublishError = PublishError::NotStored("the storage of nats is full");
const REFUSED: PublishError = PublishError::NotStored("nats refused the event");
const UNANSWERED: PublishError = PublishError::UnknownOutcome("nats did not answer in time");

/// What a last value has around the event, at most: its position, its time and its epoch.
const LAST_VALUE_BYTES: usize = 64;

/// How long a connection that is away is waited for before anything was handed over.
const AWAY_MAX: Duration = Duration::from_secs(1);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// A publish on its way.
pub(super) struct Draft<'s> {
    pub publish: Publish,
    pub partition: &'s Partition,
    stored: StoredEvent,
    subject: String,
    message_id: String,
    payload: Bytes,
    /// What the stream is to expect; `None` for anything.
    expected: Option<u64>,
    deadline: Instant,
    attempts: u32,
    /// An attempt was handed over and not answered.
    ambiguous: bool,
    /// The next attempt needs no pause.
    at_once: bool,
}

/// An attempt that was handed over.
pub(super) struct Attempt {
    ack: PublishAckFuture,
    /// The newest sequence that was known before.
    known: u64,
    _turn: OwnedSemaphorePermit,
}

/// What an attempt came to.
pub(super) enum Verdict {
    /// It is settled.
    Settled(Result<Published, PublishError>),
    /// Another attempt may settle it.
    Again,
}

impl<'s> Draft<'s> {
    pub(super) fn new(shared: &'s Shared, publish: Publish) -> Self {
        let partition = shared.partition_of(&publish.room);
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

    /// What it came to when no more attempts are made.
    pub(super) const fn given_up(&self) -> PublishError {
        self.unless_ambiguous(AWAY)
    }

    /// What an attempt was refused for, if that says anything of the attempts before it.
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

    /// Refuses what NATS never takes, given the size of its messages.
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

    /// Whether another attempt may be made, after a pause.
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

/// A place among the publishes that wait for an answer, if there is one now.
pub(super) fn turn_now(shared: &Shared) -> Option<OwnedSemaphorePermit> {
    shared.publishes.clone().try_acquire_owned().ok()
}

/// Hands an attempt over.
pub(super) async fn submit(
    shared: &Shared,
    draft: &mut Draft<'_>,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<Attempt, PublishError> {
    if !shared.agreement.holds() {
        return Err(PublishError::NotStored(OTHER_SETTINGS));
    }
    let turn = match turn {
        Some(turn) => turn,
        None => match timeout_at(draft.deadline, shared.publishes.clone().acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => return Err(PublishError::NotStored("too many publishes wait for nats")),
        },
    };
    // Whoever asks for the first time is told soon that nothing was stored, before his own deadline leaves it open.
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

/// Waits until the connection stands: what is handed over before would be sent whenever it comes back.
async fn connected(shared: &Shared) {
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

/// Waits for the answer to an attempt, and says what it means. What rarely has to be done is in boxes: hundreds of these
/// futures wait together, and each is moved about.
pub(super) async fn settle(shared: &Shared, draft: &mut Draft<'_>, attempt: Attempt) -> Verdict {
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

async fn accepted(shared: &Shared, draft: &Draft<'_>, ack: &PublishAck, known: u64) -> Verdict {
    let mut duplicate = false;
    if ack.duplicate {
        match Box::pin(compare(shared, draft, ack.sequence)).await {
            Ok(Some(told)) => duplicate = told,
            Ok(None) => return Verdict::Settled(Err(PublishError::KeyReused)),
            Err(_) => return Verdict::Settled(Err(UNANSWERED)),
        }
    } else if ack.sequence <= known {
        // The stream has gone back: what it answers now is of another history.
        if Box::pin(shared.renew(draft.partition)).await.is_err() {
            return Verdict::Settled(Err(UNANSWERED));
        }
    }
    draft.partition.has(ack.sequence);
    if let Some(live) = draft.partition.room(&draft.publish.room) {
        let mut state = live.lock();
        state.acked = state.acked.max(ack.sequence);
    }
    if ack.duplicate || draft.attempts > 1 {
        Box::pin(shared.nudge(&draft.publish.room, ack.sequence)).await;
    }
    let position = draft.partition.position(ack.sequence);
    if draft.publish.retention == Retention::LastValue {
        let kept = Box::pin(super::last_values::keep(shared, draft, &draft.stored, position));
        if !matches!(timeout_at(draft.deadline, kept).await, Ok(Ok(()))) {
            return Verdict::Settled(Err(PublishError::UnknownOutcome("the last value was not kept in time")));
        }
    }
    Verdict::Settled(Ok(Published {
        position: Some(position),
        duplicate,
    }))
}

/// Whether what is stored under the identifier was stored by somebody else's publish; `None` when it is another event.
async fn compare(shared: &Shared, draft: &Draft<'_>, seq: u64) -> Result<Option<bool>, Silence> {
    if draft.publish.key.is_none() {
        return Ok(Some(false));
    }
    let Some(payload) = shared.server.message(&draft.partition.stream, seq).await? else {
        // Dropped before the window was over: there is nothing to compare with.
        return Ok(Some(true));
    };
    let Ok(stored) = StoredEvent::decode(payload) else {
        return Ok(None);
    };
    let own = draft.attempts > 1 && stored.id == draft.stored.id;
    Ok((stored.fingerprint == draft.stored.fingerprint).then_some(!own))
}

async fn refusal(shared: &Shared, draft: &mut Draft<'_>, refused: &Refused) -> Verdict {
    match refused.kind() {
        PublishErrorKind::WrongLastSequence => conflict(shared, draft).await,
        PublishErrorKind::StreamNotFound => {
            draft.partition.doubt();
            shared.check_wanted.notify_one();
            Verdict::Again
        }
        PublishErrorKind::Other => {
            let refused = refused
                .source()
                .and_then(|source| source.downcast_ref::<jetstream::Error>());
            match refused.map(|refused| (refused.error_code(), refused.code())) {
                // As a cluster says it of what is not yet stored everywhere.
                Some((ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT, _)) => conflict(shared, draft).await,
                // The one before is not yet stored everywhere.
                Some((ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT, _)) => Verdict::Again,
                Some((ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM, _)) => {
                    let refusal = too_large(shared, draft).await;
                    Verdict::Settled(Err(draft.unless_ambiguous(refusal)))
                }
                // Who makes room again takes longer than a publish may: it is said at once.
                Some((
                    ErrorCode::INSUFFICIENT_RESOURCES
                    | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                    | ErrorCode::STORAGE_RESOURCES_EXCEEDED
                    | ErrorCode::MEMORY_RESOURCES_EXCEEDED,
                    _,
                )) => Verdict::Settled(Err(draft.unless_ambiguous(FULL))),
                // A leader could not write it, what the others could is not known; or it could not be read what was refused.
                Some((ErrorCode::STREAM_STORE_FAILED, _)) | None => ambiguous(draft),
                // Refused for what it is, not for when it came.
                Some((_, 400..=499)) => Verdict::Settled(Err(draft.unless_ambiguous(REFUSED))),
                Some(_) => Verdict::Again,
            }
        }
        _ => ambiguous(draft),
    }
}

/// What a stream refuses whose messages an operator has bounded.
async fn too_large(shared: &Shared, draft: &Draft<'_>) -> PublishError {
    let stream = shared.server.context().get_stream(&draft.partition.stream).await;
    let bound = stream.map(|stream| stream.cached_info().config.max_message_size);
    let bound = bound
        .ok()
        .and_then(|bound| usize::try_from(bound).ok())
        .unwrap_or_default();
    draft.fits(&draft.headers(), bound).err().unwrap_or(REFUSED)
}

/// Refuses an event whose message has more bytes than may be.
fn fits(publish: &Publish, message_bytes: usize, message_bytes_max: usize) -> Result<(), PublishError> {
    if message_bytes <= message_bytes_max {
        return Ok(());
    }
    let around = message_bytes - publish.payload.bytes_len();
    let bytes_max = message_bytes_max.saturating_sub(around);
    Err(PublishError::TooLarge { bytes_max })
}

/// The bytes of headers in a message: the version, a line for each, an empty line.
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

/// The room does not stand where it was expected. A room without events stands at 0, and wherever else somebody may have
/// been told: at any position that all its later events come after.
async fn conflict(shared: &Shared, draft: &mut Draft<'_>) -> Verdict {
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
        Ok::<_, Silence>((state, next, head, none_after))
    };
    let Ok(Ok((state, next, head, none_after))) = timeout_at(draft.deadline, asked).await else {
        return Verdict::Settled(Err(draft.given_up()));
    };
    // Servers differ in what they look at first, the identifier or the expectation. What was stored as expected before
    // is the event that follows.
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
        // It came to be while it was asked.
        return Verdict::Again;
    }
    Verdict::Settled(Err(PublishError::VersionConflict { current }))
}

/// One event by itself.
pub(super) async fn one(shared: &Shared, publish: Publish) -> Result<Published, PublishError> {
    if publish.retention == Retention::Ephemeral {
        return pass_on(shared, &publish).await;
    }
    let mut draft = Draft::new(shared, publish);
    until_settled(shared, &mut draft).await
}

/// Makes attempts until one settles it or the time is over.
pub(super) async fn until_settled(shared: &Shared, draft: &mut Draft<'_>) -> Result<Published, PublishError> {
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

/// An ephemeral event: handed over once, to whoever listens. It goes the way of the nudges and subscriptions, so that it
/// does not overtake what was published and answered before.
pub(super) async fn pass_on(shared: &Shared, publish: &Publish) -> Result<Published, PublishError> {
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
