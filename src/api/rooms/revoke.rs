//! Withdrawing access.

use std::time::Duration;

use crate::api::credentials::{Caller, Scope};
use crate::api::status::{Invalid, Refusal};
use crate::api::{Shared, convert};
use crate::policy::{Revocation, RevocationScope};
use crate::proto::v1;
use crate::room::{RoomGlob, Tenant};

const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

impl Shared {
    /// Returns when no node can deliver anything of it any more, however long that takes; the gate holds the deadline.
    pub(super) async fn revoke(
        &self,
        caller: &Caller,
        request: v1::RevokeRequest,
    ) -> Result<v1::RevokeResponse, Refusal> {
        caller.check_scope(Scope::Manage)?;
        let tenant = convert::tenant(&request.tenant)?;
        caller.check(Scope::Manage, tenant.as_str())?;
        let revocation = Revocation {
            user: convert::user("user_id", &request.user_id)?,
            scope: scope(&tenant, request.scope.as_ref())?,
            tenant,
        };
        let ttl = ttl(request.ttl)?;
        convert::told("reason", &request.reason, 100)?;
        let revoked = self.context.everywhere.revoke(revocation, ttl, &request.reason).await?;
        Ok(v1::RevokeResponse {
            confirmed_node_ids: revoked.confirmed,
            unconfirmed_node_ids: revoked.unconfirmed,
            memberships_removed: revoked.memberships,
        })
    }
}

fn scope(tenant: &Tenant, scope: Option<&v1::revoke_request::Scope>) -> Result<RevocationScope, Refusal> {
    use v1::revoke_request::Scope;
    match scope {
        Some(Scope::Room(name)) => convert::room(tenant, "room", name).map(RevocationScope::Room),
        Some(Scope::RoomPattern(glob)) => RoomGlob::parse(glob)
            .map(RevocationScope::Pattern)
            .map_err(|error| Refusal::invalid(Invalid::Room, "room_pattern", error)),
        Some(Scope::Everything(_)) => Ok(RevocationScope::Everything),
        None => Err(Refusal::field("scope", "a room, a pattern or everything is required")),
    }
}

fn ttl(ttl: Option<prost_types::Duration>) -> Result<Duration, Refusal> {
    let ttl = ttl.and_then(|ttl| Duration::try_from(ttl).ok());
    ttl.filter(|ttl| (TTL_MIN..=TTL_MAX).contains(ttl))
        .ok_or_else(|| Refusal::field("ttl", "is required: 1 s to 30 days"))
}
