//! Who is there: users, not connections; each comes once and goes once.

mod modes;
mod rosters;

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorReply, Join, Member, Presence, PresenceDelta, PresenceQuery, PresenceUpdate};
use roomcast::proto::v1;
use serde_json::json;

use crate::support::{
    Client, Encoding, InRoom as _, Node, TENANT, eventually, over_encodings, over_nats, over_nats_in_protobuf, user,
};

over_encodings! {
    a_user_with_two_tabs_comes_once_and_goes_once,
    a_client_that_crashes_leaves_once,
    a_state_is_shown_changed_and_cleared,
    a_state_ends_with_the_connection_that_set_it,
    a_state_that_is_too_large_changes_nothing,
    a_large_room_is_told_in_counts,
    who_did_not_ask_is_told_nothing,
    presence_stays_within_the_tenant,
    ; alone: who_comes_back_within_the_grace_period_has_never_left,
}

over_nats_in_protobuf! {
    a_state_is_shown_changed_and_cleared,
    a_state_ends_with_the_connection_that_set_it,
}

/// What somebody knows of a room, by the roster and the changes after it.
#[derive(Debug, Default)]
struct Known {
    room: String,
    members: BTreeMap<String, Member>,
    count: u32,
    counts_only: bool,
    /// How often each user came and went.
    came: BTreeMap<String, u32>,
    went: BTreeMap<String, u32>,
    /// The users that were told as present.
    found: Vec<String>,
}

impl Known {
    fn from(presence: Presence) -> Self {
        assert!(presence.counts_only || presence.members.len() == presence.member_count as usize);
        let members = presence
            .members
            .into_iter()
            .map(|member| (member.user_id.clone(), member));
        Self {
            room: presence.room,
            members: members.collect(),
            count: presence.member_count,
            counts_only: presence.counts_only,
            ..Self::default()
        }
    }

    fn apply(&mut self, delta: PresenceDelta) {
        assert_eq!(delta.room, self.room);
        (self.count, self.counts_only) = (delta.member_count, delta.counts_only);
        if delta.counts_only {
            assert!(delta.joined.is_empty() && delta.updated.is_empty() && delta.left_user_ids.is_empty());
            assert!(delta.present.is_empty());
            return self.members.clear();
        }
        for member in delta.present {
            self.found.push(member.user_id.clone());
            let known = self.members.insert(member.user_id.clone(), member);
            assert!(known.is_none(), "who is told as present was not known");
        }
        for member in delta.joined {
            *self.came.entry(member.user_id.clone()).or_default() += 1;
            self.members.insert(member.user_id.clone(), member);
        }
        for member in delta.updated {
            let known = self.members.insert(member.user_id.clone(), member);
            assert!(known.is_some(), "who is updated was there before");
        }
        for user in delta.left_user_ids {
            *self.went.entry(user.clone()).or_default() += 1;
            assert!(self.members.remove(&user).is_some(), "who leaves was there before");
        }
        assert_eq!(self.members.len(), self.count as usize, "the list and the count agree");
    }

    /// Applies what is pushed until it is so.
    async fn until(&mut self, client: &mut Client, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            match client.push().await {
                Said::PresenceDelta(delta) => self.apply(delta),
                other => panic!("a change of presence: {other:?}"),
            }
        }
    }

    fn connections(&self, user: &str) -> u32 {
        self.members.get(user).map_or(0, |member| member.connection_count)
    }

    fn state(&self, user: &str) -> Option<serde_json::Value> {
        let text = self.members.get(user)?.state_json.as_ref()?;
        Some(serde_json::from_str(text).unwrap())
    }
}

/// What is pushed before an event of this name.
async fn until_event(client: &mut Client, name: &str) -> Vec<Said> {
    let mut pushes = Vec::new();
    loop {
        match client.push().await {
            Said::Event(event) if event.event_name == name => return pushes,
            other => pushes.push(other),
        }
    }
}

/// Joins until every node was heard in time, which one that is busy may not be.
async fn join_completely(client: &mut Client, join: &Join) -> Presence {
    loop {
        let joined = client.try_join(join.clone()).await.unwrap();
        match joined.presence {
            Some(presence) if presence.partial => {}
            presence => return presence.expect("who asks for presence gets it"),
        }
    }
}

async fn query(client: &mut Client, room: &str) -> Presence {
    let query = PresenceQuery { room: room.to_owned() };
    match client.ask(Command::PresenceQuery(query)).await {
        Ok(Said::Presence(presence)) => presence,
        other => panic!("no presence: {other:?}"),
    }
}

async fn set_state(client: &mut Client, room: &str, state: Option<&str>) -> Result<(), ErrorReply> {
    let update = PresenceUpdate {
        room: room.to_owned(),
        state_json: state.map(str::to_owned),
    };
    match client.ask(Command::PresenceUpdate(update)).await? {
        Said::PresenceUpdated(updated) => assert_eq!(updated.room, room),
        other => panic!("updated: {other:?}"),
    }
    Ok(())
}

async fn a_user_with_two_tabs_comes_once_and_goes_once(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    let mut known = Known::from(ben.join_to_see("r").await);
    known.until(&mut ben, |known| known.connections("ben") == 1).await;
    let mut tabs = Vec::new();
    for tab in 1..=2 {
        let mut ada = node.connect(user("ada")).await;
        ada.join("r").await;
        tabs.push(ada);
        known.until(&mut ben, |known| known.connections("ada") == tab).await;
    }
    let presence = query(&mut ben, "r").await;
    assert_eq!((presence.member_count, presence.members.len()), (2, 2));
    tabs.pop().unwrap().close().await;
    known.until(&mut ben, |known| known.connections("ada") == 1).await;
    assert_eq!((known.came["ada"], known.went.get("ada")), (1, None));
    tabs[0].leave("r").await;
    known.until(&mut ben, |known| known.count == 1).await;
    assert_eq!((known.came["ada"], known.went["ada"]), (1, 1));
    tabs[0].join("r").await;
    known.until(&mut ben, |known| known.count == 2).await;
    assert_eq!((known.came["ada"], known.went["ada"]), (2, 1));
    node.finish().await;
}

async fn a_client_that_crashes_leaves_once(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    let mut known = Known::from(ben.join_to_see("r").await);
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    known.until(&mut ben, |known| known.count == 2).await;
    ada.crash();
    known.until(&mut ben, |known| known.count == 1).await;
    let mut cy = node.connect(user("cy")).await;
    cy.join("r").await;
    known.until(&mut ben, |known| known.connections("cy") == 1).await;
    assert_eq!((known.went["ada"], known.came["ada"]), (1, 1));
    node.finish().await;
}

/// Over NATS a loss on one node may become known after a leave on another; then the user is shown until the grace is over.
#[tokio::test]
async fn who_comes_back_on_another_node_within_the_grace_period_has_never_left() {
    over_nats(come_and_go(Encoding::Json, Duration::from_secs(5))).await;
}

async fn who_comes_back_within_the_grace_period_has_never_left(encoding: Encoding) {
    come_and_go(encoding, Duration::from_secs(3600)).await;
}

async fn come_and_go(encoding: Encoding, grace: Duration) {
    let node = Node::with(encoding, move |config: &mut Config| config.presence.leave_grace = grace).await;
    let mut ben = node.connect(user("ben")).await;
    let mut known = Known::from(ben.join_to_see("r").await);
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    known.until(&mut ben, |known| known.connections("ada") == 1).await;
    for _ in 0..3 {
        ada.crash();
        node.until_connections(1).await;
        ada = node.connect(user("ada")).await;
        ada.join("r").await;
    }
    // Who says that it leaves is not waited for.
    ada.leave("r").await;
    known.until(&mut ben, |known| known.count == 1).await;
    assert_eq!((known.came["ada"], known.went["ada"]), (1, 1));
    ben.leave("r").await;
    node.finish().await;
}

async fn a_state_is_shown_changed_and_cleared(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    let mut known = Known::from(ben.join_to_see("r").await);
    let mut ada = node.connect(user("ada")).await;
    let with_state = Join {
        state_json: Some(r#"{"cursor":[3,14]}"#.to_owned()),
        ..Join::in_room("r")
    };
    ada.try_join(with_state).await.unwrap();
    known
        .until(&mut ben, |known| known.state("ada") == Some(json!({"cursor": [3, 14]})))
        .await;
    set_state(&mut ada, "r", Some("\"away\"")).await.unwrap();
    known
        .until(&mut ben, |known| known.state("ada") == Some(json!("away")))
        .await;
    let mut cy = node.connect(user("cy")).await;
    let roster = Known::from(cy.join_to_see("r").await);
    assert_eq!(roster.state("ada"), Some(json!("away")));
    // Another connection without a state leaves it as it is.
    let mut tab = node.connect(user("ada")).await;
    tab.join("r").await;
    known.until(&mut ben, |known| known.connections("ada") == 2).await;
    assert_eq!(known.state("ada"), Some(json!("away")));
    set_state(&mut ada, "r", None).await.unwrap();
    known.until(&mut ben, |known| known.state("ada").is_none()).await;
    let asked = Known::from(query(&mut ben, "r").await);
    assert_eq!((asked.state("ada"), asked.connections("ada")), (None, 2));
    node.finish().await;
}

async fn a_state_ends_with_the_connection_that_set_it(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    let mut known = Known::from(ben.join_to_see("r").await);
    let with_state = |state: &str| Join {
        state_json: Some(state.to_owned()),
        ..Join::in_room("r")
    };
    let mut first = node.connect(user("ada")).await;
    first.try_join(with_state("1")).await.unwrap();
    known
        .until(&mut ben, |known| known.state("ada") == Some(json!(1)))
        .await;
    for (turn, state) in ["2", "3"].into_iter().enumerate() {
        let mut second = node.connect(user("ada")).await;
        second.try_join(with_state(state)).await.unwrap();
        let said = serde_json::from_str(state).ok();
        known.until(&mut ben, |known| known.state("ada") == said).await;
        if turn == 0 {
            second.leave("r").await;
        } else {
            second.crash();
        }
        known
            .until(&mut ben, |known| {
                known.connections("ada") == 1 && known.state("ada") == Some(json!(1))
            })
            .await;
    }
    // One that has set none ends, and one that clears its own shows the other's.
    let mut third = node.connect(user("ada")).await;
    third.join("r").await;
    known.until(&mut ben, |known| known.connections("ada") == 2).await;
    set_state(&mut third, "r", Some("4")).await.unwrap();
    known
        .until(&mut ben, |known| known.state("ada") == Some(json!(4)))
        .await;
    set_state(&mut third, "r", None).await.unwrap();
    known
        .until(&mut ben, |known| known.state("ada") == Some(json!(1)))
        .await;
    first.leave("r").await;
    known
        .until(&mut ben, |known| {
            known.connections("ada") == 1 && known.state("ada").is_none()
        })
        .await;
    assert_eq!((known.came["ada"], known.went.get("ada")), (1, None));
    node.finish().await;
}

async fn a_state_that_is_too_large_changes_nothing(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let large = format!("\"{}\"", "x".repeat(1023));
    let exact = format!("\"{}\"", "x".repeat(1022));
    let join = |state: &str| Join {
        state_json: Some(state.to_owned()),
        ..Join::in_room("r")
    };
    assert_eq!(
        ada.try_join(join(&large)).await.unwrap_err().reason,
        "presence_too_large"
    );
    let refused = set_state(&mut ada, "r", Some("1")).await.unwrap_err();
    assert_eq!(refused.reason, "not_joined");
    ada.try_join(join(&exact)).await.unwrap();
    assert_eq!(
        set_state(&mut ada, "r", Some(&large)).await.unwrap_err().reason,
        "presence_too_large"
    );
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    assert_eq!(
        set_state(&mut ada, "r", Some(&deep)).await.unwrap_err().reason,
        "invalid_argument"
    );
    let presence = query(&mut ada, "r").await;
    assert_eq!(presence.members[0].state_json, Some(exact));
    node.finish().await;
}

async fn a_large_room_is_told_in_counts(encoding: Encoding) {
    let small = |config: &mut Config| {
        config.presence.listed_max = 3;
        config.session.listed_max = 3;
        config.presence.counts_interval = Duration::from_millis(20);
    };
    let node = Node::with(encoding, small).await;
    let mut ben = node.connect(user("ben")).await;
    let mut known = Known::from(ben.join_to_see("r").await);
    let mut others = Vec::new();
    for n in 0..5 {
        let mut other = node.connect(user(&format!("user {n}"))).await;
        other.join("r").await;
        others.push(other);
    }
    known
        .until(&mut ben, |known| known.count == 6 && known.counts_only)
        .await;
    let presence = query(&mut ben, "r").await;
    assert_eq!(
        (presence.member_count, presence.counts_only, presence.members),
        (6, true, Vec::new())
    );
    let joined = others[0].join_to_see("r").await;
    assert_eq!(
        (joined.member_count, joined.counts_only, joined.members),
        (6, true, Vec::new())
    );
    for other in others.drain(1..) {
        other.close().await;
    }
    known
        .until(&mut ben, |known| known.count == 2 && !known.counts_only)
        .await;
    assert_eq!(known.members.keys().collect::<Vec<_>>(), ["ben", "user 0"]);
    node.finish().await;
}

async fn who_did_not_ask_is_told_nothing(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    let mut known = Known::from(ben.join_to_see("r").await);
    let mut quiet = node.connect(user("quiet")).await;
    quiet.join("r").await;
    for n in 0..3 {
        let mut ada = node.connect(user("ada")).await;
        ada.join("r").await;
        known
            .until(&mut ben, |known| known.came.get("ada") == Some(&(n + 1)))
            .await;
        ada.close().await;
        known
            .until(&mut ben, |known| known.went.get("ada") == Some(&(n + 1)))
            .await;
    }
    node.backend().publish("r", "end", json!({})).await;
    quiet.expect_nothing_before("end").await;
    // Who asks no longer is told no longer.
    ben.join("r").await;
    ben.expect_event("r", "end").await;
    quiet.leave("r").await;
    node.backend().publish("r", "end", json!({})).await;
    ben.expect_nothing_before("end").await;
    node.finish().await;
}

async fn presence_stays_within_the_tenant(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    let mut known = Known::from(ben.join_to_see("r").await);
    let mut stranger = node.connect(user("ada").tenant("other")).await;
    let seen = stranger.join_to_see("r").await;
    assert!(seen.members.iter().all(|member| member.user_id == "ada"), "{seen:?}");
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    known.until(&mut ben, |known| known.count == 2).await;
    assert_eq!(
        (known.connections("ada"), query(&mut stranger, "r").await.member_count),
        (1, 1)
    );
    node.finish().await;
}

#[tokio::test]
async fn a_backend_counts_and_lists_members_and_rooms() {
    let node = Node::start(Encoding::Json).await;
    let mut clients = Vec::new();
    for n in [3, 1, 2, 1] {
        let mut client = node.connect(user(&format!("user {n}"))).await;
        let state = Join {
            state_json: (n == 2).then(|| "{\"at\":7}".to_owned()),
            ..Join::in_room("r")
        };
        client.try_join(state).await.unwrap();
        clients.push(client);
    }
    clients[0].join("s").await;
    let backend = node.backend();
    let mut page = v1::ListMembersRequest {
        tenant: TENANT.to_owned(),
        room: "r".to_owned(),
        page_size: 2,
        ..Default::default()
    };
    let mut listed = Vec::new();
    loop {
        let answer = backend
            .rooms
            .clone()
            .list_members(page.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!((answer.member_count, answer.connection_count), (3, 4));
        listed.extend(answer.members);
        page.page_token = answer.next_page_token;
        if page.page_token.is_empty() {
            break;
        }
    }
    let told: Vec<_> = listed
        .iter()
        .map(|member| (member.user_id.as_str(), member.connection_count))
        .collect();
    assert_eq!(told, [("user 1", 2), ("user 2", 1), ("user 3", 1)]);
    assert_eq!(listed[1].state_json, "{\"at\":7}");
    let rooms = v1::ListUserRoomsRequest {
        tenant: TENANT.to_owned(),
        user_id: "user 3".to_owned(),
        ..Default::default()
    };
    let answer = backend.users.clone().list_user_rooms(rooms).await.unwrap().into_inner();
    let rooms: Vec<_> = answer.rooms.iter().map(|room| room.room.as_str()).collect();
    assert_eq!((rooms, answer.connection_count), (vec!["r", "s"], 1));
    let stats = backend.stats("r").await;
    assert_eq!((stats.member_count, stats.connection_count), (3, 4));
    // As long as somebody is there it is the same time, whoever that is.
    let since = stats.occupied_since_time.expect("somebody is there");
    clients.remove(0).leave("r").await;
    assert_eq!(backend.stats("r").await.occupied_since_time, Some(since));
    let nobody = backend.stats("nobody").await;
    assert_eq!((nobody.member_count, nobody.occupied_since_time), (0, None));
    node.finish().await;
}
