//! A digest that every node and every release computes identically: 64-bit FNV-1a. Not cryptographic, and not for tables that
//! an outsider may fill: those hash under a key of the process.

/// An incremental digest, to compare content and to place rooms.
#[derive(Debug, Clone, Copy)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Creates a digest that begins at this number, for one that differs by node or by time.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Adds bytes. Fields of variable length are added with their length, or two pairs of fields have one digest.
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

    /// Returns the same with the finalizer of `MurmurHash3`: similar contents differ in few bits of FNV-1a alone, which a
    /// remainder or a sum would show.
    #[must_use]
    pub fn mixed(self) -> u64 {
        let mut hash = self.0;
        for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
        }
        hash ^ (hash >> 33)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> Digest {
        let mut digest = Digest::default();
        digest.add(bytes);
        digest
    }

    /// The first three are test vectors of FNV-1a by its authors.
    #[test]
    fn a_digest_is_the_same_in_every_release() {
        for (bytes, value) in [
            (b"".as_slice(), 0xcbf2_9ce4_8422_2325),
            (b"a", 0xaf63_dc4c_8601_ec8c),
            (b"foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(digest(bytes).value(), value);
        }
        assert_ne!(digest(b"a").mixed() % 64, digest(b"b").mixed() % 64);
    }
}
