//! Nobody else: the node is the whole deployment.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{AskScope, Carried, NotDone, PeerOutcomes, Peers, Revoke, Revoked};
use crate::event::Timestamp;
use crate::hub::{Order, Shards};
use crate::policy::{Policy, RevocationId, RevocationState};
use crate::room::Tenant;

/// No other nodes.
pub struct NoPeers {
    node_id: String,
    shards: Shards,
    policy: Arc<dyn Policy>,
}

impl NoPeers {
    /// The only node, by its name.
    #[must_use]
    pub fn new(node_id: &str, shards: Shards, policy: Arc<dyn Policy>) -> Self {
        Self {
            node_id: node_id.to_owned(),
            shards,
            policy,
        }
    }
}

impl Peers for NoPeers {
    fn ask(&self, _: AskScope, _: Arc<Order>) -> BoxFuture<'_, PeerOutcomes> {
        Box::pin(std::future::ready(PeerOutcomes::default()))
    }

    /// The policy is told first: whoever joins from here on is refused, and whoever is in already is taken out next.
    fn revoke(&self, revoke: Revoke) -> BoxFuture<'_, Result<Revoked, NotDone>> {
        Box::pin(async move {
            let now = Timestamp::now();
            let entry = Arc::new(revoke.entry(self.policy.revocations(), now)?);
            self.policy.revoke(&entry, entry.left(now));
            let memberships = self.shards.revoke(&entry.revocation, &entry.notice).await?;
            Ok(Revoked {
                id: entry.id,
                carried: self.carried(memberships),
            })
        })
    }

    fn restore(&self, tenant: Tenant, id: RevocationId) -> BoxFuture<'_, Result<Carried, NotDone>> {
        let restored = match self.policy.revocations().find(&tenant, id) {
            Some(RevocationState::InForce(entry)) => {
                let left = entry.left(Timestamp::now());
                self.policy.restore(&tenant, id, entry.expires, left);
                Ok(self.carried(0))
            }
            Some(RevocationState::Restored(_)) => Ok(self.carried(0)),
            None => Err(NotDone::NotFound),
        };
        Box::pin(std::future::ready(restored))
    }
}

impl NoPeers {
    fn carried(&self, memberships: u32) -> Carried {
        Carried {
            confirmed: vec![self.node_id.clone()],
            unconfirmed: Vec::new(),
            memberships,
        }
    }
}
