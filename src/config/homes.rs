//! Home rooms compared with the rooms that clients join automatically.

use super::{Config, Problem};
use crate::auth::ClaimsConfig;
use crate::room::RoomPattern;

/// Returns a warning for each home room that no template of `policy.auto_join` makes for an issuer's clients. Only a
/// warning: they may join the room by a command, or a backend may add them. A policy without `auto_join` relies on that.
pub(super) fn unreached(config: &Config) -> Vec<Problem> {
    let auto_join = &config.policy.auto_join;
    if auto_join.is_empty() {
        return Vec::new();
    }
    let homes = [
        ("grpc.user_room", &config.grpc.user_room),
        ("grpc.tenant_room", &config.grpc.tenant_room),
    ];
    let homes = homes
        .into_iter()
        .filter_map(|(key, home)| Some((key, home.as_deref()?)));
    let mut warnings = Vec::new();
    for (key, home) in homes {
        for issuer in &config.auth.issuers {
            let Some(template) = over_claims(home, &issuer.claims) else {
                continue;
            };
            // A variable for the rest of a name makes another name only of a user id with a colon.
            if !auto_join.iter().any(|joined| joined.replace("*}", "}") == template) {
                let message = format!(
                    "clients of the issuer `{}` do not join this room: `{template}` is not in policy.auto_join",
                    issuer.issuer
                );
                warnings.push(Problem::new(key, message));
            }
        }
    }
    warnings
}

/// Rewrites a home room's template, over user and tenant, as the equal one over the claims that name them. `None` for
/// what is no template, which is a problem of its own.
fn over_claims(home: &str, claims: &ClaimsConfig) -> Option<String> {
    let variable = |claim: &String| format!("{{{claim}}}");
    let tenant = claims.tenant.as_ref();
    RoomPattern::parse(home).ok()?.expand(|name| match name {
        "user" => Some(variable(&claims.user)),
        _ => Some(tenant.map_or_else(|| claims.tenant_default.clone(), variable)),
    })
}
