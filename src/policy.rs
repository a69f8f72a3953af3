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
mod revocations;
mod rule;
mod rules;
mod variables;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::event::EventName;
use crate::identity::{ConnectionId, Identity, UserId};
use crate::room::{Room, RoomGlob, Tenant};

pub use config::{ActionName, AuthorizerConfig, Config, ConnectConfig, PolicyError, RuleConfig};
pub use permit::{Permit, Service};
pub use rules::RulePolicy;

/// What a client wants to do in a room. Whatever a command does is one of these: the session asks before it acts.
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
    /// Who asks.
    pub identity: Arc<Identity>,
    /// Over which connection; an authorizer may want to know.
    pub connection: ConnectionId,
    /// The room. Its tenant is always the asker's. Nameless only for a request that is about no room.
    pub room: Room,
    /// What for.
    pub action: Action,
}

/// A refusal. The client reads only [`crate::error::ErrorCode::Forbidden`]; this is for the log and for `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule that decided, or `None` where no rule allowed it.
    pub rule: Option<Arc<str>>,
    /// Why, for an operator.
    pub reason: Arc<str>,
    /// Whether the decision could not be had (the authorizer is away) rather than being a no.
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

/// How a question was decided, step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The outcome.
    pub allowed: bool,
    /// The rule that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// Why, for an operator.
    pub reason: Arc<str>,
    /// Each rule looked at, in order, and what it said.
    pub considered: Vec<(Arc<str>, Arc<str>)>,
}

/// A session as revocations see it.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    /// What its present token said.
    pub identity: &'a Identity,
    /// Its connection.
    pub connection: ConnectionId,
}

/// Which rooms a revocation hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationScope {
    /// One room.
    Room(Room),
    /// Every room whose name matches.
    Pattern(RoomGlob),
    /// Every room of the tenant.
    Everything,
}

/// Whom and where a revocation hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: UserId,
    /// The rooms.
    pub scope: RevocationScope,
}

impl Revocation {
    /// Whether this user in this room is hit.
    #[must_use]
    pub fn covers(&self, user: &UserId, room: &Room) -> bool {
        self.user == *user
            && self.tenant.as_str() == room.tenant()
            && match &self.scope {
                RevocationScope::Room(revoked) => revoked == room,
                RevocationScope::Pattern(glob) => glob.matches(room.name()),
                RevocationScope::Everything => true,
            }
    }
}

/// Decides.
pub trait Policy: Send + Sync + 'static {
    /// Decides whether an authenticated client may connect at all (claim predicates, authorizer). The permits are for
    /// the rooms an authorizer puts this connection into; [`Policy::auto_join`] gives those of the templates.
    ///
    /// # Errors
    /// [`Denied`]; also when no decision can be had in time.
    fn admit<'a>(
        &'a self,
        identity: &'a Identity,
        connection: ConnectionId,
    ) -> BoxFuture<'a, Result<Vec<Permit>, Denied>>;

    /// Decides one question. Revocations are checked first.
    ///
    /// # Errors
    /// [`Denied`]; also when no decision can be had in time (fail closed).
    fn authorize(&self, question: Question) -> BoxFuture<'_, Result<Permit, Denied>>;

    /// Decides without effect and says how.
    fn explain(&self, question: Question) -> BoxFuture<'_, Explanation>;

    /// Refuses every later question that `revocation` covers for as long as `ttl`. In effect when this returns.
    fn revoke(&self, revocation: Revocation, ttl: Duration);

    /// Whether a revocation in force keeps this session out of this room.
    fn is_revoked(&self, bearer: Bearer<'_>, room: &Room) -> bool;

    /// The rooms every connection of this identity is put into, with their permits; their names come from templates.
    ///
    /// # Errors
    /// [`Denied`] when a template needs a claim that the identity has not, or makes a name that is no room.
    fn auto_join(&self, identity: &Identity) -> Result<Vec<Permit>, Denied>;
}
