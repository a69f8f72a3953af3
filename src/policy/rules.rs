//! The policy of a running gateway: revocations, then rules, then the authorizer where a rule asks it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::authorizer::{Answer, Authorizer};
use super::auto_join::Template;
use super::check::Scope;
use super::claims::{Claims, KeptClaims};
use super::config::{Config, PolicyError};
use super::expression::Expression;
use super::rule::{Opinion, Rule};
use super::variables::Variables;
use super::{
    Action, Admitted, Bearer, Denied, Explanation, Permit, Policy, Question, RevocationEffect, RevocationEntry,
    RevocationId, Revocations, Terms,
};
use crate::event::Timestamp;
use crate::identity::{ConnectionId, Identity};
use crate::room::{Room, RoomError, Tenant};

/// Rules as an operator wrote them, compiled.
#[derive(Debug)]
pub struct RulePolicy {
    rules: Vec<Rule>,
    connect: Vec<Expression>,
    auto_join: Vec<Template>,
    authorizer: Option<Authorizer>,
    connect_authorizer: bool,
    revocations: Revocations,
    claims: KeptClaims,
}

/// The rules looked at and what each said, where somebody wants to know.
type Trace<'t> = Option<&'t mut Vec<(Arc<str>, Arc<str>)>>;

impl RulePolicy {
    /// Compiles and checks a configuration.
    ///
    /// # Errors
    /// Every variant of [`PolicyError`]; the text names the rule and shows the place.
    pub fn new(config: &Config) -> Result<Self, PolicyError> {
        check_names(config)?;
        check_authorizer(config)?;
        let connect = config.connect.when.iter();
        let templates = config.auto_join.iter();
        Ok(Self {
            rules: config.rules.iter().map(Rule::compile).collect::<Result<_, _>>()?,
            connect: connect.map(|source| condition(source)).collect::<Result<_, _>>()?,
            auto_join: templates.map(|text| Template::parse(text)).collect::<Result<_, _>>()?,
            authorizer: config.authorizer.as_ref().map(Authorizer::new).transpose()?,
            connect_authorizer: config.connect.authorizer,
            revocations: Revocations::new(config.revocations_max, config.revocations_per_tenant_max),
            claims: KeptClaims::default(),
        })
    }

    async fn decide(&self, question: &Question, mut trace: Trace<'_>) -> Result<Permit, Denied> {
        self.refuse_outright(question)?;
        let mut refusal = match self.allow_outright(question) {
            Some(permit) => return Ok(permit),
            None => denied(None, "no rule allows it"),
        };
        let claims = self.claims.of(&question.identity);
        for rule in &self.rules {
            let (opinion, terms) = self.opinion(rule, question, &claims).await;
            if let Some(trace) = trace.as_deref_mut() {
                trace.push((rule.name.clone(), rule.explain(&opinion, question, &claims)));
            }
            if opinion == Opinion::Allows {
                // Something may have been revoked while the authorizer was asked.
                self.refuse_outright(question)?;
                return Ok(grant(question, rule).under(terms));
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

    /// What the rule says, and the authorizer where the rule asks it, with the terms of a yes.
    async fn opinion(&self, rule: &Rule, question: &Question, claims: &Claims<'_>) -> (Opinion, Terms) {
        let opinion = rule.consider(question, claims);
        match &self.authorizer {
            Some(authorizer) if rule.authorizer && opinion == Opinion::Allows => {
                match authorizer.decide(question).await {
                    Answer::Allow(_, terms) => (Opinion::Allows, terms),
                    Answer::Deny(reason) => (Opinion::Refused(reason), Terms::default()),
                    Answer::Undecided(reason) => (Opinion::Undecided(reason), Terms::default()),
                }
            }
            _ => (opinion, Terms::default()),
        }
    }

    /// Rooms everybody is put into may be joined, too: after a reconnect, or when a new token is checked.
    fn allow_outright(&self, question: &Question) -> Option<Permit> {
        let joins = question.action == Action::Join && !self.auto_join.is_empty();
        let permits = joins.then(|| self.auto_join(question.bearer()).ok())??;
        permits.into_iter().find(|permit| *permit.room() == question.room)
    }

    /// What no rule can allow: another tenant's room, and what was revoked.
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

    fn admit_by_claims(&self, identity: &Identity) -> Result<(), Denied> {
        let claims = Claims::default();
        let variables = Variables::new(identity, &claims, None);
        for condition in &self.connect {
            match condition.holds(&variables) {
                Ok(true) => {}
                Ok(false) => {
                    let reason = format!("a condition for connecting is false: `{}`", condition.source());
                    return Err(denied(Some(&"connect".into()), &reason));
                }
                Err(why) => return Err(denied(Some(&"connect".into()), &why)),
            }
        }
        Ok(())
    }

    /// What the authorizer's answer to connect comes to.
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
            self.admit_by_claims(identity)?;
            match &self.authorizer {
                Some(authorizer) if self.connect_authorizer => {
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
        if let Some(authorizer) = &self.authorizer {
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
        if self.auto_join.is_empty() {
            return Ok(Vec::new());
        }
        let identity = bearer.identity;
        let claims: Map<String, Value> = serde_json::from_str(identity.claims.as_str())
            .map_err(|_| denied(Some(&"auto_join".into()), "the claims are not an object"))?;
        let mut permits = Vec::with_capacity(self.auto_join.len());
        for template in &self.auto_join {
            let permit = template.permit(identity, &claims)?;
            if !self.is_revoked(bearer, permit.room()) {
                permits.push(permit);
            }
        }
        Ok(permits)
    }
}

/// Permits for the rooms an authorizer puts a connection into: always of the identity's tenant.
fn home_rooms(identity: &Identity, names: &[String], by: &Arc<str>) -> Result<Vec<Permit>, RoomError> {
    let rooms = names.iter().map(|name| Room::parse(&identity.tenant, name));
    let permit = |room| Permit::grant(room, Action::Join, by.clone(), false);
    rooms.map(|room| room.map(permit)).collect()
}

fn denied(rule: Option<&Arc<str>>, reason: &str) -> Denied {
    Denied {
        rule: rule.cloned(),
        reason: reason.into(),
        undecided: false,
    }
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

fn condition(source: &str) -> Result<Expression, PolicyError> {
    Expression::compile(source, &Scope::default()).map_err(|detail| PolicyError::Expression {
        place: "connect, when".to_owned(),
        detail,
    })
}

fn check_authorizer(config: &Config) -> Result<(), PolicyError> {
    let asking = config.rules.iter().find(|rule| rule.authorizer);
    if config.authorizer.is_some() || (asking.is_none() && !config.connect.authorizer) {
        return Ok(());
    }
    Err(PolicyError::Contradiction {
        place: asking.map_or_else(|| "connect".to_owned(), |rule| format!("rule \"{}\"", rule.name)),
        detail: "it asks the authorizer, and none is configured".to_owned(),
    })
}

fn check_names(config: &Config) -> Result<(), PolicyError> {
    let mut names = HashSet::new();
    for (index, rule) in config.rules.iter().enumerate() {
        let what = match (rule.name.trim().is_empty(), names.insert(rule.name.as_str())) {
            (true, _) => "no",
            (false, false) => "another rule's",
            (false, true) => continue,
        };
        let number = index + 1;
        return Err(PolicyError::RuleName { number, what });
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
