//! The static checker of rule expressions, because the interpreter has none: a typing mistake must
//! stop the start, not deny somebody at night.
//!
//! Works on the expression as written (macros not expanded), so that what it says is in the words of
//! whoever wrote it. It knows the variables, their fields and the functions; claims are known only at
//! run time and are taken for anything. What it lets through can still fail when evaluated (a claim
//! that is not there), which counts as "not allowed"; what it refuses would never have worked.
//!
//! It also holds the bound on evaluation: see [`macros`] for which loops are refused.

mod calls;
mod kind;
mod macros;

use std::ops::Range;

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo};

use self::kind::Kind;

use crate::similar::nearest;

/// Fields of `room` besides the captures of the pattern.
pub(super) const ROOM_FIELDS: [&str; 2] = ["name", "tenant"];
const EVENT_FIELDS: [&str; 1] = ["name"];
const REQUEST_FIELDS: [&str; 1] = ["method"];
const USER_FIELDS: [&str; 2] = ["id", "tenant"];

/// The types by name, to compare what `type(x)` gives with.
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// The deepest expression: evaluation recurses, on whichever thread asks.
const DEPTH_MAX: usize = 24;

/// The variables that an expression may mention.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// The captures of the rule's pattern when there is a room to speak of.
    pub captures: Option<Vec<String>>,
    /// The rule is about publishing, and so has an event.
    pub event: bool,
    /// The rule is about requests, and so has a method.
    pub request: bool,
}

/// A mistake in an expression, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub message: String,
    pub hint: Option<String>,
    /// Bytes of the source it is about.
    pub span: Option<Range<usize>>,
}

/// Checks an expression that was parsed without macros; it must be usable as a condition.
pub(super) fn check(root: &IdedExpr, source: &SourceInfo, scope: &Scope) -> Result<(), Finding> {
    let mut checker = Checker {
        source,
        scope,
        locals: Vec::new(),
        depth: 0,
    };
    match checker.kind_of(root)? {
        Kind::Bool | Kind::Dyn => Ok(()),
        other => Err(checker.finding(root, format!("a condition must be a bool, this is {other}"))),
    }
}

/// One walk over one expression.
struct Checker<'a> {
    source: &'a SourceInfo,
    scope: &'a Scope,
    /// Variables of the macros around the current node, outermost first.
    locals: Vec<String>,
    depth: usize,
}

impl Checker<'_> {
    fn finding(&self, node: &IdedExpr, message: String) -> Finding {
        Finding {
            message,
            hint: None,
            span: self.span(node),
        }
    }

    /// Returns the place where a node was written. The parser places a selection at its dot, so that one is put together.
    fn span(&self, node: &IdedExpr) -> Option<Range<usize>> {
        let (start, stop) = self.source.offset_for(node.id)?;
        let own = start as usize..stop as usize + 1;
        match &node.expr {
            Expr::Select(select) => Some(self.span(&select.operand)?.start..own.start + 1 + select.field.len()),
            _ => Some(own),
        }
    }

    fn hinted(&self, node: &IdedExpr, message: String, hint: String) -> Finding {
        Finding {
            hint: Some(hint),
            ..self.finding(node, message)
        }
    }

    fn kind_of(&mut self, node: &IdedExpr) -> Result<Kind, Finding> {
        if self.depth == DEPTH_MAX {
            return Err(self.finding(node, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        let kind = self.kind_at(node);
        self.depth -= 1;
        kind
    }

    fn kind_at(&mut self, node: &IdedExpr) -> Result<Kind, Finding> {
        match &node.expr {
            Expr::Literal(literal) => Ok(kind_of_literal(literal)),
            Expr::Ident(name) => self.kind_of_name(node, name),
            Expr::Select(select) => self.kind_of_field(node, select),
            Expr::Call(call) => self.kind_of_call(node, call),
            Expr::List(list) => {
                for element in &list.elements {
                    self.kind_of(element)?;
                }
                Ok(Kind::List)
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.kind_of(&entry.key)?;
                        self.kind_of(&entry.value)?;
                    }
                }
                Ok(Kind::Map)
            }
            Expr::Struct(_) | Expr::Comprehension(_) | Expr::Unspecified => {
                Err(self.finding(node, "this is not supported here".to_owned()))
            }
        }
    }

    fn kind_of_name(&self, node: &IdedExpr, name: &str) -> Result<Kind, Finding> {
        if self.locals.iter().any(|local| local == name) {
            return Ok(Kind::Dyn);
        }
        match name {
            "claims" => Ok(Kind::Claims),
            "user" => Ok(Kind::User),
            "room" if self.scope.captures.is_some() => Ok(Kind::Room),
            "event" if self.scope.event => Ok(Kind::Event),
            "request" if self.scope.request => Ok(Kind::Request),
            name if TYPES.contains(&name) => Ok(Kind::Type),
            "room" => Err(self.finding(node, "there is no room in this condition".to_owned())),
            "event" => Err(self.hinted(
                node,
                "there is no event in this condition".to_owned(),
                "`event` is known only in rules that allow nothing but publish".to_owned(),
            )),
            "request" => Err(self.hinted(
                node,
                "there is no request in this condition".to_owned(),
                "`request` is known only in rules that allow nothing but request".to_owned(),
            )),
            _ => Err(self.unknown(node, "variable", name, &self.variables())),
        }
    }

    fn variables(&self) -> Vec<&str> {
        let mut known = vec!["claims", "user"];
        known.extend(self.scope.captures.is_some().then_some("room"));
        known.extend(self.scope.event.then_some("event"));
        known.extend(self.scope.request.then_some("request"));
        known.extend(self.locals.iter().map(String::as_str));
        known
    }

    /// `a.b`, and the `a.b` of `has(a.b)`.
    fn kind_of_field(&mut self, node: &IdedExpr, select: &SelectExpr) -> Result<Kind, Finding> {
        let operand = self.kind_of(&select.operand)?;
        self.kind_of_key(node, operand, &select.field)
    }

    /// Returns the kind of `map.key` or `map["key"]`.
    fn kind_of_key(&self, node: &IdedExpr, map: Kind, key: &str) -> Result<Kind, Finding> {
        match map {
            Kind::Claims | Kind::Map | Kind::Dyn => Ok(Kind::Dyn),
            Kind::Room => self.known_field(node, "room", key, &self.room_fields()),
            Kind::Event => self.known_field(node, "event", key, &EVENT_FIELDS),
            Kind::Request => self.known_field(node, "request", key, &REQUEST_FIELDS),
            Kind::User => self.known_field(node, "user", key, &USER_FIELDS),
            other => Err(self.finding(node, format!("{other} has no field `{key}`"))),
        }
    }

    fn room_fields(&self) -> Vec<&str> {
        let captures = self.scope.captures.iter().flatten();
        ROOM_FIELDS.into_iter().chain(captures.map(String::as_str)).collect()
    }

    fn known_field(&self, node: &IdedExpr, map: &str, key: &str, fields: &[&str]) -> Result<Kind, Finding> {
        if fields.contains(&key) {
            return Ok(Kind::String);
        }
        Err(self.unknown(node, &format!("field of `{map}`"), key, fields))
    }

    fn unknown(&self, node: &IdedExpr, what: &str, name: &str, known: &[&str]) -> Finding {
        let list = known.join("`, `");
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`? known here: `{list}`"),
            None => format!("known here: `{list}`"),
        };
        self.hinted(node, format!("unknown {what} `{name}`"), hint)
    }

    /// Refuses the node unless its value may be a `wanted`.
    fn want(&mut self, node: &IdedExpr, wanted: Kind, whose: &str) -> Result<(), Finding> {
        let found = self.kind_of(node)?;
        if found.may_be(wanted) {
            return Ok(());
        }
        Err(self.finding(node, format!("{whose} must be {wanted}, this is {found}")))
    }
}

fn kind_of_literal(literal: &LiteralValue) -> Kind {
    match literal {
        LiteralValue::Boolean(_) => Kind::Bool,
        LiteralValue::Bytes(_) => Kind::Bytes,
        LiteralValue::Double(_) => Kind::Double,
        LiteralValue::Int(_) => Kind::Int,
        LiteralValue::Null => Kind::Null,
        LiteralValue::String(_) => Kind::String,
        LiteralValue::UInt(_) => Kind::Uint,
    }
}

#[cfg(test)]
mod tests;
