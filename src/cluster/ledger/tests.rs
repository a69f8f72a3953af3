use super::*;

const LEASE: Duration = Duration::from_secs(9);
const DIFFERENCE: Duration = Duration::from_secs(1);

fn holder(incarnation: Incarnation) -> Holder {
    Holder {
        incarnation,
        id: format!("node-{incarnation}").into(),
        lease: LEASE,
    }
}

fn taken(holder: Holder, number: u64) -> LeaseTaken {
    LeaseTaken {
        holder,
        number,
        released: false,
    }
}

fn ids<T: Copy>(ledger: &Ledger<T>, stored_ms: u64) -> Vec<Incarnation> {
    let holders = ledger.holders_at(stored_ms).known;
    holders.iter().map(|holder| holder.incarnation).collect()
}

#[test]
fn a_lease_begins_when_it_was_asked_for_once_it_is_read_back() {
    let mut ledger = Ledger::new(holder(1), DIFFERENCE);
    let first = ledger.ask("first");
    let second = ledger.ask("second");
    assert_eq!(ledger.take(0, taken(holder(2), 1)), None, "another's");
    assert_eq!(ledger.take(0, second), Some(("second", LEASE)));
    assert_eq!(ledger.take(0, first), None, "an older one, late");
}

#[test]
fn a_holder_counts_for_its_lease_or_until_it_is_released() {
    let mut ledger = Ledger::<()>::new(holder(1), DIFFERENCE);
    ledger.take(1_000, taken(holder(2), 1));
    ledger.take(5_000, taken(holder(3), 1));
    assert_eq!(ids(&ledger, 11_000), [2, 3]);
    assert_eq!(ids(&ledger, 11_001), [3]);
    let released = LeaseTaken {
        released: true,
        ..taken(holder(3), 2)
    };
    ledger.take(6_000, released);
    assert_eq!(ids(&ledger, 6_000), [2]);
}

#[test]
fn each_lease_counts_for_its_own_length() {
    let mut ledger = Ledger::<()>::new(holder(1), DIFFERENCE);
    let patient = Holder {
        lease: Duration::from_secs(40),
        ..holder(2)
    };
    ledger.take(1_000, taken(patient.clone(), 1));
    ledger.take(1_000, taken(holder(3), 1));
    ledger.take(30_000, taken(holder(1), 1));
    assert_eq!(ledger.holders_at(30_000).known, [holder(1), patient]);
    assert_eq!(ids(&ledger, 42_000), [2]);
    assert_eq!(ids(&ledger, 42_001), Vec::<Incarnation>::new());
}

#[test]
fn a_lease_read_again_is_not_taken_for_a_shorter_one() {
    let mut ledger = Ledger::<()>::new(holder(1), DIFFERENCE);
    ledger.take(20_000, taken(holder(2), 9));
    ledger.take(1_000, taken(holder(2), 1));
    assert_eq!(ids(&ledger, 30_000), [2]);
}

#[test]
fn after_a_loss_leases_nobody_knows_may_go_on_for_the_longest() {
    let mut ledger = Ledger::<()>::new(holder(1), DIFFERENCE);
    let patient = Holder {
        lease: Duration::from_secs(40),
        ..holder(2)
    };
    ledger.take(1_000, taken(patient, 1));
    let succession = ledger.succession(5_000);
    assert_eq!(succession.until_ms, 46_000);
    let mut newcomer = Ledger::<()>::new(holder(3), DIFFERENCE);
    assert_eq!(newcomer.holders_at(6_000).unknown, Duration::ZERO);
    newcomer.succeed(succession);
    newcomer.succeed(newcomer.succession(5_000));
    assert_eq!(
        newcomer.holders_at(5_500).unknown,
        Duration::from_secs(40),
        "none is longer"
    );
    assert_eq!(newcomer.holders_at(6_000).unknown, Duration::from_secs(40));
    assert_eq!(newcomer.holders_at(16_000).unknown, Duration::from_secs(30));
    assert_eq!(newcomer.holders_at(46_000).unknown, Duration::ZERO);
}
