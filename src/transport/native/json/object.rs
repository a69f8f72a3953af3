//! Writes JSON objects straight into bytes. Fields with their zero value are omitted, as the mapping demands.

use std::fmt::Display;
use std::io::Write;

use crate::json::Json;

/// Reason why writing cannot fail.
const IN_MEMORY: &str = "writing text and numbers to memory cannot fail";

/// An object in the course of being written.
pub(in crate::transport) struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl Object<'_> {
    /// Writes one object.
    pub(in crate::transport) fn write(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        fill(&mut Object { out, is_empty: true });
        out.push(b'}');
    }

    /// Begins a field whose value the caller appends. Keys are constants and need no escaping.
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

    pub(in crate::transport) fn text(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            text(self.key(key), value);
        }
    }

    /// Writes a value without characters to escape, such as an id or base64.
    pub(in crate::transport) fn plain(&mut self, key: &'static str, value: impl Display) {
        write!(self.key(key), "\"{value}\"").expect(IN_MEMORY);
    }

    pub(in crate::transport) fn number(&mut self, key: &'static str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.exactly(key, value);
        }
    }

    /// Writes a number, also zero: it differs from absence.
    pub(in crate::transport) fn exactly(&mut self, key: &'static str, value: impl Into<u64>) {
        serde_json::to_writer(self.key(key), &value.into()).expect(IN_MEMORY);
    }

    pub(in crate::transport) fn flag(&mut self, key: &'static str, value: bool) {
        if value {
            self.key(key).extend_from_slice(b"true");
        }
    }

    /// Writes a value that is JSON already.
    pub(in crate::transport) fn raw(&mut self, key: &'static str, value: &str) {
        self.key(key).extend_from_slice(value.as_bytes());
    }

    /// Writes a value verbatim.
    pub(in crate::transport) fn json(&mut self, key: &'static str, value: &Json) {
        self.key(key).extend_from_slice(value.bytes());
    }

    pub(in crate::transport) fn object(&mut self, key: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        Object::write(self.key(key), fill);
    }

    pub(in crate::transport) fn list<T>(
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

/// Writes a string, escaped where necessary.
pub(in crate::transport) fn text(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(out, value).expect(IN_MEMORY);
}
