//! Kept answers: how long, for which question, how many.

use super::*;

#[tokio::test]
async fn answers_are_kept_as_long_as_they_allow_and_no_longer_than_configured() {
    let decide = |request: &wire::AuthorizeRequest| {
        Ok(match request.room.as_str() {
            "doc:yes" => answer(v1::Decision::Allow, 10),
            "doc:no" => answer(v1::Decision::Deny, 10),
            "doc:long" => answer(v1::Decision::Allow, 1_000_000),
            "doc:negative" => answer(v1::Decision::Allow, -5),
            _ => answer(v1::Decision::Allow, 0),
        })
    };
    let setting = Setting::start(decide, |_| {}).await;
    for (room, kept, then_kept) in [
        ("doc:yes", true, false),
        ("doc:no", true, false),
        ("doc:long", true, true),
        ("doc:negative", false, false),
        ("doc:never", false, false),
    ] {
        let mut asked = setting.asked();
        let mut repeated = async |expected: bool| {
            let _ = setting.decide(join("ada", room)).await;
            assert_eq!(setting.asked() == asked, expected, "{room}");
            asked = setting.asked();
        };
        repeated(false).await;
        repeated(kept).await;
        pass(Duration::from_secs(11)).await;
        repeated(then_kept).await;
        pass(Duration::from_secs(61)).await;
        repeated(false).await;
    }
}

#[tokio::test]
async fn an_answer_serves_only_the_same_question() {
    let setting = Setting::start(|_| Ok(answer(v1::Decision::Allow, 60)), |_| {}).await;
    let with_more = |claims| Question {
        identity: identity("ada", &claims),
        ..join("ada", "doc:1")
    };
    let questions = [
        join("ada", "doc:1"),
        join("bob", "doc:1"),
        join("ada", "doc:2"),
        ask("ada", "doc:1", publish("a")),
        ask("ada", "doc:1", publish("b")),
        with_more(json!({"sub": "ada", "admin": true})),
    ];
    for (index, question) in questions.iter().enumerate() {
        assert_eq!(setting.decide(question.clone()).await, Ok(()));
        assert_eq!(setting.asked(), index + 1, "{question:?}");
    }
    for question in questions {
        assert_eq!(setting.decide(question).await, Ok(()));
    }
    assert_eq!(setting.asked(), 6);
}

#[tokio::test]
async fn a_revocation_beats_kept_answers_and_answers_under_way() {
    let setting = Setting::start(|_| Ok(answer(v1::Decision::Allow, 60)), |_| {}).await;
    let revocation = revoked("acme", RevocationScope::Everything);
    assert_eq!(setting.decide(join("ada", "doc:1")).await, Ok(()));
    setting.policy.revoke(&revocation, Duration::from_secs(5));
    assert!(setting.decide(join("ada", "doc:1")).await.is_err());
    pass(Duration::from_secs(6)).await;
    assert_eq!(setting.asked(), 1);
    assert_eq!(setting.decide(join("ada", "doc:1")).await, Ok(()));
    assert_eq!(setting.asked(), 2, "the kept answer was forgotten");

    setting.application.gate.forget_permits(Semaphore::MAX_PERMITS);
    while setting.application.arrived.notified().now_or_never().is_some() {}
    let revoke = async {
        setting.application.arrived.notified().await;
        setting
            .policy
            .revoke(&revoked("acme", RevocationScope::Everything), Duration::from_secs(5));
        setting.application.gate.add_permits(1);
    };
    let (under_way, ()) = tokio::join!(setting.decide(join("ada", "doc:2")), revoke);
    assert!(under_way.is_err());
    setting.application.gate.add_permits(1);
    pass(Duration::from_secs(6)).await;
    let asked = setting.asked();
    assert_eq!(setting.decide(join("ada", "doc:2")).await, Ok(()));
    assert_eq!(
        setting.asked(),
        asked + 1,
        "the answer of before the revocation was not kept"
    );
}

fn numbered(n: usize) -> Key {
    Key {
        tenant: Tenant::default(),
        user: UserId::parse(&n.to_string()).unwrap(),
        claims: 0,
        action: v1::Action::Join,
        room: None,
        event: "".into(),
    }
}

#[tokio::test]
async fn kept_answers_stay_within_their_bound() {
    for bound in [1, 9, 100] {
        let answers = Answers::new(bound);
        for n in 0..1_000 {
            let key = numbered(n);
            answers.keep(key.clone(), &Answer::Deny("no".into()), Duration::from_secs(60), 0);
            assert!(answers.len() <= bound);
            assert!(answers.look(&key).is_some(), "the newest answer is kept");
        }
        assert!(
            answers.len() >= bound - bound.div_ceil(10),
            "no more than a tenth goes at once"
        );
    }
    let none = Answers::new(0);
    none.keep(numbered(0), &Answer::Deny("no".into()), Duration::from_secs(60), 0);
    assert_eq!((none.len(), none.look(&numbered(0))), (0, None));
}

#[tokio::test]
async fn at_the_bound_expired_answers_go_first_and_a_renewed_one_takes_no_room() {
    let answers = Answers::new(100);
    let keep =
        |n: usize, seconds| answers.keep(numbered(n), &Answer::Deny("no".into()), Duration::from_secs(seconds), 0);
    (0..50).for_each(|n| keep(n, 1));
    (50..100).for_each(|n| keep(n, 600));
    // Renewed at the bound: all stay.
    keep(99, 600);
    assert_eq!(answers.len(), 100);
    pass(Duration::from_secs(2)).await;
    keep(100, 600);
    assert_eq!(answers.len(), 51);
    assert!(
        (50..=100).all(|n| answers.look(&numbered(n)).is_some()),
        "none that held was dropped"
    );
}

#[tokio::test]
async fn at_the_bound_the_authorizer_is_asked_again_and_decides() {
    let allow_users = |question: &wire::AuthorizeRequest| {
        let user = &question.subject.as_ref().unwrap().user_id;
        let decision = if user.starts_with('u') {
            v1::Decision::Allow
        } else {
            v1::Decision::Deny
        };
        Ok(answer(decision, 60))
    };
    let setting = Setting::start(allow_users, |config| config.cache_entries_max = 4).await;
    for turn in 0..2 {
        for n in 0..10 {
            assert_eq!(setting.decide(join(&format!("u{n}"), "doc:1")).await, Ok(()), "{turn}");
            assert!(setting.decide(join(&format!("x{n}"), "doc:1")).await.is_err(), "{turn}");
        }
    }
    let asked = setting.asked();
    assert!(asked > 20, "answers beyond the bound were not kept: {asked}");
    setting.decide(join("u9", "doc:1")).await.unwrap();
    setting.decide(join("u9", "doc:1")).await.unwrap();
    assert!(setting.asked() <= asked + 1, "the newest is kept");
}
