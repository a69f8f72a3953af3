//! The lifetime of a token: start, expiry, leeway, the longest lifetime.

use super::*;

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
