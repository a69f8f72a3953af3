//! Hands on the streams of a running fleet, as an operator lays them.

use std::fmt::{Display, Formatter};
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::TryStreamExt as _;
use tokio::time::sleep;

use super::fleet::{Fleet, PARTITIONS};

/// Which streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Streams {
    Histories,
    LastValues,
    Records,
    ControlLog,
}

/// What is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hand {
    Deleted,
    /// All messages are gone.
    Emptied,
    /// The older half of the messages is gone.
    Purged,
    /// Of every other subject only the newest messages are left, as after the erasure of a room.
    RoomsPurged,
    /// The server is killed, and comes back with the state of two seconds before.
    Older,
}

/// The number of messages that a purged room keeps.
const KEPT: usize = 5;

/// How long there is load between what is kept and what is lost.
const BETWEEN: Duration = Duration::from_secs(2);

impl Streams {
    pub const ALL: [Self; 4] = [Self::Histories, Self::LastValues, Self::Records, Self::ControlLog];

    fn names(self) -> Vec<String> {
        let subjects = Fleet::subjects();
        match self {
            Self::Histories => (0..PARTITIONS).map(Fleet::stream).collect(),
            Self::LastValues => vec![subjects.stream_of('v')],
            Self::Records => vec![subjects.stream_of('m')],
            Self::ControlLog => vec![subjects.stream_of('c')],
        }
    }
}

impl Hand {
    /// All of them that make sense of every stream.
    pub const ALL: [Self; 4] = [Self::Deleted, Self::Emptied, Self::Purged, Self::Older];

    pub async fn lay_on(self, streams: Streams, fleet: &Fleet) {
        if self == Self::Older {
            return bring_back(streams, fleet).await;
        }
        let context = jetstream::new(fleet.nats().await);
        for name in streams.names() {
            let stream = context.get_stream(&name).await.expect("the stream is there");
            match self {
                Self::Deleted => {
                    context.delete_stream(&name).await.expect("it may be deleted");
                }
                Self::Emptied => {
                    stream.purge().await.expect("it may be purged");
                }
                Self::RoomsPurged => {
                    let subjects = stream.info_with_subjects(">").await.expect("it tells its subjects");
                    let mut subjects: Vec<_> = subjects.try_collect().await.expect("it tells its subjects");
                    subjects.sort_unstable();
                    for (subject, _) in subjects.iter().filter(|(_, count)| *count > KEPT).step_by(2) {
                        let purge = stream.purge().filter(subject).keep(KEPT as u64);
                        purge.await.expect("it may be purged");
                    }
                }
                Self::Purged | Self::Older => {
                    let state = &stream.cached_info().state;
                    let middle = u64::midpoint(state.first_sequence, state.last_sequence);
                    stream.purge().sequence(middle.max(1)).await.expect("it may be purged");
                }
            }
        }
    }
}

async fn bring_back(streams: Streams, fleet: &Fleet) {
    let [server] = fleet.broker.servers() else {
        panic!("a cluster has copies that know better");
    };
    let folder = server.store().join("jetstream/$G/streams");
    let kept = tempfile::tempdir().expect("there is room for a copy");
    server.stop().await;
    for name in streams.names() {
        copy(&folder.join(&name), &kept.path().join(&name));
    }
    server.restart().await;
    sleep(BETWEEN).await;
    server.kill();
    for name in streams.names() {
        std::fs::remove_dir_all(folder.join(&name)).expect("the server does not run");
        copy(&kept.path().join(&name), &folder.join(&name));
    }
    server.restart().await;
}

/// Copies a folder and all below it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("there is room for a copy");
    for entry in std::fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("there is room for a copy");
        }
    }
}

impl Display for Streams {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Histories => "histories",
            Self::LastValues => "last values",
            Self::Records => "records",
            Self::ControlLog => "control log",
        })
    }
}

impl Display for Hand {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deleted => "deleted",
            Self::Emptied => "emptied",
            Self::Purged => "half purged",
            Self::RoomsPurged => "purged room by room",
            Self::Older => "restored older",
        })
    }
}
