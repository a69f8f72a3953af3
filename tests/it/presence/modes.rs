//! How much of a room's presence a client asks for.

use std::time::{Duration, Instant};

use roomcast::policy::ActionName;
use roomcast::proto::client_v1::{ErrorCode, PresenceMode};

use super::*;
use crate::support::rule;

over_encodings! {
    counts_come_with_the_reply_and_gathered,
    others_are_the_members_without_the_own_user,
    a_client_changes_what_it_is_told,
    every_mode_needs_the_permission_to_see_presence,
}

fn join(mode: PresenceMode) -> Join {
    Join {
        presence: mode.into(),
        ..Join::in_room("r")
    }
}

async fn counts_come_with_the_reply_and_gathered(encoding: Encoding) {
    const INTERVAL: Duration = Duration::from_secs(1);
    let slowly = |config: &mut Config| {
        config.presence.counts_interval = INTERVAL;
        config.presence.counts_coalesce_interval = INTERVAL;
    };
    let node = Node::with(encoding, slowly).await;
    let mut ben = node.connect(user("ben")).await;
    let presence = join_completely(&mut ben, &join(PresenceMode::Counts)).await;
    assert_eq!((presence.member_count, presence.counts_only), (1, true));
    assert_eq!(presence.members, []);
    let began = Instant::now();
    let mut others = Vec::new();
    for number in 0..20 {
        let mut other = node.connect(user(&format!("user {number}"))).await;
        other.join("r").await;
        others.push(other);
    }
    let mut counts = Vec::new();
    while counts.last() != Some(&21) {
        match ben.push().await {
            Said::PresenceDelta(delta) => {
                assert!(
                    delta.counts_only && delta.joined.is_empty() && delta.present.is_empty(),
                    "{delta:?}"
                );
                counts.push(delta.member_count);
            }
            other => panic!("a change of presence: {other:?}"),
        }
    }
    assert!(counts.is_sorted(), "{counts:?}");
    // One at once and one after each interval, however long the joins took; one more may have been under way before.
    let intervals = began.elapsed().as_millis() / INTERVAL.as_millis();
    assert!(
        counts.len() as u128 <= intervals + 2,
        "{counts:?} in {intervals} intervals"
    );
    drop(others);
    loop {
        match ben.push().await {
            Said::PresenceDelta(delta) if delta.member_count == 1 => break,
            Said::PresenceDelta(delta) => assert!(delta.counts_only),
            other => panic!("a change of presence: {other:?}"),
        }
    }
    node.finish().await;
}

async fn others_are_the_members_without_the_own_user(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    let presence = join_completely(&mut ben, &join(PresenceMode::Others)).await;
    assert_eq!(
        (presence.members.len(), presence.member_count, presence.counts_only),
        (0, 1, false)
    );
    let mut ada = node.connect(user("ada")).await;
    let mut seen = Known::from(ada.join_to_see("r").await);
    let mut tab = node.connect(user("ben")).await;
    tab.join("r").await;
    seen.until(&mut ada, |seen| seen.connections("ben") == 2).await;
    set_state(&mut tab, "r", Some("1")).await.unwrap();
    seen.until(&mut ada, |seen| seen.state("ben") == Some(json!(1))).await;
    ada.leave("r").await;
    let (mut came, mut went) = (Vec::new(), Vec::new());
    while went.is_empty() {
        match ben.push().await {
            Said::PresenceDelta(delta) => {
                let named = delta.joined.iter().chain(&delta.updated).chain(&delta.present);
                assert!(named.clone().all(|member| member.user_id != "ben"), "{delta:?}");
                came.extend(delta.joined.into_iter().map(|member| member.user_id));
                went.extend(delta.left_user_ids);
                assert!(!delta.counts_only && delta.member_count > 0);
            }
            other => panic!("a change of presence: {other:?}"),
        }
    }
    assert_eq!((came, went), (vec!["ada".to_owned()], vec!["ada".to_owned()]));
    node.finish().await;
}

async fn a_client_changes_what_it_is_told(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    for (mode, listed, counts_only) in [
        (PresenceMode::Counts, 0, true),
        (PresenceMode::Members, 2, false),
        (PresenceMode::Others, 1, false),
        (PresenceMode::Counts, 0, true),
    ] {
        let presence = join_completely(&mut ben, &join(mode)).await;
        assert_eq!((presence.members.len(), presence.counts_only), (listed, counts_only));
        assert_eq!(presence.member_count, 2);
    }
    for mode in [PresenceMode::None, PresenceMode::Unspecified] {
        assert_eq!(ben.try_join(join(mode)).await.unwrap().presence, None);
    }
    ada.leave("r").await;
    node.backend().publish("r", "end", json!({})).await;
    let told = until_event(&mut ben, "end").await;
    assert!(
        told.iter()
            .all(|push| matches!(push, Said::PresenceDelta(delta) if delta.member_count == 2)),
        "{told:?}"
    );
    node.finish().await;
}

async fn every_mode_needs_the_permission_to_see_presence(encoding: Encoding) {
    let node = Node::with(encoding, |config: &mut Config| {
        config.policy.rules = vec![rule("join", "{room*}", &[ActionName::Join])];
    })
    .await;
    let mut ben = node.connect(user("ben")).await;
    for mode in [PresenceMode::Counts, PresenceMode::Members, PresenceMode::Others] {
        let refused = ben.try_join(join(mode)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Forbidden);
    }
    ben.try_join(join(PresenceMode::None)).await.unwrap();
    node.finish().await;
}
