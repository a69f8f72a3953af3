//! Epochs: which incarnation of its history a partition is in.
//!
//! A record beside the stream says the epoch, when the stream was made, and a sequence it has had. Whoever finds a stream
//! made at another time, or one that has not come that far, draws a new epoch and writes it by compare-and-set; everybody
//! else takes the epoch that is written. Offsets are never used twice within an epoch.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;
use prost::Message as _;

use super::partition::{Identity, Partition};
use super::server::{Server, Silence, StreamState};
use crate::position::Epoch;
use crate::proto::node_v1::PartitionEpoch;

/// How often a record is written anew before it is given up for now.
const ATTEMPTS_MAX: usize = 20;

/// What is written, and under which sequence.
#[derive(Debug, Clone, Default)]
struct Record {
    seq: u64,
    written: Option<PartitionEpoch>,
}

impl Record {
    /// The epoch, if the record is about this stream.
    fn holds_for(&self, state: &StreamState) -> Option<Epoch> {
        let written = self.written.as_ref()?;
        let same = written.created == state.created && state.last >= written.high;
        same.then(|| Epoch::from_bits(written.epoch))
    }
}

/// The identity of a partition whose stream is in this state: what is written, or a new one. `known` is how far the
/// stream had come in the epoch this node was in.
pub(super) async fn settle(
    server: &Server,
    partition: u16,
    state: &StreamState,
    known: Option<(Epoch, u64)>,
) -> Result<Identity, Silence> {
    for _ in 0..ATTEMPTS_MAX {
        let record = read(server, partition).await?;
        if let Some(epoch) = record.holds_for(state) {
            let regressed = known.is_some_and(|(own, high)| own == epoch && state.last < high);
            if !regressed {
                return Ok(Identity {
                    epoch,
                    created: state.created.clone(),
                });
            }
        }
        let epoch = Epoch::random();
        if write(server, partition, &record, epoch, &state.created, state.last).await? {
            if record.written.is_none() {
                tracing::info!(partition, %epoch, "a history begins");
            } else {
                tracing::warn!(partition, %epoch, "a history begins anew");
            }
            return Ok(Identity {
                epoch,
                created: state.created.clone(),
            });
        }
    }
    Err(Silence::Away)
}

/// Writes how far the stream has come, if nobody has written otherwise since. Answers the epoch that is written.
pub(super) async fn raise(server: &Server, partition: &Partition) -> Result<Option<Epoch>, Silence> {
    let (identity, highest) = (partition.identity(), partition.highest());
    let record = read(server, partition.number).await?;
    let Some(written) = &record.written else {
        return Ok(None);
    };
    let epoch = Epoch::from_bits(written.epoch);
    let ours = epoch == identity.epoch && written.created == identity.created;
    if ours && written.high < highest {
        write(server, partition.number, &record, epoch, &identity.created, highest).await?;
    }
    Ok(Some(epoch))
}

async fn read(server: &Server, partition: u16) -> Result<Record, Silence> {
    let subjects = server.nats.subjects();
    let head = server
        .head(&subjects.stream_of('m'), &subjects.epoch(partition))
        .await?;
    Ok(head.map_or_else(Record::default, |stored| Record {
        seq: stored.seq,
        // What cannot be read is as nothing: a new epoch replaces it.
        written: PartitionEpoch::decode(stored.payload).ok(),
    }))
}

/// Whether it was written; `false` when somebody else was first.
async fn write(
    server: &Server,
    partition: u16,
    over: &Record,
    epoch: Epoch,
    created: &str,
    high: u64,
) -> Result<bool, Silence> {
    let record = PartitionEpoch {
        epoch: epoch.bits(),
        created: created.to_owned(),
        high,
    };
    let subject = server.nats.subjects().epoch(partition);
    put(server, subject, over.seq, record.encode_to_vec().into()).await
}

/// Writes a subject's only message by compare-and-set; `false` when it is not `over` any more that is there.
pub(super) async fn put(server: &Server, subject: String, over: u64, payload: Bytes) -> Result<bool, Silence> {
    use async_nats::jetstream::context::PublishErrorKind;

    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, over.to_string());
    let sent = server.context().publish_with_headers(subject, headers, payload).await;
    let answer = match sent {
        Ok(answer) => answer.await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            PublishErrorKind::WrongLastSequence => Ok(false),
            PublishErrorKind::StreamNotFound => Err(Silence::NoStream),
            _ => Err(Silence::Away),
        },
    }
}
