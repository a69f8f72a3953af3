//! One rule, ready to be asked.

use std::sync::Arc;

use super::check::{ROOM_FIELDS, Scope};
use super::claims::Claims;
use super::config::{ActionName, PolicyError, RuleConfig};
use super::expression::Expression;
use super::variables::{About, Variables};
use super::{Action, Question};
use crate::room::RoomPattern;

/// What a rule says about a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opinion {
    /// It is about other rooms.
    OtherRoom,
    /// It does not allow this action.
    OtherAction,
    /// It does not allow this event.
    OtherEvent,
    /// Its condition is false.
    ConditionFalse,
    /// Its condition cannot be told; counts as false.
    ConditionFailed(String),
    /// The authorizer refused.
    Refused(Arc<str>),
    /// The authorizer gave no answer; counts as refused.
    Undecided(Arc<str>),
    /// It allows.
    Allows,
}

impl Opinion {
    /// The opinion in words, for `explain`.
    pub(super) fn text(&self) -> Arc<str> {
        match self {
            Self::OtherRoom => "its pattern does not match the room".into(),
            Self::OtherAction => "it does not allow this action".into(),
            Self::OtherEvent => "it does not allow this event".into(),
            Self::ConditionFalse => "its condition is false".into(),
            Self::ConditionFailed(why) => format!("its condition failed: {why}").into(),
            Self::Refused(why) => format!("the authorizer refused: {why}").into(),
            Self::Undecided(why) => why.clone(),
            Self::Allows => "it allows".into(),
        }
    }

    /// Whether it is worth being the reason of a denial: something that looks meant for the question went wrong.
    pub(super) const fn is_noteworthy(&self) -> bool {
        matches!(self, Self::ConditionFailed(_) | Self::Refused(_) | Self::Undecided(_))
    }
}

/// An event name, or the start of one.
#[derive(Debug)]
enum EventPattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl EventPattern {
    fn parse(text: &str) -> Option<Self> {
        let (stem, prefix) = text.strip_suffix('*').map_or((text, false), |stem| (stem, true));
        let valid = !stem.contains('*') && (prefix || !stem.is_empty());
        valid.then(|| {
            if prefix {
                Self::Prefix(stem.into())
            } else {
                Self::Exact(stem.into())
            }
        })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(own) => **own == *name,
            Self::Prefix(own) => name.starts_with(&**own),
        }
    }
}

/// A compiled rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) authorizer: bool,
    pub(super) validate: bool,
    pattern: RoomPattern,
    allow: Vec<ActionName>,
    events: Vec<EventPattern>,
    when: Option<Expression>,
}

impl Rule {
    /// Compiles a rule; the error names it.
    pub(super) fn compile(config: &RuleConfig) -> Result<Self, PolicyError> {
        let place = format!("rule \"{}\"", config.name);
        let pattern = RoomPattern::parse(&config.room).map_err(|source| PolicyError::Pattern {
            place: place.clone(),
            source,
        })?;
        check_settings(config, &pattern).map_err(|detail| PolicyError::Contradiction {
            place: place.clone(),
            detail,
        })?;
        let scope = Scope {
            captures: Some(pattern.variables().map(str::to_owned).collect()),
            event: config.allow.iter().all(|action| *action == ActionName::Publish),
        };
        let compile = |source: &String| Expression::compile(source, &scope);
        let when = config.when.as_ref().map(compile).transpose();
        Ok(Self {
            name: config.name.as_str().into(),
            authorizer: config.authorizer,
            validate: config.validate,
            pattern,
            allow: config.allow.clone(),
            events: config
                .events
                .iter()
                .filter_map(|text| EventPattern::parse(text))
                .collect(),
            when: when.map_err(|detail| PolicyError::Expression {
                place: format!("{place}, when"),
                detail,
            })?,
        })
    }

    /// What the rule says about a question. No effect, bounded work.
    pub(super) fn consider(&self, question: &Question, claims: &Claims<'_>) -> Opinion {
        let Some(captures) = self.pattern.captures(question.room.name()) else {
            return Opinion::OtherRoom;
        };
        if !self.allow.contains(&question.action.name()) {
            return Opinion::OtherAction;
        }
        if !self.allows_event(&question.action) {
            return Opinion::OtherEvent;
        }
        let Some(when) = &self.when else {
            return Opinion::Allows;
        };
        let event = match &question.action {
            Action::Publish(name) => Some(name.as_str()),
            _ => None,
        };
        let about = About {
            room: &question.room,
            captures: &captures,
            event,
        };
        let variables = Variables::new(&question.identity, claims, Some(about));
        match when.holds(&variables) {
            Ok(true) => Opinion::Allows,
            Ok(false) => Opinion::ConditionFalse,
            Err(why) => Opinion::ConditionFailed(why),
        }
    }

    fn allows_event(&self, action: &Action) -> bool {
        let Action::Publish(name) = action else { return true };
        self.events.is_empty() || self.events.iter().any(|pattern| pattern.matches(name.as_str()))
    }
}

/// Settings that contradict each other, in words.
fn check_settings(config: &RuleConfig, pattern: &RoomPattern) -> Result<(), String> {
    let publishes = config.allow.contains(&ActionName::Publish);
    if config.allow.is_empty() {
        return Err("`allow` is empty, so the rule allows nothing".to_owned());
    }
    if !publishes && !config.events.is_empty() {
        return Err("`events` restricts publishing, and `allow` has no publish".to_owned());
    }
    if !publishes && config.validate {
        return Err("`validate` is about publishing, and `allow` has no publish".to_owned());
    }
    if let Some(text) = config.events.iter().find(|text| EventPattern::parse(text).is_none()) {
        return Err(format!(
            "the event `{text}` must be a name, or the start of one followed by `*`"
        ));
    }
    match pattern.variables().find(|name| ROOM_FIELDS.contains(name)) {
        Some(name) => Err(format!(
            "the variable `{{{name}}}` would hide `room.{name}`; call it otherwise"
        )),
        None => Ok(()),
    }
}

impl Action {
    const fn name(&self) -> ActionName {
        match self {
            Self::Join => ActionName::Join,
            Self::Publish(_) => ActionName::Publish,
            Self::Presence => ActionName::Presence,
            Self::History => ActionName::History,
        }
    }
}
