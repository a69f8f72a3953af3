//! The proof that something was allowed.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::{Action, Denied};
use crate::event::EventName;
use crate::identity::Expiry;
use crate::json::Json;
use crate::room::{Room, Tenant};

/// The terms of an authorizer's yes: its end, and the state that the client begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The end of the permission; `None`: that of the token.
    pub expires: Option<Expiry>,
    /// The presence state of a client that joins and brings none itself.
    pub state: Option<Json>,
}

/// The number of the rules in force: each swap begins the next edition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition(NonZeroU64);

impl Edition {
    /// The edition that a policy starts with.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    pub(super) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Proof that one action in one room was allowed. Cannot be made outside of `policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    room: Room,
    action: Action,
    rule: Arc<str>,
    validated: bool,
    edition: Option<Edition>,
    terms: Terms,
}

impl Permit {
    /// Grants `action` in `room` by the rule named `rule`; `validated` when a backend must see a client's event first.
    pub(super) fn grant(room: Room, action: Action, rule: Arc<str>, validated: bool) -> Self {
        Self {
            room,
            action,
            rule,
            validated,
            edition: None,
            terms: Terms::default(),
        }
    }

    /// The same, as a decision of the rules of this edition.
    pub(super) fn by(self, edition: Edition) -> Self {
        Self {
            edition: Some(edition),
            ..self
        }
    }

    /// The edition of the rules that granted it; `None` where a backend did, by its own right or as the authorizer of
    /// connections.
    #[must_use]
    pub const fn edition(&self) -> Option<Edition> {
        self.edition
    }

    /// The same, under these terms.
    pub(super) fn under(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }

    /// Returns the end of the permission, and what comes with it.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The permit for the event that a backend made of a client's event. The backend that validates decides what is
    /// published; the room stays.
    #[must_use]
    pub fn validated_as(self, event: EventName) -> Self {
        if !self.validated {
            return self;
        }
        Self {
            action: Action::Publish(event),
            validated: false,
            ..self
        }
    }

    /// The room it is good for.
    #[must_use]
    pub const fn room(&self) -> &Room {
        &self.room
    }

    /// The action it is good for.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.action
    }

    /// The rule that granted it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Reports whether a backend validates the event before it is published.
    #[must_use]
    pub const fn needs_validation(&self) -> bool {
        self.validated
    }
}

/// Proof that a service may receive the events of every room of one tenant. Cannot be made outside of `policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPermit(Tenant);

impl TenantPermit {
    /// Returns the tenant it is good for.
    #[must_use]
    pub const fn tenant(&self) -> &Tenant {
        &self.0
    }
}

const FOREIGN_TENANT: &str = "the tenant is not one of the service's";
const SCOPE_LACKING: &str = "the service lacks the scope";

/// An authenticated backend service: its name, what it may do and for which tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "scopes, each granted by itself")]
pub struct Service {
    /// The name, for logs and as the permit's rule.
    pub name: Arc<str>,
    /// It may publish events.
    pub publish: bool,
    /// It may read members, history, statistics and the watch stream.
    pub read: bool,
    /// It may join, remove, disconnect and revoke.
    pub manage: bool,
    /// It may receive the events of every room of its tenants.
    pub subscribe: bool,
    /// The tenants it may name; `None` for all.
    pub tenants: Option<Arc<[Box<str>]>>,
}

impl Service {
    /// Reports whether it may act for this tenant.
    #[must_use]
    pub fn serves(&self, tenant: &str) -> bool {
        self.tenants
            .as_deref()
            .is_none_or(|tenants| tenants.iter().any(|own| **own == *tenant))
    }

    /// Grants the service an action in a room.
    ///
    /// # Errors
    /// [`Denied`] when the tenant is not its own, or the scope for the action is missing.
    pub fn permit(&self, room: Room, action: Action) -> Result<Permit, Denied> {
        let scope = match action {
            Action::Publish(_) => self.publish,
            Action::Presence | Action::History => self.read,
            Action::Join => self.manage,
            // Requests are what clients ask backends.
            Action::Request(_) => false,
        };
        let refusal = match (self.serves(room.tenant()), scope) {
            (true, true) => return Ok(Permit::grant(room, action, self.name.clone(), false)),
            (false, _) => FOREIGN_TENANT,
            (true, false) => SCOPE_LACKING,
        };
        Err(self.denied(refusal))
    }

    /// Grants the service the events of every room of a tenant.
    ///
    /// # Errors
    /// [`Denied`] when the tenant is not its own, or the scope is missing.
    pub fn permit_tenant(&self, tenant: Tenant) -> Result<TenantPermit, Denied> {
        match (self.serves(tenant.as_str()), self.subscribe) {
            (true, true) => Ok(TenantPermit(tenant)),
            (false, _) => Err(self.denied(FOREIGN_TENANT)),
            (true, false) => Err(self.denied(SCOPE_LACKING)),
        }
    }

    fn denied(&self, reason: &'static str) -> Denied {
        Denied {
            rule: Some(self.name.clone()),
            reason: reason.into(),
            undecided: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(tenant: &str) -> Room {
        Room::parse(&Tenant::parse(tenant).unwrap(), "r").unwrap()
    }

    #[test]
    fn a_service_acts_only_for_its_tenants_and_within_its_scopes() {
        let service = Service {
            name: "billing".into(),
            publish: true,
            read: false,
            manage: false,
            subscribe: false,
            tenants: Some(["a".into()].into()),
        };
        let publish = Action::Publish(crate::event::EventName::parse("x").unwrap());
        assert!(service.permit(room("a"), publish.clone()).is_ok());
        assert!(service.permit(room("b"), publish).is_err());
        assert!(service.permit(room("a"), Action::History).is_err());
        assert!(service.permit(room("a"), Action::Join).is_err());
    }

    #[test]
    fn a_tenants_events_need_the_scope_and_the_tenant() {
        for (subscribe, tenant, allowed) in [(true, "a", true), (true, "b", false), (false, "a", false)] {
            let service = Service {
                name: "agent".into(),
                publish: true,
                read: true,
                manage: true,
                subscribe,
                tenants: Some(["a".into()].into()),
            };
            let permit = service.permit_tenant(Tenant::parse(tenant).unwrap());
            assert_eq!(permit.is_ok(), allowed, "{tenant}");
        }
    }
}
