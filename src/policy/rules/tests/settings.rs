//! The settings of rules: what is refused, the examples of the documentation.

use super::*;

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
    let policy: Config = examples(include_str!("../../../../docs/permissions.md"), "policy");
    assert_eq!((policy.rules.len(), policy.auto_join.len()), (5, 2));
    RulePolicy::new(&policy).unwrap();
    let mut typo = policy;
    typo.rules[0].name = "members".to_owned();
    typo.rules[0].when = Some("claims.tenant_id == room.tenant && room.projekt in claims.projects".to_owned());
    let error = RulePolicy::new(&typo).unwrap_err().to_string();
    assert!(
        include_str!("../../../../docs/permissions.md").contains(&error),
        "{error}"
    );
}
