//! `has`, `all`, `exists`, `exists_one`, `filter` and `map`: the only loops, and how they stay short.
//!
//! Claims are bounded (8 KiB), so one loop over them is short; a loop within a loop is short as long
//! as the inner one walks over what the outer one is at, for together they walk over the claims once.
//! `claims.a.exists(x, claims.b.exists(y, ..))` is a product and is refused: `in` says the same.
//! `map` may only pick a field of the element, for anything else could build a larger list.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr};

use super::kind::Kind;
use super::{Checker, Finding};

/// The macros, by the names `CEL` gives them.
pub(super) const NAMES: [&str; 7] = ["has", "all", "exists", "exists_one", "existsOne", "filter", "map"];

impl Checker<'_> {
    /// The kind of a macro call; `None` when the call is none.
    pub(super) fn kind_of_macro(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Option<Kind>, Finding> {
        let Some(target) = &call.target else {
            return match call.func_name.as_str() {
                "has" => self.presence(node, call).map(Some),
                _ => Ok(None),
            };
        };
        let result = match call.func_name.as_str() {
            "all" | "exists" | "exists_one" | "existsOne" => Kind::Bool,
            "filter" | "map" => Kind::List,
            _ => return Ok(None),
        };
        self.walk(node, target, call)?;
        Ok(Some(result))
    }

    fn presence(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Kind, Finding> {
        let [argument] = call.args.as_slice() else {
            return Err(self.finding(node, "`has` takes one argument".to_owned()));
        };
        if !matches!(argument.expr, Expr::Select(_)) {
            let message = "`has` takes a field, as in `has(claims.name)`".to_owned();
            return Err(self.finding(argument, message));
        }
        self.kind_of(argument)?;
        Ok(Kind::Bool)
    }

    fn walk(&mut self, node: &IdedExpr, range: &IdedExpr, call: &CallExpr) -> Result<(), Finding> {
        let name = call.func_name.as_str();
        let Some((variable, bodies)) = variable_and_bodies(call) else {
            let message = format!("`{name}` is called as `list.{name}(x, expression about x)`");
            return Err(self.finding(node, message));
        };
        let found = self.kind_of(range)?;
        if !found.is_iterable() {
            let message = format!("`{name}` walks over a list or a map, this is {found}");
            return Err(self.finding(range, message));
        }
        self.bounded(range, name)?;
        self.locals.push(variable.to_owned());
        let checked = self.bodies(name, bodies);
        self.locals.pop();
        checked
    }

    /// Refuses loops whose lengths would multiply.
    fn bounded(&self, range: &IdedExpr, name: &str) -> Result<(), Finding> {
        let Some(around) = self.locals.last() else {
            return Ok(());
        };
        if root_of(range) == Some(around.as_str()) {
            return Ok(());
        }
        Err(self.hinted(
            range,
            format!("this `{name}` runs once for each `{around}`"),
            format!("walk over a field of `{around}`, or use `in`"),
        ))
    }

    fn bodies(&mut self, name: &str, bodies: &[IdedExpr]) -> Result<(), Finding> {
        let Some((last, conditions)) = bodies.split_last() else {
            return Ok(());
        };
        for condition in conditions {
            self.want(condition, Kind::Bool, "the condition of `map`")?;
        }
        if name != "map" {
            return self.want(last, Kind::Bool, &format!("the condition of `{name}`"));
        }
        let element = self.locals.last().map(String::as_str);
        if root_of(last) == element {
            return self.kind_of(last).map(drop);
        }
        let message = "`map` may only pick a field of the element here".to_owned();
        Err(self.finding(last, message))
    }
}

fn variable_and_bodies(call: &CallExpr) -> Option<(&str, &[IdedExpr])> {
    let (first, bodies) = call.args.split_first()?;
    let Expr::Ident(variable) = &first.expr else {
        return None;
    };
    let fits = bodies.len() == 1 || (bodies.len() == 2 && call.func_name == "map");
    fits.then_some((variable.as_str(), bodies))
}

/// The variable a chain of fields starts at: `a` of `a.b.c`.
fn root_of(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Ident(name) => Some(name),
        Expr::Select(select) => root_of(&select.operand),
        _ => None,
    }
}
