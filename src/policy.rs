//! Permission: who may do what in which room. Default deny.
//!
//! Only this module can make a [`Permit`]; whatever joins, publishes or reads takes one. The port knows no socket and no
//! bus.

mod authorizer;
mod auto_join;
mod check;
mod claims;
mod config;
mod expression;
mod permit;
mod revocation;
mod revocations;
mod rule;
mod rules;
mod ruleset;
mod variables;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::event::{EventName, Timestamp};
use crate::identity::{ConnectionId, Expiry, Identity};
use crate::room::{Room, Tenant};

pub use config::{ActionName, AuthorizerConfig, Config, ConnectConfig, PolicyError, RuleConfig};
pub use permit::{Edition, Permit, Service, TenantPermit, Terms};
pub use revocation::{
    Bearer, Revocation, RevocationEntry, RevocationId, RevocationIdError, RevocationScope, RevocationSubject,
};
pub use revocations::{RevocationEffect, RevocationLimit, RevocationState, Revocations};
pub use rules::{Prepared, RulePolicy};

/// An action of a client in a room. Each command is one of these: the session asks before it acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Become a member: receive its events and last values, and be shown there with a state of one's own.
    Join,
    /// Publish an event of this name.
    Publish(EventName),
    /// See who is there.
    Presence,
    /// Read past events, by a history query or by resuming.
    History,
    /// Ask a backend by this method, about the room or, where it is nameless, about none.
    Request(EventName),
}

impl Action {
    /// The action's name in rules and logs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Publish(_) => "publish",
            Self::Presence => "presence",
            Self::History => "history",
            Self::Request(_) => "request",
        }
    }
}

/// One question to the policy.
#[derive(Debug, Clone)]
pub struct Question {
    /// The asker.
    pub identity: Arc<Identity>,
    /// Over which connection; an authorizer may want to know.
    pub connection: ConnectionId,
    /// The room. Its tenant is always the asker's. Nameless only for a request that is about no room.
    pub room: Room,
    /// The action.
    pub action: Action,
}

impl Question {
    /// The asker as revocations see it.
    #[must_use]
    pub fn bearer(&self) -> Bearer<'_> {
        Bearer {
            identity: &self.identity,
            connection: self.connection,
        }
    }
}

/// A refusal. The client reads only [`crate::error::ErrorCode::Forbidden`]; this is for the log and for `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule that decided, or `None` where no rule allowed it.
    pub rule: Option<Arc<str>>,
    /// The reason, for an operator.
    pub reason: Arc<str>,
    /// No decision was obtained (the authorizer is away): it is not a no.
    pub undecided: bool,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "denied by {}: {}",
            self.rule.as_deref().unwrap_or("default"),
            self.reason
        )
    }
}

impl std::error::Error for Denied {}

/// The decision of a question, step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The outcome.
    pub allowed: bool,
    /// The rule that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// The reason, for an operator.
    pub reason: Arc<str>,
    /// Each rule looked at, in order, and what it said.
    pub considered: Vec<(Arc<str>, Arc<str>)>,
}

/// That a client may connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admitted {
    /// For the rooms an authorizer puts the connection into.
    pub rooms: Vec<Permit>,
    /// The end of the session, if before its token's.
    pub expires: Option<Expiry>,
}

/// Decides.
pub trait Policy: Send + Sync + 'static {
    /// Decides whether an authenticated client may connect at all (claim predicates, authorizer). The rooms are those an
    /// authorizer puts this connection into; [`Policy::auto_join`] gives those of the templates.
    ///
    /// # Errors
    /// [`Denied`]; also when no decision can be had in time.
    fn admit<'a>(&'a self, identity: &'a Identity, connection: ConnectionId)
    -> BoxFuture<'a, Result<Admitted, Denied>>;

    /// Decides one question. Revocations are checked first.
    ///
    /// # Errors
    /// [`Denied`]; also when no decision can be had in time (fail closed).
    fn authorize(&self, question: Question) -> BoxFuture<'_, Result<Permit, Denied>>;

    /// Decides without effect and says how.
    fn explain(&self, question: Question) -> BoxFuture<'_, Explanation>;

    /// Refuses every later question that the revocation covers until `left` has passed, or it is taken back. In effect when
    /// this returns.
    fn revoke(&self, entry: &Arc<RevocationEntry>, left: Duration) -> RevocationEffect;

    /// Takes a revocation back, known or not: it has no effect from here on, also if [`Self::revoke`] comes later. It would
    /// have ended by itself at `expires`, when `left` has passed.
    fn restore(&self, tenant: &Tenant, id: RevocationId, expires: Timestamp, left: Duration);

    /// The revocations that are known.
    fn revocations(&self) -> &Revocations;

    /// Reports whether a revocation in force keeps this session out of this room.
    fn is_revoked(&self, bearer: Bearer<'_>, room: &Room) -> bool {
        self.revocations().covering(bearer, room).is_some()
    }

    /// The rooms every connection of this identity is put into, with their permits; their names come from templates.
    ///
    /// # Errors
    /// [`Denied`] when a template needs a claim that the identity has not, or makes a name that is no room.
    fn auto_join(&self, bearer: Bearer<'_>) -> Result<Vec<Permit>, Denied>;

    /// The edition of the rules in force.
    fn edition(&self) -> Edition;

    /// Returns whether rules made the permit that are in force no longer. Whoever admits by an older permit asks again: the
    /// recheck of memberships that follows a swap may have passed already.
    fn is_outdated(&self, permit: &Permit) -> bool {
        permit.edition().is_some_and(|edition| edition != self.edition())
    }
}
