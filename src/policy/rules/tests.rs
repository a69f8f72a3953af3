mod requests;
mod settings;
mod swap;
mod templates;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::EventName;
use crate::identity::{Expiry, UserId};
use crate::json::Json;
use crate::notice::Notice;
use crate::policy::{ActionName, Revocation, RevocationScope, RevocationSubject, RuleConfig};
use crate::room::{Room, RoomGlob, Tenant};

fn rule(name: &str, room: &str, allow: &[ActionName], when: Option<&str>) -> RuleConfig {
    RuleConfig {
        name: name.to_owned(),
        room: Some(room.to_owned()),
        allow: allow.to_vec(),
        events: Vec::new(),
        methods: Vec::new(),
        when: when.map(str::to_owned),
        authorizer: false,
        validate: false,
    }
}

fn policy(rules: Vec<RuleConfig>) -> RulePolicy {
    let config = Config {
        rules,
        ..Config::default()
    };
    RulePolicy::new(&config).unwrap()
}

pub(in crate::policy) fn identity(tenant: &str, claims: &Value) -> Arc<Identity> {
    Arc::new(Identity {
        tenant: Tenant::parse(tenant).unwrap(),
        user: UserId::parse("ada").unwrap(),
        claims: Json::from(claims).into(),
        expiry: Expiry(u64::MAX),
    })
}

fn room(tenant: &str, name: &str) -> Room {
    Room::parse(&Tenant::parse(tenant).unwrap(), name).unwrap()
}

fn ask(identity: &Arc<Identity>, name: &str, action: Action) -> Question {
    Question {
        identity: identity.clone(),
        connection: ConnectionId::random(),
        room: room(identity.tenant.as_str(), name),
        action,
    }
}

/// A revocation of `ada` in tenant `a`.
pub(in crate::policy) fn revoked(tenant: &str, scope: RevocationScope) -> Arc<RevocationEntry> {
    Arc::new(RevocationEntry {
        id: RevocationId::new(Timestamp(0)),
        revocation: Revocation {
            tenant: Tenant::parse(tenant).unwrap(),
            subject: RevocationSubject::User(UserId::parse("ada").unwrap()),
            issued_before: None,
            scope,
        },
        created: Timestamp(0),
        expires: Timestamp(0),
        notice: Notice::default(),
    })
}

fn bearer(identity: &Identity) -> Bearer<'_> {
    Bearer {
        identity,
        connection: ConnectionId::random(),
    }
}

fn publish(name: &str) -> Action {
    Action::Publish(EventName::parse(name).unwrap())
}

#[tokio::test]
async fn nothing_is_allowed_without_a_rule() {
    let policy = policy(Vec::new());
    let ada = identity("a", &json!({}));
    for action in [Action::Join, publish("x"), Action::Presence, Action::History] {
        let denied = policy.authorize(ask(&ada, "lobby", action)).await.unwrap_err();
        assert_eq!((denied.rule, denied.undecided), (None, false));
    }
}

#[tokio::test]
async fn any_allowing_rule_allows_and_the_first_one_is_named() {
    let policy = policy(vec![
        rule(
            "owners",
            "project:{id}",
            &[ActionName::Join],
            Some("claims.owner == true"),
        ),
        rule(
            "members",
            "project:{id}",
            &[ActionName::Join, ActionName::History],
            Some("room.id in claims.projects"),
        ),
        rule(
            "also members",
            "project:{id}",
            &[ActionName::Join],
            Some("room.id in claims.projects"),
        ),
    ]);
    let ada = identity("a", &json!({"projects": ["7"]}));
    let permit = policy.authorize(ask(&ada, "project:7", Action::Join)).await.unwrap();
    assert_eq!(
        (permit.rule(), permit.room(), permit.action()),
        ("members", &room("a", "project:7"), &Action::Join)
    );
    assert!(policy.authorize(ask(&ada, "project:8", Action::Join)).await.is_err());
    assert!(
        policy
            .authorize(ask(&ada, "project:7", Action::Presence))
            .await
            .is_err()
    );
    assert!(policy.authorize(ask(&ada, "project:7", Action::History)).await.is_ok());
}

#[tokio::test]
async fn publishing_is_allowed_by_event_name() {
    let mut typing = rule(
        "typing",
        "doc:{id}",
        &[ActionName::Publish],
        Some("event.name != 'cursor:hidden'"),
    );
    typing.events = vec!["typing".to_owned(), "cursor:*".to_owned()];
    typing.validate = true;
    let policy = policy(vec![typing]);
    let ada = identity("a", &json!({}));
    for (event, allowed) in [
        ("typing", true),
        ("typing2", false),
        ("cursor:moved", true),
        ("cursor:hidden", false),
        ("other", false),
    ] {
        let decision = policy.authorize(ask(&ada, "doc:1", publish(event))).await;
        assert_eq!(decision.is_ok(), allowed, "{event}");
        assert!(decision.is_err() || decision.unwrap().needs_validation());
    }
}

#[tokio::test]
async fn an_expression_that_fails_denies_with_its_reason() {
    let policy = policy(vec![
        rule("level", "r{n}", &[ActionName::Join], Some("claims.level > 3")),
        rule("flag", "f", &[ActionName::Join], Some("claims.flag")),
    ]);
    let nobody = identity("a", &json!({"flag": "true", "level": "high"}));
    for room in ["r1", "f"] {
        let denied = policy.authorize(ask(&nobody, room, Action::Join)).await.unwrap_err();
        assert!(denied.reason.starts_with("its condition failed"), "{denied}");
        assert!(!denied.undecided);
    }
    let empty = identity("a", &json!({}));
    let denied = policy.authorize(ask(&empty, "r1", Action::Join)).await.unwrap_err();
    assert_eq!(
        (denied.rule.as_deref(), &*denied.reason),
        (
            Some("level"),
            "its condition failed: `claims.level > 3`: No such key: level"
        )
    );
    let ada = identity("a", &json!({"level": 4, "flag": true}));
    assert!(policy.authorize(ask(&ada, "r1", Action::Join)).await.is_ok());
    assert!(policy.authorize(ask(&ada, "f", Action::Join)).await.is_ok());
}

/// A number beyond a double is compared as the infinite one, and takes no other claim away.
#[tokio::test]
async fn numbers_of_any_size_are_compared() {
    let policy = RulePolicy::new(&Config {
        rules: vec![
            rule("high", "high", &[ActionName::Join], Some("claims.level > 3")),
            rule("low", "low", &[ActionName::Join], Some("claims.level < 3")),
            rule(
                "nested",
                "nested",
                &[ActionName::Join],
                Some("claims.deep.levels[0] > 3"),
            ),
            rule(
                "other",
                "other",
                &[ActionName::Join],
                Some("claims.name == 'ada' && claims.age == 36"),
            ),
        ],
        auto_join: vec!["user:{sub}".to_owned()],
        ..Config::default()
    })
    .unwrap();
    for (number, allowed) in [("1e400", "high"), ("-1e400", "low"), (&"9".repeat(401), "high")] {
        let claims =
            format!(r#"{{"sub":"ada","name":"ada","age":36,"level":{number},"deep":{{"levels":[1e400,{number}]}}}}"#);
        let who = Arc::new(Identity {
            claims: Json::parse(claims).unwrap().into(),
            ..Identity::clone(&identity("a", &json!({"sub": "ada"})))
        });
        for name in ["high", "low", "nested", "other"] {
            let is_allowed = policy.authorize(ask(&who, name, Action::Join)).await.is_ok();
            assert_eq!(
                is_allowed,
                name == allowed || ["nested", "other"].contains(&name),
                "{number} {name}"
            );
        }
        let homes = policy.auto_join(bearer(&who)).unwrap();
        assert_eq!(homes[0].room().name(), "user:ada");
    }
}

#[tokio::test]
async fn explain_tells_what_each_rule_said() {
    let policy = policy(vec![
        rule("other", "lobby", &[ActionName::Join], None),
        rule("readers", "doc:{id}", &[ActionName::History], None),
        rule(
            "members",
            "doc:{id}",
            &[ActionName::Join],
            Some("room.id in claims.docs"),
        ),
        rule("level", "doc:{id}", &[ActionName::Join], Some("claims.level > 1")),
        rule("ada", "doc:{id}", &[ActionName::Join], Some("user.id == 'ada'")),
        rule("never reached", "doc:{id}", &[ActionName::Join], None),
    ]);
    let ada = identity("a", &json!({"docs": []}));
    let explanation = policy.explain(ask(&ada, "doc:1", Action::Join)).await;
    assert!(explanation.allowed);
    assert_eq!(explanation.rule.as_deref(), Some("ada"));
    let lines: Vec<_> = explanation
        .considered
        .iter()
        .map(|(rule, said)| format!("{rule}: {said}"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    other: it is about other rooms
    readers: it does not allow this action
    members: its condition is false: `room.id in claims.docs` is not true: `room.id` is "1", a string and `claims.docs` is [], an empty list
    level: its condition failed: `claims.level > 1`: No such key: level
    ada: it allows
    "#);
}

#[tokio::test]
async fn connecting_needs_every_condition() {
    let mut config = Config::default();
    config.connect.when = vec![
        "claims.email_verified == true".to_owned(),
        "user.tenant != 'closed'".to_owned(),
    ];
    let policy = RulePolicy::new(&config).unwrap();
    let connection = ConnectionId::random();
    for (tenant, claims, admitted) in [
        ("a", json!({"email_verified": true}), true),
        ("a", json!({"email_verified": false}), false),
        ("a", json!({"email_verified": "true"}), false),
        ("a", json!({}), false),
        ("closed", json!({"email_verified": true}), false),
    ] {
        let who = identity(tenant, &claims);
        assert_eq!(policy.admit(&who, connection).await.is_ok(), admitted, "{claims}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_refuses_at_once_and_ends_with_its_time() {
    let policy = policy(vec![rule("all", "{any*}", &[ActionName::Join], None)]);
    let ada = identity("a", &json!({}));
    let cases = [
        (RevocationScope::Room(room("a", "x:1")), true, false),
        (RevocationScope::Pattern(RoomGlob::parse("x:*").unwrap()), true, false),
        (RevocationScope::Everything, true, true),
    ];
    for (scope, hits_x, hits_y) in cases {
        let revocation = revoked("a", scope);
        policy.revoke(&revocation, Duration::from_secs(60));
        for (name, hit) in [("x:1", hits_x), ("y:1", hits_y)] {
            let decision = policy.authorize(ask(&ada, name, Action::Join)).await;
            assert_eq!(decision.is_err(), hit, "{revocation:?} {name}");
        }
        let elsewhere = identity("b", &json!({}));
        assert!(policy.authorize(ask(&elsewhere, "x:1", Action::Join)).await.is_ok());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(policy.authorize(ask(&ada, "x:1", Action::Join)).await.is_ok());
    }
}

proptest! {
    /// Whatever a token claims and whatever room is named: a permit never leaves the identity's tenant.
    #[test]
    fn tenants_never_meet(own in "[ab]{1,2}", other in "[ab]{1,2}", name in "(room|tenant|x):[ab:]{1,4}", claimed in "[ab]{0,2}", which in 0usize..5) {
        let policy = policy(vec![
            rule("open", "{any*}", &[ActionName::Join, ActionName::Publish, ActionName::Presence, ActionName::History, ActionName::Request], None),
            rule("claimed", "tenant:{t}", &[ActionName::Join], Some("claims.tenant_id == room.t")),
        ]);
        let who = identity(&own, &json!({"tenant_id": claimed, "tenant": other, "sub": "ada"}));
        let action = [Action::Join, publish("x"), Action::Presence, Action::History, Action::Request(EventName::parse("x").unwrap())][which].clone();
        let question = Question { room: room(&other, &name), ..ask(&who, "x", action) };
        let decision = futures_util::FutureExt::now_or_never(policy.authorize(question)).unwrap();
        prop_assert_eq!(decision.is_ok(), own == other);
        if let Ok(permit) = decision {
            prop_assert_eq!(permit.room().tenant(), own.as_str());
        }
    }
}
