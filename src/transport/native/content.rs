//! Values that both encodings read and write alike.

use std::time::Duration;

use bytes::Bytes;

use super::Flaw;
use crate::event::Retention;
use crate::identity::Expiry;
use crate::json::{Json, JsonError};
use crate::notice::Notice;
use crate::position::{Offset, Position};
use crate::session::{Answer, FEATURES, HistoryFrom, PresenceMode, RoomChange, Since};

/// The most rooms that a client may resume while it connects.
const RESUME_MAX: usize = 32;

/// The most names of features in one command.
const FEATURES_MAX: usize = 32;

/// The most characters of a feature's name. Of an unknown required one, also the most that are echoed.
const FEATURE_CHARACTERS_MAX: usize = 64;

/// The most characters of a client's name that are kept, for the log.
const CLIENT_CHARACTERS_MAX: usize = 64;

/// Text for a client that must reconnect elsewhere.
pub(in crate::transport) const DRAINING: &str = "the node shuts down";

/// Parses a position. An epoch that no bus has written is a case of its own, not an error.
pub(super) fn since(epoch: &str, offset: u64) -> Since {
    epoch.parse().map_or(Since::Unreadable, |epoch| {
        Since::At(Position {
            epoch,
            offset: Offset(offset),
        })
    })
}

/// Checks a JSON value that is relayed verbatim.
pub(super) fn json(field: &str, text: impl Into<Bytes>) -> Result<Json, Flaw> {
    checked(field, Json::parse(text))
}

/// Returns a JSON value that is relayed verbatim, after its check.
pub(super) fn checked(field: &str, json: Result<Json, JsonError>) -> Result<Json, Flaw> {
    json.map_err(|error| Flaw::invalid(format!("{field} {error}")))
}

/// Checks a client's presence state; `null` is none.
pub(super) fn state(text: Option<impl Into<Bytes>>) -> Result<Option<Json>, Flaw> {
    let state = text.map(|text| json("the state", text)).transpose()?;
    Ok(state.filter(|state| state.as_str().trim_ascii() != "null"))
}

/// Checks the number of rooms to resume.
pub(super) fn resume(rooms: Vec<(String, Since)>) -> Result<Vec<(String, Since)>, Flaw> {
    if rooms.len() > RESUME_MAX {
        return Err(Flaw::invalid("more than 32 rooms to resume"));
    }
    Ok(rooms)
}

/// Truncates the client's name to the kept length.
pub(super) fn client(name: String) -> String {
    match name.char_indices().nth(CLIENT_CHARACTERS_MAX) {
        Some((end, _)) => name[..end].to_owned(),
        None => name,
    }
}

/// Checks the names of a client's features.
pub(super) fn features(features: Vec<String>) -> Result<Vec<String>, Flaw> {
    let too_long = |feature: &String| feature.chars().nth(FEATURE_CHARACTERS_MAX).is_some();
    if features.len() > FEATURES_MAX || features.iter().any(too_long) {
        return Err(Flaw::invalid(
            "more than 32 features, or one of more than 64 characters",
        ));
    }
    Ok(features)
}

/// Refuses a command that requires an unknown feature, by its name. A server must not skip a restriction that it does not
/// know.
pub(super) fn required(required: &[String]) -> Result<(), Flaw> {
    if required.len() > FEATURES_MAX {
        return Err(Flaw::invalid("more than 32 required features"));
    }
    match required.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let unknown: String = unknown.chars().take(FEATURE_CHARACTERS_MAX).collect();
            let message = format!("the required feature `{unknown}` is not known");
            Err(Flaw::unsupported(message))
        }
    }
}

/// Checks a client's refusal of an ask.
pub(super) fn answer_error(reason: &str, message: &str) -> Result<Answer, Flaw> {
    let error = Notice::parse(reason, message);
    let error = error.map_err(|error| Flaw::invalid(format!("the {} of the error {error}", error.field())))?;
    Ok(Answer::Error(error))
}

/// Parses a presence mode; empty is none.
pub(super) fn presence_mode(word: &str) -> Result<PresenceMode, Flaw> {
    match word {
        "" | "none" => Ok(PresenceMode::None),
        "counts" => Ok(PresenceMode::Counts),
        "members" => Ok(PresenceMode::Members),
        "others" => Ok(PresenceMode::Others),
        _ => Err(Flaw::unsupported("presence is none of none, counts, members, others")),
    }
}

/// Returns the requested part of a history.
pub(super) fn history_from(after: Option<Since>, before: Option<Since>) -> Result<HistoryFrom, Flaw> {
    match (after, before) {
        (None, None) => Ok(HistoryFrom::Newest),
        (Some(since), None) => Ok(HistoryFrom::After(since)),
        (None, Some(since)) => Ok(HistoryFrom::Before(since)),
        (Some(_), Some(_)) => Err(Flaw::invalid("either after or before")),
    }
}

/// Returns the word for a retention.
pub(super) const fn retention_word(retention: Retention) -> &'static str {
    match retention {
        Retention::Ephemeral => "ephemeral",
        Retention::Reliable => "reliable",
        Retention::LastValue => "last_value",
    }
}

/// Returns the word for the cause of a membership change.
pub(in crate::transport) const fn change_word(change: RoomChange) -> &'static str {
    match change {
        RoomChange::Backend => "backend",
        RoomChange::Revoked => "revoked",
        RoomChange::TokenChanged => "token_changed",
        RoomChange::Expired => "expired",
    }
}

/// Returns a duration in whole milliseconds. One that is not zero stays above zero.
pub(in crate::transport) fn millis(duration: Duration) -> u32 {
    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    if duration.is_zero() { 0 } else { millis.max(1) }
}

/// The first integer that JSON readers do not keep exact.
const INEXACT: u64 = 1 << 53;

/// Returns the end of a session, in milliseconds since the Unix epoch. A time that JSON does not carry exactly is 0, which
/// means never: in both encodings, so that they are equivalent.
pub(super) fn expires_at_ms(expiry: Expiry) -> u64 {
    let millis = expiry.0.checked_mul(1_000);
    millis.filter(|millis| *millis < INEXACT).unwrap_or(0)
}
