//! The JSON object of a request's body, and the objects in it.

use crate::api::status::{Invalid, Refusal};
use crate::json::Fields;

/// The most characters of an unknown field's name that are echoed.
const NAME_CHARS_MAX: usize = 64;

/// Reads one object by `take`, which takes every known field. An unknown field is refused before any other error: it may
/// change the meaning of the known ones.
pub(super) fn read<T>(text: &str, take: impl FnOnce(&mut Fields<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(undecodable("", "must be a JSON object"));
    }
    let mut fields = Fields::parse(text).map_err(|error| undecodable("", error))?;
    let taken = take(&mut fields);
    if let Some((name, _)) = fields.others().next() {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        return Err(undecodable(name, "is not a known field"));
    }
    match fields.wrong() {
        Some(wrong) => Err(undecodable(wrong.field, format_args!("must be {}", wrong.wanted))),
        None => taken,
    }
}

/// Reads the object in the field `path` in the same way.
pub(super) fn read_in<T>(
    path: &str,
    text: &str,
    take: impl FnOnce(&mut Fields<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    read(text, take).map_err(|refusal| match refusal {
        Refusal::Invalid { kind, field, why } if field.is_empty() => Refusal::invalid(kind, path, why),
        other => other.within(path),
    })
}

/// Reads the object of the field `field`, unless it is absent.
pub(super) fn optional<T>(
    from: &mut Fields<'_>,
    field: &str,
    take: impl FnOnce(&mut Fields<'_>) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    from.present(field).map(|text| read_in(field, text, take)).transpose()
}

/// Reads an object without fields in the same way.
pub(super) fn empty(from: &mut Fields<'_>, field: &str) -> Result<Option<()>, Refusal> {
    optional(from, field, |_| Ok(()))
}

/// Reads a text, empty where it is absent.
pub(super) fn text(from: &mut Fields<'_>, field: &'static str) -> String {
    from.text(field).unwrap_or_default()
}

fn undecodable(field: impl Into<String>, why: impl ToString) -> Refusal {
    Refusal::invalid(Invalid::Undecodable, field, why)
}
