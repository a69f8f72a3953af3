//! Home rooms: what a user and a tenant stand for where rooms are meant.

use crate::room::{RoomPattern, Tenant};

/// The rooms that stand for a user and for a whole tenant, so that a backend can name those instead. Every connection
/// must be put into them when it opens (the policy's auto-join), else they reach nobody.
#[derive(Debug, Clone, Default)]
pub struct HomeRooms {
    user: Option<RoomPattern>,
    tenant: Option<RoomPattern>,
}

/// A template of a home room holds a variable that is not known when a backend publishes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the home room template `{template}` may hold {allowed} only")]
pub struct HomeRoomError {
    template: String,
    allowed: &'static str,
}

impl HomeRooms {
    /// The templates, filled in as those of the policy's auto-join are: `user` may hold `{user}` and `{tenant}`, and must hold `{user}`; `tenant` may hold `{tenant}`.
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

    /// The name of a user's room; `None` when no template is configured.
    #[must_use]
    pub fn of_user(&self, tenant: &Tenant, user: &str) -> Option<String> {
        self.user.as_ref()?.expand(|name| match name {
            "user" => Some(user.to_owned()),
            _ => Some(tenant.as_str().to_owned()),
        })
    }

    /// The name of a tenant's room; `None` when no template is configured.
    #[must_use]
    pub fn of_tenant(&self, tenant: &Tenant) -> Option<String> {
        self.tenant.as_ref()?.expand(|_| Some(tenant.as_str().to_owned()))
    }
}
