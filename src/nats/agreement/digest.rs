//! A digest that every node and every release computes alike (64-bit FNV-1a).

/// Takes bytes and tells apart what was taken. Not for anything secret.
#[derive(Debug, Clone, Copy)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Takes more bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        const PRIME: u64 = 0x0100_0000_01b3;
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        self.0 = bytes.iter().fold(self.0, step);
    }

    /// The digest of all bytes taken so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}
