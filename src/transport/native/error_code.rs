//! The kind of a refusal on the wire.

use crate::error::ErrorCode;
use crate::proto::client_v1::ErrorCode as Kind;

/// Returns the kind on the wire; the reason beside it has the precise error.
pub(super) const fn kind(code: ErrorCode) -> Kind {
    match code {
        ErrorCode::Malformed
        | ErrorCode::InvalidRoom
        | ErrorCode::InvalidEventName
        | ErrorCode::InvalidArgument
        | ErrorCode::PayloadTooLarge
        | ErrorCode::PresenceTooLarge => Kind::Invalid,
        ErrorCode::Unauthenticated | ErrorCode::TokenExpired => Kind::Unauthenticated,
        ErrorCode::Forbidden | ErrorCode::Rejected => Kind::Forbidden,
        ErrorCode::NotJoined => Kind::NotFound,
        ErrorCode::AlreadyConnected | ErrorCode::VersionConflict | ErrorCode::KeyReused => Kind::Conflict,
        ErrorCode::RateLimited => Kind::RateLimited,
        ErrorCode::RoomLimit | ErrorCode::ConnectionLimit => Kind::LimitReached,
        ErrorCode::Unavailable => Kind::Unavailable,
        ErrorCode::Timeout | ErrorCode::UnknownOutcome => Kind::UnknownOutcome,
        ErrorCode::NoBackend | ErrorCode::Unsupported => Kind::Unimplemented,
        ErrorCode::Internal => Kind::Internal,
    }
}

/// Returns the kind as a word.
pub(super) const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "",
        Kind::Invalid => "invalid",
        Kind::Unauthenticated => "unauthenticated",
        Kind::Forbidden => "forbidden",
        Kind::NotFound => "not_found",
        Kind::Conflict => "conflict",
        Kind::RateLimited => "rate_limited",
        Kind::LimitReached => "limit_reached",
        Kind::Unavailable => "unavailable",
        Kind::UnknownOutcome => "unknown_outcome",
        Kind::Unimplemented => "unimplemented",
        Kind::Internal => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CloseReason;

    #[test]
    fn every_error_has_its_kind() {
        let lines = ErrorCode::ALL.map(|code| format!("{} = {}", code.as_str(), word(kind(code))));
        insta::assert_snapshot!(lines.join("\n"), @r"
        malformed = invalid
        unauthenticated = unauthenticated
        token_expired = unauthenticated
        already_connected = conflict
        forbidden = forbidden
        invalid_room = invalid
        invalid_event_name = invalid
        invalid_argument = invalid
        payload_too_large = invalid
        not_joined = not_found
        room_limit = limit_reached
        connection_limit = limit_reached
        rate_limited = rate_limited
        presence_too_large = invalid
        version_conflict = conflict
        key_reused = conflict
        no_backend = unimplemented
        rejected = forbidden
        timeout = unknown_outcome
        unavailable = unavailable
        unknown_outcome = unknown_outcome
        unsupported = unimplemented
        internal = internal
        ");
    }

    #[test]
    fn the_documentation_has_a_row_for_every_refusal_and_every_close() {
        let page = include_str!("../../../docs/protocol.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
            .collect();
        let row = |first: &str, second: &str| rows.iter().find(|row| row[1] == first && row[2] == second);
        for code in ErrorCode::ALL {
            let found = row(code.as_str(), word(kind(code)));
            let found = found.unwrap_or_else(|| panic!("no row for {}", code.as_str()));
            let says_when = found[3].contains("retryAfterMs");
            assert_eq!(says_when, code.may_repeat(), "{} and its time to repeat", code.as_str());
        }
        for reason in CloseReason::ALL {
            let found = row(&reason.code().to_string(), reason.as_str());
            let found = found.unwrap_or_else(|| panic!("no row for {}", reason.as_str()));
            assert_eq!(found[4] == "yes", reason.may_reconnect(), "{}", reason.as_str());
        }
    }

    /// A refusal that ends the connection, and the close that follows it: they must not contradict.
    #[test]
    fn what_time_may_mend_is_closed_as_something_to_come_back_from() {
        for (refusal, close) in [
            (ErrorCode::Unauthenticated, CloseReason::Unauthenticated),
            (ErrorCode::TokenExpired, CloseReason::TokenExpired),
            (ErrorCode::Forbidden, CloseReason::Forbidden),
            (ErrorCode::ConnectionLimit, CloseReason::ConnectionLimit),
            (ErrorCode::AlreadyConnected, CloseReason::Misuse),
            (ErrorCode::Malformed, CloseReason::Misuse),
            (ErrorCode::RateLimited, CloseReason::Flooding),
            (ErrorCode::Unavailable, CloseReason::Overloaded),
        ] {
            assert_eq!(
                refusal.may_repeat(),
                close.may_reconnect(),
                "{} and {}",
                refusal.as_str(),
                close.as_str()
            );
        }
    }

    #[test]
    fn words_are_the_names_of_the_contract_in_lower_case() {
        for number in 1..=11 {
            let kind = Kind::try_from(number).unwrap();
            let name = kind.as_str_name().strip_prefix("ERROR_CODE_").unwrap();
            assert_eq!(word(kind), name.to_ascii_lowercase());
        }
        assert!(Kind::try_from(12).is_err(), "a new kind needs its word");
    }
}
