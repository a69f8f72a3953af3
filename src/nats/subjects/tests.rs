//! Names of rooms as tokens.

use proptest::prelude::*;

use super::*;

fn room_of(tenant: &str, name: &str) -> Room {
    Room::parse(&Tenant::parse(tenant).unwrap(), name).unwrap()
}

#[test]
fn a_room_is_one_readable_token() {
    assert_eq!(token(&room_of("acme", "project:7")), "acme=00project=3A7");
    assert_eq!(token(&room_of("acme", "a.b *>")), "acme=00a=2Eb=20=2A=3E");
}

#[test]
fn a_stored_subject_names_its_partition_and_token() {
    let subjects = Subjects::new("d").unwrap();
    let room = room_of("acme", "a.b");
    let history = subjects.history(7, &room);
    assert_eq!(subjects.partition_and_token(&history), Some((7, "acme=00a=2Eb")));
    for foreign in ["d.h.7", "d.h.x.acme", "e.h.7.acme", "d.l.acme.r", ""] {
        assert_eq!(subjects.partition_and_token(foreign), None, "{foreign}");
    }
}

#[test]
fn no_tenant_shares_the_beginning_of_anothers_tokens() {
    let begins = |tenant: &str| Subjects::tokens_of(&Tenant::parse(tenant).unwrap());
    for other in ["ac", "acme2", "acme=00", "acme="] {
        assert!(!token(&room_of(other, "lobby")).starts_with(&begins("acme")), "{other}");
    }
}

#[test]
fn partitions_are_what_they_were_in_every_version() {
    let of = |name| Subjects::partition(&room_of("acme", name), 64);
    assert_eq!([of("lobby"), of("project:7"), of("project:8")], [48, 48, 3]);
}

#[test]
fn rooms_spread_over_the_partitions() {
    let mut rooms = [0_u32; 64];
    for number in 0..6400 {
        rooms[usize::from(Subjects::partition(&room_of("acme", &format!("project:{number}")), 64))] += 1;
    }
    assert!(rooms.iter().all(|count| (50..200).contains(count)), "{rooms:?}");
}

#[test]
fn what_no_node_writes_is_no_room() {
    for token in [
        "",
        "acme",
        "acme=00",
        "=00lobby",
        "acme=00a=3",
        "acme=00a=zz",
        "acme=00=41",
        "acme=00a.b",
    ] {
        assert_eq!(Subjects::room_of(token), None, "{token}");
    }
}

#[test]
fn a_deployment_is_one_short_plain_token() {
    for wrong in ["", "a.b", "a b", "*", ">", "ä", "d23456789012345678901234567890123"] {
        assert!(Subjects::new(wrong).is_err(), "{wrong}");
    }
    assert!(Subjects::new("Prod-2_eu").is_ok());
}

proptest! {
    #[test]
    fn a_room_is_read_back_from_its_token(tenant in "[^\\p{Cc}]{1,16}", name in "[^\\p{Cc}]{1,60}") {
        let room = room_of(&tenant, &name);
        let token = token(&room);
        prop_assert!(token.bytes().all(|byte| is_plain(byte) || byte == b'='));
        prop_assert!(token.starts_with(&Subjects::tokens_of(&Tenant::parse(&tenant).unwrap())));
        prop_assert_eq!(Subjects::room_of(&token), Some(room));
    }
}
