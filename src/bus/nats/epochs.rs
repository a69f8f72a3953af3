//! Epochs: fencing of a stream's incarnations.
//!
//! A record beside the stream holds the epoch, the stream's creation time, and a sequence it has reached. A node may
//! find a stream of another creation time, or one that has not reached that sequence. It then draws a new epoch and
//! writes it by compare-and-set; every other node takes the epoch that is written. Offsets are never used twice within
//! an epoch.
//!
//! The record may be lost, or replaced by an older copy, while nodes run. Then a node's own knowledge takes precedence.
//! It writes its own epoch back as long as the stream is the one it knows, and takes no epoch that it has seen end. So
//! running nodes stay in one epoch. A node that starts and finds no record first asks the running nodes to write it
//! back.

use bytes::Bytes;
use prost::Message as _;

use super::incarnation::{Identity, Incarnation, Known};
use super::server::{Server, StreamState};
use crate::nats::agreement::Agreement;
use crate::nats::records;
use crate::nats::request::RequestFailed;
use crate::position::Epoch;
use crate::proto::node_v1::PartitionEpoch;

/// The most attempts to write a record before giving up for now: each is lost only to another node's write.
const ATTEMPTS_MAX: usize = 20;

/// The content of a record, and its sequence.
#[derive(Debug, Clone, Default)]
struct Record {
    seq: u64,
    written: Option<PartitionEpoch>,
}

/// The settled epoch of a stream.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub identity: Identity,
    /// The stream's state.
    pub state: StreamState,
    /// The record that this node has written, if any.
    pub wrote: Option<Wrote>,
}

/// The kind of a record that this node has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrote {
    /// The first epoch of a stream.
    First,
    /// A new epoch: the other nodes must be notified.
    New,
    /// The epoch that the node already knew.
    Back,
}

/// The action that makes the record valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// None: it is valid.
    Take(Epoch),
    /// This node's own epoch continues, and has to be written back.
    WriteBack(Epoch),
    /// A new epoch: the history starts afresh.
    Draw,
}

/// Compares the record with the stream's state, which was read after it, and with this node's knowledge from before
/// both.
fn decide(written: Option<&PartitionEpoch>, state: &StreamState, own: Option<&Known>) -> Decision {
    let own_holds = own.is_some_and(|own| own.identity.created == state.created && state.last >= own.highest);
    let own_epoch = own.map(|own| own.identity.epoch);
    let ended = |epoch| own.is_some_and(|own| own.ended.contains(&epoch));
    match written {
        Some(written) if !ended(Epoch::from_bits(written.epoch)) && written.created == state.created => {
            let epoch = Epoch::from_bits(written.epoch);
            let has_gone_back = state.last < written.high || (own_epoch == Some(epoch) && !own_holds);
            if has_gone_back {
                Decision::Draw
            } else {
                Decision::Take(epoch)
            }
        }
        _ => match own_epoch {
            Some(epoch) if own_holds => Decision::WriteBack(epoch),
            _ => Decision::Draw,
        },
    }
}

/// Settles the epoch of a stream: the written one, this node's own, which is written back, or a new one.
pub(super) async fn settle(
    server: &Server,
    (stream, record): (&str, &str),
    own: Option<&Known>,
) -> Result<Settled, RequestFailed> {
    for _ in 0..ATTEMPTS_MAX {
        let found = read(server, record).await?;
        // After the record: another node may raise it at any moment, to what the stream has by then.
        let state = server.state(stream).await?;
        let (epoch, wrote) = match decide(found.written.as_ref(), &state, own) {
            Decision::Take(epoch) => (epoch, None),
            Decision::WriteBack(epoch) => (epoch, Some(Wrote::Back)),
            Decision::Draw if own.is_none() && found.written.is_none() => (Epoch::random(), Some(Wrote::First)),
            Decision::Draw => (Epoch::random(), Some(Wrote::New)),
        };
        let identity = Identity {
            epoch,
            created: state.created.clone(),
        };
        if wrote.is_none() || write(server, record, found.seq, &identity, state.last).await? {
            tracing::debug!(stream, %epoch, ?wrote, "epoch settled");
            return Ok(Settled { identity, state, wrote });
        }
    }
    Err(RequestFailed::unavailable(
        "other nodes wrote the record at the same time",
    ))
}

/// Settles the epoch of a stream for a node that starts without knowledge. `ask` asks the running nodes to write lost
/// records back.
pub(super) async fn first(
    server: &Server,
    agreement: &Agreement,
    (stream, record): (&str, &str),
    ask: impl AsyncFnOnce() -> bool,
) -> Result<Settled, RequestFailed> {
    let look = async || Ok::<_, RequestFailed>(read(server, record).await?.written);
    if look().await?.is_none() && ask().await {
        agreement.written_back(look).await?;
    }
    settle(server, (stream, record), None).await
}

/// Raises the record to what the stream has reached, unless another node has changed it since. Returns the epoch that
/// is written.
pub(super) async fn raise(server: &Server, of: &Incarnation) -> Result<Option<Epoch>, RequestFailed> {
    let (identity, highest) = (of.identity(), of.highest());
    let found = read(server, &of.record).await?;
    let Some(written) = &found.written else {
        return Ok(None);
    };
    let epoch = Epoch::from_bits(written.epoch);
    let ours = epoch == identity.epoch && written.created == identity.created;
    if ours && written.high < highest {
        write(server, &of.record, found.seq, &identity, highest).await?;
    }
    Ok(ours.then_some(epoch))
}

async fn read(server: &Server, record: &str) -> Result<Record, RequestFailed> {
    let stream = server.nats.subjects().stream_of('m');
    let found = records::read(&server.context(), &stream, record).await?;
    Ok(found.map_or_else(Record::default, |stored| Record {
        seq: stored.seq,
        // An undecodable record counts as none: a new epoch replaces it.
        written: PartitionEpoch::decode(stored.payload).ok(),
    }))
}

/// Writes a record by compare-and-set; `false` when another node was first.
async fn write(
    server: &Server,
    record: &str,
    over: u64,
    identity: &Identity,
    high: u64,
) -> Result<bool, RequestFailed> {
    let epoch = PartitionEpoch {
        epoch: identity.epoch.bits(),
        created: identity.created.clone(),
        high,
    };
    let payload: Bytes = epoch.encode_to_vec().into();
    let written = records::put(&server.context(), record.to_owned(), over, payload).await?;
    Ok(written.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Epoch = Epoch::from_bits(1);
    const OTHER: Epoch = Epoch::from_bits(2);

    fn written(epoch: Epoch, created: &str, high: u64) -> PartitionEpoch {
        PartitionEpoch {
            epoch: epoch.bits(),
            created: created.to_owned(),
            high,
        }
    }

    fn state(created: &str, last: u64) -> StreamState {
        StreamState {
            created: created.to_owned(),
            first: 1,
            last,
            removed: 0,
            sealed: false,
        }
    }

    fn known(highest: u64, ended: &[Epoch]) -> Known {
        Known {
            identity: Identity {
                epoch: OWN,
                created: "a".to_owned(),
            },
            highest,
            ended: ended.iter().copied().collect(),
        }
    }

    #[test]
    fn decisions() {
        use Decision::{Draw, Take, WriteBack};
        let own = |highest| Some(known(highest, &[]));
        for (what, record, stream, own, expected) in [
            ("first start", None, state("a", 0), None, Draw),
            (
                "a later start",
                Some(written(OTHER, "a", 5)),
                state("a", 7),
                None,
                Take(OTHER),
            ),
            (
                "all is as it was",
                Some(written(OWN, "a", 5)),
                state("a", 7),
                own(7),
                Take(OWN),
            ),
            (
                "the stream was made anew",
                Some(written(OWN, "a", 5)),
                state("b", 9),
                own(7),
                Draw,
            ),
            (
                "another node saw it first",
                Some(written(OTHER, "b", 0)),
                state("b", 9),
                own(7),
                Take(OTHER),
            ),
            (
                "the stream has gone back",
                Some(written(OWN, "a", 5)),
                state("a", 6),
                own(7),
                Draw,
            ),
            (
                "only the record knows that",
                Some(written(OWN, "a", 9)),
                state("a", 7),
                own(7),
                Draw,
            ),
            ("the record is lost", None, state("a", 7), own(7), WriteBack(OWN)),
            ("both are lost", None, state("b", 7), own(7), Draw),
            (
                "the record is of an older stream",
                Some(written(OTHER, "z", 5)),
                state("a", 7),
                own(7),
                WriteBack(OWN),
            ),
        ] {
            assert_eq!(decide(record.as_ref(), &stream, own.as_ref()), expected, "{what}");
        }
    }

    #[test]
    fn an_epoch_that_ended_never_comes_back() {
        let own = known(7, &[OTHER]);
        let restored = written(OTHER, "a", 5);
        assert_eq!(
            decide(Some(&restored), &state("a", 7), Some(&own)),
            Decision::WriteBack(OWN)
        );
        assert_eq!(decide(Some(&restored), &state("a", 6), Some(&own)), Decision::Draw);
    }
}
