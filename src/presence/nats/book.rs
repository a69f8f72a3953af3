//! A node's state of one room at one version, as hashes: a digest that shows changes and whether two nodes agree.

use std::collections::BTreeMap;

use super::update::DigestAnnouncement;
use crate::digest::Digest;
use crate::identity::UserId;
use crate::presence::memory::Share;

/// One node's part of a room.
#[derive(Debug, Default)]
pub(super) struct NodeDigest {
    pub version: u64,
    entries: BTreeMap<UserId, u64>,
    /// Digest: the sum of the entries, so one entry changes it without a walk over the rest.
    digest: u64,
}

impl NodeDigest {
    /// Sets the node's state of a user. Returns whether it has changed.
    pub(super) fn set(&mut self, user: &UserId, share: Option<&Share>) -> bool {
        let before = self.entries.get(user).copied();
        let after = share.map(|share| hash(user, share));
        if before == after {
            return false;
        }
        self.digest = self.digest.wrapping_sub(before.unwrap_or_default());
        self.digest = self.digest.wrapping_add(after.unwrap_or_default());
        match after {
            Some(hash) => {
                self.entries.insert(user.clone(), hash);
            }
            None => {
                self.entries.remove(user);
            }
        }
        true
    }

    pub(super) fn users(&self) -> impl Iterator<Item = &UserId> {
        self.entries.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn stand(&self, incarnation: u64) -> DigestAnnouncement {
        DigestAnnouncement {
            incarnation,
            version: self.version,
            users: self.entries.len() as u64,
            digest: self.digest,
        }
    }
}

/// Returns the digest of one entry, over fields with their lengths. Mixed, because the book's digest is a sum.
fn hash(user: &UserId, share: &Share) -> u64 {
    let mut digest = Digest::default();
    let mut add = |bytes: &[u8]| {
        digest.add(&(bytes.len() as u64).to_le_bytes());
        digest.add(bytes);
    };
    add(user.as_str().as_bytes());
    add(&share.connections.to_le_bytes());
    add(&share.since.0.to_le_bytes());
    if let Some(stated) = &share.state {
        add(&stated.at.0.to_le_bytes());
        add(stated.value.bytes());
    }
    digest.mixed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Timestamp;

    fn share(connections: u32) -> Option<Share> {
        (connections > 0).then(|| Share {
            connections,
            since: Timestamp(1),
            state: None,
        })
    }

    #[test]
    fn hashes_are_what_they_were_in_every_version() {
        let user = UserId::parse("ada").unwrap();
        assert_eq!(hash(&user, &share(1).unwrap()), HASH_OF_ADA);
    }

    const HASH_OF_ADA: u64 = 1_899_424_164_837_496_170;

    proptest! {
        #[test]
        fn a_digest_says_what_is_there_and_not_how_it_came(steps in proptest::collection::vec((0u8..6, 0u32..4), 0..60)) {
            let mut book = NodeDigest::default();
            let mut last = BTreeMap::new();
            for (user, connections) in steps {
                let user = UserId::parse(&format!("u{user}")).unwrap();
                book.set(&user, share(connections).as_ref());
                last.insert(user, connections);
            }
            let mut other = NodeDigest::default();
            for (user, connections) in last {
                other.set(&user, share(connections).as_ref());
            }
            prop_assert_eq!(book.stand(1), other.stand(1));
            let users: Vec<UserId> = book.users().cloned().collect();
            for user in &users {
                book.set(user, None);
            }
            prop_assert_eq!((book.is_empty(), book.digest), (true, 0));
        }
    }
}
