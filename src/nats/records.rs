//! Records of a deployment: one message for each subject of the stream `d-m`, written by compare-and-set.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode};
use bytes::Bytes;
use std::error::Error as _;

use super::request::RequestFailed;

/// A record, and the sequence to expect when it is replaced.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The sequence of the message.
    pub seq: u64,
    /// The content.
    pub payload: Bytes,
}

/// Reads the newest message of a subject from the stream's leader.
///
/// # Errors
/// [`RequestFailed::NoStream`] and [`RequestFailed::Unavailable`].
pub async fn read(context: &Context, stream: &str, subject: &str) -> Result<Option<Stored>, RequestFailed> {
    let opened = context.get_stream_no_info(stream).await;
    let opened = opened.map_err(RequestFailed::unavailable)?;
    match opened.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(Stored {
            seq: message.sequence,
            payload: message.payload,
        })),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Err(RequestFailed::NoStream)
            }
            _ => Err(RequestFailed::unavailable(error)),
        },
    }
}

/// Writes a subject's only message by compare-and-set. Returns its sequence; `None` when the current one is no longer
/// `over`.
///
/// # Errors
/// Every variant of [`RequestFailed`]. After [`RequestFailed::Unavailable`] it may have been written.
pub async fn put(context: &Context, subject: String, over: u64, payload: Bytes) -> Result<Option<u64>, RequestFailed> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, over.to_string());
    let answer = match context.publish_with_headers(subject, headers, payload).await {
        Ok(answer) => answer.await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(stored) => Ok(Some(stored.sequence)),
        Err(error) => match error.kind() {
            PublishErrorKind::WrongLastSequence => Ok(None),
            PublishErrorKind::StreamNotFound => Err(RequestFailed::NoStream),
            _ => match code(&error) {
                // A cluster uses this code for messages that are not yet stored by all replicas.
                Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => Ok(None),
                Some(ErrorCode::STREAM_SEALED) => Err(RequestFailed::ReadOnly),
                _ => Err(RequestFailed::unavailable(error)),
            },
        },
    }
}

/// Returns the code of the server's refusal, if it was one.
#[must_use]
pub fn code(error: &jetstream::context::PublishError) -> Option<ErrorCode> {
    let refused = error.source()?.downcast_ref::<jetstream::Error>()?;
    Some(refused.error_code())
}
