//! The id of an Engine.IO connection: a secret that names the node and the shard which have it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Place and secret of a connection. Whoever knows it may read and write the connection, so it is drawn at random and never
/// logged; the public id of a session is another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sid {
    /// The node, by its incarnation.
    pub(in crate::transport) node: u64,
    /// The shard on its node.
    pub(in crate::transport) shard: u16,
    /// The slot on the shard.
    pub(in crate::transport) key: u32,
    secret: u128,
}

/// The bytes of an id before they are written as text.
const BYTES: usize = 8 + 2 + 4 + 16;

impl Sid {
    /// Draws an id for the connection in a slot.
    pub(in crate::transport) fn draw(node: u64, shard: u16, key: u32) -> Self {
        Self {
            node,
            shard,
            key,
            secret: rand::random(),
        }
    }

    /// Parses an id as it was written; `None` for any other text.
    pub(in crate::transport) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (node, rest) = bytes.split_first_chunk()?;
        let (shard, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (secret, _) = rest.split_first_chunk()?;
        (read == BYTES).then(|| Self {
            node: u64::from_be_bytes(*node),
            shard: u16::from_be_bytes(*shard),
            key: u32::from_be_bytes(*key),
            secret: u128::from_be_bytes(*secret),
        })
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.node.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.shard.to_be_bytes());
        bytes[10..14].copy_from_slice(&self.key.to_be_bytes());
        bytes[14..].copy_from_slice(&self.secret.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({:016x}/{}/{}, ..)", self.node, self.shard, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_shows_no_secret_in_debug_texts() {
        let sid = Sid::draw(0xabc, 3, 70_000);
        assert_eq!(Sid::parse(&sid.to_string()), Some(sid));
        assert_eq!(format!("{sid:?}"), "Sid(0000000000000abc/3/70000, ..)");
        for text in [
            "",
            "a",
            "{}",
            &"A".repeat(30),
            &"A".repeat(39),
            &"A".repeat(41),
            &"A".repeat(400),
            "ä",
        ] {
            assert_eq!(Sid::parse(text), None, "{text}");
        }
    }
}
