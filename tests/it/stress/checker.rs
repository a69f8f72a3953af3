//! Checks what everybody has seen against what the publishers were told. Knows no gateway.

use std::collections::{HashMap, HashSet};

use super::{EVENTS, JOINED, left_out};

/// What a publisher was told, in its own order: which room, and the offset.
pub type Accepted = Vec<(String, u64)>;

/// What a member got: the offset, and the publisher and its number; `None` when it is not for this member.
pub type Seen = (u64, Option<(String, u64)>);

/// The one order of a room.
type Order<'a> = Vec<(u64, &'a str, u64)>;

/// Checks order, no loss, no duplicate; answers how many deliveries there were.
pub fn check(accepted: &[(String, Accepted)], seen: &[(usize, Vec<(String, Seen)>)]) -> usize {
    let orders = orders(accepted);
    let mut deliveries = 0;
    for (member, seen) in seen {
        let mut by_room: HashMap<&str, Vec<&Seen>> = HashMap::new();
        for (room, event) in seen {
            by_room.entry(room).or_default().push(event);
        }
        assert_eq!(by_room.len(), JOINED, "member {member}");
        for (room, seen) in by_room {
            deliveries += seen.len();
            let order = &orders[room];
            let same = seen.len() == order.len() && seen.iter().zip(order).all(|pair| is_same(*member, pair));
            assert!(same, "member {member} saw another order of `{room}`, or not all of it");
        }
    }
    deliveries
}

/// The one order of each room, by what the publishers were told.
fn orders(accepted: &[(String, Accepted)]) -> HashMap<&str, Order<'_>> {
    let mut orders: HashMap<&str, Order<'_>> = HashMap::new();
    for (name, positions) in accepted {
        assert_eq!(positions.len(), EVENTS);
        for (n, (room, offset)) in positions.iter().enumerate() {
            orders.entry(room).or_default().push((*offset, name, n as u64));
        }
    }
    for (room, order) in &mut orders {
        order.sort_unstable();
        let offsets: HashSet<u64> = order.iter().map(|(offset, ..)| *offset).collect();
        assert_eq!(offsets.len(), order.len(), "`{room}`: one offset for two events");
        // A publisher's own order is kept.
        let mut last: HashMap<&str, u64> = HashMap::new();
        for (_, name, n) in order {
            let before = last.insert(name, *n);
            assert!(
                before.is_none_or(|before| before < *n),
                "`{room}`: {name} {before:?} then {n}"
            );
        }
    }
    orders
}

fn is_same(member: usize, (seen, (offset, name, n)): (&&Seen, &(u64, &str, u64))) -> bool {
    let for_another = left_out(name, usize::try_from(*n).unwrap()) == Some(member);
    seen.0 == *offset
        && match &seen.1 {
            Some((by, number)) => !for_another && by == name && number == n,
            None => for_another,
        }
}

type Run = (Vec<(String, Accepted)>, Vec<(usize, Vec<(String, Seen)>)>);

/// One publisher into as many rooms as a member has, and a member that saw all of it.
fn run() -> Run {
    let room = |n: usize| format!("room {}", n % JOINED);
    let accepted = (0..EVENTS).map(|n| (room(n), n as u64 + 1)).collect();
    let seen = (0..EVENTS).map(|n| {
        let content = (left_out("unary 0", n) != Some(0)).then(|| ("unary 0".to_owned(), n as u64));
        (room(n), (n as u64 + 1, content))
    });
    (vec![("unary 0".to_owned(), accepted)], vec![(0, seen.collect())])
}

#[test]
fn what_is_right_passes() {
    let (accepted, seen) = run();
    assert_eq!(check(&accepted, &seen), EVENTS);
}

#[test]
#[should_panic(expected = "or not all of it")]
fn a_loss_is_seen() {
    let (accepted, mut seen) = run();
    seen[0].1.remove(77);
    check(&accepted, &seen);
}

#[test]
#[should_panic(expected = "or not all of it")]
fn a_duplicate_is_seen() {
    let (accepted, mut seen) = run();
    let twice = seen[0].1[77].clone();
    seen[0].1.insert(78, twice);
    check(&accepted, &seen);
}

#[test]
#[should_panic(expected = "another order")]
fn another_order_is_seen() {
    let (accepted, mut seen) = run();
    seen[0].1.swap(77, 77 + JOINED);
    check(&accepted, &seen);
}

#[test]
#[should_panic(expected = "another order")]
fn an_event_for_others_is_seen() {
    let (accepted, mut seen) = run();
    seen[0].1[0].1.1 = Some(("unary 0".to_owned(), 0));
    check(&accepted, &seen);
}

#[test]
#[should_panic(expected = "then")]
fn a_publisher_whose_order_is_not_kept_is_seen() {
    let (mut accepted, seen) = run();
    let other = accepted[0].1[77 + JOINED].1;
    accepted[0].1[77 + JOINED].1 = std::mem::replace(&mut accepted[0].1[77].1, other);
    check(&accepted, &seen);
}
