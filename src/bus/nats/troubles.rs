//! What is wrong with streams that does not heal by itself, for health and for one line in the log each.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::partition::lock;

/// Streams that cannot be used, and why.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<String, String>>);

impl Troubles {
    /// A stream cannot be used. Logged when it is new.
    pub(super) fn set(&self, stream: &str, why: &str) {
        let mut troubles = lock(&self.0);
        if troubles.get(stream).is_some_and(|known| known == why) {
            return;
        }
        tracing::error!(stream, why, "stream unusable");
        troubles.insert(stream.to_owned(), why.to_owned());
    }

    /// A stream can be used.
    pub(super) fn clear(&self, stream: &str) {
        if lock(&self.0).remove(stream).is_some() {
            tracing::info!(stream, "stream usable again");
        }
    }

    /// One of them.
    pub(super) fn first(&self) -> Option<String> {
        let troubles = lock(&self.0);
        let (stream, why) = troubles.first_key_value()?;
        Some(format!("the stream {stream}: {why}"))
    }
}
