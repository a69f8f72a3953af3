//! Which incarnation of a stream a node goes by, and how far it knows the stream to have come.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::partition::lock;
use crate::position::Epoch;

/// How many ended epochs of a stream are remembered. One ends when a stream is lost, which is rare.
const ENDED_MAX: usize = 16;

/// Which history this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub epoch: Epoch,
    /// When the stream was made, as the server says it.
    pub created: String,
}

/// What a node knows of a stream's epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub identity: Identity,
    /// The newest sequence that is known to exist.
    pub highest: u64,
    /// Epochs that this node has seen end. They never come back, whatever a restored record says.
    pub ended: VecDeque<Epoch>,
}

/// A stream with a record of its epoch.
#[derive(Debug)]
pub(super) struct Incarnation {
    pub stream: String,
    /// The subject of the record.
    pub record: String,
    known: Mutex<(Identity, VecDeque<Epoch>)>,
    highest: AtomicU64,
    /// Held while the epoch is looked at or changed.
    pub renewal: tokio::sync::Mutex<()>,
}

impl Incarnation {
    pub(super) fn new(stream: String, record: String, identity: Identity, last: u64) -> Self {
        Self {
            stream,
            record,
            known: Mutex::new((identity, VecDeque::new())),
            highest: AtomicU64::new(last),
            renewal: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        lock(&self.known).0.clone()
    }

    pub(super) fn epoch(&self) -> Epoch {
        lock(&self.known).0.epoch
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest.load(Ordering::SeqCst)
    }

    /// This sequence exists.
    pub(super) fn has(&self, seq: u64) {
        self.highest.fetch_max(seq, Ordering::SeqCst);
    }

    pub(super) fn has_ended(&self, epoch: Epoch) -> bool {
        lock(&self.known).1.contains(&epoch)
    }

    /// Everything that is known. To be asked before the stream is: what is known then, the stream must have.
    pub(super) fn known(&self) -> Known {
        let highest = self.highest();
        let (identity, ended) = lock(&self.known).clone();
        Known {
            identity,
            highest,
            ended,
        }
    }

    /// Takes another identity. What was known of the stream is not true any more.
    pub(super) fn begin(&self, identity: Identity, last: u64) {
        let mut known = lock(&self.known);
        let before = std::mem::replace(&mut known.0, identity);
        if before.epoch != known.0.epoch {
            if known.1.len() == ENDED_MAX {
                known.1.pop_front();
            }
            known.1.push_back(before.epoch);
        }
        self.highest.store(last, Ordering::SeqCst);
    }
}
