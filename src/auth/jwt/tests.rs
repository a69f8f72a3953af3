mod claims;
mod lifetime;
mod settings;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, get_current_timestamp};
use serde_json::json;

use super::*;
use crate::auth::{Authenticator as _, JwtAuthenticator, KeyConfig, Secret, TokenIssuer};

const HEADER: &str = r#"{"alg":"HS256","kid":"hs"}"#;
const SECRET: &str = "a secret of more than thirty-two bytes";
const RSA: &str = include_str!("../../../tests/data/keys/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../../tests/data/keys/rsa.pub.pem");
const P256: &str = include_str!("../../../tests/data/keys/p256.pem");
const P256_PUBLIC: &str = include_str!("../../../tests/data/keys/p256.pub.pem");
const P384_PUBLIC: &str = include_str!("../../../tests/data/keys/p384.pub.pem");
const ED25519: &str = include_str!("../../../tests/data/keys/ed25519.pem");
const ED25519_OTHER: &str = include_str!("../../../tests/data/keys/ed25519-other.pem");
const ED25519_PUBLIC: &str = include_str!("../../../tests/data/keys/ed25519.pub.pem");

fn secret_key(kid: Option<&str>) -> KeyConfig {
    KeyConfig {
        kid: kid.map(str::to_owned),
        algorithm: Algorithm::Hs256,
        secret: Some(Secret::new(SECRET.to_owned())),
        secret_file: None,
        public_key: None,
        public_key_file: None,
    }
}

fn public_key(kid: &str, algorithm: Algorithm, pem: &str) -> KeyConfig {
    KeyConfig {
        algorithm,
        secret: None,
        public_key: Some(pem.to_owned()),
        ..secret_key(Some(kid))
    }
}

fn issuer(keys: Vec<KeyConfig>) -> IssuerConfig {
    IssuerConfig {
        issuer: "https://id.example".to_owned(),
        audiences: vec!["roomcast".to_owned(), "other".to_owned()],
        keys,
        ..IssuerConfig::default()
    }
}

fn all_keys() -> Vec<KeyConfig> {
    vec![
        secret_key(Some("hs")),
        public_key("rs", Algorithm::Rs256, RSA_PUBLIC),
        public_key("es", Algorithm::Es256, P256_PUBLIC),
        public_key("ed", Algorithm::EdDsa, ED25519_PUBLIC),
    ]
}

fn authenticator(issuers: Vec<IssuerConfig>) -> Result<JwtAuthenticator, AuthConfigError> {
    JwtAuthenticator::new(&Config {
        issuers,
        ..Config::default()
    })
}

fn now() -> i64 {
    i64::try_from(get_current_timestamp()).unwrap()
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "roomcast", "sub": "ada", "exp": now() + 600})
}

/// The usual claims with some of them changed; `null` removes one.
fn but(changes: &Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            map.remove(name);
        } else {
            map.insert(name.clone(), value.clone());
        }
    }
    claims
}

fn sign(algorithm: jsonwebtoken::Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    sign(jsonwebtoken::Algorithm::HS256, Some("hs"), &key, claims)
}

/// A token whose header and claims are written out, signed with the secret.
fn raw(header: &str, claims: &str) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

#[tokio::test]
async fn a_token_of_each_algorithm_becomes_an_identity() {
    use jsonwebtoken::Algorithm as Named;
    let authenticator = authenticator(vec![issuer(all_keys())]).unwrap();
    let keys = [
        (Named::HS256, "hs", EncodingKey::from_secret(SECRET.as_bytes())),
        (Named::RS256, "rs", EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap()),
        (Named::ES256, "es", EncodingKey::from_ec_pem(P256.as_bytes()).unwrap()),
        (
            Named::EdDSA,
            "ed",
            EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap(),
        ),
    ];
    for (algorithm, kid, key) in keys {
        let claims = but(&json!({"aud": ["x", "other"], "groups": ["a"]}));
        let token = sign(algorithm, Some(kid), &key, &claims);
        let identity = authenticator.authenticate(&token).await.unwrap();
        assert_eq!((identity.user.as_str(), identity.tenant.as_str()), ("ada", "default"));
        assert_eq!(identity.expiry.0, claims["exp"].as_u64().unwrap() + 10);
        let kept: Value = serde_json::from_str(identity.claims.as_str()).unwrap();
        assert_eq!(kept, claims, "{algorithm:?}");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn every_wrong_token_is_refused() {
    use jsonwebtoken::Algorithm as Named;
    let authenticator = authenticator(vec![issuer(all_keys())]).unwrap();
    let good = signed(&claims());
    assert!(authenticator.authenticate(&good).await.is_ok());
    let header = HEADER;
    let text = claims().to_string();
    let rsa_as_secret = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let other_ed = EncodingKey::from_ed_pem(ED25519_OTHER.as_bytes()).unwrap();
    let hs = EncodingKey::from_secret(SECRET.as_bytes());
    let mut signature_changed = good.clone();
    let last = if signature_changed.pop() == Some('A') { 'Q' } else { 'A' };
    signature_changed.push(last);
    let tokens: BTreeMap<&str, String> = [
        ("empty", String::new()),
        ("no token", "x".to_owned()),
        ("two parts", good.rsplit_once('.').unwrap().0.to_owned()),
        ("four parts", format!("{good}.x")),
        ("signature removed", format!("{}.", good.rsplit_once('.').unwrap().0)),
        ("signature changed", signature_changed),
        ("oversized", signed(&but(&json!({"pad": "x".repeat(8_192)})))),
        ("alg none", raw(r#"{"alg":"none","kid":"hs"}"#, &text)),
        ("alg None", raw(r#"{"alg":"None","kid":"hs"}"#, &text)),
        ("alg missing", raw(r#"{"kid":"hs"}"#, &text)),
        ("alg of another type", raw(r#"{"alg":1,"kid":"hs"}"#, &text)),
        ("alg not accepted", sign(Named::HS384, Some("hs"), &hs, &claims())),
        (
            "HS256 with the RSA key as secret",
            sign(Named::HS256, Some("rs"), &rsa_as_secret, &claims()),
        ),
        (
            "HS256 under the name of the Ed25519 key",
            sign(Named::HS256, Some("ed"), &hs, &claims()),
        ),
        (
            "another Ed25519 key",
            sign(Named::EdDSA, Some("ed"), &other_ed, &claims()),
        ),
        (
            "strange kid",
            sign(Named::HS256, Some("../../etc/passwd"), &hs, &claims()),
        ),
        ("kid missing", sign(Named::HS256, None, &hs, &claims())),
        ("kid of another type", raw(r#"{"alg":"HS256","kid":1}"#, &text)),
        (
            "jku",
            raw(r#"{"alg":"HS256","kid":"hs","jku":"https://evil.example"}"#, &text),
        ),
        (
            "x5u",
            raw(r#"{"alg":"HS256","kid":"hs","x5u":"https://evil.example"}"#, &text),
        ),
        (
            "jwk",
            raw(r#"{"alg":"HS256","kid":"hs","jwk":{"kty":"oct","k":"AAAA"}}"#, &text),
        ),
        (
            "crit",
            raw(r#"{"alg":"HS256","kid":"hs","crit":["b64"],"b64":false}"#, &text),
        ),
        ("exp missing", signed(&but(&json!({"exp": null})))),
        ("exp as text", signed(&but(&json!({"exp": (now() + 600).to_string()})))),
        ("exp negative", signed(&but(&json!({"exp": -1})))),
        ("exp as list", signed(&but(&json!({"exp": [now() + 600]})))),
        (
            "exp infinite",
            raw(
                header,
                r#"{"iss":"https://id.example","aud":"roomcast","sub":"ada","exp":1e999}"#,
            ),
        ),
        ("exp twice", raw(header, &text.replace('{', r#"{"exp":99999999999,"#))),
        ("iss missing", signed(&but(&json!({"iss": null})))),
        ("iss wrong", signed(&but(&json!({"iss": "https://id.example/"})))),
        ("iss as list", signed(&but(&json!({"iss": ["https://id.example"]})))),
        ("aud missing", signed(&but(&json!({"aud": null})))),
        ("aud wrong", signed(&but(&json!({"aud": "elsewhere"})))),
        ("aud wrong list", signed(&but(&json!({"aud": ["elsewhere"]})))),
        ("aud empty list", signed(&but(&json!({"aud": []})))),
        ("aud of another type", signed(&but(&json!({"aud": 1})))),
        ("sub missing", signed(&but(&json!({"sub": null})))),
        ("sub empty", signed(&but(&json!({"sub": ""})))),
        ("sub too long", signed(&but(&json!({"sub": "x".repeat(129)})))),
        ("sub with control characters", signed(&but(&json!({"sub": "a\nb"})))),
        ("sub of another type", signed(&but(&json!({"sub": {"a": 1}})))),
        (
            "claims too deep",
            signed(&but(&serde_json::from_str(&format!(
                "{{\"a\":{}{}}}",
                "[".repeat(40),
                "]".repeat(40)
            ))
            .unwrap())),
        ),
        (
            "claims with __proto__",
            raw(header, &text.replace('{', r#"{"__proto__":{},"#)),
        ),
        ("claims no object", raw(header, "[]")),
        ("claims no JSON", raw(header, "x")),
    ]
    .into();
    for (case, token) in tokens {
        let refused = authenticator.authenticate(&token).await;
        assert!(matches!(refused, Err(AuthError::Invalid(_))), "{case}: {refused:?}");
    }
}

/// Half a second after so many seconds from now.
fn fraction(seconds: i32) -> f64 {
    f64::from(u32::try_from(now()).unwrap()) + f64::from(seconds) + 0.5
}

async fn refused_for(authenticator: &JwtAuthenticator, token: &str, reason: &str) {
    match authenticator.authenticate(token).await {
        Err(AuthError::Invalid(why)) => assert!(why.starts_with(reason), "{reason}: {why}"),
        other => panic!("{reason}: {other:?}"),
    }
}

#[tokio::test]
async fn what_our_issuer_signs_our_authenticator_takes() {
    let (tokens, config) = TokenIssuer::for_development();
    let dev = authenticator(vec![config]).unwrap();
    let extra = json!({"email_verified": true}).as_object().unwrap().clone();
    let token = tokens.issue("ada", Duration::from_secs(60), extra).unwrap();
    let identity = dev.authenticate(&token).await.unwrap();
    assert_eq!(identity.user.as_str(), "ada");
    assert!(identity.claims.as_str().contains("email_verified"));
    let expired = json!({"exp": 1}).as_object().unwrap().clone();
    let token = tokens.issue("ada", Duration::from_secs(60), expired).unwrap();
    assert_eq!(dev.authenticate(&token).await, Err(AuthError::Expired));

    let config = issuer(all_keys());
    let signer = TokenIssuer::ed25519(&config, Some("ed".to_owned()), &Secret::new(ED25519.to_owned())).unwrap();
    let token = signer
        .issue("bob", Duration::from_secs(60), serde_json::Map::new())
        .unwrap();
    let with_keys = authenticator(vec![config]).unwrap();
    assert_eq!(with_keys.authenticate(&token).await.unwrap().user.as_str(), "bob");
}
