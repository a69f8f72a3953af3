mod swap;

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

#[tokio::test]
async fn everybody_is_put_into_the_rooms_of_the_templates() {
    let config = Config {
        auto_join: vec!["user:{sub}".to_owned(), "team:{team}:all".to_owned()],
        ..Config::default()
    };
    let policy = RulePolicy::new(&config).unwrap();
    let ada = identity("a", &json!({"sub": "ada", "team": 7}));
    let names: Vec<_> = policy
        .auto_join(bearer(&ada))
        .unwrap()
        .iter()
        .map(|permit| permit.room().clone())
        .collect();
    assert_eq!(names, [room("a", "user:ada"), room("a", "team:7:all")]);
    for claims in [
        json!({"sub": "ada"}),
        json!({"sub": "ada", "team": null}),
        json!({"sub": "ada", "team": 1.5}),
        json!({"sub": "ada", "team": ["7"]}),
        json!({"sub": "ada", "team": ""}),
        json!({"sub": "ada\n", "team": "7"}),
        json!({"sub": "a".repeat(300), "team": "7"}),
    ] {
        assert!(policy.auto_join(bearer(&identity("a", &claims))).is_err(), "{claims}");
    }
    let admin = identity("a", &json!({"sub": "ada:admin", "team": "7:x%"}));
    let names: Vec<_> = policy
        .auto_join(bearer(&admin))
        .unwrap()
        .iter()
        .map(|permit| permit.room().clone())
        .collect();
    assert_eq!(names, [room("a", "user:ada%3Aadmin"), room("a", "team:7%3Ax%25:all")]);
    // They may be joined as well, though no rule speaks of them; nobody else's may.
    let joins = async |name| policy.authorize(ask(&ada, name, Action::Join)).await.is_ok();
    assert!(joins("user:ada").await && !joins("user:bob").await);
    assert!(policy.authorize(ask(&ada, "user:ada", publish("x"))).await.is_err());
    let team = revoked("a", RevocationScope::Room(room("a", "team:7:all")));
    policy.revoke(&team, Duration::from_secs(60));
    assert_eq!(policy.auto_join(bearer(&ada)).unwrap().len(), 1);
}

proptest! {
    /// Whatever two users are called, their rooms of one template are two, a rule reads in the name who it is for, and a
    /// backend that names the user names the same room.
    #[test]
    fn a_users_own_room_is_that_users_alone(ada in "[ab:%3A25./ ~é]{1,12}", ben in "[ab:%3A25./ ~é]{1,12}") {
        let policy = RulePolicy::new(&Config {
            rules: vec![rule("own", "user:{id}", &[ActionName::History], Some("room.id == claims.sub"))],
            auto_join: vec!["user:{sub}".to_owned()],
            ..Config::default()
        }).unwrap();
        let home = |sub: &str| policy.auto_join(bearer(&identity("a", &json!({"sub": sub})))).unwrap().remove(0).room().clone();
        let (home_of_ada, home_of_ben) = (home(&ada), home(&ben));
        prop_assert_eq!(ada == ben, home_of_ada == home_of_ben);
        let who = identity("a", &json!({"sub": ada}));
        let may_read = |room: &Room| {
            let question = ask(&who, room.name(), Action::History);
            futures_util::FutureExt::now_or_never(policy.authorize(question)).unwrap().is_ok()
        };
        prop_assert!(may_read(&home_of_ada));
        prop_assert_eq!(may_read(&home_of_ben), ada == ben);
        let pattern = crate::room::RoomPattern::parse("user:{user}").unwrap();
        let named = pattern.expand(|_| Some(ada.clone()));
        prop_assert_eq!(named.as_deref(), Some(home_of_ada.name()));
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_the_rules_name() {
    let check = |rules: Vec<RuleConfig>, expected: &str| {
        let config = Config {
            rules,
            ..Config::default()
        };
        let error = RulePolicy::new(&config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let join = [ActionName::Join];
    check(vec![rule("a", "x{", &join, None)], "rule \"a\": unbalanced brace");
    check(vec![rule("", "x", &join, None)], "rule 1 has no name");
    check(
        vec![rule("a", "x", &join, None), rule("a", "y", &join, None)],
        "rule 2 has another rule's name",
    );
    check(vec![rule("a", "x", &[], None)], "rule \"a\": `allow` is empty");
    check(vec![rule("a", "x:{tenant}", &join, None)], "would hide `room.tenant`");
    check(
        vec![rule("a", "x:{p}", &join, Some("room.q == 'a'"))],
        "rule \"a\", when: unknown field of `room` `q`",
    );
    check(
        vec![rule(
            "a",
            "x",
            &[ActionName::Join, ActionName::Publish],
            Some("event.name == 'a'"),
        )],
        "there is no event",
    );
    let mut events = rule("a", "x", &join, None);
    events.events = vec!["x".to_owned()];
    check(vec![events], "`events` restricts publishing");
    let mut stars = rule("a", "x", &[ActionName::Publish], None);
    stars.events = vec!["a*b".to_owned()];
    check(vec![stars], "the event `a*b`");
    let mut validate = rule("a", "x", &join, None);
    validate.validate = true;
    check(vec![validate], "`validate` is about publishing");
    let mut methods = rule("a", "x", &join, None);
    methods.methods = vec!["x".to_owned()];
    check(vec![methods], "`methods` restricts requests");
    let error = RulePolicy::new(&Config {
        auto_join: vec!["{org}-{sub}".to_owned()],
        ..Config::default()
    });
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("different claims could come to one room")
    );
    let roomless = RuleConfig {
        room: None,
        ..rule("a", "", &[ActionName::Request, ActionName::Join], None)
    };
    check(vec![roomless], "without `room` a rule is about requests");
    let requests = [ActionName::Request, ActionName::Join];
    check(
        vec![rule("a", "x", &requests, Some("request.method == 'a'"))],
        "there is no request",
    );
    let roomless = RuleConfig {
        room: None,
        ..rule("a", "", &[ActionName::Request], Some("room.name == 'a'"))
    };
    check(vec![roomless], "there is no room");
}

#[tokio::test]
async fn a_request_needs_a_rule_for_its_room_and_method() {
    let tasks = RuleConfig {
        methods: vec!["task:*".to_owned()],
        ..rule(
            "tasks",
            "project:{id}",
            &[ActionName::Request],
            Some("room.id == claims.id"),
        )
    };
    let everywhere = rule(
        "rest",
        "{rest*}",
        &[ActionName::Request],
        Some("request.method == 'ping'"),
    );
    let roomless = RuleConfig {
        room: None,
        ..rule("roomless", "", &[ActionName::Request], Some("request.method != 'ping'"))
    };
    let policy = policy(vec![tasks, everywhere, roomless]);
    let ada = identity("a", &json!({"id": "7"}));
    for (room, method, by) in [
        ("project:7", "task:close", Some("tasks")),
        ("project:8", "task:close", None),
        ("project:7", "tidy", None),
        ("project:8", "ping", Some("rest")),
        ("", "ping", None),
        ("", "task:close", Some("roomless")),
    ] {
        let request = Action::Request(EventName::parse(method).unwrap());
        let question = match room {
            "" => Question {
                room: Room::nameless(&ada.tenant),
                ..ask(&ada, "x", request)
            },
            room => ask(&ada, room, request),
        };
        let permit = policy.authorize(question).await.ok();
        assert_eq!(permit.as_ref().map(Permit::rule), by, "{method} in `{room}`");
    }
    // Being allowed everything else is not being allowed to ask.
    let every = [
        ActionName::Join,
        ActionName::Publish,
        ActionName::Presence,
        ActionName::History,
    ];
    let policy = self::policy(vec![rule("every", "{any*}", &every, None)]);
    let request = || Action::Request(EventName::parse("ping").unwrap());
    assert!(policy.authorize(ask(&ada, "project:7", request())).await.is_err());
}

#[tokio::test]
async fn revoked_access_covers_requests_also_those_without_a_room() {
    let roomless = RuleConfig {
        room: None,
        ..rule("roomless", "", &[ActionName::Request], None)
    };
    let policy = policy(vec![rule("rooms", "{any*}", &[ActionName::Request], None), roomless]);
    let ada = identity("a", &json!({}));
    let request = || Action::Request(EventName::parse("ping").unwrap());
    let without_room = || Question {
        room: Room::nameless(&ada.tenant),
        ..ask(&ada, "x", request())
    };
    let revoke = |scope| policy.revoke(&revoked("a", scope), Duration::from_secs(60));
    revoke(RevocationScope::Room(room("a", "r")));
    assert!(policy.authorize(ask(&ada, "r", request())).await.is_err());
    assert!(policy.authorize(without_room()).await.is_ok());
    revoke(RevocationScope::Everything);
    assert!(policy.authorize(without_room()).await.is_err());
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

/// The settings in the TOML examples of a page.
fn examples<T: serde::de::DeserializeOwned>(page: &str, section: &str) -> T {
    let blocks = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next());
    let all: String = blocks.collect::<Vec<_>>().join("\n");
    let settings: toml::Table = toml::from_str(&all).unwrap();
    settings[section].clone().try_into().unwrap()
}

#[test]
fn the_examples_of_the_documentation_are_accepted() {
    let policy: Config = examples(include_str!("../../../docs/permissions.md"), "policy");
    assert_eq!((policy.rules.len(), policy.auto_join.len()), (5, 2));
    RulePolicy::new(&policy).unwrap();
    let mut typo = policy;
    typo.rules[0].name = "members".to_owned();
    typo.rules[0].when = Some("claims.tenant_id == room.tenant && room.projekt in claims.projects".to_owned());
    let error = RulePolicy::new(&typo).unwrap_err().to_string();
    assert!(include_str!("../../../docs/permissions.md").contains(&error), "{error}");
}
