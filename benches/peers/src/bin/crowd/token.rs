//! Tokens as `roomcast dev` accepts them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Longer than any run.
const SECONDS_MAX: u64 = 12 * 3600;

/// Signs tokens.
pub struct Signer {
    key: Hmac<Sha256>,
    header: String,
}

impl Signer {
    pub fn new(secret: &str) -> Self {
        Self {
            key: Hmac::new_from_slice(secret.as_bytes()).expect("a key may have any length"),
            header: URL_SAFE_NO_PAD.encode(HEADER),
        }
    }

    /// A token with as much in it as an application's.
    pub fn sign(&self, member: u32) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let claims = serde_json::json!({
            "iss": "roomcast-dev",
            "aud": "roomcast",
            "sub": format!("member-{member}"),
            "tenant_id": "default",
            "iat": now,
            "exp": now + SECONDS_MAX,
            "name": format!("Member {member} of the crowd"),
            "role": "member",
        });
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.clone().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
