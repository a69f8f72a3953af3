//! The comparisons that made a condition false, with the values and the types that were compared.

use std::fmt;

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::{Context, IdedExpr, Value};

/// The most characters shown of one value.
const VALUE_CHARS_MAX: usize = 120;

/// Returns one sentence for each part of the condition that made it false.
pub(super) fn explain(condition: &IdedExpr, context: &Context<'_, '_>) -> Vec<String> {
    let mut sentences = Vec::new();
    collect(condition, context, &mut sentences);
    sentences
}

fn collect(node: &IdedExpr, context: &Context<'_, '_>, sentences: &mut Vec<String>) {
    match &node.expr {
        Expr::Call(call) if matches!(&*call.func_name, operators::LOGICAL_AND | operators::LOGICAL_OR) => {
            // Sides that are true are not why; behind one that is false, `&&` does not look.
            let is_true = |side: &&IdedExpr| Value::resolve(side, context) == Ok(Value::Bool(true));
            let mut guilty = call.args.iter().filter(|side| !is_true(side));
            if call.func_name == operators::LOGICAL_AND {
                guilty
                    .next()
                    .into_iter()
                    .for_each(|side| collect(side, context, sentences));
            } else {
                guilty.for_each(|side| collect(side, context, sentences));
            }
        }
        _ => sentences.push(sentence(node, context)),
    }
}

/// One part that is not true, and what it was made of.
fn sentence(node: &IdedExpr, context: &Context<'_, '_>) -> String {
    let operands: Vec<_> = operands(node)
        .into_iter()
        .map(|node| Operand::of(node, context))
        .collect();
    let shown: Vec<_> = operands.iter().map(ToString::to_string).collect();
    let mut text = format!("`{}` is not true", Source(node));
    if !shown.is_empty() {
        text.push_str(": ");
        text.push_str(&shown.join(" and "));
    }
    if let (Expr::Call(call), [left, right]) = (&node.expr, &*operands)
        && let Some(hint) = hint(call, left, right)
    {
        text.push_str("; ");
        text.push_str(&hint);
    }
    text
}

/// The parts of an expression whose values say why it is not true.
fn operands(node: &IdedExpr) -> Vec<&IdedExpr> {
    let all: Vec<&IdedExpr> = match &node.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(walk) => vec![&walk.iter_range],
        Expr::Select(select) if select.test => vec![&select.operand],
        _ => vec![],
    };
    // A literal is its own value, but the other side of a comparison is compared with it.
    if all.iter().all(|operand| matches!(operand.expr, Expr::Literal(_))) {
        return Vec::new();
    }
    all
}

/// A part of a comparison and its value.
struct Operand<'n> {
    node: &'n IdedExpr,
    value: Result<Value, String>,
}

impl<'n> Operand<'n> {
    fn of(node: &'n IdedExpr, context: &Context<'_, '_>) -> Self {
        let value = Value::resolve(node, context).map_err(|error| error.to_string());
        Self { node, value }
    }
}

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.node.expr, &self.value) {
            (Expr::Literal(_), Ok(value)) => write!(f, "{} is {}", Source(self.node), kind(value)),
            (_, Ok(value)) => write!(f, "`{}` is {}, {}", Source(self.node), shown(value), kind(value)),
            (_, Err(why)) => write!(f, "`{}` has no value: {why}", Source(self.node)),
        }
    }
}

/// A hint for a number compared with a text of the same digits: room variables are texts, claims often numbers.
fn hint(call: &CallExpr, left: &Operand<'_>, right: &Operand<'_>) -> Option<String> {
    let (found, sought) = (left.value.as_ref().ok()?, right.value.as_ref().ok()?);
    let (number, text) = match (&*call.func_name, sought) {
        (operators::EQUALS, other) => twins(found, other)?,
        (operators::IN, Value::List(elements)) => elements.iter().find_map(|element| twins(found, element))?,
        _ => return None,
    };
    let convert = match (found, &left.node.expr) {
        (Value::String(_), Expr::Literal(_)) => format!("string({})", Source(right.node)),
        (Value::String(_), _) => format!("int({})", Source(left.node)),
        _ => format!("string({})", Source(left.node)),
    };
    Some(format!(
        "{number} is a number and \"{text}\" a text, which are never equal: have the token say it as the other does, or \
         write `{convert}`"
    ))
}

/// A number and a text that look alike.
fn twins(one: &Value, other: &Value) -> Option<(String, String)> {
    match (one, other) {
        (Value::String(text), number) | (number, Value::String(text)) => {
            let number = match number {
                Value::Int(number) => number.to_string(),
                Value::UInt(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                _ => return None,
            };
            (number == **text).then(|| (number, text.to_string()))
        }
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    let text = value
        .json()
        .map_or_else(|_| format!("{value:?}"), |json| json.to_string());
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text,
    }
}

/// The type, and for a list that of its elements.
fn kind(value: &Value) -> String {
    let Value::List(elements) = value else {
        return with_article(value).to_owned();
    };
    let mut kinds: Vec<_> = elements.iter().map(|element| element.type_of().to_string()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    match &*kinds {
        [] => "an empty list".to_owned(),
        kinds => format!("a list of {}", kinds.join(" and ")),
    }
}

fn with_article(value: &Value) -> &'static str {
    match value {
        Value::Map(_) => "a map",
        Value::Int(_) => "an int",
        Value::UInt(_) => "a uint",
        Value::Float(_) => "a double",
        Value::String(_) => "a string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "a bool",
        Value::Null => "null",
        _ => "something else",
    }
}

/// An expression as it may have been written.
struct Source<'n>(&'n IdedExpr);

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.expr {
            Expr::Ident(name) => f.write_str(name),
            Expr::Literal(literal) => write_literal(f, literal),
            Expr::Select(select) if select.test => write!(f, "has({}.{})", Source(&select.operand), select.field),
            Expr::Select(select) => write!(f, "{}.{}", Source(&select.operand), select.field),
            Expr::List(list) => {
                f.write_str("[")?;
                write_joined(f, &list.elements)?;
                f.write_str("]")
            }
            Expr::Call(call) => write_call(f, call),
            Expr::Comprehension(walk) => write!(f, "the loop over {}", Source(&walk.iter_range)),
            _ => f.write_str(".."),
        }
    }
}

fn write_literal(f: &mut fmt::Formatter<'_>, literal: &LiteralValue) -> fmt::Result {
    match literal {
        LiteralValue::String(text) => write!(f, "{:?}", text.inner()),
        LiteralValue::Boolean(value) => write!(f, "{}", value.inner()),
        LiteralValue::Int(value) => write!(f, "{}", value.inner()),
        LiteralValue::UInt(value) => write!(f, "{}u", value.inner()),
        LiteralValue::Double(value) => write!(f, "{}", value.inner()),
        LiteralValue::Null => f.write_str("null"),
        LiteralValue::Bytes(_) => f.write_str("b\"..\""),
    }
}

fn write_call(f: &mut fmt::Formatter<'_>, call: &CallExpr) -> fmt::Result {
    let name = &*call.func_name;
    match (&call.target, &*call.args) {
        (Some(target), args) => {
            write!(f, "{}.{name}(", Source(target))?;
            write_joined(f, args)?;
            f.write_str(")")
        }
        (None, [map, key]) if name == operators::INDEX => write!(f, "{}[{}]", Source(map), Source(key)),
        (None, [operand]) if name == operators::LOGICAL_NOT => write!(f, "!{}", Source(operand)),
        (None, [operand]) if name == operators::NEGATE => write!(f, "-{}", Source(operand)),
        (None, [condition, then, otherwise]) if name == operators::CONDITIONAL => {
            write!(f, "{} ? {} : {}", Source(condition), Source(then), Source(otherwise))
        }
        (None, args) if name.starts_with('_') || name == operators::IN => {
            let sign = name.trim_matches(['_', '@']);
            for (at, arg) in args.iter().enumerate() {
                let between = if at == 0 { String::new() } else { format!(" {sign} ") };
                write!(f, "{between}{}", Source(arg))?;
            }
            Ok(())
        }
        (None, args) => {
            write!(f, "{name}(")?;
            write_joined(f, args)?;
            f.write_str(")")
        }
    }
}

fn write_joined(f: &mut fmt::Formatter<'_>, nodes: &[IdedExpr]) -> fmt::Result {
    for (at, node) in nodes.iter().enumerate() {
        let between = if at == 0 { "" } else { ", " };
        write!(f, "{between}{}", Source(node))?;
    }
    Ok(())
}
