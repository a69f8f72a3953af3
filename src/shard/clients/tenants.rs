//! The tenants of a shard's sessions: one copy of each name, whatever the number of its users.

use std::collections::HashSet;

use crate::room::Tenant;

/// From this many on, names that nobody uses any longer are looked for.
const LOOK_FROM: usize = 64;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct TenantNames {
    names: HashSet<Tenant>,
    look_at: usize,
}

impl TenantNames {
    /// The copy that all share.
    pub(super) fn shared(&mut self, tenant: Tenant) -> Tenant {
        if let Some(known) = self.names.get(&tenant) {
            return known.clone();
        }
        if self.names.len() >= self.look_at.max(LOOK_FROM) {
            self.names.retain(Tenant::is_shared);
            self.names.shrink_to_fit();
            self.look_at = self.names.len() * 2;
        }
        self.names.insert(tenant.clone());
        tenant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: usize) -> Tenant {
        Tenant::parse(&format!("t{number}")).unwrap()
    }

    #[test]
    fn equal_names_are_one_copy() {
        let mut tenants = TenantNames::default();
        let first = tenants.shared(tenant(1));
        assert!(std::ptr::eq(first.as_str(), tenants.shared(tenant(1)).as_str()));
    }

    #[test]
    fn names_that_nobody_uses_do_not_stay() {
        let mut tenants = TenantNames::default();
        let used = tenants.shared(tenant(0));
        (1..10 * LOOK_FROM).for_each(|number| drop(tenants.shared(tenant(number))));
        assert!(tenants.names.len() <= LOOK_FROM);
        assert!(std::ptr::eq(used.as_str(), tenants.shared(tenant(0)).as_str()));
    }
}
