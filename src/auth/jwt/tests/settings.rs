//! The settings of issuers: what is refused, secrets in files, the examples of the documentation.

use super::*;

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
    let page = include_str!("../../../../docs/authentication.md");
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
