//! Memberships after the rules were swapped.

use std::time::Duration;

use tokio::sync::oneshot;

use super::shard::{self, Shard, room};
use crate::hub::{Audience, ShardMessage, Verb};
use crate::identity::UserId;
use crate::room::Tenant;
use crate::shard::Key;

/// Everything that [`Shard::new`] allows, named room by room.
const TEMPLATE: &[&str] = &["home:{sub}"];

async fn recheck(shard: &mut Shard) -> u32 {
    let (reply, answer) = oneshot::channel();
    shard.message(ShardMessage::Recheck(reply)).await;
    answer.await.unwrap()
}

fn join(shard: &mut Shard, key: Key, name: &str) {
    shard.say(key, &format!(r#"{{"id":1,"join":{{"room":"{name}"}}}}"#));
}

fn is_member(shard: &Shard, key: Key, name: &str) -> bool {
    shard.sessions.members.has(&shard.sessions.clients, key, &room(name))
}

#[tokio::test]
async fn what_the_new_rules_do_not_allow_ends_and_what_a_backend_granted_stays() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    join(&mut shard, ada, "a");
    join(&mut shard, ada, "b");
    let (reply, answer) = oneshot::channel();
    let audience = Audience::User(Tenant::default(), UserId::parse("ada").unwrap());
    shard
        .sessions
        .services
        .config
        .store(crate::session::Config::default().into());
    let order = audience.order(Verb::Join(shard::permit("given")));
    shard.message(ShardMessage::Order(order.into(), reply)).await;
    assert_eq!(answer.await.unwrap().connections, 1);
    // Joined by a right of its own as well, it stays the backend's.
    join(&mut shard, ada, "given");
    shard.told(ada);
    shard.policy.swap(&["b"], false, &[]);
    assert_eq!(recheck(&mut shard).await, 2);
    let told = shard.told(ada);
    for name in ["a", "home:ada"] {
        let left = format!(r#"{{"roomLeft":{{"room":"{name}","cause":"revoked","reason":"policy_changed"}}}}"#);
        assert!(told.contains(&left), "{told}");
        assert!(!is_member(&shard, ada, name));
    }
    assert_eq!(told.matches("roomLeft").count(), 2, "{told}");
    assert!(is_member(&shard, ada, "b") && is_member(&shard, ada, "given"));
    shard.publish("b", "end").await;
    assert!(shard.told(ada).contains("end"));
}

#[tokio::test]
async fn presence_that_the_new_rules_do_not_allow_is_seen_no_longer() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    shard.say(ada, r#"{"id":1,"join":{"room":"r","presence":"members"}}"#);
    shard.told(ada);
    shard.policy.swap(&["r"], true, TEMPLATE);
    assert_eq!(recheck(&mut shard).await, 0);
    assert_eq!(shard.told(ada), "");
    shard.policy.swap(&["r"], false, TEMPLATE);
    assert_eq!(recheck(&mut shard).await, 0);
    let told = shard.told(ada);
    assert!(
        told.contains(r#""roomJoined""#) && told.contains(r#""cause":"token_changed""#),
        "{told}"
    );
    assert!(is_member(&shard, ada, "r"));
    let ben = shard.connect("ben");
    join(&mut shard, ben, "r");
    assert_eq!(shard.told(ada), "");
}

#[tokio::test]
async fn a_join_under_way_is_not_admitted_by_rules_that_the_recheck_has_passed() {
    for (allowed, expected) in [(&["other"][..], false), (&["r"], true)] {
        let mut shard = Shard::new();
        let ada = shard.connect("ada");
        shard.say(ada, r#"{"id":1,"leave":{"room":"home:ada"}}"#);
        shard.policy.close();
        join(&mut shard, ada, "r");
        shard.told(ada);
        shard.policy.swap(allowed, false, &[]);
        assert_eq!(
            recheck(&mut shard).await,
            0,
            "the pass ends while the old permit is under way"
        );
        shard.policy.open();
        shard.settle().await;
        let told = shard.told(ada);
        assert_eq!(told.contains("forbidden"), !expected, "{told}");
        assert_eq!(is_member(&shard, ada, "r"), expected, "{told}");
    }
}

#[tokio::test]
async fn a_home_room_under_way_needs_a_template_in_force() {
    let mut shard = Shard::new();
    shard.policy.close();
    let ada = shard.anonymous();
    // A position, so that entering asks for the history and waits.
    shard.say(
        ada,
        r#"{"id":1,"connect":{"token":"ada","resume":[{"room":"home:ada","position":{"epoch":"0000000000000001","offset":1}}]}}"#,
    );
    assert_eq!(shard.told(ada), "");
    shard.policy.swap(&[], false, &[]);
    assert_eq!(recheck(&mut shard).await, 0);
    shard.policy.open();
    shard.settle().await;
    let told = shard.told(ada);
    assert!(told.contains("unavailable"), "{told}");
    assert_eq!(shard.sessions.take_closed().len(), 1);
}

#[tokio::test]
async fn a_token_that_is_refreshed_meanwhile_is_judged_by_the_new_rules() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    shard.say(ada, r#"{"id":1,"leave":{"room":"home:ada"}}"#);
    join(&mut shard, ada, "r");
    shard.policy.close();
    shard.say(ada, r#"{"id":2,"refresh":{"token":"ada \"x\":1"}}"#);
    // Old rules have said yes about the new token. The new ones say no about both.
    shard.policy.swap(&["other"], false, &[]);
    let (reply, answer) = oneshot::channel();
    shard.message(ShardMessage::Recheck(reply)).await;
    shard.policy.open();
    shard.settle().await;
    answer.await.unwrap();
    assert!(!is_member(&shard, ada, "r"));
}

#[tokio::test]
async fn a_pass_takes_turns_with_deliveries() {
    // So many steps in one turn of the test's task would use up its budget.
    tokio::task::unconstrained(async {
        let mut shard = Shard::new();
        let keys: Vec<Key> = (0..150).map(|n| shard.connect(&format!("u{n}"))).collect();
        for key in &keys {
            join(&mut shard, *key, "r");
        }
        shard.policy.swap(&[], false, &[]);
        let (reply, mut answer) = oneshot::channel();
        shard.begin(ShardMessage::Recheck(reply)).await;
        let members = |shard: &Shard| keys.iter().filter(|key| is_member(shard, **key, "r")).count();
        assert_eq!(members(&shard), 150, "the order begins nothing but a pass");
        let (mut turns, mut before) = (0, 150);
        while shard.sessions.has_work() {
            assert!(answer.try_recv().is_err());
            shard.sessions.recheck_some();
            let now = members(&shard);
            assert!(before - now <= 64, "{before} to {now} in one turn");
            (turns, before) = (turns + 1, now);
        }
        assert!(turns >= 5, "300 questions in {turns} turns");
        assert_eq!((before, answer.await.unwrap()), (0, 300));
    })
    .await;
}

#[tokio::test]
async fn another_swap_begins_the_pass_anew_and_both_are_answered() {
    // So many steps in one turn of the test's task would use up its budget.
    tokio::task::unconstrained(async {
        let mut shard = Shard::new();
        for n in 0..100 {
            let key = shard.connect(&format!("u{n}"));
            join(&mut shard, key, "r");
        }
        shard.policy.swap(&["r"], false, TEMPLATE);
        let (first, first_answer) = oneshot::channel();
        shard.begin(ShardMessage::Recheck(first)).await;
        shard.sessions.recheck_some();
        shard.policy.swap(&[], false, TEMPLATE);
        assert_eq!(recheck(&mut shard).await, 100);
        assert_eq!(first_answer.await.unwrap(), 100);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_decision_it_is_asked_for_again() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    join(&mut shard, ada, "r");
    shard.policy.swap(&[], false, TEMPLATE);
    shard.policy.decides(false);
    assert_eq!(recheck(&mut shard).await, 0);
    assert!(is_member(&shard, ada, "r"));
    shard.policy.decides(true);
    shard.sessions.tick();
    shard.drive();
    assert!(is_member(&shard, ada, "r"), "not before its time");
    tokio::time::advance(Duration::from_secs(5)).await;
    shard.sessions.tick();
    shard.drive();
    assert!(!is_member(&shard, ada, "r"));
}
