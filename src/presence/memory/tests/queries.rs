//! What can be asked: pages, rooms of a user, how many an event reaches.

use super::*;

#[tokio::test]
async fn pages_are_sorted_by_user_and_walk_everybody_once() {
    let presence = MemoryPresence::new(Config::default());
    let room = room("r");
    let mut expected = Vec::new();
    for number in 0..50 {
        let name = format!("u{}", number * 7 % 50);
        presence.enter(&room, &tab(&name), None).unwrap();
        expected.push(user(&name));
    }
    expected.sort();
    let (mut walked, mut after) = (Vec::new(), None);
    loop {
        let page = presence.page(&room, after.as_ref(), 7).await;
        assert_eq!(page.counts.users, 50);
        walked.extend(page.members.into_iter().map(|present| present.user));
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(walked, expected);
    let exact = presence.page(&room, None, 50).await;
    assert_eq!((exact.members.len(), exact.next_after), (50, None));
}

#[tokio::test]
async fn each_connection_left_out_is_left_out_once() {
    let presence = MemoryPresence::new(Config::default());
    let (room, elsewhere) = (room("r"), Room::parse(&Tenant::parse("other").unwrap(), "r").unwrap());
    let (ada, ada2, bob, eve) = (tab("ada"), tab("ada"), tab("bob"), tab("eve"));
    for member in [&ada, &ada2, &bob] {
        presence.enter(&room, member, None).unwrap();
    }
    presence.enter(&elsewhere, &eve, None).unwrap();
    let reached = |connections: &[&Member], users: &[&str]| {
        let connections = connections.iter().map(|member| member.connection).collect();
        let users = users.iter().map(|name| user(name)).collect();
        presence.reached_now(&room, &Except::new(connections, users))
    };
    assert_eq!(reached(&[], &[]), 3);
    assert_eq!(reached(&[&ada], &[]), 2);
    assert_eq!(reached(&[&ada, &ada], &["bob", "bob"]), 1);
    assert_eq!(reached(&[&ada], &["ada"]), 1);
    assert_eq!(reached(&[&eve], &["eve", "nobody"]), 3);
    assert_eq!(reached(&[&ada, &ada2, &bob], &["ada", "bob"]), 0);
    assert_eq!(presence.reached_now(&super::room("unknown"), &Except::NOBODY), 0);
}

#[tokio::test]
async fn a_user_is_found_in_its_rooms_by_name_and_only_in_its_tenant() {
    let presence = MemoryPresence::new(Config::default());
    let (ada, again) = (tab("ada"), tab("ada"));
    for name in ["b", "a"] {
        presence.enter(&room(name), &ada, None).unwrap();
    }
    presence.enter(&room("b"), &again, None).unwrap();
    let other = Tenant::parse("other").unwrap();
    presence
        .enter(&Room::parse(&other, "c").unwrap(), &tab("ada"), None)
        .unwrap();
    let found = presence.rooms_of(&Tenant::default(), &user("ada")).await.rooms;
    let found: Vec<(&str, u32)> = found
        .iter()
        .map(|(room, present)| (room.name(), present.connections))
        .collect();
    assert_eq!(found, [("a", 1), ("b", 2)]);
    assert!(presence.rooms_of(&other, &user("bob")).await.rooms.is_empty());
}
