//! What a condition sees: `claims`, `user`, `room` and `event`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cel::Value;
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::objects::{Key, Map};

use crate::identity::Identity;
use crate::json::Json;
use crate::room::Room;

type Variable = Box<dyn Val>;

/// The claims of one identity, read when a condition first asks for them.
pub(super) struct Claims<'a> {
    text: &'a Json,
    value: OnceLock<Option<Variable>>,
}

impl<'a> Claims<'a> {
    pub(super) const fn new(text: &'a Json) -> Self {
        Self {
            text,
            value: OnceLock::new(),
        }
    }

    fn value(&self) -> Option<&dyn Val> {
        let read = || {
            let json = serde_json::from_str(self.text.as_str()).ok()?;
            variable(value_of(json))
        };
        self.value.get_or_init(read).as_deref()
    }
}

/// The variables of one evaluation.
pub(super) struct Variables<'a> {
    claims: &'a Claims<'a>,
    user: Option<Variable>,
    room: Option<Variable>,
    event: Option<Variable>,
}

impl<'a> Variables<'a> {
    /// Those of a condition without a room.
    pub(super) fn new(claims: &'a Claims<'a>, identity: &Identity) -> Self {
        let user = [("id", identity.user.as_str()), ("tenant", identity.tenant.as_str())];
        Self {
            claims,
            user: strings(user.into_iter()),
            room: None,
            event: None,
        }
    }

    /// Adds the room and what the rule's pattern captured of its name.
    pub(super) fn with_room(mut self, room: &Room, captures: &[(String, &str)]) -> Self {
        let own = [("name", room.name()), ("tenant", room.tenant())];
        let of_pattern = captures.iter().map(|(name, value)| (name.as_str(), *value));
        self.room = strings(of_pattern.chain(own));
        self
    }

    /// Adds the event that is to be published.
    pub(super) fn with_event(mut self, name: &str) -> Self {
        self.event = strings([("name", name)].into_iter());
        self
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let value = match name {
            "claims" => self.claims.value(),
            "user" => self.user.as_deref(),
            "room" => self.room.as_deref(),
            "event" => self.event.as_deref(),
            _ => None,
        };
        value.map(CowVal::Borrowed)
    }
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
