//! The registered claims that say when a token holds and how it is named (RFC 7519 section 4.1).
//!
//! `exp`, `nbf` and `iat` are read and compared by one rule. What `Revoke` compares later, `iat` and `jti`, has to be
//! readable: a session that no revocation can name could not be ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::AuthError;
use crate::identity::{Expiry, TokenId};
use crate::json::Members;

/// A claim that holds a `NumericDate` (RFC 7519 section 2), and its refusals.
struct DateClaim {
    name: &'static str,
    unreadable: &'static str,
    ahead: &'static str,
}

const EXP: DateClaim = DateClaim {
    name: "exp",
    unreadable: "its `exp` is no number of seconds since 1970",
    ahead: "its `exp` is farther away than `lifetime_max`; it counts seconds",
};

const NBF: DateClaim = DateClaim {
    name: "nbf",
    unreadable: "its `nbf` is no number of seconds since 1970",
    ahead: "its `nbf` lies in the future: it is not valid yet",
};

const IAT: DateClaim = DateClaim {
    name: "iat",
    unreadable: "its `iat` is no number of seconds since 1970",
    ahead: "its `iat` lies in the future; it counts seconds",
};

impl DateClaim {
    /// Reads the claim, in seconds. A fraction is cut off.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is not negative, and the cast stops at the largest number"
    )]
    fn read(&self, claims: &Members<'_>) -> Result<Option<u64>, AuthError> {
        let Some(value) = claims.get(self.name) else {
            return Ok(None);
        };
        // An unrepresentable number, such as 1e400, is none.
        let value: Value = serde_json::from_str(value).unwrap_or_default();
        let fractional = || value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        let seconds = value.as_u64().or_else(|| fractional().map(|seconds| seconds as u64));
        seconds.map(Some).ok_or(AuthError::Invalid(self.unreadable))
    }

    /// Refuses a moment that is farther away than `most`.
    fn check(&self, seconds: u64, now: u64, most: Duration) -> Result<(), AuthError> {
        if seconds.saturating_sub(now) > most.as_secs() {
            return Err(AuthError::Invalid(self.ahead));
        }
        Ok(())
    }
}

/// Returns the moment from which the token proves nothing: its `exp` and the leeway for the issuer's clock.
pub(super) fn expiry(claims: &Members<'_>, leeway: Duration, lifetime_max: Duration) -> Result<Expiry, AuthError> {
    let exp = EXP.read(claims)?.ok_or(AuthError::Invalid("its `exp` is missing"))?;
    let (nbf, iat) = (NBF.read(claims)?, IAT.read(claims)?);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let end = exp.saturating_add(leeway.as_secs());
    if end <= now {
        return Err(AuthError::Expired);
    }
    EXP.check(exp, now, lifetime_max)?;
    for (claim, seconds) in [(NBF, nbf), (IAT, iat)] {
        claim.check(seconds.unwrap_or_default(), now, leeway)?;
    }
    Ok(Expiry(end))
}

/// Refuses a token whose id no revocation could name.
pub(super) fn check_id(claims: &Members<'_>) -> Result<(), AuthError> {
    let Some(id) = claims.get("jti") else { return Ok(()) };
    let text: Option<String> = serde_json::from_str(id).ok();
    let id = text.and_then(|text| TokenId::parse(&text).ok());
    id.map(drop)
        .ok_or(AuthError::Invalid("its `jti` is no text of 1 to 256 bytes"))
}
