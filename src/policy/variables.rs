//! The variables of a condition: `claims`, `user`, `room`, `event` and `request`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cel::Value;
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::objects::{Key, Map};
use serde_json::value::RawValue;

use super::Action;
use super::claims::Claims;
use crate::identity::Identity;
use crate::room::Room;

/// A value of the interpreter.
pub(super) type Variable = Box<dyn Val>;

/// The variables of one evaluation. Each is made when the condition first asks for it.
pub(super) struct Variables<'a> {
    identity: &'a Identity,
    claims: &'a Claims<'a>,
    about: Option<About<'a>>,
    user: OnceLock<Option<Variable>>,
    room: OnceLock<Option<Variable>>,
    event: OnceLock<Option<Variable>>,
    request: OnceLock<Option<Variable>>,
}

/// The subject of a condition with a room.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) room: &'a Room,
    /// The parts that the rule's pattern captured of the room's name.
    pub(super) captures: &'a [(String, Cow<'a, str>)],
    /// The action there.
    pub(super) action: &'a Action,
}

impl<'a> Variables<'a> {
    pub(super) const fn new(identity: &'a Identity, claims: &'a Claims<'a>, about: Option<About<'a>>) -> Self {
        Self {
            identity,
            claims,
            about,
            user: OnceLock::new(),
            room: OnceLock::new(),
            event: OnceLock::new(),
            request: OnceLock::new(),
        }
    }

    fn user(&self) -> Option<Variable> {
        let (id, tenant) = (self.identity.user.as_str(), self.identity.tenant.as_str());
        strings([("id", id), ("tenant", tenant)].into_iter())
    }

    fn room(&self) -> Option<Variable> {
        let About { room, captures, .. } = self.about?;
        let own = [("name", room.name()), ("tenant", room.tenant())];
        let of_pattern = captures.iter().map(|(name, value)| (name.as_str(), &**value));
        strings(of_pattern.chain(own))
    }

    fn event(&self) -> Option<Variable> {
        match self.about?.action {
            Action::Publish(name) => strings([("name", name.as_str())].into_iter()),
            _ => None,
        }
    }

    fn request(&self) -> Option<Variable> {
        match self.about?.action {
            Action::Request(method) => strings([("method", method.as_str())].into_iter()),
            _ => None,
        }
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let value = match name {
            "claims" => self.claims.value(self.identity),
            "user" => self.user.get_or_init(|| self.user()).as_ref(),
            "room" => self.room.get_or_init(|| self.room()).as_ref(),
            "event" => self.event.get_or_init(|| self.event()).as_ref(),
            "request" => self.request.get_or_init(|| self.request()).as_ref(),
            _ => None,
        };
        value.map(|value| CowVal::Borrowed(value.as_ref()))
    }
}

/// Claims as the interpreter reads them; `None` when they are no JSON.
pub(super) fn of_json(text: &str) -> Option<Variable> {
    variable(read(text)?)
}

/// Reads a value. A number beyond a double, which the parser refuses, is infinite: comparisons with it are right, and the
/// other claims are not lost.
fn read(text: &str) -> Option<Value> {
    if let Ok(json) = serde_json::from_str(text) {
        return Some(value_of(json));
    }
    let text = serde_json::from_str::<&RawValue>(text).ok()?.get();
    if text.starts_with('{') {
        let entries: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        let entries = entries.into_iter();
        let map: Option<HashMap<Key, Value>> = entries
            .map(|(key, value)| Some((key.into(), read(value.get())?)))
            .collect();
        return Some(Value::Map(Map { map: Arc::new(map?) }));
    }
    if text.starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        let items: Option<Vec<Value>> = items.into_iter().map(|item| read(item.get())).collect();
        return Some(Value::List(Arc::new(items?)));
    }
    text.parse().ok().map(Value::Float)
}

fn strings<'s>(entries: impl Iterator<Item = (&'s str, &'s str)>) -> Option<Variable> {
    let map: HashMap<&str, &str> = entries.collect();
    variable(Value::from(map))
}

fn variable(value: Value) -> Option<Variable> {
    value.try_into().ok()
}

/// Integers stay integers: the interpreter would take JSON's positive ones for unsigned, and `claims.level + 1` would
/// then mix types.
fn value_of(json: serde_json::Value) -> Value {
    use serde_json::Value as Source;
    match json {
        Source::Null => Value::Null,
        Source::Bool(value) => Value::Bool(value),
        Source::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_u64().map(Value::UInt))
            .unwrap_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN))),
        Source::String(text) => Value::String(Arc::new(text)),
        Source::Array(items) => Value::List(Arc::new(items.into_iter().map(value_of).collect())),
        Source::Object(entries) => {
            let entries = entries.into_iter();
            let map: HashMap<Key, Value> = entries.map(|(key, value)| (key.into(), value_of(value))).collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}
