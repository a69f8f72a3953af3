//! Rooms that users are put into, or may enter by their own name.

use super::*;

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
