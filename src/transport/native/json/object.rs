//! Writes JSON objects straight into bytes. Fields with their zero value are left out, as the mapping says.

use std::fmt::Display;
use std::io::Write;

use crate::json::Json;

/// Why writing cannot fail.
const IN_MEMORY: &str = "writing text and numbers to memory cannot fail";

/// An object under way.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl Object<'_> {
    /// Writes one object.
    pub(super) fn write(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        fill(&mut Object { out, is_empty: true });
        out.push(b'}');
    }

    /// A field whose value the caller appends. Keys are ours and need no escaping.
    fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(super) fn text(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            text(self.key(key), value);
        }
    }

    /// A value whose text has nothing to escape, such as an id or base64.
    pub(super) fn plain(&mut self, key: &'static str, value: impl Display) {
        write!(self.key(key), "\"{value}\"").expect(IN_MEMORY);
    }

    pub(super) fn number(&mut self, key: &'static str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.exactly(key, value);
        }
    }

    /// A number whose zero is said, too: it is not the same as nothing.
    pub(super) fn exactly(&mut self, key: &'static str, value: impl Into<u64>) {
        serde_json::to_writer(self.key(key), &value.into()).expect(IN_MEMORY);
    }

    pub(super) fn flag(&mut self, key: &'static str, value: bool) {
        if value {
            self.key(key).extend_from_slice(b"true");
        }
    }

    /// A value as it was written by whoever sent it.
    pub(super) fn json(&mut self, key: &'static str, value: &Json) {
        self.key(key).extend_from_slice(value.bytes());
    }

    pub(super) fn object(&mut self, key: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        Object::write(self.key(key), fill);
    }

    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        items: impl IntoIterator<Item = T>,
        each: impl Fn(&mut Vec<u8>, T),
    ) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return;
        }
        let out = self.key(key);
        let mut separator = b'[';
        for item in items {
            out.push(separator);
            each(out, item);
            separator = b',';
        }
        out.push(b']');
    }
}

/// A string, escaped where it must be.
pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(out, value).expect(IN_MEMORY);
}
