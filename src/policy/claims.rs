//! Claims as conditions read them, kept for identities that are asked about again and again.
//!
//! Measured: reading 0.5 KiB of claims costs five times as much as evaluating a condition over them, and a client that
//! publishes is asked about for every event.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::variables::{Variable, of_json};
use crate::identity::Identity;
use crate::sync::lock;

/// The most bytes of claims, as text, whose parsed form is kept; parsed, it takes up to ten times as much memory.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The claims of one identity; nothing is looked up, read or kept before a condition asks for them.
#[derive(Debug, Default)]
pub(super) struct Claims<'k> {
    kept: Option<(&'k KeptClaims, &'k Arc<Identity>)>,
    read: OnceLock<Arc<Read>>,
}

/// Claims in read form; none when they are no JSON.
#[derive(Debug, Default)]
struct Read(OnceLock<Option<Variable>>);

impl Claims<'_> {
    pub(super) fn value(&self, identity: &Identity) -> Option<&Variable> {
        let find = || {
            self.kept
                .map(|(kept, identity)| kept.find(identity))
                .unwrap_or_default()
        };
        let read = || of_json(identity.claims.as_str());
        self.read.get_or_init(find).0.get_or_init(read).as_ref()
    }
}

/// Claims that were read, by the identity they belong to.
#[derive(Debug, Default)]
pub(super) struct KeptClaims {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By address. The weak reference keeps the address from being used for another identity.
    by_identity: HashMap<usize, (Weak<Identity>, Arc<Read>)>,
    text_bytes: usize,
}

impl KeptClaims {
    /// The claims of an identity.
    pub(super) fn of<'k>(&'k self, identity: &'k Arc<Identity>) -> Claims<'k> {
        Claims {
            kept: Some((self, identity)),
            read: OnceLock::new(),
        }
    }

    fn find(&self, identity: &Arc<Identity>) -> Arc<Read> {
        let address = Arc::as_ptr(identity).addr();
        let mut inner = lock(&self.inner);
        if let Some((_, read)) = inner.by_identity.get(&address) {
            return Arc::clone(read);
        }
        let bytes = identity.claims.as_str().len();
        if inner.text_bytes + bytes > TEXT_BYTES_MAX {
            inner.make_room();
        }
        let read = Arc::<Read>::default();
        let entry = (Arc::downgrade(identity), Arc::clone(&read));
        inner.by_identity.insert(address, entry);
        inner.text_bytes += bytes;
        read
    }
}

impl Inner {
    /// Drops those of identities that are gone, and everything if that was little: it is read again when needed.
    fn make_room(&mut self) {
        let mut left = 0;
        self.by_identity.retain(|_, (identity, _)| {
            let identity = identity.upgrade();
            left += identity.as_ref().map_or(0, |identity| identity.claims.as_str().len());
            identity.is_some()
        });
        self.text_bytes = left;
        if left > TEXT_BYTES_MAX / 2 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Expiry, UserId};
    use crate::json::Json;
    use crate::room::Tenant;

    fn identity(name: &str, bytes: usize) -> Arc<Identity> {
        Arc::new(Identity {
            tenant: Tenant::default(),
            user: UserId::parse("ada").unwrap(),
            claims: Json::from(&serde_json::json!({"name": name, "pad": "x".repeat(bytes)})).into(),
            expiry: Expiry(0),
        })
    }

    fn name(kept: &KeptClaims, identity: &Arc<Identity>) -> String {
        format!("{:?}", kept.of(identity).value(identity).unwrap())
    }

    #[test]
    fn claims_are_read_once_and_belong_to_their_identity() {
        let kept = KeptClaims::default();
        let (ada, bob) = (identity("ada", 10), identity("bob", 10));
        assert!(name(&kept, &ada).contains("ada") && name(&kept, &bob).contains("bob"));
        assert!(Arc::ptr_eq(&kept.find(&ada), &kept.find(&ada)));
    }

    #[test]
    fn nothing_is_kept_of_claims_that_no_condition_asks_for() {
        let (kept, ada) = (KeptClaims::default(), identity("ada", 10));
        drop(kept.of(&ada));
        assert!(kept.inner.lock().unwrap().by_identity.is_empty());
        assert_eq!(Arc::weak_count(&ada), 0);
    }

    #[test]
    fn what_is_kept_stays_within_its_bound_and_is_never_anothers() {
        let kept = KeptClaims::default();
        let staying: Vec<_> = (0..300).map(|n| identity(&format!("s{n}-"), 8_000)).collect();
        for n in 0..3_000 {
            // Freed at once, so that addresses would be used again if they could.
            let passing = identity(&format!("p{n}-"), 1_000);
            assert!(name(&kept, &passing).contains(&format!("p{n}-")));
            let stays = &staying[n % staying.len()];
            assert!(name(&kept, stays).contains(&format!("s{}-", n % staying.len())));
            assert!(kept.inner.lock().unwrap().text_bytes <= TEXT_BYTES_MAX);
        }
    }
}
