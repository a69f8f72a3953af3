//! Query strings.

use std::borrow::Cow;

use crate::api::status::{Invalid, Refusal};

/// The parameters of a query that have not been taken yet.
///
/// An invalid parameter is taken as absent and remembered, like a field of an object: an unknown parameter is reported
/// first.
pub(super) struct Query<'q> {
    left: Vec<(Cow<'q, str>, String)>,
    wrong: Option<Refusal>,
}

impl<'q> Query<'q> {
    /// Reads a query by `take`, which takes every known parameter.
    pub(super) fn read<T>(query: Option<&'q str>, take: impl FnOnce(&mut Self) -> T) -> Result<T, Refusal> {
        let mut parameters = Self {
            left: Vec::new(),
            wrong: None,
        };
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name).ok_or_else(|| undecodable("", "the name of a parameter is not UTF-8"))?;
            let value = decoded(value).ok_or_else(|| undecodable(&name, "is not UTF-8"))?;
            if parameters.left.iter().any(|(known, _)| *known == name) {
                return Err(undecodable(&name, "is given more than once"));
            }
            parameters.left.push((name, value.into_owned()));
        }
        let taken = take(&mut parameters);
        if let Some((name, _)) = parameters.left.first() {
            return Err(undecodable(name, "is not a known parameter"));
        }
        parameters.wrong.map_or(Ok(taken), Err)
    }

    /// Takes a text, empty where it is absent.
    pub(super) fn text(&mut self, name: &'static str) -> String {
        self.value(name).unwrap_or_default()
    }

    /// Takes an integer, 0 where it is absent.
    pub(super) fn integer(&mut self, name: &'static str) -> i32 {
        self.parsed(name, "must be an integer within its range")
    }

    /// Takes a flag, false where it is absent.
    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.parsed(name, "must be true or false")
    }

    fn parsed<T: std::str::FromStr + Default>(&mut self, name: &'static str, why: &str) -> T {
        let Some(value) = self.value(name) else {
            return T::default();
        };
        value.parse().unwrap_or_else(|_| {
            self.wrong.get_or_insert_with(|| undecodable(name, why));
            T::default()
        })
    }

    /// Takes a parameter by its name in JSON or by that of the proto file, but not by both.
    fn value(&mut self, name: &'static str) -> Option<String> {
        let mut take = |name: &str| {
            let index = self.left.iter().position(|(known, _)| *known == name)?;
            Some(self.left.swap_remove(index).1)
        };
        let snake = snake_case(name);
        let given = take(name);
        if snake == name {
            return given;
        }
        match (given, take(&snake)) {
            (Some(_), Some(_)) => {
                self.wrong
                    .get_or_insert_with(|| undecodable(name, "is given more than once"));
                None
            }
            (given, alias) => given.or(alias),
        }
    }
}

/// Converts `pageSize` to `page_size`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Decodes a part of `application/x-www-form-urlencoded`, whose escapes are known to be whole. `None` where it is not UTF-8:
/// a replacement character would be another value.
fn decoded(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains(['%', '+']) {
        return Some(Cow::Borrowed(part));
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                digit(*high)? << 4 | digit(*low)?
            }
            (b'%', _) => return None,
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn undecodable(name: &str, why: &str) -> Refusal {
    let name: String = name.chars().take(64).collect();
    Refusal::invalid(Invalid::Undecodable, name, why)
}
