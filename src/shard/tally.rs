//! The outcome of a backend's join: counted while rooms are entered, answered when the last one is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::oneshot;

use crate::error::ErrorCode;
use crate::hub::{JoinRefusal, Outcome};
use crate::session::Refusal;

/// Counts, and answers when it is dropped.
pub(super) struct JoinTally {
    outcome: RefCell<Outcome>,
    reply: Cell<Option<oneshot::Sender<Outcome>>>,
}

impl JoinTally {
    /// Of an order to join.
    pub fn new(reply: oneshot::Sender<Outcome>) -> Rc<Self> {
        Rc::new(Self {
            outcome: RefCell::default(),
            reply: Cell::new(Some(reply)),
        })
    }

    pub fn add(&self, count: u32) {
        self.outcome.borrow_mut().connections += count;
    }

    pub fn refuse(&self, why: JoinRefusal) {
        self.outcome.borrow_mut().refused = Some(why);
    }

    /// Counts the outcome of a join.
    pub fn joined(&self, outcome: Result<(), &Refusal>) {
        match outcome {
            Ok(()) => self.add(1),
            Err(refusal) if refusal.code == ErrorCode::Forbidden => self.refuse(JoinRefusal::Revoked),
            Err(_) => self.refuse(JoinRefusal::Unavailable),
        }
    }
}

impl std::fmt::Debug for JoinTally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinTally({})", self.outcome.borrow().connections)
    }
}

impl Drop for JoinTally {
    fn drop(&mut self) {
        // The asker may have gone; then nobody wants the answer.
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(self.outcome.take());
        }
    }
}
