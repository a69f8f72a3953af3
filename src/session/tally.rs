//! What a backend's order comes to: counted while its parts are done, answered when the last one is.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::Refusal;
use crate::error::ErrorCode;
use crate::hub::{JoinRefusal, Joined};

/// Whom the answer goes to.
enum Reply {
    Count(oneshot::Sender<u32>),
    Joined(oneshot::Sender<Joined>),
}

/// Counts, and answers when it is dropped.
pub(super) struct Tally {
    count: Cell<u32>,
    refused: Cell<Option<JoinRefusal>>,
    reply: Cell<Option<Reply>>,
}

impl Tally {
    /// Of an order that is answered with a number.
    pub fn new(reply: oneshot::Sender<u32>) -> Rc<Self> {
        Self::with(Reply::Count(reply))
    }

    /// Of an order to join.
    pub fn of_join(reply: oneshot::Sender<Joined>) -> Rc<Self> {
        Self::with(Reply::Joined(reply))
    }

    fn with(reply: Reply) -> Rc<Self> {
        Rc::new(Self {
            count: Cell::new(0),
            refused: Cell::new(None),
            reply: Cell::new(Some(reply)),
        })
    }

    pub fn add(&self, count: u32) {
        self.count.set(self.count.get() + count);
    }

    pub fn refuse(&self, why: JoinRefusal) {
        self.refused.set(Some(why));
    }

    /// A join has ended.
    pub fn joined(&self, outcome: Result<(), &Refusal>) {
        match outcome {
            Ok(()) => self.add(1),
            Err(refusal) if refusal.code == ErrorCode::Forbidden => self.refuse(JoinRefusal::Revoked),
            Err(_) => self.refuse(JoinRefusal::Unavailable),
        }
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tally({})", self.count.get())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let connections = self.count.get();
        // The asker may have gone; then nobody wants the answer.
        match self.reply.take() {
            Some(Reply::Count(reply)) => drop(reply.send(connections)),
            Some(Reply::Joined(reply)) => drop(reply.send(Joined {
                connections,
                refused: self.refused.get(),
            })),
            None => {}
        }
    }
}
