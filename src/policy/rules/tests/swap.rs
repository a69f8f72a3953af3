//! Rules that take the place of others.

use std::time::Duration;

use super::*;
use crate::policy::RevocationLimit;

fn config(names: &[&str]) -> Config {
    let rules = names
        .iter()
        .map(|name| rule(name, &format!("{name}:{{n}}"), &[ActionName::Join], None));
    Config {
        rules: rules.collect(),
        ..Config::default()
    }
}

async fn may_join(policy: &RulePolicy, name: &str) -> Result<Permit, Denied> {
    policy
        .authorize(ask(&identity("a", &json!({"sub": "ada"})), name, Action::Join))
        .await
}

#[tokio::test]
async fn a_swap_replaces_the_rules_and_outdates_their_permits() {
    let policy = RulePolicy::new(&config(&["old", "both"])).unwrap();
    let (old, both) = (
        may_join(&policy, "old:1").await.unwrap(),
        may_join(&policy, "both:1").await.unwrap(),
    );
    assert!(!policy.is_outdated(&old));
    let prepared = policy.prepare(&config(&["new", "both"])).unwrap();
    assert!(may_join(&policy, "new:1").await.is_err(), "preparing has no effect");
    let edition = policy.swap(prepared);
    assert_eq!((policy.edition(), Some(edition) > old.edition()), (edition, true));
    assert!(policy.is_outdated(&old) && policy.is_outdated(&both));
    assert!(may_join(&policy, "old:1").await.is_err());
    for name in ["new:1", "both:1"] {
        assert!(!policy.is_outdated(&may_join(&policy, name).await.unwrap()));
    }
}

#[tokio::test]
async fn a_swap_leaves_revocations_in_force() {
    let policy = RulePolicy::new(&config(&["old"])).unwrap();
    let entry = revoked("a", RevocationScope::Room(room("a", "new:1")));
    policy.revoke(&entry, Duration::from_secs(60));
    policy.swap(policy.prepare(&config(&["new"])).unwrap());
    let refusal = may_join(&policy, "new:1").await.unwrap_err();
    assert_eq!(refusal.rule.as_deref(), Some("revocation"));
    assert!(may_join(&policy, "new:2").await.is_ok());
    // Fewer than there are: none ends, and there may not be another.
    let none = Config {
        revocations_max: 0,
        ..config(&["new"])
    };
    policy.swap(policy.prepare(&none).unwrap());
    assert!(may_join(&policy, "new:1").await.is_err());
    let limit = policy.revocations().check_limits(&entry.revocation);
    assert_eq!(limit, Err(RevocationLimit::All(1)));
}

#[tokio::test]
async fn rules_that_cannot_be_used_are_not_prepared() {
    let policy = RulePolicy::new(&config(&["old"])).unwrap();
    let mut wrong = config(&["new"]);
    wrong.rules[0].when = Some("claims.".to_owned());
    assert!(policy.prepare(&wrong).is_err());
    assert!(may_join(&policy, "old:1").await.is_ok());
    assert_eq!(policy.edition(), crate::policy::Edition::FIRST);
}

#[test]
fn a_permit_of_a_backend_is_never_outdated() {
    let policy = RulePolicy::new(&config(&["old"])).unwrap();
    let service = crate::policy::Service {
        name: "backend".into(),
        publish: false,
        read: false,
        manage: true,
        subscribe: false,
        tenants: None,
    };
    let permit = service.permit(room("a", "old:1"), Action::Join).unwrap();
    policy.swap(policy.prepare(&config(&[])).unwrap());
    assert!(!policy.is_outdated(&permit));
}
