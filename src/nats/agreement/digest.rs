//! A digest that every node and every release computes identically (64-bit FNV-1a).

/// An incremental digest, to compare content. Not cryptographic.
#[derive(Debug, Clone, Copy)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        const PRIME: u64 = 0x0100_0000_01b3;
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        self.0 = bytes.iter().fold(self.0, step);
    }

    /// Returns the digest of all bytes added so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}
