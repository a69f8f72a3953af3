//! Withdrawing access.

use std::time::Duration;

use crate::api::credentials::{Caller, Scope};
use crate::api::status::{Invalid, Refusal};
use crate::api::{Shared, convert};
use crate::identity::UserId;
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
        convert::required(&request.required_features)?;
        let revocation = Revocation {
            user: subject(request.subject.as_ref())?,
            scope: scope(&tenant, request.scope.as_ref())?,
            tenant,
        };
        if request.issued_before.is_some() {
            return Err(Refusal::Unimplemented("issued_before"));
        }
        let ttl = ttl(request.ttl)?;
        let notice = convert::notice(&request.reason, &request.message)?;
        let revoked = self.context.everywhere.revoke(revocation, ttl, &notice).await?;
        Ok(v1::RevokeResponse {
            revocation_id: String::new(),
            confirmed_node_ids: revoked.confirmed,
            unconfirmed_node_ids: revoked.unconfirmed,
            removed_membership_count: revoked.memberships,
        })
    }

    #[expect(clippy::unused_async, reason = "as every method, and it will wait for nodes")]
    pub(super) async fn restore(
        &self,
        caller: &Caller,
        request: v1::RestoreRequest,
    ) -> Result<v1::RestoreResponse, Refusal> {
        caller.check_scope(Scope::Manage)?;
        let tenant = convert::tenant(&request.tenant)?;
        caller.check(Scope::Manage, tenant.as_str())?;
        Err(Refusal::Unimplemented("restore"))
    }

    #[expect(clippy::unused_async, reason = "as every method")]
    pub(super) async fn list_revocations(
        &self,
        caller: &Caller,
        request: v1::ListRevocationsRequest,
    ) -> Result<v1::ListRevocationsResponse, Refusal> {
        caller.check_scope(Scope::Read)?;
        let tenant = convert::tenant(&request.tenant)?;
        caller.check(Scope::Read, tenant.as_str())?;
        Err(Refusal::Unimplemented("list_revocations"))
    }
}

fn subject(subject: Option<&v1::revoke_request::Subject>) -> Result<UserId, Refusal> {
    use v1::revoke_request::Subject;
    match subject {
        Some(Subject::UserId(user)) => convert::user("user_id", user),
        Some(Subject::ConnectionId(_)) => Err(Refusal::Unimplemented("revoke of a connection")),
        Some(Subject::TokenId(_)) => Err(Refusal::Unimplemented("revoke of a token")),
        None => Err(Refusal::field("subject", "a user, a connection or a token is required")),
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
