//! Rooms everybody is put into: templates over claims.

use std::sync::Arc;

use super::config::PolicyError;
use super::{Action, Denied, Permit};
use crate::identity::Identity;
use crate::json::Members;
use crate::room::{Room, RoomPattern};

/// One template.
#[derive(Debug)]
pub(super) struct Template {
    pattern: RoomPattern,
    rule: Arc<str>,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        let pattern = RoomPattern::parse(text).map_err(|source| PolicyError::Pattern {
            place: format!("auto_join \"{text}\""),
            source,
        })?;
        if !pattern.is_injective() {
            return Err(PolicyError::Contradiction {
                place: format!("auto_join \"{text}\""),
                detail: "different claims could come to one room; put a `:` between its variables".to_owned(),
            });
        }
        Ok(Self {
            pattern,
            rule: format!("auto_join {text}").into(),
        })
    }

    /// The room of an identity with these claims.
    pub(super) fn permit(&self, identity: &Identity, claims: &Members<'_>) -> Result<Permit, Denied> {
        let denied = |reason: String| Denied {
            rule: Some(self.rule.clone()),
            reason: reason.into(),
            undecided: false,
        };
        let mut last = String::new();
        let name = self.pattern.expand(|claim| {
            claim.clone_into(&mut last);
            claims.text(claim)
        });
        let Some(name) = name else {
            return Err(denied(format!(
                "the claim `{last}` is empty, or is not a string or an integer"
            )));
        };
        let room = Room::parse(&identity.tenant, &name).map_err(|error| denied(format!("the room name {error}")))?;
        Ok(Permit::grant(room, Action::Join, self.rule.clone(), false))
    }
}
