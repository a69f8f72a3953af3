//! One edition of the rules: what an operator wrote, compiled, and the authorizer that it names.

use std::collections::HashSet;
use std::sync::Arc;

use super::authorizer::{Answer, Authorizer};
use super::auto_join::Template;
use super::check::Scope;
use super::claims::Claims;
use super::config::{Config, PolicyError};
use super::expression::Expression;
use super::permit::{Edition, Permit, Terms};
use super::rule::{Opinion, Rule};
use super::variables::Variables;
use super::{Denied, Question};
use crate::identity::Identity;
use crate::json::Members;

/// Rules as an operator wrote them, compiled. Nothing in it changes; another edition takes its place.
#[derive(Debug)]
pub(super) struct RuleSet {
    pub edition: Edition,
    pub rules: Vec<Rule>,
    pub connect: Vec<Expression>,
    pub auto_join: Vec<Template>,
    pub authorizer: Option<Arc<Authorizer>>,
    pub connect_authorizer: bool,
}

impl RuleSet {
    /// Compiles and checks a configuration. `current` is used on where its settings are those of the configuration.
    pub fn compile(config: &Config, current: Option<&Arc<Authorizer>>) -> Result<Self, PolicyError> {
        check_names(config)?;
        check_authorizer(config)?;
        let connect = config.connect.when.iter();
        let templates = config.auto_join.iter();
        let authorizer = config.authorizer.as_ref().map(|settings| {
            let same = current.filter(|current| current.is_configured_as(settings));
            same.map_or_else(|| Authorizer::new(settings).map(Arc::new), |same| Ok(Arc::clone(same)))
        });
        Ok(Self {
            edition: Edition::FIRST,
            rules: config.rules.iter().map(Rule::compile).collect::<Result<_, _>>()?,
            connect: connect.map(|source| condition(source)).collect::<Result<_, _>>()?,
            auto_join: templates.map(|text| Template::parse(text)).collect::<Result<_, _>>()?,
            authorizer: authorizer.transpose()?,
            connect_authorizer: config.connect.authorizer,
        })
    }

    /// Decides by the rule, and by the authorizer where the rule asks it, with the terms of a yes.
    pub async fn opinion(&self, rule: &Rule, question: &Question, claims: &Claims<'_>) -> (Opinion, Terms) {
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

    pub fn admit_by_claims(&self, identity: &Identity) -> Result<(), Denied> {
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

    /// Permits for the rooms that the templates make of an identity.
    pub fn home_permits(&self, identity: &Identity) -> Result<Vec<Permit>, Denied> {
        if self.auto_join.is_empty() {
            return Ok(Vec::new());
        }
        let claims = Members::parse(identity.claims.as_str())
            .map_err(|_| denied(Some(&"auto_join".into()), "the claims are not an object"))?;
        let permits = self.auto_join.iter();
        let permits = permits.map(|template| Ok(template.permit(identity, &claims)?.by(self.edition)));
        permits.collect()
    }
}

pub(super) fn denied(rule: Option<&Arc<str>>, reason: &str) -> Denied {
    Denied {
        rule: rule.cloned(),
        reason: reason.into(),
        undecided: false,
    }
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
