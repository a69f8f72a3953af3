//! Operators and functions: which exist, what they take, what they give.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};

use super::kind::Kind;
use super::{Checker, Finding};

/// A function by its kinds; `None` as the receiver for a global one.
struct Function {
    name: &'static str,
    receiver: Option<Kind>,
    arguments: &'static [Kind],
    result: Kind,
}

const fn global(name: &'static str, arguments: &'static [Kind], result: Kind) -> Function {
    Function {
        name,
        receiver: None,
        arguments,
        result,
    }
}

const fn member(name: &'static str, receiver: Kind, arguments: &'static [Kind], result: Kind) -> Function {
    Function {
        name,
        receiver: Some(receiver),
        arguments,
        result,
    }
}

/// Everything callable in a rule: the deterministic part of the CEL standard library.
const FUNCTIONS: [Function; 14] = [
    global("bool", &[Kind::Dyn], Kind::Bool),
    global("bytes", &[Kind::Dyn], Kind::Bytes),
    global("double", &[Kind::Dyn], Kind::Double),
    global("dyn", &[Kind::Dyn], Kind::Dyn),
    global("int", &[Kind::Dyn], Kind::Int),
    global("string", &[Kind::Dyn], Kind::String),
    global("type", &[Kind::Dyn], Kind::Type),
    global("uint", &[Kind::Dyn], Kind::Uint),
    global("size", &[Kind::Dyn], Kind::Int),
    member("size", Kind::Dyn, &[], Kind::Int),
    member("contains", Kind::String, &[Kind::String], Kind::Bool),
    member("startsWith", Kind::String, &[Kind::String], Kind::Bool),
    member("endsWith", Kind::String, &[Kind::String], Kind::Bool),
    member("matches", Kind::String, &[Kind::String], Kind::Bool),
];

impl Checker<'_> {
    pub(super) fn kind_of_call(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Kind, Finding> {
        if let Some(kind) = self.kind_of_macro(node, call)? {
            return Ok(kind);
        }
        if let Some(kind) = self.kind_of_operator(node, call)? {
            return Ok(kind);
        }
        self.kind_of_function(node, call)
    }

    fn kind_of_operator(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Option<Kind>, Finding> {
        let kind = match (call.func_name.as_str(), call.args.as_slice()) {
            (name @ (operators::LOGICAL_AND | operators::LOGICAL_OR), operands) => {
                let whose = if name == operators::LOGICAL_AND {
                    "each side of `&&`"
                } else {
                    "each side of `||`"
                };
                for operand in operands {
                    self.want(operand, Kind::Bool, whose)?;
                }
                Kind::Bool
            }
            (operators::LOGICAL_NOT, [operand]) => {
                self.want(operand, Kind::Bool, "what `!` negates")?;
                Kind::Bool
            }
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                self.want(condition, Kind::Bool, "what stands before `?`")?;
                self.kind_of(then)?.join(self.kind_of(otherwise)?)
            }
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => self.equality(node, left, right)?,
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [left, right],
            ) => self.order(node, left, right)?,
            (operators::IN, [element, container]) => self.membership(element, container)?,
            (operators::INDEX, [map, key]) => self.index(node, map, key)?,
            (operators::NEGATE, [operand]) => self.negation(operand)?,
            (
                operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
                [left, right],
            ) => self.arithmetic(node, call.func_name == operators::ADD, left, right)?,
            _ => return Ok(None),
        };
        Ok(Some(kind))
    }

    fn equality(&mut self, node: &IdedExpr, left: &IdedExpr, right: &IdedExpr) -> Result<Kind, Finding> {
        let (left, right) = (self.kind_of(left)?, self.kind_of(right)?);
        if left.may_equal(right) {
            return Ok(Kind::Bool);
        }
        Err(self.finding(node, format!("{left} never equals {right}")))
    }

    fn order(&mut self, node: &IdedExpr, left: &IdedExpr, right: &IdedExpr) -> Result<Kind, Finding> {
        let (left, right) = (self.kind_of(left)?, self.kind_of(right)?);
        let ordered = |kind: Kind| kind.is_number() || matches!(kind, Kind::Dyn | Kind::String | Kind::Bytes);
        if ordered(left) && ordered(right) && left.may_equal(right) {
            return Ok(Kind::Bool);
        }
        Err(self.finding(node, format!("{left} and {right} have no order")))
    }

    fn membership(&mut self, element: &IdedExpr, container: &IdedExpr) -> Result<Kind, Finding> {
        let sought = self.kind_of(element)?;
        let found = self.kind_of(container)?;
        if !found.is_iterable() {
            let message = format!("what stands after `in` must be a list or a map, this is {found}");
            return Err(self.finding(container, message));
        }
        if found.is_map() && found != Kind::Map && !sought.may_be(Kind::String) {
            let message = format!("the keys of {found} are strings, this is {sought}");
            return Err(self.finding(element, message));
        }
        Ok(Kind::Bool)
    }

    fn index(&mut self, node: &IdedExpr, map: &IdedExpr, key: &IdedExpr) -> Result<Kind, Finding> {
        let found = self.kind_of(map)?;
        if let Expr::Literal(LiteralValue::String(name)) = &key.expr
            && found != Kind::List
        {
            return self.kind_of_key(node, found, name.inner());
        }
        match found {
            Kind::List => self.want(key, Kind::Int, "the index of a list")?,
            Kind::Dyn | Kind::Map => drop(self.kind_of(key)?),
            map if map.is_map() => self.want(key, Kind::String, "a key")?,
            other => return Err(self.finding(map, format!("{other} cannot be indexed"))),
        }
        Ok(Kind::Dyn)
    }

    fn negation(&mut self, operand: &IdedExpr) -> Result<Kind, Finding> {
        match self.kind_of(operand)? {
            kind @ (Kind::Int | Kind::Double | Kind::Dyn) => Ok(kind),
            other => Err(self.finding(operand, format!("{other} has no negative"))),
        }
    }

    /// CEL does not mix number types: `1 + 1.0` fails when evaluated.
    fn arithmetic(&mut self, node: &IdedExpr, add: bool, left: &IdedExpr, right: &IdedExpr) -> Result<Kind, Finding> {
        let (left, right) = (self.kind_of(left)?, self.kind_of(right)?);
        let takes = |kind: Kind| {
            kind == Kind::Dyn || kind.is_number() || (add && matches!(kind, Kind::String | Kind::Bytes | Kind::List))
        };
        if !takes(left) || !takes(right) || !left.may_be(right) {
            let message = format!("no such arithmetic between {left} and {right}");
            return Err(self.finding(node, message));
        }
        Ok(if left == Kind::Dyn { right } else { left })
    }

    fn kind_of_function(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Kind, Finding> {
        let is_member = call.target.is_some();
        let mut named = FUNCTIONS
            .iter()
            .filter(|function| function.name == call.func_name)
            .peekable();
        if named.peek().is_none() {
            return Err(self.unknown_function(node, &call.func_name));
        }
        let Some(function) = named.find(|function| function.receiver.is_some() == is_member) else {
            let form = if is_member { "name(x)" } else { "x.name(..)" };
            let message = format!("`{}` is called as `{form}`", call.func_name);
            return Err(self.finding(node, message));
        };
        self.arguments(node, call, function)?;
        Ok(function.result)
    }

    fn unknown_function(&self, node: &IdedExpr, name: &str) -> Finding {
        let mut known: Vec<_> = FUNCTIONS.iter().map(|function| function.name).collect();
        known.extend(super::macros::NAMES);
        known.dedup();
        self.unknown(node, "function", name, &known)
    }

    fn arguments(&mut self, node: &IdedExpr, call: &CallExpr, function: &Function) -> Result<(), Finding> {
        if call.args.len() != function.arguments.len() {
            let message = format!(
                "`{}` takes {} argument(s), this call has {}",
                function.name,
                function.arguments.len(),
                call.args.len()
            );
            return Err(self.finding(node, message));
        }
        if let (Some(target), Some(receiver)) = (&call.target, function.receiver) {
            self.want(target, receiver, &format!("what `{}` is called on", function.name))?;
        }
        for (argument, kind) in call.args.iter().zip(function.arguments) {
            self.want(argument, *kind, &format!("the argument of `{}`", function.name))?;
        }
        if function.name == "size" {
            self.sized(call.target.as_deref().or(call.args.first()))?;
        }
        if function.name == "matches" {
            self.pattern(call.args.first())?;
        }
        Ok(())
    }

    fn sized(&mut self, value: Option<&IdedExpr>) -> Result<(), Finding> {
        let Some(value) = value else { return Ok(()) };
        let kind = self.kind_of(value)?;
        if kind.is_iterable() || matches!(kind, Kind::String | Kind::Bytes) {
            return Ok(());
        }
        Err(self.finding(value, format!("{kind} has no size")))
    }

    /// A pattern from outside could cost megabytes to compile, so only ours are taken.
    fn pattern(&self, pattern: Option<&IdedExpr>) -> Result<(), Finding> {
        let Some(node) = pattern else { return Ok(()) };
        let Expr::Literal(LiteralValue::String(pattern)) = &node.expr else {
            let message = "the pattern of `matches` must be written out as a string".to_owned();
            return Err(self.finding(node, message));
        };
        // The interpreter's own regular expressions decide what is valid.
        let trial = format!("''.matches({:?})", pattern.inner());
        let compiles =
            cel::Program::compile(&trial).is_ok_and(|program| program.execute(&cel::Context::default()).is_ok());
        if compiles {
            return Ok(());
        }
        Err(self.finding(node, "this is not a regular expression".to_owned()))
    }
}
