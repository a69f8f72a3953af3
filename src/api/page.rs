//! Page tokens: opaque to the caller, valid on every node, and only for the query that issued them.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::status::{Invalid, Refusal};

/// The first byte of a token. Changes with the token's layout.
const VERSION: u8 = 1;

/// Bytes of the query's digest in a token.
const QUERY_BYTES: usize = 8;

/// The longest token that is parsed, in characters: a name of 255 bytes in base64, its head, and room for more.
const TOKEN_MAX: usize = 1024;

/// Digest of a query with pages.
pub(super) struct Query([u8; QUERY_BYTES]);

impl Query {
    /// Digests the fields of a query, in this order. The page size is not one of them.
    pub(super) fn of(fields: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for field in fields {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            context.update(&(field.len() as u64).to_le_bytes());
            context.update(field);
        }
        let mut query = [0; QUERY_BYTES];
        query.copy_from_slice(&context.finish().as_ref()[..QUERY_BYTES]);
        Self(query)
    }

    /// Returns the token of the page that continues at `cursor`.
    pub(super) fn token(&self, cursor: &[u8]) -> String {
        let mut bytes = Vec::with_capacity(1 + QUERY_BYTES + cursor.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.0);
        bytes.extend_from_slice(cursor);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the cursor of a token; `None` for the first page. `read` parses the argument of [`Self::token`].
    pub(super) fn cursor<T>(&self, token: &str, read: impl FnOnce(&[u8]) -> Option<T>) -> Result<Option<T>, Refusal> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = (token.len() <= TOKEN_MAX)
            .then(|| URL_SAFE_NO_PAD.decode(token).ok())
            .flatten();
        let bytes = bytes.unwrap_or_default();
        let cursor = match bytes.split_first() {
            Some((&VERSION, rest)) => rest.strip_prefix(&self.0[..]).and_then(read),
            _ => None,
        };
        let refusal = || Refusal::invalid(Invalid::PageToken, "page_token", "is not one this query has given");
        cursor.map(Some).ok_or_else(refusal)
    }
}

/// Returns the size of a page: 0 means 100, and more than `max` means `max`. Negative is refused (AIP-158).
pub(super) fn size(asked: i32, max: usize) -> Result<usize, Refusal> {
    match usize::try_from(asked) {
        Ok(0) => Ok(100.min(max)),
        Ok(asked) => Ok(asked.min(max)),
        Err(_) => Err(Refusal::field("page_size", "is negative")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Option<String> {
        String::from_utf8(bytes.to_vec()).ok()
    }

    #[test]
    fn a_token_is_good_for_its_own_query_only() {
        let query = Query::of(&[b"a", b"room"]);
        let token = query.token(b"ada");
        assert_eq!(query.cursor(&token, text), Ok(Some("ada".to_owned())));
        assert_eq!(query.cursor("", text), Ok(None));
        for other in [Query::of(&[b"a", b"other"]), Query::of(&[b"ar", b"oom"])] {
            assert!(other.cursor(&token, text).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_a_token_panic(token in "\\PC{0,64}") {
            let _ = Query::of(&[b"a"]).cursor(&token, text);
        }
    }
}
