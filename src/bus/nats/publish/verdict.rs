//! Judges an attempt to publish: the acknowledgement, the refusal, or neither.

use std::error::Error as _;

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError as Refused, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use prost::Message as _;
use tokio::time::timeout_at;

use super::{Attempt, Draft, FULL, REFUSED, UNANSWERED};
use crate::bus::nats::last_values;
use crate::bus::nats::shared::NatsBusInner;
use crate::bus::{PublishError, Published};
use crate::event::Retention;
use crate::nats::request::RequestFailed;
use crate::position::Offset;
use crate::proto::node_v1::StoredEvent;

/// The outcome of an attempt.
pub(in crate::bus::nats) enum Verdict {
    /// The publish is settled.
    Settled(Result<Published, PublishError>),
    /// Another attempt may settle it.
    Again,
}

/// Waits for the acknowledgement of an attempt, and judges it. Rare work is boxed: hundreds of these futures wait
/// together, and each is moved.
pub(in crate::bus::nats) async fn settle(shared: &NatsBusInner, draft: &mut Draft<'_>, attempt: Attempt) -> Verdict {
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
        let kept = Box::pin(last_values::keep(shared, draft, &draft.stored, position));
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
