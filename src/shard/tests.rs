mod recheck;
mod shard;
mod streams;

use std::time::Duration;

use tokio::sync::oneshot;

use self::shard::{HOUR, Shard, room};
use crate::error::CloseReason;
use crate::event::Timestamp;
use crate::hub::{Audience, JoinRefusal, Outcome, ShardMessage, Signal, Verb};
use crate::identity::{TokenId, UserId};
use crate::notice::Notice;
use crate::policy::{Policy as _, Revocation, RevocationEntry, RevocationId, RevocationScope, RevocationSubject};
use crate::room::Tenant;
use crate::shard::Key;

fn ada() -> UserId {
    UserId::parse("ada").unwrap()
}

fn revocation(subject: RevocationSubject, issued_before: Option<u64>, name: &str) -> Revocation {
    Revocation {
        tenant: Tenant::default(),
        subject,
        issued_before: issued_before.map(Timestamp),
        scope: RevocationScope::Room(room(name)),
    }
}

/// Revokes the user's access as a node does: the policy first.
async fn revoke(shard: &mut Shard, name: &str) -> u32 {
    let of_ada = revocation(RevocationSubject::User(ada()), None, name);
    carry_out(shard, of_ada).await.1
}

/// Carries a revocation out; answers its id, and how many memberships ended.
async fn carry_out(shard: &mut Shard, revocation: Revocation) -> (RevocationId, u32) {
    let id = RevocationId::new(Timestamp(0));
    let entry = RevocationEntry {
        id,
        revocation: revocation.clone(),
        created: Timestamp(0),
        expires: Timestamp(0),
        notice: Notice::default(),
    };
    shard.policy.inner.revoke(&entry.into(), HOUR);
    let (reply, answer) = oneshot::channel();
    shard
        .message(ShardMessage::Revoke(revocation.into(), Notice::default(), reply))
        .await;
    (id, answer.await.unwrap())
}

/// Joins with everything that a room has; returns the messages.
fn asks(shard: &mut Shard, key: Key, name: &str) -> String {
    for command in ["join", "historyQuery", "presenceQuery"] {
        shard.say(key, &format!(r#"{{"id":9,"{command}":{{"room":"{name}"}}}}"#));
    }
    shard.told(key)
}

async fn backend_joins(shard: &mut Shard, name: &str) -> Outcome {
    let (reply, answer) = oneshot::channel();
    let audience = Audience::User(Tenant::default(), ada());
    let order = audience.order(Verb::Join(shard::permit(name)));
    shard.message(ShardMessage::Order(order.into(), reply)).await;
    answer.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn only_what_cannot_be_read_counts_and_it_is_forgotten_in_time() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    let is_open = |shard: &mut Shard| shard.sessions.take_closed().is_empty();
    for _ in 0..3 {
        for _ in 0..3 {
            shard.say(ada, "{");
        }
        for refused in [
            r#"{"id":1,"publish":{"room":"r","eventName":"e","payload":"\ud83d"}}"#,
            r#"{"id":2,"fly":{}}"#,
            r#"{"id":3,"join":{"room":"r","colour":1}}"#,
            r#"{"id":4,"join":{"room":7}}"#,
        ] {
            shard.say(ada, refused);
        }
        let told = shard.told(ada);
        for id in 1..=4 {
            assert!(told.contains(&format!("\"id\":{id},\"error\"")), "{told}");
        }
        assert!(is_open(&mut shard), "three in a heartbeat interval are let pass");
        // As a client gives signs of life that is there.
        for _ in 0..26 {
            tokio::time::advance(Duration::from_secs(1)).await;
            shard.sessions.seen(ada);
            shard.sessions.tick();
        }
    }
    for _ in 0..4 {
        shard.say(ada, "{");
    }
    let closed = shard.sessions.take_closed();
    assert_eq!(closed[0].reason, CloseReason::Misuse);
}

#[tokio::test]
async fn refused_commands_count_against_the_rate_and_a_newer_client_may_connect_all_the_same() {
    let mut shard = Shard::new();
    let ada = shard.anonymous();
    shard.say(ada, r#"{"id":1,"connect":{"token":"ada","colour":"blue"}}"#);
    assert!(shard.told(ada).contains("the field `colour` of `connect` is not known"));
    shard.say(ada, r#"{"id":2,"connect":{"token":"ada"}}"#);
    assert!(shard.told(ada).contains("connected"));
    for _ in 0..100 {
        shard.say(ada, r#"{"id":3,"fly":{}}"#);
    }
    assert!(shard.told(ada).contains("rate_limited"));
    assert_eq!(shard.sessions.take_closed()[0].reason, CloseReason::Flooding);
}

#[tokio::test]
async fn without_the_lease_nothing_is_handed_out_and_with_it_everything_in_order() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    shard.say(ada, r#"{"id":1,"join":{"room":"r"}}"#);
    shard.publish("r", "before").await;
    assert!(shard.told(ada).contains("before"));
    shard.lapse();
    shard.publish("r", "first").await;
    shard.publish("r", "second").await;
    assert_eq!(shard.told(ada), "");
    assert!(!shard.sessions.has_work(), "a shard that waits does not spin");
    shard.renew();
    shard.drive();
    let told = shard.told(ada);
    assert!(told.find("first").unwrap() < told.find("second").unwrap(), "{told}");
}

#[tokio::test]
async fn without_the_lease_joins_history_presence_and_publishes_are_unavailable_and_pings_are_answered() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    shard.say(ada, r#"{"id":1,"join":{"room":"r"}}"#);
    shard.told(ada);
    shard.lapse();
    for command in [
        r#"{"id":2,"join":{"room":"s"}}"#,
        r#"{"id":2,"historyQuery":{"room":"r"}}"#,
        r#"{"id":2,"presenceQuery":{"room":"r"}}"#,
        r#"{"id":2,"publish":{"room":"r","eventName":"n","payload":{}}}"#,
    ] {
        shard.say(ada, command);
        let told = shard.told(ada);
        assert!(told.contains("unavailable"), "{command}: {told}");
    }
    shard.say(ada, r#"{"id":3,"ping":{}}"#);
    assert!(shard.told(ada).contains("pong"));
    shard.renew();
    shard.say(ada, r#"{"id":4,"join":{"room":"s"}}"#);
    assert!(shard.told(ada).contains("joined"));
}

#[tokio::test]
async fn what_was_asked_for_under_the_lease_is_not_answered_without_it() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    shard.policy.close();
    shard.say(ada, r#"{"id":2,"join":{"room":"r"}}"#);
    shard.lapse();
    shard.policy.open();
    shard.settle().await;
    assert!(shard.told(ada).contains("unavailable"));
    shard.renew();
    shard.publish("r", "unheard").await;
    assert!(!shard.told(ada).contains("unheard"));
}

#[tokio::test]
async fn a_revocation_is_carried_out_without_the_lease_and_what_was_held_does_not_reach_who_was_revoked() {
    let mut shard = Shard::new();
    let (ada, ben) = (shard.connect("ada"), shard.connect("ben"));
    for client in [ada, ben] {
        shard.say(client, r#"{"id":1,"join":{"room":"r"}}"#);
        shard.told(client);
    }
    shard.lapse();
    shard.publish("r", "held").await;
    assert_eq!(revoke(&mut shard, "r").await, 1);
    shard.renew();
    shard.drive();
    assert!(!shard.told(ada).contains("held"));
    assert!(shard.told(ben).contains("held"));
}

/// The permits for home rooms are made before the rooms the client has joined are asked about.
#[tokio::test]
async fn a_refresh_under_way_does_not_bring_who_was_revoked_back_into_a_home_room() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    assert!(shard.opening(ada).contains("home:ada"));
    shard.say(ada, r#"{"id":1,"join":{"room":"r"}}"#);
    shard.policy.close();
    shard.say(ada, r#"{"id":2,"refresh":{"token":"ada"}}"#);
    assert_eq!(revoke(&mut shard, "home:ada").await, 1);
    shard.policy.open();
    shard.settle().await;
    shard.told(ada);
    shard.publish("home:ada", "unheard").await;
    assert!(!shard.told(ada).contains("unheard"));
}

#[tokio::test]
async fn a_backend_is_told_why_nobody_joined() {
    let mut shard = Shard::new();
    let ada = shard.connect("ada");
    let joined = Outcome::of;
    let refused = |why| Outcome {
        refused: Some(why),
        ..Outcome::default()
    };
    assert_eq!(backend_joins(&mut shard, "a").await, joined(1));
    assert_eq!(backend_joins(&mut shard, "a").await, joined(1), "it is there already");
    assert_eq!(backend_joins(&mut shard, "b").await, joined(1));
    assert_eq!(backend_joins(&mut shard, "c").await, refused(JoinRefusal::RoomLimit));
    shard.say(ada, r#"{"id":1,"leave":{"room":"b"}}"#);
    revoke(&mut shard, "c").await;
    assert_eq!(backend_joins(&mut shard, "c").await, refused(JoinRefusal::Revoked));
    shard.lapse();
    assert_eq!(backend_joins(&mut shard, "d").await, refused(JoinRefusal::Unavailable));
}

#[tokio::test]
async fn who_sees_presence_is_sent_away_when_too_many_changes_wait_for_the_lease() {
    let mut shard = Shard::new();
    let (ada, ben) = (shard.connect("ada"), shard.connect("ben"));
    shard.say(ada, r#"{"id":1,"join":{"room":"r","presence":"members"}}"#);
    shard.say(ben, r#"{"id":1,"join":{"room":"r"}}"#);
    shard.lapse();
    for version in 0..5000 {
        let change = shard::change("r", 100 + version);
        shard.message(ShardMessage::Signal(Signal::Presence(change))).await;
    }
    let closed: Vec<_> = shard
        .sessions
        .take_closed()
        .into_iter()
        .map(|closed| closed.key)
        .collect();
    assert_eq!(closed, [ada]);
    shard.renew();
    tokio::time::timeout(Duration::from_secs(60), shard.settle())
        .await
        .unwrap();
    shard.publish("r", "heard").await;
    assert!(shard.told(ben).contains("heard"));
}

#[tokio::test]
async fn a_revoked_connection_is_out_and_another_of_the_user_stays() {
    let mut shard = Shard::new();
    let (one, other) = (shard.connect("ada"), shard.connect("ada"));
    for client in [one, other] {
        shard.say(client, r#"{"id":1,"join":{"room":"r"}}"#);
    }
    let subject = RevocationSubject::Connection(shard.connection(one));
    let (_, memberships) = carry_out(&mut shard, revocation(subject, None, "r")).await;
    assert_eq!(memberships, 1);
    assert!(shard.told(one).contains("roomLeft") && !shard.told(other).contains("roomLeft"));
    shard.publish("r", "later").await;
    assert!(!shard.told(one).contains("later") && shard.told(other).contains("later"));
    let told = asks(&mut shard, one, "r");
    assert_eq!(told.matches(r#""code":"forbidden""#).count(), 3, "{told}");
    assert_eq!(asks(&mut shard, other, "r").matches(r#""code":"forbidden""#).count(), 0);
    assert_eq!(backend_joins(&mut shard, "r").await.refused, Some(JoinRefusal::Revoked));
}

#[tokio::test]
async fn a_revoked_token_is_out_wherever_it_is_used_and_another_one_is_let_in() {
    let mut shard = Shard::new();
    let old = shard.connect(r#"ada "jti":"t1""#);
    let new = shard.connect(r#"ada "jti":"t2""#);
    let bare = shard.connect("ada");
    for client in [old, new, bare] {
        shard.say(client, r#"{"id":1,"join":{"room":"r"}}"#);
        shard.told(client);
    }
    let subject = RevocationSubject::Token(TokenId::parse("t1").unwrap());
    let (_, memberships) = carry_out(&mut shard, revocation(subject, None, "r")).await;
    assert_eq!(memberships, 1);
    assert!(shard.told(old).contains("revoked"));
    assert_eq!(asks(&mut shard, old, "r").matches(r#""code":"forbidden""#).count(), 3);
    for client in [new, bare] {
        assert_eq!(
            asks(&mut shard, client, "r").matches(r#""code":"forbidden""#).count(),
            0
        );
    }
    // Opened later, refreshed with it, refreshed with another one.
    let later = shard.connect(r#"ada "jti":"t1""#);
    assert!(asks(&mut shard, later, "r").contains("forbidden"));
    shard.say(new, r#"{"id":2,"refresh":{"token":"ada \"jti\":\"t1\""}}"#);
    let told = shard.told(new);
    assert!(told.contains("refreshed") && told.contains("revoked"), "{told}");
    shard.publish("r", "unheard").await;
    assert!(!shard.told(new).contains("unheard"));
    shard.say(old, r#"{"id":2,"refresh":{"token":"ada \"jti\":\"t3\""}}"#);
    assert_eq!(asks(&mut shard, old, "r").matches(r#""code":"forbidden""#).count(), 0);
}

#[tokio::test]
async fn older_tokens_are_out_and_a_newer_login_is_let_in() {
    let mut shard = Shard::new();
    let old = shard.connect(r#"ada "iat":99"#);
    let unsaid = shard.connect("ada");
    let new = shard.connect(r#"ada "iat":100"#);
    for client in [old, unsaid, new] {
        shard.say(client, r#"{"id":1,"join":{"room":"r"}}"#);
        shard.told(client);
    }
    let before = revocation(RevocationSubject::User(ada()), Some(100_000), "r");
    assert_eq!(carry_out(&mut shard, before).await.1, 2);
    for (client, is_out) in [(old, true), (unsaid, true), (new, false)] {
        assert_eq!(shard.told(client).contains("revoked"), is_out);
        assert_eq!(asks(&mut shard, client, "r").contains("forbidden"), is_out);
    }
    shard.say(old, r#"{"id":2,"refresh":{"token":"ada \"iat\":101"}}"#);
    assert!(!asks(&mut shard, old, "r").contains("forbidden"));
    shard.say(new, r#"{"id":2,"refresh":{"token":"ada \"iat\":98"}}"#);
    assert!(shard.told(new).contains("revoked"), "an older token in its place");
}

#[tokio::test]
async fn restored_access_is_granted_again() {
    let mut shard = Shard::new();
    let client = shard.connect("ada");
    let of_ada = revocation(RevocationSubject::User(ada()), None, "r");
    let (id, _) = carry_out(&mut shard, of_ada).await;
    assert_eq!(
        asks(&mut shard, client, "r").matches(r#""code":"forbidden""#).count(),
        3
    );
    let policy = &shard.policy.inner;
    policy.restore(&Tenant::default(), id, Timestamp(0), HOUR);
    assert_eq!(
        asks(&mut shard, client, "r").matches(r#""code":"forbidden""#).count(),
        0
    );
    assert_eq!(backend_joins(&mut shard, "s").await.refused, None);
}

/// A join that is under way while the token is replaced by a revoked one.
#[tokio::test]
async fn a_join_under_way_is_judged_by_the_token_it_ends_with() {
    let mut shard = Shard::new();
    let client = shard.connect(r#"ada "jti":"t2""#);
    let subject = RevocationSubject::Token(TokenId::parse("t1").unwrap());
    carry_out(&mut shard, revocation(subject, None, "r")).await;
    shard.policy.close();
    shard.say(client, r#"{"id":1,"join":{"room":"r"}}"#);
    shard.say(client, r#"{"id":2,"refresh":{"token":"ada \"jti\":\"t1\""}}"#);
    shard.policy.open();
    shard.settle().await;
    shard.told(client);
    shard.publish("r", "unheard").await;
    assert!(!shard.told(client).contains("unheard"));
}
