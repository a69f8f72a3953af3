//! Masking (RFC 6455 section 5.3).

/// The masking key of a client's payload, rotated to the next byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask(u32);

impl Mask {
    /// Creates the mask at the first byte of a payload.
    pub(super) const fn new(key: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(key))
    }

    /// Unmasks the next bytes of the payload in place.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        let half = u64::from(self.0);
        let key = (half << 32) | half;
        // Eight bytes at a time; the compiler vectorizes it where the machine can.
        let (words, tail) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_be_bytes(*word) ^ key).to_be_bytes();
        }
        for (byte, key) in tail.iter_mut().zip(key.to_be_bytes()) {
            *byte ^= key;
        }
        // Only the tail rotates the key: eight bytes are two whole turns of it.
        let moved = u32::try_from(tail.len() % 4).expect("less than 4");
        self.0 = self.0.rotate_left(8 * moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_payload_is_unmasked_alike_however_it_is_cut(
            key: [u8; 4], bytes in prop::collection::vec(any::<u8>(), 0..70), cuts in prop::collection::vec(0..70_usize, 0..4),
        ) {
            let expected: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
            let mut unmasked = bytes.clone();
            let mut mask = Mask::new(key);
            let mut rest = unmasked.as_mut_slice();
            for cut in cuts {
                let (part, after) = rest.split_at_mut(cut.min(rest.len()));
                mask.apply(part);
                rest = after;
            }
            mask.apply(rest);
            prop_assert_eq!(unmasked, expected);
        }
    }
}
