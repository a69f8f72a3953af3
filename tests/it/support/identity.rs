//! Users, and the tokens they are known by. Signed here and not by the gateway's own code.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use super::TENANT;

/// The issuer and audience of every token.
pub const ISSUER: &str = "https://id.test";
/// See [`ISSUER`].
pub const AUDIENCE: &str = "roomcast";
/// The key the gateway is given.
pub const SECRET: &str = "a secret of the tests, long enough for HS256";

/// Somebody who connects.
#[derive(Debug, Clone)]
pub struct User {
    pub id: String,
    claims: Map<String, Value>,
}

/// A user of the usual tenant.
pub fn user(id: &str) -> User {
    let claims = json!({
        "sub": id,
        "tenant_id": TENANT,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": in_seconds(3600),
    });
    let Value::Object(claims) = claims else { unreachable!() };
    User {
        id: id.to_owned(),
        claims,
    }
}

impl User {
    /// The same in another tenant.
    pub fn tenant(self, tenant: &str) -> Self {
        self.claim("tenant_id", tenant)
    }

    /// The same with a claim more, or another one.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// The same without a claim.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// The same with a token that ends at this time, in seconds since the Unix epoch.
    pub fn expires_at(self, second: i64) -> Self {
        self.claim("exp", second)
    }

    /// The same with a token that ends so many seconds from now; negative is in the past.
    pub fn expires_in(self, seconds: i64) -> Self {
        self.expires_at(in_seconds(seconds))
    }

    /// Which tenant the token names.
    pub fn tenant_name(&self) -> String {
        self.claims
            .get("tenant_id")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    /// The token.
    pub fn token(&self) -> String {
        self.signed(&Header::new(Algorithm::HS256), SECRET)
    }

    /// A token with this header and key.
    pub fn signed(&self, header: &Header, secret: &str) -> String {
        jsonwebtoken::encode(header, &self.claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    /// The claims as JSON.
    pub fn claims(&self) -> String {
        Value::Object(self.claims.clone()).to_string()
    }
}

/// Now, in seconds since the Unix epoch, and so many on.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_secs()).unwrap() + seconds
}
