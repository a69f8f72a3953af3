//! Other rules, keys and limits for a gateway that runs.
//!
//! Everything is checked before anything is changed, so a swap is whole or is none. Each swap is atomic for whoever reads it: a
//! question, a token or a command is judged by the old settings or by the new ones. Each node of a deployment swaps for itself.

use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;

use super::Gateway;
use crate::admission::{self, Admission};
use crate::auth::{self, AuthConfigError, JwtAuthenticator};
use crate::policy::{self, PolicyError, RulePolicy};
use crate::session;
use crate::sync::lock;

/// The settings that a gateway may be given while it runs; those of [`super::Config`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Permissions of clients. Memberships that they do not allow any more end, except those that a backend granted; whoever
    /// is connected stays so, whatever the conditions for connecting.
    pub policy: policy::Config,
    /// Tokens of clients. They hold for tokens shown from here on: a key that is removed ends no session.
    pub auth: auth::Config,
    /// The limits of one client. They hold for what comes next: nobody leaves a room or is closed because a limit fell.
    pub session: session::Config,
    /// The limits on connections. They hold for new ones.
    pub connections: admission::Config,
}

impl Settings {
    /// The part of a configuration that may change.
    #[must_use]
    pub fn of(config: &super::Config) -> Self {
        Self {
            policy: config.policy.clone(),
            auth: config.auth.clone(),
            session: config.session.clone(),
            connections: config.connections,
        }
    }
}

/// The outcome of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The settings that changed, as the configuration names them.
    pub changed: Vec<&'static str>,
    /// The memberships on this node that ended because the new rules do not allow them.
    pub ended: u32,
}

/// The reason that settings are not applied. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Some cannot change while the gateway runs.
    #[error("cannot change while the node runs: {}", .0.join(", "))]
    Fixed(Vec<&'static str>),
    /// The keys for client tokens cannot be used.
    #[error("auth: {0}")]
    Auth(#[from] AuthConfigError),
    /// A rule cannot be used.
    #[error("policy: {0}")]
    Policy(#[from] PolicyError),
}

/// The parts that are swapped, and the settings in force.
pub(super) struct Swappable {
    pub auth: Arc<JwtAuthenticator>,
    pub policy: Arc<RulePolicy>,
    pub session: Arc<ArcSwap<session::Config>>,
    pub admission: Arc<Admission>,
    /// Held for the length of a swap, which waits for nothing.
    pub in_force: Mutex<Settings>,
}

impl Swappable {
    fn lock(&self) -> MutexGuard<'_, Settings> {
        lock(&self.in_force)
    }

    /// Checks and swaps; answers what changed.
    fn swap(&self, settings: Settings) -> Result<Vec<&'static str>, ApplyError> {
        let mut in_force = self.lock();
        let (changed, fixed) = compare(&in_force, &settings);
        if !fixed.is_empty() {
            return Err(ApplyError::Fixed(fixed));
        }
        let auth = self.auth.prepare(&settings.auth)?;
        let policy = self.policy.prepare(&settings.policy)?;
        // From here on nothing can fail. Keys that stand in files are read anew even where their names are the same.
        self.auth.swap(auth);
        if in_force.policy != settings.policy {
            self.policy.swap(policy);
        }
        self.session.store(Arc::new(settings.session.clone()));
        self.admission.limit(settings.connections);
        *in_force = settings;
        Ok(changed)
    }
}

impl Gateway {
    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.swappable.lock().clone()
    }

    /// Swaps rules, keys and limits, all or none, and ends the memberships that the new rules do not allow. When it returns,
    /// none of them is left on this node, except where an authorizer gave no decision: it is asked again. Revocations are not
    /// touched.
    ///
    /// # Errors
    /// Every variant of [`ApplyError`].
    ///
    /// # Cancel safety
    /// A future that is dropped has swapped nothing, or everything; memberships are rechecked all the same.
    pub async fn apply(&self, settings: Settings) -> Result<Applied, ApplyError> {
        let changed = self.swappable.swap(settings)?;
        let rules_changed = changed.iter().any(|name| name.starts_with("policy."));
        let ended = if rules_changed {
            // A node that shuts down sends everybody away.
            self.shards.recheck().await.unwrap_or(0)
        } else {
            0
        };
        tracing::info!(?changed, ended, "settings applied");
        Ok(Applied { changed, ended })
    }
}

/// The names of settings that differ: those that may, and those that cannot change while the node runs. Every field of the
/// type is in one of the lists; a new one is a compile error until somebody decides.
macro_rules! differing {
    ($old:expr, $new:expr, $type:ident, [$($field:ident: $name:literal),* $(,)?], fixed: [$($fixed:ident: $fixed_name:literal),* $(,)?]) => {{
        let $type { $($field: _,)* $($fixed: _,)* } = $old;
        let differing: [(bool, &'static str); _] = [$(($old.$field != $new.$field, $name)),*];
        let fixed: [(bool, &'static str); _] = [$(($old.$fixed != $new.$fixed, $fixed_name)),*];
        (named(&differing), named(&fixed))
    }};
}

fn named(settings: &[(bool, &'static str)]) -> Vec<&'static str> {
    let differing = settings.iter().filter(|(differs, _)| *differs);
    differing.map(|(_, name)| *name).collect()
}

/// Compares the settings; answers the names of those that differ, and of those among them that cannot change: clients or other
/// nodes have been told of them.
fn compare(old: &Settings, new: &Settings) -> (Vec<&'static str>, Vec<&'static str>) {
    use admission::Config as Connections;
    use auth::Config as Auth;
    use policy::Config as Policy;
    use session::Config as Session;
    let sections = [
        differing!(
            &old.policy,
            &new.policy,
            Policy,
            [
                rules: "policy.rules",
                connect: "policy.connect",
                auto_join: "policy.auto_join",
                authorizer: "policy.authorizer",
                revocations_max: "policy.revocations_max",
                revocations_per_tenant_max: "policy.revocations_per_tenant_max",
            ],
            fixed: []
        ),
        differing!(
            &old.auth,
            &new.auth,
            Auth,
            [
                issuers: "auth.issuers",
                token_bytes_max: "auth.token_bytes_max",
                leeway: "auth.leeway",
                lifetime_max: "auth.lifetime_max",
            ],
            fixed: []
        ),
        differing!(
            &old.session,
            &new.session,
            Session,
            [
                authentication_timeout: "session.authentication_timeout",
                expiry_notice: "session.expiry_notice",
                rooms_max: "session.rooms_max",
                join_rate: "session.join_rate",
                publish_rate: "session.publish_rate",
                rate_strikes_max: "session.rate_strikes_max",
                commands_waiting_max: "session.commands_waiting_max",
                asks_max: "session.asks_max",
                asked_max: "session.asked_max",
                malformed_max: "session.malformed_max",
                replay: "session.replay",
            ],
            fixed: [
                heartbeat_interval: "session.heartbeat_interval",
                heartbeat_grace: "session.heartbeat_grace",
                payload_bytes_max: "session.payload_bytes_max",
                state_bytes_max: "presence.state_bytes_max",
                listed_max: "presence.listed_max",
            ]
        ),
        differing!(
            &old.connections,
            &new.connections,
            Connections,
            [
                connections_max: "connections.connections_max",
                per_user_max: "connections.per_user_max",
                per_address_max: "connections.per_address_max",
            ],
            fixed: []
        ),
    ];
    let (changed, fixed): (Vec<_>, Vec<_>) = sections.into_iter().unzip();
    (changed.concat(), fixed.concat())
}
