//! Permissions, limits and revocations.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use roomcast::api::{Grant, Scope, TokenDigest};
use roomcast::gateway::Config;
use roomcast::policy::ActionName;
use roomcast::proto::v1;
use serde_json::json;
use tonic::Code;

use super::entering::Start;
use super::heard::{Content, Kind};
use super::listener::Listener;
use super::told::Told;
use super::{House, on_one_and_on_three};
use crate::subscribe::{Reader, to};
use crate::support::{Caller, ROOT, TENANT, home_rooms, reason, rule, user};

on_one_and_on_three! {
    nobody_joins_without_the_permission,
    nothing_that_was_published_after_a_revocation_reaches_its_user,
}

fn guarded(config: &mut Config) {
    config.policy.rules = vec![rule("open", "open:{id}", &[ActionName::Join, ActionName::History])];
    let narrow = |name: &str, scopes: &[Scope]| Grant {
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        tenants: Some(vec![TENANT.parse().unwrap()].into_iter().collect()),
        publish_rate: None,
    };
    let tokens = [
        (ROOT, narrow("tests", &Scope::ALL)),
        ("publisher", narrow("publisher", &[Scope::Publish])),
        ("subscriber", narrow("subscriber", &[Scope::Subscribe])),
    ];
    let tokens = tokens.map(|(token, grant)| (TokenDigest::of(token), grant));
    config.credentials = std::mem::take(&mut config.credentials).with_tokens(tokens);
}

async fn nobody_joins_without_the_permission(count: usize) {
    let house = House::with(count, guarded).await;
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        let at = house.at(number);
        let refused = Listener::enter(&at, kind, &kind.user(), "closed:1", Start::Now).await;
        assert_eq!(refused.err().as_deref(), Some("forbidden"), "{kind:?}");
        let entered = Listener::enter(&at, kind, &kind.user(), "open:1", Start::Now).await;
        entered.unwrap().0.close().await;
        for who in [
            user("eve").expires_in(-3600),
            user("eve").without("tenant_id").claim("aud", "others"),
        ] {
            let refused = Listener::enter(&at, kind, &who, "open:1", Start::Now).await;
            assert!(
                ["token_expired", "unauthenticated"].contains(&&*refused.err().unwrap()),
                "{kind:?}"
            );
        }
    }
    for (token, tenant, code, why) in [
        ("publisher", TENANT, Code::PermissionDenied, "SCOPE_MISSING"),
        ("subscriber", "other", Code::PermissionDenied, "TENANT_FORBIDDEN"),
        ("nobody's", TENANT, Code::Unauthenticated, "UNAUTHENTICATED"),
    ] {
        let request = v1::SubscribeRequest {
            tenant: tenant.to_owned(),
            ..to(&["open:1"])
        };
        let refused = house
            .at(1)
            .caller(token)
            .subscribing
            .subscribe(request)
            .await
            .unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (code, why), "{token}");
    }
    house.finish().await;
}

#[tokio::test]
async fn limits_hold_for_all() {
    let few = |config: &mut Config| {
        config.connections.per_user_max = 1;
        config.session.rooms_max = 0;
    };
    let house = House::with(1, few).await;
    for kind in Kind::ALL {
        let refused = Listener::enter(&house.at(0), kind, &kind.user(), "r", Start::Now).await;
        assert_eq!(refused.err().as_deref(), Some("room_limit"), "{kind:?}");
    }
    house.node.until_connections(0).await;
    house.finish().await;
}

#[tokio::test]
async fn connections_of_a_user_are_counted_over_all_protocols() {
    let few = |config: &mut Config| config.connections.per_user_max = 2;
    let house = House::with(1, few).await;
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        let ada = user(&format!("ada {number}"));
        // Two of other kinds, and one more.
        let mut first = Vec::new();
        for step in [1, 2] {
            let other = Kind::ALL[(number + step) % Kind::ALL.len()];
            first.push(
                Listener::enter(&house.at(0), other, &ada, "r", Start::Now)
                    .await
                    .unwrap()
                    .0,
            );
        }
        let refused = Listener::enter(&house.at(0), kind, &ada, "r", Start::Now).await;
        assert_eq!(refused.err().as_deref(), Some("connection_limit"), "{kind:?}");
        for listener in first {
            listener.close().await;
        }
    }
    house.finish().await;
}

/// Publishes numbers until it is told to stop; each says the last number that was answered before it.
async fn publish_on(backend: Caller, next: &AtomicU64, stop: &tokio_util::sync::CancellationToken) {
    while !stop.is_cancelled() {
        let n = next.fetch_add(1, Ordering::SeqCst);
        backend.publish("r", "n", json!(n)).await;
    }
}

async fn revoke(backend: &Caller, id: &str) {
    let request = v1::RevokeRequest {
        tenant: TENANT.to_owned(),
        subject: Some(v1::revoke_request::Subject::UserId(id.to_owned())),
        scope: Some(v1::revoke_request::Scope::Room("r".to_owned())),
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        reason: "project_left".to_owned(),
        ..Default::default()
    };
    backend.access.clone().revoke(request).await.unwrap();
}

async fn nothing_that_was_published_after_a_revocation_reaches_its_user(count: usize) {
    let house = House::with(count, home_rooms).await;
    let everybody = house.enter_all("r", Kind::user, &Start::Now).await;
    let mut witness = Reader::begin(&house.backend(0), to(&["r"])).await;
    let (next, stop) = (AtomicU64::new(0), tokio_util::sync::CancellationToken::new());
    let revoking = async {
        let mut barriers = Vec::new();
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            revoke(&house.backend(number + 1), &kind.user().id).await;
            // Numbers from here on are asked for after the answer.
            barriers.push(next.load(Ordering::SeqCst));
        }
        // Under way while the last of them is revoked, and after it.
        let mut seen = 0;
        while seen < 20 {
            seen += witness.response().await.events.len();
        }
        stop.cancel();
        barriers
    };
    let listening = everybody.into_iter().map(|(mut listener, _)| async move {
        let mut last = None;
        let left = loop {
            match listener.next().await {
                Told::Event(event) => {
                    let Content::Json(text) = event.content else {
                        panic!("a number")
                    };
                    last = Some(text.parse::<u64>().unwrap());
                }
                Told::Notice("roomLeft", fields) => break Some(fields),
                // An event was on its way to it: it comes back, and is refused.
                Told::Ended { comes_back: true } => break None,
                other => panic!("{:?} is told {other:?}", listener.kind),
            }
        };
        let is_told = left.is_some();
        if let Some(left) = left {
            let expected = json!({"room": "r", "cause": "revoked", "reason": "project_left"});
            assert_eq!(left, expected, "{:?}", listener.kind);
        }
        (listener, last, is_told)
    });
    let (barriers, listened, ..) = tokio::join!(
        revoking,
        join_all(listening),
        publish_on(house.backend(0), &next, &stop),
        publish_on(house.backend(1), &next, &stop),
    );
    let mut listeners = Vec::new();
    for ((listener, last, is_told), barrier) in listened.into_iter().zip(barriers) {
        let kind = listener.kind;
        assert!(
            last.is_none_or(|last| last < barrier),
            "{kind:?}: {last:?} after {barrier}"
        );
        // Nor does it come back in.
        let refused = Listener::enter(&house.at(2), kind, &kind.user(), "r", Start::Now).await;
        assert_eq!(refused.err().as_deref(), Some("forbidden"), "{kind:?}");
        if is_told {
            listeners.push(listener);
        }
    }
    house.backend(2).publish("tenant:acme", "end", json!({})).await;
    for mut listener in listeners {
        assert_eq!(listener.event().await.name, "end", "{:?}", listener.kind);
        listener.close().await;
    }
    house.finish().await;
}
