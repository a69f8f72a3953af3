//! The deduplication window: maps idempotency keys to the events they were used for.
//!
//! Keys are kept as 128-bit and bodies as 64-bit hashes (`SipHash` with random keys). So an entry has a fixed size, and
//! no outsider can make two of them collide.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};

use crate::event::{IdempotencyKey, Payload, Publish};
use crate::position::Offset;

/// Hashes keys and bodies.
#[derive(Debug, Default)]
pub(super) struct Fingerprints(RandomState, RandomState);

/// An idempotency key in its room, and the event it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyUse {
    key: u128,
    body: u64,
}

impl Fingerprints {
    /// Reads the key of a publish; `None` without one. The key's scope is its publisher and the room, and so the
    /// tenant.
    pub(super) fn read(&self, publish: &Publish) -> Option<KeyUse> {
        let key = publish.key.as_ref().map(IdempotencyKey::scoped)?;
        let payload = match &publish.payload {
            Payload::Json(json) => (0u8, &json.bytes()[..]),
            Payload::Binary(bytes) => (1, &bytes[..]),
        };
        Some(KeyUse {
            key: self.wide_hash(&(&publish.room, key)),
            body: self
                .0
                .hash_one((&publish.name, publish.retention, payload, &publish.actor)),
        })
    }

    /// Hashes to 128 bits, wide enough that no two of a million keys collide.
    fn wide_hash(&self, value: &impl Hash) -> u128 {
        u128::from(self.0.hash_one(value)) << 64 | u128::from(self.1.hash_one(value))
    }
}

/// The result of looking a key up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The key is not in the window.
    Never,
    /// The key was used for this very event, which got this offset (`None`: ephemeral).
    Before(Option<Offset>),
    /// The key was used for another event.
    ForAnother,
}

#[derive(Debug)]
struct Remembered {
    body: u64,
    offset: Option<Offset>,
}

/// The idempotency keys of a stripe, oldest first.
#[derive(Debug)]
pub(super) struct KeyWindow {
    entries: HashMap<u128, Remembered>,
    order: VecDeque<(u128, u64)>,
    window_ms: u64,
    keys_max: usize,
}

impl KeyWindow {
    pub(super) fn new(window_ms: u64, keys_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            window_ms,
            keys_max,
        }
    }

    /// Looks a key up. Each key is expired once, so the amortized cost is constant.
    pub(super) fn look_up(&mut self, wanted: KeyUse, now_ms: u64) -> Seen {
        self.expire(now_ms);
        match self.entries.get(&wanted.key) {
            None => Seen::Never,
            Some(known) if known.body == wanted.body => Seen::Before(known.offset),
            Some(_) => Seen::ForAnother,
        }
    }

    /// Stores a key that [`Self::look_up`] did not find.
    pub(super) fn remember(&mut self, used: KeyUse, offset: Option<Offset>, now_ms: u64) {
        if self.keys_max == 0 {
            return;
        }
        if self.order.len() >= self.keys_max {
            self.forget_oldest();
        }
        let body = used.body;
        self.entries.insert(used.key, Remembered { body, offset });
        self.order.push_back((used.key, now_ms));
    }

    /// Drops the keys that are older than the window.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some((_, at_ms)) = self.order.front()
            && now_ms.saturating_sub(*at_ms) >= self.window_ms
        {
            self.forget_oldest();
        }
    }

    /// Releases memory after a flood of keys.
    pub(super) fn shrink(&mut self) {
        if self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to_fit();
            self.entries.shrink_to_fit();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, _)) = self.order.pop_front() {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn used(key: u128, body: u64) -> KeyUse {
        KeyUse { key, body }
    }

    #[test]
    fn a_key_is_known_until_the_window_is_over() {
        let mut window = KeyWindow::new(100, 10);
        window.remember(used(1, 1), Some(Offset(7)), 0);
        assert_eq!(window.look_up(used(1, 1), 99), Seen::Before(Some(Offset(7))));
        assert_eq!(window.look_up(used(1, 2), 99), Seen::ForAnother);
        assert_eq!(window.look_up(used(2, 1), 99), Seen::Never);
        assert_eq!(window.look_up(used(1, 2), 100), Seen::Never);
    }

    #[test]
    fn the_oldest_key_goes_when_the_window_is_full() {
        let mut window = KeyWindow::new(100, 2);
        for key in 1..=3 {
            window.remember(used(key, 0), None, 0);
        }
        assert_eq!(window.look_up(used(1, 0), 0), Seen::Never);
        assert_eq!(window.look_up(used(2, 0), 0), Seen::Before(None));
        assert_eq!(window.entries.len(), 2);
    }
}
