//! Faults of streams that do not heal by themselves, for health and for one log line each.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::sync::lock;

/// The unusable streams, with the reasons.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<String, String>>);

impl Troubles {
    /// Records that a stream is unusable. Logged when it is new.
    pub(super) fn set(&self, stream: &str, why: &str) {
        let mut troubles = lock(&self.0);
        if troubles.get(stream).is_some_and(|known| known == why) {
            return;
        }
        tracing::error!(stream, why, "stream unusable");
        troubles.insert(stream.to_owned(), why.to_owned());
    }

    /// Records that a stream is usable.
    pub(super) fn clear(&self, stream: &str) {
        if lock(&self.0).remove(stream).is_some() {
            tracing::info!(stream, "stream usable again");
        }
    }

    /// Returns the first fault.
    pub(super) fn first(&self) -> Option<String> {
        let troubles = lock(&self.0);
        let (stream, why) = troubles.first_key_value()?;
        Some(format!("the stream {stream}: {why}"))
    }
}
