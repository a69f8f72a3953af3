use proptest::prelude::*;

use super::*;
use crate::identity::{ConnectionId, Expiry, Identity, TokenId};
use crate::json::Json;
use crate::notice::Notice;
use crate::policy::RevocationScope;
use crate::policy::revocation::RevocationSubject;

const HOUR: Duration = Duration::from_secs(3600);

fn user(name: &str) -> RevocationSubject {
    RevocationSubject::User(UserId::parse(name).unwrap())
}

fn entry(id: u128, subject: RevocationSubject, room: &str) -> Arc<RevocationEntry> {
    let tenant = Tenant::default();
    Arc::new(RevocationEntry {
        id: RevocationId::from_bits(id),
        revocation: Revocation {
            subject,
            issued_before: None,
            scope: RevocationScope::Room(Room::parse(&tenant, room).unwrap()),
            tenant,
        },
        created: Timestamp(0),
        expires: Timestamp(3_600_000),
        notice: Notice::default(),
    })
}

fn register() -> Revocations {
    Revocations::new(1_000, 100)
}

/// Who is kept out of room `r`: a user with this token.
fn covers(register: &Revocations, name: &str, claims: &str, connection: ConnectionId) -> bool {
    let identity = Identity {
        tenant: Tenant::default(),
        user: UserId::parse(name).unwrap(),
        claims: Json::parse(claims.to_owned()).unwrap().into(),
        expiry: Expiry(0),
    };
    let bearer = Bearer {
        identity: &identity,
        connection,
    };
    let room = Room::parse(&Tenant::default(), "r").unwrap();
    register.covering(bearer, &room).is_some()
}

fn covers_user(register: &Revocations, name: &str) -> bool {
    covers(register, name, "{}", ConnectionId::random())
}

fn ids(register: &Revocations, after: Option<u128>, max: usize) -> (Vec<u128>, bool) {
    let after = after.map(RevocationId::from_bits);
    let (page, more) = register.page(&Tenant::default(), None, after, max);
    (page.iter().map(|entry| entry.id.bits()).collect(), more)
}

#[tokio::test(start_paused = true)]
async fn each_subject_is_hit_and_nobody_else() {
    let register = register();
    let connection = ConnectionId::random();
    register.revoke(&entry(1, user("ada"), "r"), HOUR);
    register.revoke(&entry(2, RevocationSubject::Connection(connection), "r"), HOUR);
    let token = RevocationSubject::Token(TokenId::parse("t1").unwrap());
    register.revoke(&entry(3, token, "r"), HOUR);
    for (name, claims, connection, hit) in [
        ("ada", "{}", ConnectionId::random(), true),
        ("ben", "{}", ConnectionId::random(), false),
        ("ben", "{}", connection, true),
        ("ben", r#"{"jti":"t1"}"#, ConnectionId::random(), true),
        ("ben", r#"{"jti":"t2"}"#, ConnectionId::random(), false),
    ] {
        assert_eq!(covers(&register, name, claims, connection), hit, "{name} {claims}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_ends_with_its_time_and_is_swept() {
    let register = register();
    register.revoke(&entry(1, user("ada"), "r"), Duration::from_secs(1));
    register.revoke(&entry(2, user("ben"), "r"), HOUR);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(!covers_user(&register, "ada") && covers_user(&register, "ben"));
    assert_eq!(ids(&register, None, 10), (vec![2], false));
    register.revoke(&entry(3, user("eve"), "r"), Duration::MAX);
    assert_eq!(register.read().in_force, 2);
    assert_eq!(register.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_told_again_is_prolonged_and_never_shortened() {
    let register = register();
    for seconds in [10, 30, 20] {
        let effect = register.revoke(&entry(1, user("ada"), "r"), Duration::from_secs(seconds));
        let first = seconds == 10;
        assert_eq!(effect == RevocationEffect::Begins, first);
    }
    assert_eq!(register.read().in_force, 1);
    tokio::time::advance(Duration::from_secs(29)).await;
    assert!(covers_user(&register, "ada"));
    assert!(register.equal(&entry(9, user("ada"), "r").revocation).is_some());
    assert!(register.equal(&entry(9, user("ada"), "other").revocation).is_none());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(register.equal(&entry(9, user("ada"), "r").revocation).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_stays_so_until_it_would_have_ended() {
    let register = register();
    let (tenant, id) = (Tenant::default(), RevocationId::from_bits(1));
    register.revoke(&entry(1, user("ada"), "r"), HOUR);
    register.restore(&tenant, id, Timestamp(3_600_000), HOUR);
    assert!(!covers_user(&register, "ada"));
    let effect = register.revoke(&entry(1, user("ada"), "r"), HOUR * 2);
    assert_eq!(effect, RevocationEffect::Restored);
    assert!(!covers_user(&register, "ada"));
    let restored = RevocationState::Restored(Timestamp(3_600_000));
    assert_eq!(register.find(&tenant, id), Some(restored));
    assert_eq!(ids(&register, None, 10), (vec![], false));
    tokio::time::advance(HOUR).await;
    assert_eq!(register.find(&tenant, id), None);
}

#[tokio::test(start_paused = true)]
async fn every_bound_refuses_one_more_and_nothing_is_forgotten() {
    let register = Revocations::new(5, 3);
    let check = |name: &str, tenant: &str| {
        let revocation = Revocation {
            tenant: Tenant::parse(tenant).unwrap(),
            ..entry(0, user(name), "r").revocation.clone()
        };
        register.check_limits(&revocation)
    };
    let own = Tenant::default();
    for id in 1..=3 {
        assert_eq!(check("ada", own.as_str()), Ok(()));
        register.revoke(&entry(id, user("ada"), "r"), HOUR);
    }
    assert_eq!(check("ben", own.as_str()), Err(RevocationLimit::Tenant(3)));
    assert_eq!(check("ben", "other"), Ok(()));
    // Another node has taken more than its share: what is in force stays so.
    for id in 4..=5 {
        register.revoke(&entry(id, user("ben"), "r"), Duration::from_secs(1));
    }
    assert_eq!(check("ben", "other"), Err(RevocationLimit::All(5)));
    assert!(covers_user(&register, "ada") && covers_user(&register, "ben"));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(check("ben", "other"), Ok(()), "ended ones do not count");

    let register = Revocations::new(usize::MAX, usize::MAX);
    for id in 0..1_000 {
        register.revoke(&entry(id, user("ada"), "r"), HOUR);
    }
    let refused = register.check_limits(&entry(0, user("ada"), "s").revocation);
    assert_eq!(refused, Err(RevocationLimit::Subject(1_000)));
}

#[tokio::test(start_paused = true)]
async fn pages_give_each_revocation_once() {
    let register = register();
    for id in 1..=5 {
        register.revoke(&entry(id, user(&format!("u{id}")), "r"), HOUR);
    }
    assert_eq!(ids(&register, None, 2), (vec![1, 2], true));
    assert_eq!(ids(&register, Some(2), 2), (vec![3, 4], true));
    assert_eq!(ids(&register, Some(4), 2), (vec![5], false));
    let ben = UserId::parse("u3").unwrap();
    let (page, more) = register.page(&Tenant::default(), Some(&ben), None, 10);
    assert_eq!((page.len(), page[0].id.bits(), more), (1, 3, false));
    let elsewhere = Tenant::parse("elsewhere").unwrap();
    assert_eq!(register.page(&elsewhere, None, None, 10), (vec![], false));
    assert_eq!(register.page(&elsewhere, Some(&ben), None, 10), (vec![], false));
}

#[derive(Debug, Clone)]
enum Told {
    Revoke(u128, u64),
    Restore(u128),
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        (0..4u128, 1..100u64).prop_map(|(id, seconds)| Told::Revoke(id, seconds)),
        (0..4u128).prop_map(Told::Restore),
    ]
}

fn after(told: &[Told]) -> Vec<(u128, bool)> {
    let register = register();
    for told in told {
        match told {
            Told::Revoke(id, seconds) => {
                register.revoke(&entry(*id, user("ada"), "r"), Duration::from_secs(*seconds));
            }
            Told::Restore(id) => {
                let id = RevocationId::from_bits(*id);
                register.restore(&Tenant::default(), id, Timestamp(0), HOUR);
            }
        }
    }
    let all = register.all().into_iter();
    let mut all: Vec<_> = all
        .map(|(_, id, state)| (id.bits(), matches!(state, RevocationState::InForce(_))))
        .collect();
    all.sort_unstable();
    let in_force = all.iter().filter(|(_, in_force)| *in_force).count();
    assert_eq!(register.read().in_force, in_force);
    assert_eq!(covers_user(&register, "ada"), in_force > 0);
    all
}

proptest! {
    /// Nodes that were told the same, in whatever order and however often, know the same.
    #[test]
    fn the_order_of_what_is_told_does_not_matter(told in proptest::collection::vec(told(), 0..20), again in any::<usize>()) {
        let mut other = told.clone();
        other.reverse();
        if let Some(twice) = told.get(again % told.len().max(1)) {
            other.push(twice.clone());
        }
        prop_assert_eq!(after(&told), after(&other));
    }
}
