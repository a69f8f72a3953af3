//! A simulation of leases of different lengths, the control log, one revocation and, in half of the runs, its restoration:
//! virtual time, seeded pauses, losses and delays. Every step of a node may come late, because the process is stopped before
//! it.
//!
//! What must hold: nothing that was published after `Revoke` had returned is written to the revoked user, on any node, and
//! in the end the user is nowhere a member. After `Restore` has returned no node refuses the user. A failing seed is printed; [`replay`] runs one.

mod node;
mod world;

use self::world::{Broken, World};

/// How long a run goes on, in milliseconds.
const RUN_MS: u64 = 44_000;

fn run(seed: u64, broken: Broken) -> Result<(), String> {
    World::new(seed, broken).run(RUN_MS)
}

fn run_all(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(why) = run(seed, Broken::Nothing) {
            panic!("seed {seed}: {why}; to replay: SEED in `replay`");
        }
    }
}

#[test]
fn nothing_later_reaches_a_revoked_user() {
    run_all(0..200);
}

#[test]
#[ignore = "takes minutes"]
fn nothing_later_reaches_a_revoked_user_in_10_000_runs() {
    run_all(0..10_000);
}

/// A simulation that cannot fail shows nothing.
#[test]
fn the_simulation_finds_rules_that_are_broken() {
    let rules = [
        Broken::LeaseFromReading,
        Broken::NoLookAtTheLease,
        Broken::LookBeforeTaking,
        Broken::NobodyWaitedFor,
        Broken::JoinsByOldPermits,
        Broken::LeaseOfOnesOwn,
        Broken::RestoredAtOnce,
        Broken::RefusesWithoutALease,
    ];
    let is_missed = |broken: &Broken| (0..400).all(|seed| run(seed, *broken).is_ok());
    let missed: Vec<_> = rules.into_iter().filter(is_missed).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
#[ignore = "for one seed, set by hand"]
fn replay() {
    const SEED: u64 = 0;
    run(SEED, Broken::Nothing).unwrap();
}
