//! Home rooms: the rooms that represent a user or a tenant.

use crate::room::{RoomPattern, Tenant};

/// The rooms that represent a user and a whole tenant, so that a backend can address those instead. Every connection
/// must join them when it opens (the policy's auto-join); otherwise they reach no client.
#[derive(Debug, Clone, Default)]
pub struct HomeRooms {
    user: Option<RoomPattern>,
    tenant: Option<RoomPattern>,
}

/// The error of a home room template with a variable that is unknown when a backend publishes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the home room template `{template}` may hold {allowed} only")]
pub struct HomeRoomError {
    template: String,
    allowed: &'static str,
}

impl HomeRooms {
    /// Creates the templates, expanded like those of the policy's auto-join: `user` may hold `{user}` and `{tenant}`,
    /// and must hold `{user}`; `tenant` may hold `{tenant}`.
    ///
    /// # Errors
    /// [`HomeRoomError`].
    pub fn new(user: Option<RoomPattern>, tenant: Option<RoomPattern>) -> Result<Self, HomeRoomError> {
        let refuse = |template: &RoomPattern, allowed| HomeRoomError {
            template: template.as_str().to_owned(),
            allowed,
        };
        if let Some(template) = &user
            && !(template.variables().all(|name| matches!(name, "user" | "tenant"))
                && template.variables().any(|name| name == "user"))
        {
            return Err(refuse(template, "{user}, which it must hold, and {tenant}"));
        }
        // Two users must never share a room.
        if let Some(template) = user.as_ref().filter(|template| !template.is_injective()) {
            return Err(refuse(template, "variables with a `:` between them"));
        }
        if let Some(template) = &tenant
            && !template.variables().all(|name| name == "tenant")
        {
            return Err(refuse(template, "{tenant}"));
        }
        Ok(Self { user, tenant })
    }

    /// Returns the template of a user's room, and that of a tenant's.
    #[must_use]
    pub const fn templates(&self) -> [Option<&RoomPattern>; 2] {
        [self.user.as_ref(), self.tenant.as_ref()]
    }

    /// Returns the name of a user's room; `None` when no template is configured.
    #[must_use]
    pub fn of_user(&self, tenant: &Tenant, user: &str) -> Option<String> {
        self.user.as_ref()?.expand(|name| match name {
            "user" => Some(user.to_owned()),
            _ => Some(tenant.as_str().to_owned()),
        })
    }

    /// Returns the name of a tenant's room; `None` when no template is configured.
    #[must_use]
    pub fn of_tenant(&self, tenant: &Tenant) -> Option<String> {
        self.tenant.as_ref()?.expand(|_| Some(tenant.as_str().to_owned()))
    }
}
