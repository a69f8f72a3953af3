//! Room patterns: `tenant:{tenant}:project:{project}` matches a name and captures its variables.
//!
//! A variable matches one or more characters other than `:`; `{name*}` at the end matches the rest of the name, colons
//! included. Matching is linear in the name: a variable ends at the next `:` or at the pattern's literal.
//!
//! The same text is a template, which builds a name from values ([`RoomPattern::expand`]). A `:` in a value is escaped
//! as `%3A` and a `%` as `%25`, and matching unescapes them. So a value never reaches into the next segment, and
//! different values make different names ([`RoomPattern::is_injective`]). The rest variable, being the last, is not
//! escaped.

use std::borrow::Cow;
use std::fmt;

/// The reason why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `{` without its `}`, or a `}` alone.
    #[error("unbalanced brace in the pattern `{0}`")]
    Unbalanced(String),
    /// A variable is named like an identifier: a letter or `_`, then letters, digits or `_`.
    #[error("`{0}` is not a variable name")]
    BadVariable(String),
    /// Each variable appears once.
    #[error("the variable `{0}` appears twice")]
    Repeated(String),
    /// Two variables need a literal between them; a `{rest*}` must come last.
    #[error("the variable `{0}` cannot be told apart from what follows it")]
    Ambiguous(String),
    /// The pattern is empty.
    #[error("a pattern has at least one character")]
    Empty,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Variable(Box<str>),
    Rest(Box<str>),
}

/// A parsed room pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct RoomPattern {
    text: Box<str>,
    parts: Vec<Part>,
}

/// The variables of a matched name, in the pattern's order.
pub type Captures<'n> = Vec<(String, Cow<'n, str>)>;

impl RoomPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Every variant of [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (part, after) = next_part(text, rest)?;
            check_follows(&parts, &part)?;
            parts.push(part);
            rest = after;
        }
        Ok(Self {
            text: text.into(),
            parts,
        })
    }

    /// Matches a whole room name; `None` when it does not match.
    #[must_use]
    pub fn captures<'n>(&self, name: &'n str) -> Option<Captures<'n>> {
        let mut captures = Captures::new();
        let mut rest = name;
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Literal(literal) => rest = rest.strip_prefix(&**literal)?,
                Part::Variable(variable) => {
                    let end = self.variable_end(index, rest)?;
                    captures.push((variable.to_string(), unescape(&rest[..end])));
                    rest = &rest[end..];
                }
                Part::Rest(variable) => {
                    captures.push((variable.to_string(), std::mem::take(&mut rest).into()));
                }
            }
        }
        rest.is_empty().then_some(captures)
    }

    /// Reports whether a whole room name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.captures(name).is_some()
    }

    /// Returns the names of the pattern's variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) | Part::Rest(name) => Some(&**name),
            Part::Literal(_) => None,
        })
    }

    /// Expands the template to the name that this pattern matches with these values. `None` when `value` lacks one of
    /// them, or returns an empty one where the pattern needs a character.
    #[must_use]
    pub fn expand(&self, mut value: impl FnMut(&str) -> Option<String>) -> Option<String> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => name.push_str(literal),
                Part::Variable(variable) => {
                    let value = value(variable).filter(|value| !value.is_empty())?;
                    name.push_str(&escape(&value));
                }
                Part::Rest(variable) => name.push_str(&value(variable)?),
            }
        }
        Some(name)
    }

    /// Reports whether different values always make different names: two variables have a `:` between them, which no
    /// escaped value holds.
    #[must_use]
    pub fn is_injective(&self) -> bool {
        self.parts.windows(3).all(|parts| match parts {
            [
                Part::Variable(_),
                Part::Literal(literal),
                Part::Variable(_) | Part::Rest(_),
            ] => literal.contains(':'),
            _ => true,
        })
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the end of a variable: before the next `:`, or before the literal that follows it in the pattern.
    fn variable_end(&self, index: usize, rest: &str) -> Option<usize> {
        let segment = rest.find(':').unwrap_or(rest.len());
        let end = match self.parts.get(index + 1) {
            // The part of the literal before its `:` ends this segment.
            Some(Part::Literal(literal)) => match literal.split_once(':') {
                Some((head, _)) => rest[..segment].strip_suffix(head)?.len(),
                None => rest[..segment].rfind(&**literal)?,
            },
            _ => segment,
        };
        (end > 0).then_some(end)
    }
}

/// Escapes a value so that it stays within its segment.
fn escape(value: &str) -> Cow<'_, str> {
    if value.contains([':', '%']) {
        value.replace('%', "%25").replace(':', "%3A").into()
    } else {
        value.into()
    }
}

/// Reverses [`escape`]. Any other `%` of a name stays as it is.
fn unescape(written: &str) -> Cow<'_, str> {
    if written.contains("%3A") || written.contains("%25") {
        // `%25` goes last: a `%` that it yields must not begin another escape.
        written.replace("%3A", ":").replace("%25", "%").into()
    } else {
        written.into()
    }
}

fn next_part<'p>(text: &str, rest: &'p str) -> Result<(Part, &'p str), PatternError> {
    let unbalanced = || PatternError::Unbalanced(text.to_owned());
    let Some(inner) = rest.strip_prefix('{') else {
        let end = rest.find(['{', '}']).unwrap_or(rest.len());
        if end == 0 {
            return Err(unbalanced());
        }
        return Ok((Part::Literal(rest[..end].into()), &rest[end..]));
    };
    let (name, after) = inner.split_once('}').ok_or_else(unbalanced)?;
    let part = match name.strip_suffix('*') {
        Some(name) => Part::Rest(variable(name)?),
        None => Part::Variable(variable(name)?),
    };
    Ok((part, after))
}

fn variable(name: &str) -> Result<Box<str>, PatternError> {
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if valid {
        Ok(name.into())
    } else {
        Err(PatternError::BadVariable(name.to_owned()))
    }
}

fn check_follows(parts: &[Part], next: &Part) -> Result<(), PatternError> {
    let next_name = match next {
        Part::Literal(_) => None,
        Part::Variable(name) | Part::Rest(name) => Some(name),
    };
    for part in parts {
        if let (Part::Variable(name) | Part::Rest(name), Some(next)) = (part, next_name)
            && name == next
        {
            return Err(PatternError::Repeated(name.to_string()));
        }
    }
    match (parts.last(), next_name) {
        (Some(Part::Rest(name)), _) | (Some(Part::Variable(name)), Some(_)) => {
            Err(PatternError::Ambiguous(name.to_string()))
        }
        _ => Ok(()),
    }
}

impl fmt::Debug for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, name: &str, expected: Option<&[(&str, &str)]>) {
        let captured = RoomPattern::parse(pattern).unwrap();
        let captured = captured.captures(name);
        let captured: Option<Vec<(&str, &str)>> = captured
            .as_ref()
            .map(|all| all.iter().map(|(k, v)| (k.as_str(), &**v)).collect());
        assert_eq!(captured.as_deref(), expected, "{pattern} on {name}");
    }

    #[test]
    fn variables_capture_one_segment_and_rest_captures_all() {
        check("project:{id}", "project:7", Some(&[("id", "7")]));
        check("project:{id}", "project:7:x", None);
        check("project:{id}", "project:", None);
        check(
            "tenant:{t}:project:{p}",
            "tenant:4:project:9",
            Some(&[("t", "4"), ("p", "9")]),
        );
        check("doc:{rest*}", "doc:a:b:c", Some(&[("rest", "a:b:c")]));
        check("doc-{id}.txt", "doc-a.b.txt", Some(&[("id", "a.b")]));
        check("{a}.v:{b}", "x.v.v:y", Some(&[("a", "x.v"), ("b", "y")]));
        check("{a}.v:{b}", "x:y", None);
        check("lobby", "lobby", Some(&[]));
        check("lobby", "lobby2", None);
    }

    #[test]
    fn a_value_with_any_character_is_written_and_read_back() {
        check("user:{id}", "user:did%3Aexample%3A7", Some(&[("id", "did:example:7")]));
        check("user:{id}", "user:50%25", Some(&[("id", "50%")]));
        check("user:{id}", "user:%253A", Some(&[("id", "%3A")]));
        // Sequences that no template writes stay as they are.
        check("user:{id}", "user:50%", Some(&[("id", "50%")]));
        check("user:{id}", "user:%3a%41", Some(&[("id", "%3a%41")]));
        check("doc:{rest*}", "doc:a%3Ab:c", Some(&[("rest", "a%3Ab:c")]));
    }

    #[test]
    fn a_template_is_injective_where_a_colon_parts_its_variables() {
        for (template, is_injective) in [
            ("lobby", true),
            ("user:{sub}", true),
            ("{sub}", true),
            ("t:{a}:{b}", true),
            ("{a}-:{b}", true),
            ("{a}:{rest*}", true),
            ("{a}-{b}", false),
            ("t:{a}-{rest*}", false),
        ] {
            assert_eq!(
                RoomPattern::parse(template).unwrap().is_injective(),
                is_injective,
                "{template}"
            );
        }
    }

    #[test]
    fn wrong_patterns_are_refused() {
        assert!(matches!(RoomPattern::parse("a:{b"), Err(PatternError::Unbalanced(_))));
        assert!(matches!(RoomPattern::parse("a}b"), Err(PatternError::Unbalanced(_))));
        assert!(matches!(RoomPattern::parse("{1a}"), Err(PatternError::BadVariable(_))));
        assert!(matches!(RoomPattern::parse("{a}:{a}"), Err(PatternError::Repeated(_))));
        assert!(matches!(RoomPattern::parse("{a}{b}"), Err(PatternError::Ambiguous(_))));
        assert!(matches!(RoomPattern::parse("{a*}:x"), Err(PatternError::Ambiguous(_))));
        assert_eq!(RoomPattern::parse(""), Err(PatternError::Empty));
    }

    #[test]
    fn expanding_fills_every_variable_or_nothing() {
        let pattern = RoomPattern::parse("user:{sub}:inbox").unwrap();
        assert_eq!(
            pattern.expand(|_| Some("7".to_owned())).as_deref(),
            Some("user:7:inbox")
        );
        assert_eq!(pattern.expand(|_| None), None);
        assert_eq!(pattern.expand(|_| Some(String::new())), None);
        let name = pattern.expand(|_| Some("eu:7%".to_owned()));
        assert_eq!(name.as_deref(), Some("user:eu%3A7%25:inbox"));
        let rest = RoomPattern::parse("user:{sub*}").unwrap();
        assert_eq!(rest.expand(|_| Some("eu:7%".to_owned())).as_deref(), Some("user:eu:7%"));
    }

    proptest::proptest! {
        #[test]
        fn what_is_expanded_matches_again(
            a in "[a:%3A25y]{1,8}", b in "[a:%3A25y]{1,8}", template in proptest::sample::select(vec![
                "x:{a}:y:{b}", "{a}:{b}", "x-{a}.:{b}.txt", "{a}:{b*}",
            ]),
        ) {
            let pattern = RoomPattern::parse(template).unwrap();
            proptest::prop_assert!(pattern.is_injective());
            let name = pattern.expand(|v| Some(if v == "a" { a.clone() } else { b.clone() })).unwrap();
            let captured = pattern.captures(&name).unwrap();
            proptest::prop_assert_eq!(&*captured[0].1, a.as_str());
            proptest::prop_assert_eq!(&*captured[1].1, b.as_str());
        }
    }
}
