//! Nobody else: the node is the whole deployment.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Asked, Command, NotRevoked, Others, Revoked, To};
use crate::hub::Shards;
use crate::notice::Notice;
use crate::policy::{Policy, Revocation};

/// No other nodes.
pub struct Alone {
    node_id: String,
    shards: Shards,
    policy: Arc<dyn Policy>,
}

impl Alone {
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

impl Others for Alone {
    fn ask(&self, _: To, _: Command) -> BoxFuture<'_, Asked> {
        Box::pin(std::future::ready(Asked::default()))
    }

    /// The policy is told first: whoever joins from here on is refused, and whoever is in already is taken out next.
    fn revoke(
        &self,
        revocation: Revocation,
        ttl: Duration,
        notice: Notice,
    ) -> BoxFuture<'_, Result<Revoked, NotRevoked>> {
        Box::pin(async move {
            self.policy.revoke(revocation.clone(), ttl);
            let memberships = self.shards.revoke(&revocation, &notice).await?;
            Ok(Revoked {
                confirmed: vec![self.node_id.clone()],
                unconfirmed: Vec::new(),
                memberships,
            })
        })
    }
}
