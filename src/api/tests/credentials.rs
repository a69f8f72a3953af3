//! Who is let in, and to what.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tonic::Code;

use super::support::{Api, Caller, ROOT, Setup, event, refusal, token};
use crate::api::{Config, ConfigError, Credentials, Scope};
use crate::auth::{AuthError, Authenticator};
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
    for _ in 0..2 {
        publisher.publish(event()).await.unwrap();
    }
    let status = publisher.publish(event()).await.unwrap_err();
    assert_eq!(
        refusal(&status),
        (Code::ResourceExhausted, "RATE_LIMITED".to_owned(), String::new())
    );
    let details = tonic_types::StatusExt::get_error_details(&status);
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(
        wait > Duration::from_millis(500) && wait <= Duration::from_secs(1),
        "{wait:?}"
    );
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
