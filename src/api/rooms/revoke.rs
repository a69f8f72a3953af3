//! Revoking access, restoring it, and listing revocations.

use std::time::Duration;

use crate::api::credentials::{Caller, Scope};
use crate::api::page::{self, Query};
use crate::api::status::{Invalid, Refusal};
use crate::api::{ApiServices, convert};
use crate::cluster::Revoke;
use crate::event::Timestamp;
use crate::identity::TokenId;
use crate::policy::{Revocation, RevocationEntry, RevocationId, RevocationScope, RevocationSubject};
use crate::proto::v1;
use crate::room::{RoomGlob, Tenant};

const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The most revocations of one page.
const PAGE_MAX: usize = 1000;

impl ApiServices {
    /// Returns when no node can deliver anything revoked, however long that takes; the gate holds the deadline.
    pub(in crate::api) async fn revoke(
        &self,
        caller: &Caller,
        request: v1::RevokeRequest,
    ) -> Result<v1::RevokeResponse, Refusal> {
        let tenant = tenant(caller, Scope::Manage, &request.tenant)?;
        convert::required(&request.required_features)?;
        let revoke = Revoke {
            revocation: Revocation {
                subject: subject(request.subject.as_ref())?,
                issued_before: request.issued_before.as_ref().map(issued_before).transpose()?,
                scope: scope(&tenant, request.scope.as_ref())?,
                tenant,
            },
            ttl: ttl(request.ttl)?,
            notice: convert::notice(&request.reason, &request.message)?,
        };
        let revoked = self.context.cluster.revoke(revoke).await?;
        Ok(v1::RevokeResponse {
            revocation_id: revoked.id.to_string(),
            confirmed_node_ids: revoked.carried.confirmed,
            unconfirmed_node_ids: revoked.carried.unconfirmed,
            removed_membership_count: revoked.carried.memberships,
        })
    }

    /// Returns when no node refuses anything because of the revocation.
    pub(in crate::api) async fn restore(
        &self,
        caller: &Caller,
        request: v1::RestoreRequest,
    ) -> Result<v1::RestoreResponse, Refusal> {
        let tenant = tenant(caller, Scope::Manage, &request.tenant)?;
        convert::required(&request.required_features)?;
        let id = request.revocation_id.parse();
        let id = id.map_err(|error| Refusal::field("revocation_id", error))?;
        let carried = self.context.cluster.restore(tenant, id).await?;
        Ok(v1::RestoreResponse {
            confirmed_node_ids: carried.confirmed,
            unconfirmed_node_ids: carried.unconfirmed,
        })
    }

    #[expect(clippy::unused_async, reason = "as every method")]
    pub(in crate::api) async fn list_revocations(
        &self,
        caller: &Caller,
        request: v1::ListRevocationsRequest,
    ) -> Result<v1::ListRevocationsResponse, Refusal> {
        let tenant = tenant(caller, Scope::Read, &request.tenant)?;
        let user = match &*request.user_id {
            "" => None,
            user => Some(convert::user("user_id", user)?),
        };
        let query = Query::of(&[b"revocations", tenant.as_str().as_bytes(), request.user_id.as_bytes()]);
        let after = query.cursor(&request.page_token, |cursor| {
            let bits = u128::from_be_bytes(cursor.try_into().ok()?);
            Some(RevocationId::from_bits(bits))
        })?;
        let size = page::size(request.page_size, PAGE_MAX)?;
        self.context.cluster.check_current()?;
        let known = self.context.policy.revocations();
        let (page, more) = known.page(&tenant, user.as_ref(), after, size);
        let last = page.last().filter(|_| more);
        Ok(v1::ListRevocationsResponse {
            next_page_token: last.map_or_else(String::new, |last| query.token(&last.id.bits().to_be_bytes())),
            revocations: page.iter().map(|entry| listed(entry)).collect(),
        })
    }
}

fn tenant(caller: &Caller, scope: Scope, tenant: &str) -> Result<Tenant, Refusal> {
    caller.check_scope(scope)?;
    let tenant = convert::tenant(tenant)?;
    caller.check(scope, tenant.as_str())?;
    Ok(tenant)
}

fn subject(subject: Option<&v1::revoke_request::Subject>) -> Result<RevocationSubject, Refusal> {
    use v1::revoke_request::Subject;
    Ok(match subject {
        Some(Subject::UserId(user)) => RevocationSubject::User(convert::user("user_id", user)?),
        Some(Subject::ConnectionId(id)) => RevocationSubject::Connection(convert::connection("connection_id", id)?),
        Some(Subject::TokenId(id)) => {
            let id = TokenId::parse(id).map_err(|error| Refusal::field("token_id", error))?;
            RevocationSubject::Token(id)
        }
        None => return Err(Refusal::field("subject", "a user, a connection or a token is required")),
    })
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
    let ttl = ttl.and_then(crate::proto::time::duration);
    ttl.filter(|ttl| (TTL_MIN..=TTL_MAX).contains(ttl))
        .ok_or_else(|| Refusal::field("ttl", "is required: 1 s to 30 days"))
}

fn issued_before(time: &prost_types::Timestamp) -> Result<Timestamp, Refusal> {
    let refusal = || Refusal::field("issued_before", "is no moment after 1970");
    let seconds = u64::try_from(time.seconds).map_err(|_| refusal())?;
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let ms = seconds.checked_mul(1000);
    // Rounded up: a token issued within that millisecond was issued before.
    let ms = ms.and_then(|ms| ms.checked_add(nanos?.div_ceil(1_000_000)));
    ms.map(Timestamp).ok_or_else(refusal)
}

fn listed(entry: &RevocationEntry) -> v1::Revocation {
    use v1::revocation::{Scope, Subject};
    let revocation = &entry.revocation;
    v1::Revocation {
        revocation_id: entry.id.to_string(),
        subject: Some(match &revocation.subject {
            RevocationSubject::User(user) => Subject::UserId(user.as_str().to_owned()),
            RevocationSubject::Connection(connection) => Subject::ConnectionId(connection.to_string()),
            RevocationSubject::Token(token) => Subject::TokenId(token.as_str().to_owned()),
        }),
        issued_before: revocation.issued_before.map(convert::time),
        scope: Some(match &revocation.scope {
            RevocationScope::Room(room) => Scope::Room(room.name().to_owned()),
            RevocationScope::Pattern(glob) => Scope::RoomPattern(glob.as_str().to_owned()),
            RevocationScope::Everything => Scope::Everything(v1::EverythingScope {}),
        }),
        create_time: Some(convert::time(entry.created)),
        expire_time: Some(convert::time(entry.expires)),
        reason: entry.notice.reason().to_owned(),
        message: entry.notice.message().to_owned(),
    }
}
