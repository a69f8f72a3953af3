//! Withdrawing access and giving it back over all nodes: an operation is written to the control log, and done when every node
//! that may not know it has confirmed it or has no lease any more.

use std::time::Duration;

use tokio::time::Instant;

use super::log::{Expected, ReadBack};
use super::{NatsPeers, wire};
use crate::cluster::barrier::{Barrier, Waits};
use crate::cluster::ledger::{Holders, Operation, Record, Restoration, Withdrawal};
use crate::cluster::{Carried, NotDone, Revoke, Revoked};
use crate::policy::{RevocationId, RevocationState};
use crate::proto::node_v1::ConfirmOrder;
use crate::proto::node_v1::node_answer::Answer as WireAnswer;
use crate::proto::node_v1::node_order::Order as WireOrder;
use crate::room::Tenant;

impl NatsPeers {
    /// Waits until an operation that was written is carried out by all who may not know it, or their leases have ended.
    async fn carried(&self, operation: Operation, mut expected: Expected<'_>) -> (Carried, ReadBack) {
        let mut barrier = Barrier::new();
        let confirm = WireOrder::Confirm(ConfirmOrder {
            operation: wire::id_bytes(operation),
        });
        let mut asking = self.inbox.ask(self.nats.subjects().all_nodes(), confirm);
        let mut own = None;
        loop {
            if let Some(carried) = barrier.outcome(Instant::now())
                && let Some(own) = own.take()
            {
                return (carried, own);
            }
            tokio::select! {
                read_back = expected.read_back(), if own.is_none() => {
                    barrier.confirm(self.nodes.own().incarnation, read_back.memberships);
                    barrier.read(self.waits(&read_back.holders));
                    own = Some(read_back);
                }
                (from, answer) = asking.next() => {
                    if let WireAnswer::Confirmed(confirmed) = answer {
                        barrier.confirm(from, confirmed.memberships);
                    }
                }
                () = until(barrier.due()) => {}
            }
        }
    }

    /// Until when they are waited for. Counted from now, when the operation has just been read: that is later than when it
    /// was stored, and each lease that does not cover it was taken before. By each node's own length.
    fn waits(&self, holders: &Holders) -> Waits<Instant> {
        let (now, margin) = (Instant::now(), self.config.lease_margin);
        let known = holders.known.iter();
        Waits {
            holders: known
                .map(|holder| (holder.clone(), now + holder.lease + margin))
                .collect(),
            heard: self.nodes.unreleased(),
            unknown: match holders.unknown {
                Duration::ZERO => now,
                unknown => now + unknown + margin,
            },
        }
    }

    pub(super) async fn withdraw(&self, revoke: Revoke) -> Result<Revoked, NotDone> {
        loop {
            let known = self.policy.revocations();
            let entry = revoke.clone().entry(known, self.log.now())?;
            let operation = rand::random();
            // How long it lasts counts from when the record is stored, which is not known yet.
            let record = Record::Withdraw(Withdrawal {
                created: None,
                ttl: revoke.ttl,
                operation,
                ..Withdrawal::again(&entry)
            });
            let expected = self.log.expect(operation);
            self.log.write(operation, &record).await?;
            let (carried, own) = self.carried(operation, expected).await;
            // It was to prolong one that was taken back at the same time: that one stays so, and another one is made.
            if !own.in_vain {
                return Ok(Revoked { id: entry.id, carried });
            }
        }
    }

    pub(super) async fn give_back(&self, tenant: Tenant, id: RevocationId) -> Result<Carried, NotDone> {
        let expires = match self.policy.revocations().find(&tenant, id) {
            Some(RevocationState::InForce(entry)) => entry.expires,
            Some(RevocationState::Restored(expires)) => expires,
            // Known here is all that was answered, as long as the lease holds.
            None if self.log.is_current() => return Err(NotDone::NotFound),
            None => return Err(NotDone::Behind),
        };
        let operation = rand::random();
        let record = Record::Restore(Restoration {
            operation,
            tenant,
            id,
            expires,
        });
        let expected = self.log.expect(operation);
        self.log.write(operation, &record).await?;
        Ok(self.carried(operation, expected).await.0)
    }
}

/// Waits until then; for ever when there is no such moment.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
