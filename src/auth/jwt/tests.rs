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

#[tokio::test]
async fn expiry_and_start_are_taken_with_the_leeway_only() {
    let authenticator = authenticator(vec![issuer(all_keys())]).unwrap();
    for (changes, accepted) in [
        (json!({"exp": now() - 5}), true),
        (json!({"exp": now() - 15}), false),
        (json!({"exp": 0}), false),
        (json!({"nbf": now() + 5}), true),
        (json!({"iat": now() + 5}), true),
        (json!({"nbf": 0, "iat": 0}), true),
        (json!({"nbf": fraction(-60), "iat": fraction(-60)}), true),
        (json!({"nbf": fraction(5), "iat": fraction(5)}), true),
        (json!({"exp": fraction(600)}), true),
        (json!({"exp": fraction(-15)}), false),
    ] {
        let decision = authenticator.authenticate(&signed(&but(&changes))).await;
        match decision {
            Ok(_) => assert!(accepted, "{changes}"),
            Err(error) => assert!(!accepted && error == AuthError::Expired, "{changes}: {error}"),
        }
    }
}

/// Half a second after so many seconds from now.
fn fraction(seconds: i32) -> f64 {
    f64::from(u32::try_from(now()).unwrap()) + f64::from(seconds) + 0.5
}

#[tokio::test]
async fn a_refused_claim_is_named() {
    let authenticator = authenticator(vec![issuer(all_keys())]).unwrap();
    for (changes, reason) in [
        (json!({"exp": null}), "its `exp` is missing"),
        (json!({"exp": (now() + 600) * 1_000}), "its `exp` is farther away"),
        (json!({"nbf": now() + 60}), "its `nbf` lies in the future"),
        (json!({"nbf": fraction(60)}), "its `nbf` lies in the future"),
        (json!({"nbf": now() * 1_000}), "its `nbf` lies in the future"),
        (json!({"iat": now() + 60}), "its `iat` lies in the future"),
        (json!({"iat": fraction(60)}), "its `iat` lies in the future"),
        (
            json!({"iat": now() * 1_000}),
            "its `iat` lies in the future; it counts seconds",
        ),
        (json!({"iat": now() * 1_000_000}), "its `iat` lies in the future"),
        (json!({"iat": u64::MAX}), "its `iat` lies in the future"),
        (json!({"iat": 1e300}), "its `iat` lies in the future"),
        (json!({"aud": null}), "its `aud` is missing"),
        (json!({"aud": "elsewhere"}), "its `aud` names no accepted"),
        (json!({"jti": 7}), "its `jti` is no text"),
        (json!({"jti": ""}), "its `jti` is no text of 1 to 256 bytes"),
        (
            json!({"jti": "x".repeat(257)}),
            "its `jti` is no text of 1 to 256 bytes",
        ),
        (
            json!({"jti": "\u{e9}".repeat(129)}),
            "its `jti` is no text of 1 to 256 bytes",
        ),
        (json!({"jti": ["a"]}), "its `jti` is no text"),
        (json!({"sub": 1.5}), "it names no acceptable user"),
    ] {
        refused_for(&authenticator, &signed(&but(&changes)), reason).await;
    }
    for claim in ["exp", "nbf", "iat"] {
        for value in [json!("0"), json!(-1), json!(-0.5), json!(true)] {
            let token = signed(&but(&json!({claim: value})));
            refused_for(
                &authenticator,
                &token,
                &format!("its `{claim}` is no number of seconds"),
            )
            .await;
        }
        for value in [json!([0]), json!({})] {
            // The library reads the two others itself, and does not say at which it stopped.
            let reason = if claim == "iat" { "its `iat` is no number" } else { "" };
            refused_for(&authenticator, &signed(&but(&json!({claim: value}))), reason).await;
        }
    }
    let null = |claim: &str| {
        raw(
            HEADER,
            &claims().to_string().replacen('{', &format!("{{\"{claim}\":null,"), 1),
        )
    };
    refused_for(&authenticator, &null("iat"), "its `iat` is no number").await;
    refused_for(&authenticator, &null("nbf"), "its `nbf` is no number").await;
    refused_for(&authenticator, &null("jti"), "its `jti` is no text").await;
    let longest = json!({"jti": "x".repeat(256)});
    assert!(authenticator.authenticate(&signed(&but(&longest))).await.is_ok());
}

async fn refused_for(authenticator: &JwtAuthenticator, token: &str, reason: &str) {
    match authenticator.authenticate(token).await {
        Err(AuthError::Invalid(why)) => assert!(why.starts_with(reason), "{reason}: {why}"),
        other => panic!("{reason}: {other:?}"),
    }
}

#[tokio::test]
async fn the_expiry_is_the_moment_at_which_the_token_is_refused() {
    for leeway in [0, 10, 120] {
        let authenticator = JwtAuthenticator::new(&Config {
            issuers: vec![issuer(all_keys())],
            leeway: Duration::from_secs(leeway),
            ..Config::default()
        })
        .unwrap();
        let leeway = i64::try_from(leeway).unwrap();
        let began = now();
        let [lasting, ended] = [began + 5, began].map(|end| signed(&but(&json!({"exp": end - leeway}))));
        let identity = authenticator.authenticate(&lasting).await.unwrap();
        assert_eq!(i64::try_from(identity.expiry.0), Ok(began + 5));
        let refused = authenticator.authenticate(&ended).await;
        assert_eq!(refused, Err(AuthError::Expired), "{leeway}");
    }
}

#[tokio::test]
async fn a_token_that_lives_too_long_is_refused() {
    let year = 31_557_600;
    let check = |lifetime_max: u64| {
        JwtAuthenticator::new(&Config {
            issuers: vec![issuer(all_keys())],
            lifetime_max: Duration::from_secs(lifetime_max),
            ..Config::default()
        })
    };
    let longest = check(100 * year).unwrap();
    for (exp, is_taken) in [
        (json!(now() + 100 * 365 * 86_400), true),
        (json!(now() + 270 * 365 * 86_400), false),
        (json!((now() + 600) * 1_000), false),
        (json!((now() + 600) * 1_000_000), false),
        (json!(u64::MAX), false),
        (json!(1e18), false),
    ] {
        let decision = longest.authenticate(&signed(&but(&json!({"exp": exp})))).await;
        assert_eq!(decision.is_ok(), is_taken, "{exp}: {decision:?}");
        if let Ok(identity) = decision {
            assert!(identity.expiry.0 * 1_000 < 1 << 53, "what JSON carries exactly");
        }
    }
    for wrong in [0, 101 * year] {
        assert!(matches!(check(wrong), Err(AuthConfigError::LifetimeMax)));
    }
    let usual = authenticator(vec![issuer(all_keys())]).unwrap();
    let year = i64::try_from(year).unwrap();
    for (exp, is_taken) in [(now() + year - 60, true), (now() + year + 60, false)] {
        let decision = usual.authenticate(&signed(&but(&json!({"exp": exp})))).await;
        assert_eq!(decision.is_ok(), is_taken, "{decision:?}");
    }
}

/// Numbers beyond every type are nothing to those who do not read them, and keep their digits.
#[tokio::test]
async fn unrelated_numbers_of_any_size_are_accepted() {
    let authenticator = authenticator(vec![issuer(all_keys())]).unwrap();
    let usual = claims().to_string();
    let with = |more: &str| usual.replacen('{', &format!("{{{more},"), 1);
    for number in ["1e400", "-1e999", "1e-999", &"9".repeat(401)] {
        for more in [format!("\"n\":{number}"), format!("\"n\":{{\"deep\":[{number}]}}")] {
            let claims = with(&more);
            let identity = authenticator.authenticate(&raw(HEADER, &claims)).await.unwrap();
            assert_eq!((identity.user.as_str(), identity.claims.as_str()), ("ada", &*claims));
        }
        for (name, refusal) in [
            ("nbf", "its `nbf` is no number of seconds since 1970"),
            ("iat", "its `iat` is no number of seconds since 1970"),
            ("jti", "its `jti` is no text of 1 to 256 bytes"),
        ] {
            // A moment that rounds to 1970 is one.
            if number == "1e-999" && name != "jti" {
                continue;
            }
            let refused = authenticator
                .authenticate(&raw(HEADER, &with(&format!("\"{name}\":{number}"))))
                .await;
            assert_eq!(refused, Err(AuthError::Invalid(refusal)), "{name} {number}");
        }
    }
}

#[tokio::test]
async fn each_issuer_has_keys_of_its_own() {
    let other_secret = "another secret of thirty-two bytes and more";
    let mut other = issuer(vec![KeyConfig {
        secret: Some(Secret::new(other_secret.to_owned())),
        ..secret_key(Some("hs"))
    }]);
    other.issuer = "https://other.example".to_owned();
    other.claims.tenant = Some("org".to_owned());
    other.claims.user = "uid".to_owned();
    let authenticator = authenticator(vec![issuer(all_keys()), other]).unwrap();
    let of_other = |secret: &str, claims: &Value| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        sign(jsonwebtoken::Algorithm::HS256, Some("hs"), &key, claims)
    };
    let claims = but(&json!({"iss": "https://other.example", "uid": 7, "org": "acme"}));
    assert!(authenticator.authenticate(&of_other(SECRET, &claims)).await.is_err());
    let identity = authenticator
        .authenticate(&of_other(other_secret, &claims))
        .await
        .unwrap();
    assert_eq!((identity.user.as_str(), identity.tenant.as_str()), ("7", "acme"));
    for org in [
        json!(""),
        json!(null),
        json!("x".repeat(65)),
        json!(true),
        json!("a\0b"),
    ] {
        let mut claims = claims.clone();
        claims["org"] = org.clone();
        let refused = authenticator.authenticate(&of_other(other_secret, &claims)).await;
        assert_eq!(
            refused,
            Err(AuthError::Invalid("it names no acceptable tenant")),
            "{org}"
        );
    }
}

#[tokio::test]
async fn issuer_and_audience_are_dropped_only_when_asked_to() {
    let mut relaxed = issuer(vec![secret_key(None)]);
    relaxed.issuer_unchecked = true;
    relaxed.audience_unchecked = true;
    relaxed.audiences.clear();
    let authenticator = authenticator(vec![relaxed]).unwrap();
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    for claims in [
        json!({"sub": "ada", "exp": now() + 60}),
        but(&json!({"iss": "x", "aud": ["y"]})),
    ] {
        let token = sign(jsonwebtoken::Algorithm::HS256, None, &key, &claims);
        assert!(authenticator.authenticate(&token).await.is_ok(), "{claims}");
    }
    let token = sign(jsonwebtoken::Algorithm::HS256, None, &key, &json!({"sub": "ada"}));
    assert!(
        authenticator.authenticate(&token).await.is_err(),
        "exp is always needed"
    );
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

#[test]
fn a_wrong_configuration_is_refused_in_words() {
    let check = |change: &dyn Fn(&mut IssuerConfig), expected: &str| {
        let mut config = issuer(vec![secret_key(None)]);
        change(&mut config);
        let error = authenticator(vec![config]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&|config| config.issuer.clear(), "`issuer` is empty");
    check(&|config| config.audiences.clear(), "give `audiences`");
    check(&|config| config.audience_unchecked = true, "and not both");
    check(&|config| config.keys.clear(), "either `keys` or `jwks`");
    check(
        &|config| config.algorithms = vec![Algorithm::Rs256],
        "a key is for Hs256",
    );
    check(
        &|config| config.keys[0].secret = Some(Secret::new("short".to_owned())),
        "at least 32 bytes",
    );
    check(
        &|config| config.keys[0].secret = None,
        "one of `secret` and `secret_file`",
    );
    check(
        &|config| config.keys[0].secret_file = Some("/no/such/file".into()),
        "one of `secret` and `secret_file`",
    );
    check(
        &|config| config.keys[0].algorithm = Algorithm::Rs256,
        "takes a public key, not a secret",
    );
    check(&|config| config.keys.push(secret_key(None)), "two keys need two names");
    check(
        &|config| config.keys = vec![public_key("a", Algorithm::Hs256, RSA_PUBLIC)],
        "not a public key",
    );
    check(
        &|config| config.keys = vec![public_key("a", Algorithm::Es256, P384_PUBLIC)],
        "curve P-256",
    );
    check(
        &|config| config.keys = vec![public_key("a", Algorithm::EdDsa, RSA_PUBLIC)],
        "not a public key for its",
    );
    for url in [
        "http://id.example/jwks",
        "ftp://127.0.0.1/",
        "http://127.0.0.1.evil.example/",
        "jwks",
        "",
    ] {
        let jwks = |config: &mut IssuerConfig| {
            config.keys.clear();
            config.jwks = Some(crate::auth::JwksConfig::at(url));
        };
        check(&jwks, "`jwks.url`");
    }
    let twice = authenticator(vec![issuer(all_keys()), issuer(all_keys())]).unwrap_err();
    assert!(twice.to_string().contains("configured twice"));
    assert!(!format!("{:?}", issuer(all_keys())).contains(SECRET));
}

#[tokio::test]
async fn a_secret_is_read_from_its_file_without_the_line_end() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let config = issuer(vec![KeyConfig {
        secret: None,
        secret_file: Some(file.path().to_owned()),
        ..secret_key(Some("hs"))
    }]);
    let authenticator = authenticator(vec![config]).unwrap();
    assert!(authenticator.authenticate(&signed(&claims())).await.is_ok());
}

#[test]
fn the_examples_of_the_documentation_are_accepted() {
    let page = include_str!("../../../docs/authentication.md");
    let blocks = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next());
    let settings: toml::Table = toml::from_str(&blocks.collect::<Vec<_>>().join("\n")).unwrap();
    let mut config: Config = settings["auth"].clone().try_into().unwrap();
    assert_eq!(config.issuers.len(), 2);
    let key = &mut config.issuers[0].keys[0];
    assert!(key.secret_file.take().is_some());
    key.secret = Some(Secret::new(SECRET.to_owned()));
    JwtAuthenticator::new(&config).unwrap();
}
