//! The operator's settings of permission, and their errors.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::room::PatternError;

/// Permission: rules, conditions for connecting, and rooms everybody is put into. The default allows nothing.
///
/// Rules only ever allow. A question is allowed when at least one rule allows it: the rule's pattern matches the room,
/// its `allow` names the action, its `events` or `methods` match the event or the method, its `when` is true, and the
/// authorizer (if the rule asks it) agrees. Their order matters only for which rule is named in logs and permits: the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Policy")]
pub struct Config {
    /// The rules, looked at in this order.
    pub rules: Vec<RuleConfig>,
    /// Who may connect at all.
    pub connect: ConnectConfig,
    /// Rooms that every connection is put into, as templates over claims: `user:{sub}`, `tenant:{tenant_id}`. A claim
    /// used here must be a string or an integer; a token without it cannot connect. A `:` in a claim is written `%3A` in the
    /// room's name, a `%` is written `%25`, and rules read both back.
    pub auto_join: Vec<String>,
    /// The authorizer service, needed when a rule or `connect` asks it.
    pub authorizer: Option<AuthorizerConfig>,
    /// The most revocations in force at once, of all tenants together; about 500 bytes each. One more is refused
    /// (`REVOCATION_LIMIT`); none is ever forgotten.
    pub revocations_max: usize,
    /// The most of one tenant.
    pub revocations_per_tenant_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            connect: ConnectConfig::default(),
            auto_join: Vec::new(),
            authorizer: None,
            revocations_max: 100_000,
            revocations_per_tenant_max: 10_000,
        }
    }
}

/// Conditions for connecting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectConfig {
    /// CEL conditions over `claims` and `user`, all of which must be true: `claims.email_verified == true`.
    pub when: Vec<String>,
    /// Whether the authorizer is asked as well.
    pub authorizer: bool,
}

/// An action as rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActionName {
    /// Become a member and receive events.
    Join,
    /// Publish an event.
    Publish,
    /// See who is there.
    Presence,
    /// Read past events.
    History,
    /// Ask a backend.
    Request,
}

/// One rule. See [`Config`] for how rules combine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// The name, shown in logs and by `explain`; unique.
    pub name: String,
    /// The rooms, as a pattern: `project:{project}`, `doc:{path*}`. A rule without one is about requests that name no
    /// room, and allows nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// What is allowed there.
    pub allow: Vec<ActionName>,
    /// For `publish`: the event names, exact or with a trailing `*` (`task:*`). Every event when empty.
    #[serde(default)]
    pub events: Vec<String>,
    /// For `request`: the methods, exact or with a trailing `*` (`task:*`). Every method when empty.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The condition, in CEL (at most 2 KiB). Variables: `claims`, `user` (`id`, `tenant`), `room` (`name`, `tenant`,
    /// and the variables of the pattern), `event` (`name`) in rules that allow only `publish`, and `request` (`method`) in
    /// rules that allow only `request`. None means always. An expression that fails (a claim that is not there) counts as false; `has(claims.x)` asks first.
    #[serde(default)]
    pub when: Option<String>,
    /// Whether the authorizer must agree as well.
    #[serde(default)]
    pub authorizer: bool,
    /// For `publish`: whether a backend sees the event first and may change or refuse it.
    #[serde(default)]
    pub validate: bool,
}

/// How the authorizer service is called. It has to answer in time; whatever goes wrong is a denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizerConfig {
    /// Where it listens, as `http://host:port` or `https://host:port`. Connected to when first asked.
    pub url: String,
    /// For `https`: the certificate of the authority to trust, in PEM. The system's authorities when not set.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How long an answer may take, connecting included (default 500 ms).
    #[serde(default = "default_timeout", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// The longest an answer is kept, whatever it says itself (default 60 s). Zero keeps none. A kept answer serves all
    /// connections of a user with equal claims.
    #[serde(default = "default_cache_ttl_max", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub cache_ttl_max: Duration,
    /// The most answers kept (default 100,000; about 400 bytes each).
    #[serde(default = "default_cache_entries_max")]
    pub cache_entries_max: usize,
    /// The most questions waiting for an answer at once (default 1,000); more are denied at once.
    #[serde(default = "default_in_flight_max")]
    pub in_flight_max: usize,
}

impl AuthorizerConfig {
    /// The largest answer, in bytes.
    pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

    /// The defaults for an authorizer at `url`.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            timeout: default_timeout(),
            cache_ttl_max: default_cache_ttl_max(),
            cache_entries_max: default_cache_entries_max(),
            in_flight_max: default_in_flight_max(),
        }
    }
}

const fn default_timeout() -> Duration {
    Duration::from_millis(500)
}

const fn default_cache_ttl_max() -> Duration {
    Duration::from_secs(60)
}

const fn default_cache_entries_max() -> usize {
    100_000
}

const fn default_in_flight_max() -> usize {
    1_000
}

/// An error in a policy's configuration. The text is for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule needs a name of its own.
    #[error("rule {number} has {what} name; each rule needs one of its own, it is shown in logs and by `explain`")]
    RuleName {
        /// The rule's place, from 1.
        number: usize,
        /// `no` or `another rule's`.
        what: &'static str,
    },
    /// A room pattern or a template cannot be read.
    #[error("{place}: {source}")]
    Pattern {
        /// The setting.
        place: String,
        /// The cause.
        source: PatternError,
    },
    /// A condition would never work.
    #[error("{place}: {detail}")]
    Expression {
        /// The setting.
        place: String,
        /// The mistake with its place, and perhaps what was meant, over several lines.
        detail: String,
    },
    /// Two settings contradict each other.
    #[error("{place}: {detail}")]
    Contradiction {
        /// The setting.
        place: String,
        /// The contradiction.
        detail: String,
    },
}
