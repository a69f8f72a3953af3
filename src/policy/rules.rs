//! The policy of a running gateway: revocations, then rules, then the authorizer where a rule asks it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use super::authorizer::Answer;
use super::claims::KeptClaims;
use super::config::{Config, PolicyError};
use super::permit::Edition;
use super::rule::{Opinion, Rule};
use super::ruleset::{RuleSet, denied};
use super::{
    Action, Admitted, Bearer, Denied, Explanation, Permit, Policy, Question, RevocationEffect, RevocationEntry,
    RevocationId, Revocations,
};
use crate::event::Timestamp;
use crate::identity::{ConnectionId, Identity};
use crate::room::{Room, RoomError, Tenant};
use crate::sync::lock;

/// Rules, and the revocations that stand above them. The rules are replaced as a whole; revocations are not touched by it.
#[derive(Debug)]
pub struct RulePolicy {
    in_force: ArcSwap<RuleSet>,
    /// Taken by whoever replaces the rules, so that editions are stored in their order.
    swapping: Mutex<()>,
    revocations: Revocations,
    claims: KeptClaims,
}

/// Rules that were compiled to take the place of those in force; see [`RulePolicy::prepare`].
#[derive(Debug)]
pub struct Prepared {
    rules: RuleSet,
    revocations_max: usize,
    revocations_per_tenant_max: usize,
}

/// The rules looked at and what each said, where somebody wants to know.
type Trace<'t> = Option<&'t mut Vec<(Arc<str>, Arc<str>)>>;

impl RulePolicy {
    /// Compiles and checks a configuration.
    ///
    /// # Errors
    /// Every variant of [`PolicyError`]; the text names the rule and shows the place.
    pub fn new(config: &Config) -> Result<Self, PolicyError> {
        Ok(Self {
            in_force: ArcSwap::from_pointee(RuleSet::compile(config, None)?),
            swapping: Mutex::default(),
            revocations: Revocations::new(config.revocations_max, config.revocations_per_tenant_max),
            claims: KeptClaims::default(),
        })
    }

    /// Compiles and checks rules that may take the place of those in force. An authorizer whose settings are unchanged stays,
    /// with the answers it keeps; another one begins with none.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn prepare(&self, config: &Config) -> Result<Prepared, PolicyError> {
        let current = self.in_force.load();
        Ok(Prepared {
            rules: RuleSet::compile(config, current.authorizer.as_ref())?,
            revocations_max: config.revocations_max,
            revocations_per_tenant_max: config.revocations_per_tenant_max,
        })
    }

    /// Puts rules in force. Every question from here on is decided by them; one that is being decided ends with a permit of
    /// the edition before. Lower limits of revocations hold for the next one and end none.
    pub fn swap(&self, prepared: Prepared) -> Edition {
        let Prepared {
            mut rules,
            revocations_max,
            revocations_per_tenant_max,
        } = prepared;
        let _turn = lock(&self.swapping);
        let edition = self.in_force.load().edition.next();
        rules.edition = edition;
        self.revocations.limit(revocations_max, revocations_per_tenant_max);
        self.in_force.store(Arc::new(rules));
        edition
    }

    async fn decide(&self, question: &Question, mut trace: Trace<'_>) -> Result<Permit, Denied> {
        let in_force = self.in_force.load_full();
        self.refuse_outright(question)?;
        let mut refusal = match self.allow_outright(&in_force, question) {
            Some(permit) => return Ok(permit),
            None => denied(None, "no rule allows it"),
        };
        let claims = self.claims.of(&question.identity);
        for rule in &in_force.rules {
            let (opinion, terms) = in_force.opinion(rule, question, &claims).await;
            if let Some(trace) = trace.as_deref_mut() {
                trace.push((rule.name.clone(), rule.explain(&opinion, question, &claims)));
            }
            if opinion == Opinion::Allows {
                // Something may have been revoked while the authorizer was asked.
                self.refuse_outright(question)?;
                return Ok(grant(question, rule).by(in_force.edition).under(terms));
            }
            if opinion.is_noteworthy() && !refusal.undecided {
                refusal = Denied {
                    undecided: matches!(opinion, Opinion::Undecided(_)),
                    ..denied(Some(&rule.name), &opinion.text())
                };
            }
        }
        Err(refusal)
    }

    /// Rooms everybody is put into may be joined, too: after a reconnect, or when a new token is checked.
    fn allow_outright(&self, rules: &RuleSet, question: &Question) -> Option<Permit> {
        let joins = question.action == Action::Join && !rules.auto_join.is_empty();
        let permits = joins.then(|| self.home_permits(rules, question.bearer()).ok())??;
        permits.into_iter().find(|permit| *permit.room() == question.room)
    }

    fn home_permits(&self, rules: &RuleSet, bearer: Bearer<'_>) -> Result<Vec<Permit>, Denied> {
        let mut permits = rules.home_permits(bearer.identity)?;
        permits.retain(|permit| !self.is_revoked(bearer, permit.room()));
        Ok(permits)
    }

    /// Refuses what no rule can allow: another tenant's room, and what was revoked.
    fn refuse_outright(&self, question: &Question) -> Result<(), Denied> {
        let identity = &question.identity;
        if question.room.tenant() != identity.tenant.as_str() {
            return Err(denied(None, "the room is another tenant's"));
        }
        if let Some(id) = self.revocations.covering(question.bearer(), &question.room) {
            let reason = format!("access was revoked, by revocation {id}");
            return Err(denied(Some(&"revocation".into()), &reason));
        }
        Ok(())
    }

    /// Evaluates the authorizer's answer to connect.
    fn admitted(&self, bearer: Bearer<'_>, answer: Answer) -> Result<Admitted, Denied> {
        let by = Arc::from("connect");
        let (reason, undecided) = match answer {
            Answer::Allow(names, terms) => match home_rooms(bearer.identity, &names, &by) {
                Ok(mut permits) => {
                    permits.retain(|permit| !self.is_revoked(bearer, permit.room()));
                    return Ok(Admitted {
                        rooms: permits,
                        expires: terms.expires,
                    });
                }
                Err(error) => (format!("a room of the authorizer's answer {error}").into(), true),
            },
            Answer::Deny(reason) => (reason, false),
            Answer::Undecided(reason) => (reason, true),
        };
        Err(Denied {
            undecided,
            ..denied(Some(&by), &reason)
        })
    }
}

impl Policy for RulePolicy {
    fn admit<'a>(
        &'a self,
        identity: &'a Identity,
        connection: ConnectionId,
    ) -> BoxFuture<'a, Result<Admitted, Denied>> {
        Box::pin(async move {
            let in_force = self.in_force.load_full();
            in_force.admit_by_claims(identity)?;
            match &in_force.authorizer {
                Some(authorizer) if in_force.connect_authorizer => {
                    let answer = authorizer.admit(identity, connection).await;
                    let bearer = Bearer { identity, connection };
                    self.admitted(bearer, answer)
                }
                _ => Ok(Admitted::default()),
            }
        })
    }

    fn authorize(&self, question: Question) -> BoxFuture<'_, Result<Permit, Denied>> {
        Box::pin(async move { self.decide(&question, None).await })
    }

    fn explain(&self, question: Question) -> BoxFuture<'_, Explanation> {
        Box::pin(async move {
            let mut considered = Vec::new();
            let decision = self.decide(&question, Some(&mut considered)).await;
            let (rule, reason) = match &decision {
                Ok(permit) => (Some(permit.rule().into()), "the rule allows it".into()),
                Err(denied) => (denied.rule.clone(), denied.reason.clone()),
            };
            Explanation {
                allowed: decision.is_ok(),
                rule,
                reason,
                considered,
            }
        })
    }

    fn revoke(&self, entry: &Arc<RevocationEntry>, left: Duration) -> RevocationEffect {
        let effect = self.revocations.revoke(entry, left);
        // Looked up after the revocation is in force: an authorizer that comes later is asked about nothing it covers.
        if let Some(authorizer) = &self.in_force.load().authorizer {
            authorizer.forget(&entry.revocation);
        }
        effect
    }

    fn restore(&self, tenant: &Tenant, id: RevocationId, expires: Timestamp, left: Duration) {
        self.revocations.restore(tenant, id, expires, left);
    }

    fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    fn auto_join(&self, bearer: Bearer<'_>) -> Result<Vec<Permit>, Denied> {
        self.home_permits(&self.in_force.load(), bearer)
    }

    fn edition(&self) -> Edition {
        self.in_force.load().edition
    }
}

/// Permits for the rooms an authorizer puts a connection into: always of the identity's tenant.
fn home_rooms(identity: &Identity, names: &[String], by: &Arc<str>) -> Result<Vec<Permit>, RoomError> {
    let rooms = names.iter().map(|name| Room::parse(&identity.tenant, name));
    let permit = |room| Permit::grant(room, Action::Join, by.clone(), false);
    rooms.map(|room| room.map(permit)).collect()
}

fn grant(question: &Question, rule: &Rule) -> Permit {
    let validated = rule.validate && matches!(question.action, Action::Publish(_));
    Permit::grant(
        question.room.clone(),
        question.action.clone(),
        rule.name.clone(),
        validated,
    )
}

#[cfg(test)]
pub(super) mod tests;
