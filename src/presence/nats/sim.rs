//! A deterministic simulation: several nodes over a network that loses, doubles, delays and reorders, with nodes that
//! crash, are stopped and are cut off. After quiet each node shows what the living ones have, and no observer was shown
//! more comings than there were. Observers wait for a census: none is told that a user joined that was there when it
//! asked, and where no node falls silent a complete roster has everyone.
//!
//! A seed that fails is printed; `SEED=n cargo test --lib presence::nats::sim::replay -- --ignored` runs it again.

mod network;
mod node;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use self::world::World;

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(World::new(seed).live())));
    if let Err(panic) = lived {
        eprintln!("seed {seed} failed");
        resume_unwind(panic);
    }
}

#[test]
fn after_quiet_every_node_shows_what_the_living_have() {
    (0..300).for_each(run);
}

#[test]
#[ignore = "takes minutes"]
fn after_quiet_every_node_shows_what_the_living_have_ten_thousand_times() {
    for seed in 0..10_000 {
        run(seed);
        if (seed + 1) % 500 == 0 {
            println!("{} seeds", seed + 1);
        }
    }
}

#[test]
#[ignore = "runs the one seed it is told"]
#[expect(clippy::disallowed_methods, reason = "for whoever looks at one seed")]
fn replay() {
    run(std::env::var("SEED").unwrap().parse().unwrap());
}
