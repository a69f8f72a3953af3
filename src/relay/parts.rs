//! Messages in parts: NATS bounds the size of one message, and a client's request or its answer may be longer.

use bytes::{Bytes, BytesMut};

/// The most parts of a message. A part has some 30 KiB at least.
const PARTS_MAX: u32 = 4096;

/// A part that does not belong to its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Splits a message into parts of so many bytes; an empty one has one part.
pub(super) fn split(message: &Bytes, bytes_max: usize) -> impl ExactSizeIterator<Item = Bytes> {
    let bytes_max = bytes_max.max(1);
    let count = message.len().div_ceil(bytes_max).max(1);
    (0..count).map(move |part| message.slice(part * bytes_max..message.len().min((part + 1) * bytes_max)))
}

/// The parts of one message that have arrived. Pure.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    parts: Vec<Option<Bytes>>,
    bytes: usize,
}

impl Assembly {
    /// Adds a part; returns the message once it is complete. A part that arrives again changes nothing.
    ///
    /// # Errors
    /// [`Malformed`], also for a message that is larger than `bytes_max`.
    pub(super) fn add(
        &mut self,
        (part, parts): (u32, u32),
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, Malformed> {
        let parts = parts.max(1);
        if parts == 1 && self.parts.is_empty() && part == 0 {
            return if body.len() > bytes_max {
                Err(Malformed)
            } else {
                Ok(Some(body))
            };
        }
        if parts > PARTS_MAX || part >= parts {
            return Err(Malformed);
        }
        if self.parts.is_empty() {
            self.parts.resize(parts as usize, None);
        }
        if self.parts.len() != parts as usize {
            return Err(Malformed);
        }
        let place = &mut self.parts[part as usize];
        if place.is_none() {
            self.bytes += body.len();
            *place = Some(body);
        }
        if self.bytes > bytes_max {
            return Err(Malformed);
        }
        if self.parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        let mut whole = BytesMut::with_capacity(self.bytes);
        for part in self.parts.drain(..).flatten() {
            whole.extend_from_slice(&part);
        }
        Ok(Some(whole.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_is_put_together_from_its_parts(message: Vec<u8>, bytes_max in 1..50_usize, again: bool) {
            let message = Bytes::from(message);
            let parts: Vec<Bytes> = split(&message, bytes_max).collect();
            let count = u32::try_from(parts.len()).unwrap();
            let (mut assembly, mut whole) = (Assembly::default(), None);
            for (place, part) in (0..).zip(parts) {
                prop_assert!(part.len() <= bytes_max);
                prop_assert!(whole.is_none());
                if again && place + 1 < count {
                    assembly.add((place, count), part.clone(), usize::MAX).unwrap();
                }
                whole = assembly.add((place, count), part, usize::MAX).unwrap();
            }
            prop_assert_eq!(whole, Some(message));
        }
    }

    #[test]
    fn foreign_parts_and_large_messages_are_refused() {
        let body = || Bytes::from_static(b"123");
        for place in [(1, 1), (2, 2), (0, PARTS_MAX + 1)] {
            assert_eq!(Assembly::default().add(place, body(), 10), Err(Malformed), "{place:?}");
        }
        assert_eq!(Assembly::default().add((0, 1), body(), 2), Err(Malformed));
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add((0, 2), body(), 5), Ok(None));
        assert_eq!(assembly.add((1, 3), body(), 5), Err(Malformed));
        assert_eq!(assembly.add((1, 2), body(), 5), Err(Malformed));
    }
}
