//! Conditions in CEL: compiled and checked at start, evaluated with bounded effort.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program, Value};

mod comparisons;

use super::check::{self, Finding, Scope};
use super::variables::Variables;

/// The longest condition, in bytes.
const SOURCE_BYTES_MAX: usize = 2_048;

/// Enough for the parser and the checker to recurse over whatever fits into [`SOURCE_BYTES_MAX`]; the checker then
/// refuses what would be too deep to evaluate on an ordinary stack.
const COMPILE_STACK_BYTES: usize = 64 << 20;

/// The standard library, built once: every evaluation shares it.
static LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// One condition that has passed the checker.
#[derive(Debug)]
pub(super) struct Expression {
    program: Program,
    source: Box<str>,
}

impl Expression {
    /// Compiles and checks a condition; the error shows the place in the source.
    pub(super) fn compile(source: &str, scope: &Scope) -> Result<Self, String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!(
                "a condition has at most {SOURCE_BYTES_MAX} bytes, this one has {}",
                source.len()
            ));
        }
        let (source, scope) = (source.to_owned(), scope.clone());
        std::thread::Builder::new()
            .stack_size(COMPILE_STACK_BYTES)
            .spawn(move || Self::compile_here(&source, &scope))
            .map_err(|error| format!("no thread to compile on: {error}"))?
            .join()
            .unwrap_or_else(|_| Err("the compiler gave up on it".to_owned()))
    }

    fn compile_here(source: &str, scope: &Scope) -> Result<Self, String> {
        // Without macros, so that the checker sees what was written.
        let written = Env::default()
            .compile(source)
            .map_err(|errors| syntax(source, &errors))?;
        check::check(written.expression(), written.source_info(), scope).map_err(|found| show(source, &found))?;
        let program = LIBRARY.compile(source).map_err(|errors| syntax(source, &errors))?;
        Ok(Self {
            program,
            source: source.into(),
        })
    }

    /// Evaluates the condition; the error says why that cannot be done.
    pub(super) fn holds(&self, variables: &Variables<'_>) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(&LIBRARY));
        context.set_variable_resolver(variables);
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("`{}` is {}, not a bool", self.source, other.type_of())),
            Err(error) => Err(format!("`{}`: {error}", self.source)),
        }
    }
}

impl Expression {
    /// The condition as it was written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Says what was compared where the condition is false: values and types.
    pub(super) fn explain(&self, variables: &Variables<'_>) -> String {
        let mut context = Context::with_env(Arc::clone(&LIBRARY));
        context.set_variable_resolver(variables);
        comparisons::explain(self.program.expression(), &context).join("; ")
    }
}

fn syntax(source: &str, errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else {
        return format!("cannot be read: {source}");
    };
    let column = usize::try_from(first.pos.1).unwrap_or(1).max(1) - 1;
    let line = usize::try_from(first.pos.0).unwrap_or(1).max(1) - 1;
    let start = source.split_inclusive('\n').take(line).map(str::len).sum::<usize>() + column;
    show(
        source,
        &Finding {
            message: first.msg.clone(),
            hint: None,
            span: Some(start..start + 1),
        },
    )
}

/// Writes a finding with the line it is in and a mark under the place.
fn show(source: &str, found: &Finding) -> String {
    let span = found.span.clone().filter(|span| source.get(span.clone()).is_some());
    let start = span.as_ref().map_or(0, |span| span.start);
    let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
    let line = source[line_start..].lines().next().unwrap_or_default();
    let number = source[..line_start].matches('\n').count() + 1;
    let column = source[line_start..start].chars().count();
    let mut text = format!("{} (line {number}, column {})\n  | {line}", found.message, column + 1);
    if let Some(span) = span {
        let width = source[span].lines().next().unwrap_or_default().chars().count().max(1);
        let _ = write!(text, "\n  | {}{}", " ".repeat(column), "^".repeat(width));
    }
    if let Some(hint) = &found.hint {
        let _ = write!(text, "\n  {hint}");
    }
    text
}
