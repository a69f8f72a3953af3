//! Who is let in, and to what.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tonic::Code;

use super::support::{Api, Caller, ROOT, Setup, event, refusal, spawn, token};
use crate::api::{Config, ConfigError, Credentials, Scope};
use crate::auth::{self, AuthError, Authenticator, IssuerConfig, JwtAuthenticator, TokenIssuer};
use crate::identity::{Expiry, Identity, UserId};
use crate::json::Json;
use crate::rate::Rate;
use crate::room::Tenant;

/// Knows `service`, `client` and `narrow`; every other token has expired.
struct Issuer;

impl Authenticator for Issuer {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        let claims = match token {
            "service" => r#"{"sub":"billing","scope":"openid publish","tenants":["*"]}"#,
            "narrow" => r#"{"sub":"billing","scope":"publish","tenants":["b"]}"#,
            "client" => r#"{"sub":"ada","scope":"openid profile","tenant_id":"a"}"#,
            _ => return Box::pin(async { Err(AuthError::Expired) }),
        };
        let identity = Identity {
            tenant: Tenant::default(),
            user: UserId::parse("billing").unwrap(),
            claims: Json::parse(claims).unwrap().into(),
            expiry: Expiry(u64::MAX),
        };
        Box::pin(async { Ok(identity) })
    }
}

async fn guarded() -> Api {
    let tokens = [
        token(ROOT, &Scope::ALL, None),
        token("reader", &[Scope::Read], None),
        token("of-b", &Scope::ALL, Some(&["b"])),
    ];
    let credentials = Credentials::none().with_tokens(tokens).with_jwt(Arc::new(Issuer));
    Api::with(Setup {
        credentials,
        ..Setup::default()
    })
    .await
}

async fn outcome(api: &Api, token: Option<&'static str>) -> (Code, String) {
    let caller = Caller {
        token,
        ..Caller::with(ROOT)
    };
    match api.publisher_of(caller).await.publish(event()).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => {
            let (code, reason, _) = refusal(&status);
            (code, reason)
        }
    }
}

#[tokio::test]
async fn only_a_service_with_scope_and_tenant_publishes() {
    let api = guarded().await;
    let (unauthenticated, denied) = (Code::Unauthenticated, Code::PermissionDenied);
    let matrix = [
        (Some(ROOT), Code::Ok, ""),
        (Some("service"), Code::Ok, ""),
        (None, unauthenticated, "UNAUTHENTICATED"),
        (Some(""), unauthenticated, "UNAUTHENTICATED"),
        (Some("guessed"), unauthenticated, "UNAUTHENTICATED"),
        (Some("client"), unauthenticated, "UNAUTHENTICATED"),
        (Some("reader"), denied, "SCOPE_MISSING"),
        (Some("of-b"), denied, "TENANT_FORBIDDEN"),
        (Some("narrow"), denied, "TENANT_FORBIDDEN"),
    ];
    for (token, code, reason) in matrix {
        assert_eq!(outcome(&api, token).await, (code, reason.to_owned()), "{token:?}");
        // A token that is known from before is judged the same.
        assert_eq!(outcome(&api, token).await, (code, reason.to_owned()), "{token:?} again");
    }
}

#[tokio::test]
async fn a_service_that_publishes_too_often_is_told_when_to_come_back() {
    let config = Config {
        publish_rate: Rate {
            per_second: 1,
            burst: 2,
        },
        ..Config::default()
    };
    let api = Api::with(Setup {
        config,
        ..Setup::default()
    })
    .await;
    let mut publisher = api.publisher().await;
    let mut accepted = 0;
    let status = loop {
        match publisher.publish(event()).await {
            Ok(_) => accepted += 1,
            Err(status) => break status,
        }
    };
    assert!(accepted >= 2);
    assert_eq!(
        refusal(&status),
        (Code::ResourceExhausted, "RATE_LIMITED".to_owned(), String::new())
    );
    let details = tonic_types::StatusExt::get_error_details(&status);
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    assert_eq!(details.quota_failure().unwrap().violations.len(), 1);
}

#[tokio::test]
async fn a_call_without_a_deadline_is_refused_unless_there_is_a_default() {
    let no_deadline = Caller {
        timeout: None,
        ..Caller::with(ROOT)
    };
    let api = Api::start().await;
    let status = api
        .publisher_of(no_deadline.clone())
        .await
        .publish(event())
        .await
        .unwrap_err();
    assert_eq!(
        refusal(&status),
        (Code::InvalidArgument, "DEADLINE_REQUIRED".to_owned(), String::new())
    );

    let config = Config {
        deadline_default: Some(Duration::from_secs(5)),
        ..Config::default()
    };
    let lenient = Api::with(Setup {
        config,
        ..Setup::default()
    })
    .await;
    lenient.publisher_of(no_deadline).await.publish(event()).await.unwrap();
}

#[test]
fn the_listener_needs_authentication_except_in_dev_on_loopback() {
    let config = Config::default();
    let (loopback, public) = ("127.0.0.1:7000".parse().unwrap(), "0.0.0.0:7000".parse().unwrap());
    let (none, everybody) = (Credentials::none(), Credentials::everybody());
    let tokens = Credentials::none().with_tokens([token(ROOT, &Scope::ALL, None)]);
    assert_eq!(config.validate(loopback, true, &everybody), Ok(()));
    assert_eq!(
        config.validate(public, true, &everybody),
        Err(ConfigError::OpenToOthers(public))
    );
    assert_eq!(
        config.validate(loopback, false, &everybody),
        Err(ConfigError::OpenToOthers(loopback))
    );
    assert_eq!(
        config.validate(loopback, false, &none),
        Err(ConfigError::NoAuthentication(loopback))
    );
    assert_eq!(config.validate(public, false, &tokens), Ok(()));
}

/// A listener that takes JWTs of services as the gateway takes those of clients.
async fn with_issuer(issuer: IssuerConfig) -> Api {
    let config = auth::Config {
        issuers: vec![issuer],
        ..auth::Config::default()
    };
    let verifier = JwtAuthenticator::new(&config).unwrap();
    Api::with(Setup {
        credentials: Credentials::none().with_jwt(Arc::new(verifier)),
        ..Setup::default()
    })
    .await
}

/// A token of a service that ends so many seconds from now.
fn service_token(issuer: &TokenIssuer, ends_in: i64) -> &'static str {
    service_token_with(issuer, ends_in, "scope", serde_json::json!("publish"))
}

/// The same with one claim more, or another one.
fn service_token_with(issuer: &TokenIssuer, ends_in: i64, name: &str, value: serde_json::Value) -> &'static str {
    let claims = serde_json::json!({"scope": "publish", "tenants": ["*"], "exp": now() + ends_in});
    let mut claims = claims.as_object().unwrap().clone();
    claims.insert(name.to_owned(), value);
    issuer.issue("billing", Duration::ZERO, claims).unwrap().leak()
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap()
}

#[tokio::test]
async fn a_service_token_that_no_revocation_could_name_is_refused_and_the_claim_is_named() {
    let (tokens, issuer) = TokenIssuer::for_development();
    let api = with_issuer(issuer).await;
    let body = serde_json::json!({"tenant": "a", "targets": [{"room": "r"}], "eventName": "n", "payload": {}});
    for (name, value, is_taken) in [
        ("iat", serde_json::json!(now() + 5), true),
        ("iat", serde_json::json!(now() * 1_000), false),
        ("iat", serde_json::json!(now() * 1_000_000), false),
        ("iat", serde_json::json!("0"), false),
        ("nbf", serde_json::json!(now() * 1_000), false),
        ("jti", serde_json::json!(7), false),
        ("jti", serde_json::json!("x".repeat(257)), false),
        ("jti", serde_json::json!("x".repeat(256)), true),
    ] {
        let token = service_token_with(&tokens, 60, name, value.clone());
        let (status, _, answer) = super::http::call(&api, "POST", "/v1/publish", token, &body.to_string()).await;
        let caller = Caller {
            token: Some(token),
            ..Caller::with(ROOT)
        };
        let published = api.publisher_of(caller).await.publish(event()).await;
        assert_eq!(
            (status == 200, published.is_ok()),
            (is_taken, is_taken),
            "{name} {value}: {answer}"
        );
        let Err(refused) = published else { continue };
        assert_eq!((status, refused.code()), (401, Code::Unauthenticated));
        for message in [refused.message(), answer["message"].as_str().unwrap_or_default()] {
            assert!(
                message.contains(&format!("its `{name}`")),
                "{name} {value}: {message} {answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_of_a_service_is_as_old_as_one_of_a_client_may_be() {
    let (tokens, issuer) = TokenIssuer::for_development();
    let api = with_issuer(issuer).await;
    let refused = (Code::Unauthenticated, "UNAUTHENTICATED".to_owned());
    let century = 100 * 365 * 86_400;
    for (ends_in, is_taken) in [(60, true), (-3, true), (-11, false), (century, false)] {
        let token = service_token(&tokens, ends_in);
        let expected = if is_taken {
            (Code::Ok, String::new())
        } else {
            refused.clone()
        };
        for _ in 0..2 {
            assert_eq!(outcome(&api, Some(token)).await, expected, "{ends_in}");
        }
    }
}

#[tokio::test]
async fn the_published_keys_of_an_issuer_of_services_are_fetched() {
    let private = include_str!("../../../tests/data/keys/ed25519.pem");
    let key = jsonwebtoken::EncodingKey::from_ed_pem(private.as_bytes()).unwrap();
    let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some("k".to_owned());
    let set = serde_json::json!({ "keys": [jwk] }).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = IssuerConfig {
        issuer: "i".to_owned(),
        audiences: vec!["roomcast".to_owned()],
        jwks: Some(auth::JwksConfig::at(format!(
            "http://{}/",
            listener.local_addr().unwrap()
        ))),
        ..IssuerConfig::default()
    };
    let router = axum::Router::new().fallback(move || std::future::ready(set.clone()));
    spawn(async move { axum::serve(listener, router).await.unwrap() });
    let secret = auth::Secret::new(private.to_owned());
    let tokens = TokenIssuer::ed25519(&issuer, Some("k".to_owned()), &secret).unwrap();
    let api = with_issuer(issuer).await;
    let outcome = outcome(&api, Some(service_token(&tokens, 60))).await;
    assert_eq!(outcome, (Code::Ok, String::new()));
}
