//! The incarnation of a stream that a node assumes, and the highest sequence that it knows of.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::position::Epoch;
use crate::sync::lock;

/// The number of ended epochs of a stream that are remembered. An epoch ends when a stream is lost, which is rare.
const ENDED_MAX: usize = 16;

/// The identity of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub epoch: Epoch,
    /// The stream's creation time, as the server reports it.
    pub created: String,
}

/// A node's knowledge of a stream's epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub identity: Identity,
    /// The newest sequence that is known to exist.
    pub highest: u64,
    /// Epochs that this node has seen end. They stay ended, whatever a restored record says.
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
    /// Held while the epoch is read or changed.
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

    /// Records that this sequence exists.
    pub(super) fn has(&self, seq: u64) {
        self.highest.fetch_max(seq, Ordering::SeqCst);
    }

    pub(super) fn has_ended(&self, epoch: Epoch) -> bool {
        lock(&self.known).1.contains(&epoch)
    }

    /// Returns everything that is known. Call it before the stream is queried: the stream must have everything known by
    /// then.
    pub(super) fn known(&self) -> Known {
        let highest = self.highest();
        let (identity, ended) = lock(&self.known).clone();
        Known {
            identity,
            highest,
            ended,
        }
    }

    /// Takes another identity. Earlier knowledge of the stream no longer holds.
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
