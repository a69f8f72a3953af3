//! Withdrawing access and giving it back: what is asked for, and what it comes to.

use std::time::Duration;

use crate::event::Timestamp;
use crate::hub::ShardsGone;
use crate::notice::Notice;
use crate::policy::{Revocation, RevocationEntry, RevocationId, RevocationLimit, Revocations};
use crate::units::millis;

/// A revocation to be made, and its notice to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    /// The subject and the rooms.
    pub revocation: Revocation,
    /// The time for which it is in force, from when it was stored.
    pub ttl: Duration,
    /// The notice to clients.
    pub notice: Notice,
}

impl Revoke {
    /// The revocation that is to be stored. One that says the same and is in force is prolonged, so that a call may be
    /// repeated.
    ///
    /// # Errors
    /// [`RevocationLimit`] when it would be one more than there may be.
    pub fn entry(self, known: &Revocations, now: Timestamp) -> Result<RevocationEntry, RevocationLimit> {
        let ttl_ms = millis(self.ttl);
        let (id, created) = if let Some(equal) = known.equal(&self.revocation) {
            (equal.id, equal.created)
        } else {
            known.check_limits(&self.revocation)?;
            (RevocationId::new(now), now)
        };
        Ok(RevocationEntry {
            id,
            revocation: self.revocation,
            created,
            expires: Timestamp(now.0.saturating_add(ttl_ms)),
            notice: self.notice,
        })
    }
}

/// The nodes that have carried out a withdrawal of access, or its return.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carried {
    /// The nodes that have carried it out.
    pub confirmed: Vec<String>,
    /// The nodes that have not confirmed it. They deliver nothing until they have carried it out.
    pub unconfirmed: Vec<String>,
    /// The memberships that ended on the nodes that have confirmed.
    pub memberships: u32,
}

/// The outcome of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Names it.
    pub id: RevocationId,
    /// The nodes that have carried it out.
    pub carried: Carried,
}

/// Reason why a withdrawal of access, or its return, is not done, or perhaps is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// It was not taken down, and is in force nowhere.
    #[error("it was not stored: {0}")]
    NotStored(&'static str),
    /// It is not known whether it was taken down.
    #[error("perhaps it was stored: {0}")]
    Unknown(&'static str),
    /// There are as many revocations as there may be.
    #[error(transparent)]
    Limit(#[from] RevocationLimit),
    /// There is no such revocation.
    #[error("there is no such revocation")]
    NotFound,
    /// This node has no lease: others may know more than it does.
    #[error("this node does not know what the others know")]
    Behind,
    /// This node is shutting down.
    #[error(transparent)]
    Gone(#[from] ShardsGone),
}
