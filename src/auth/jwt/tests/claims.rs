//! Claims: which are refused under which name, and which are not read.

use super::*;

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
