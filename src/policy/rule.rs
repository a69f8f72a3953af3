//! One rule, ready to be asked.

use std::sync::Arc;

use super::check::{ROOM_FIELDS, Scope};
use super::claims::Claims;
use super::config::{ActionName, PolicyError, RuleConfig};
use super::expression::Expression;
use super::variables::{About, Variables};
use super::{Action, Question};
use crate::event::EventName;
use crate::room::{Captures, Room, RoomPattern};

/// A rule's verdict on a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opinion {
    /// It is about other rooms.
    OtherRoom,
    /// It does not allow this action.
    OtherAction,
    /// It does not allow this event.
    OtherEvent,
    /// It does not allow this method.
    OtherMethod,
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
            Self::OtherRoom => "it is about other rooms".into(),
            Self::OtherAction => "it does not allow this action".into(),
            Self::OtherEvent => "it does not allow this event".into(),
            Self::OtherMethod => "it does not allow this method".into(),
            Self::ConditionFalse => "its condition is false".into(),
            Self::ConditionFailed(why) => format!("its condition failed: {why}").into(),
            Self::Refused(why) => format!("the authorizer refused: {why}").into(),
            Self::Undecided(why) => why.clone(),
            Self::Allows => "it allows".into(),
        }
    }

    /// Reports whether it is worth being the reason of a denial: something that looks meant for the question went wrong.
    pub(super) const fn is_noteworthy(&self) -> bool {
        matches!(self, Self::ConditionFailed(_) | Self::Refused(_) | Self::Undecided(_))
    }
}

/// The name of an event or a method, or the start of one.
#[derive(Debug)]
enum NamePattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl NamePattern {
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

    fn all(texts: &[String]) -> Vec<Self> {
        texts.iter().filter_map(|text| Self::parse(text)).collect()
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
    /// None for requests that name no room.
    pattern: Option<RoomPattern>,
    allow: Vec<ActionName>,
    events: Vec<NamePattern>,
    methods: Vec<NamePattern>,
    when: Option<Expression>,
}

impl Rule {
    /// Compiles a rule; the error names it.
    pub(super) fn compile(config: &RuleConfig) -> Result<Self, PolicyError> {
        let place = format!("rule \"{}\"", config.name);
        let pattern = config.room.as_deref().map(RoomPattern::parse).transpose();
        let pattern = pattern.map_err(|source| PolicyError::Pattern {
            place: place.clone(),
            source,
        })?;
        check_settings(config, pattern.as_ref()).map_err(|detail| PolicyError::Contradiction {
            place: place.clone(),
            detail,
        })?;
        let only = |name| config.allow.iter().all(|action| *action == name);
        let variables = |pattern: &RoomPattern| pattern.variables().map(str::to_owned).collect();
        let scope = Scope {
            captures: pattern.as_ref().map(variables),
            event: only(ActionName::Publish),
            request: only(ActionName::Request),
        };
        let compile = |source: &String| Expression::compile(source, &scope);
        let when = config.when.as_ref().map(compile).transpose();
        Ok(Self {
            name: config.name.as_str().into(),
            authorizer: config.authorizer,
            validate: config.validate,
            pattern,
            allow: config.allow.clone(),
            events: NamePattern::all(&config.events),
            methods: NamePattern::all(&config.methods),
            when: when.map_err(|detail| PolicyError::Expression {
                place: format!("{place}, when"),
                detail,
            })?,
        })
    }

    /// Returns the rule's verdict on a question. No effect, bounded work.
    pub(super) fn consider(&self, question: &Question, claims: &Claims<'_>) -> Opinion {
        let Some(captures) = self.captures(&question.room) else {
            return Opinion::OtherRoom;
        };
        if !self.allow.contains(&question.action.name()) {
            return Opinion::OtherAction;
        }
        match &question.action {
            Action::Publish(name) if !covers(&self.events, name) => return Opinion::OtherEvent,
            Action::Request(method) if !covers(&self.methods, method) => return Opinion::OtherMethod,
            _ => {}
        }
        let Some(when) = &self.when else {
            return Opinion::Allows;
        };
        match when.holds(&variables(question, claims, &captures)) {
            Ok(true) => Opinion::Allows,
            Ok(false) => Opinion::ConditionFalse,
            Err(why) => Opinion::ConditionFailed(why),
        }
    }

    /// The opinion in words, for `explain`: also what was compared where the condition is false.
    pub(super) fn explain(&self, opinion: &Opinion, question: &Question, claims: &Claims<'_>) -> Arc<str> {
        match (opinion, &self.when, self.captures(&question.room)) {
            (Opinion::ConditionFalse, Some(when), Some(captures)) => {
                let compared = when.explain(&variables(question, claims, &captures));
                format!("{}: {compared}", opinion.text()).into()
            }
            _ => opinion.text(),
        }
    }

    /// Returns the parts that the pattern captures of the room's name; `None` when the rule is not about this room. A pattern never matches
    /// the nameless room, though `{rest*}` would match its empty name.
    fn captures<'n>(&self, room: &'n Room) -> Option<Captures<'n>> {
        match &self.pattern {
            Some(pattern) if !room.is_nameless() => pattern.captures(room.name()),
            None if room.is_nameless() => Some(Captures::new()),
            Some(_) | None => None,
        }
    }
}

fn variables<'a>(question: &'a Question, claims: &'a Claims<'a>, captures: &'a Captures<'a>) -> Variables<'a> {
    let about = About {
        room: &question.room,
        captures,
        action: &question.action,
    };
    Variables::new(&question.identity, claims, Some(about))
}

/// Reports whether a list of names allows this one; an empty list allows all.
fn covers(patterns: &[NamePattern], name: &EventName) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name.as_str()))
}

/// Settings that contradict each other, in words.
fn check_settings(config: &RuleConfig, pattern: Option<&RoomPattern>) -> Result<(), String> {
    let publishes = config.allow.contains(&ActionName::Publish);
    let requests = config.allow.contains(&ActionName::Request);
    if config.allow.is_empty() {
        return Err("`allow` is empty, so the rule allows nothing".to_owned());
    }
    if !publishes && !config.events.is_empty() {
        return Err("`events` restricts publishing, and `allow` has no publish".to_owned());
    }
    if !publishes && config.validate {
        return Err("`validate` is about publishing, and `allow` has no publish".to_owned());
    }
    if !requests && !config.methods.is_empty() {
        return Err("`methods` restricts requests, and `allow` has no request".to_owned());
    }
    if pattern.is_none() && config.allow.iter().any(|action| *action != ActionName::Request) {
        return Err("without `room` a rule is about requests that name no room, and `allow` has more".to_owned());
    }
    for (what, names) in [("event", &config.events), ("method", &config.methods)] {
        if let Some(text) = names.iter().find(|text| NamePattern::parse(text).is_none()) {
            return Err(format!(
                "the {what} `{text}` must be a name, or the start of one followed by `*`"
            ));
        }
    }
    let mut variables = pattern.into_iter().flat_map(RoomPattern::variables);
    match variables.find(|name| ROOM_FIELDS.contains(name)) {
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
            Self::Request(_) => ActionName::Request,
        }
    }
}
