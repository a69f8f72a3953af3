//! Presence of many nodes over NATS.

mod book;
mod other;
mod replica;
#[cfg(test)]
mod sim;
mod site;
mod touched;
mod update;
mod wire;

use std::time::Duration;

use self::replica::Rhythm;

/// When nodes tell and ask each other.
const RHYTHM: Rhythm = Rhythm {
    confirm_after: Duration::from_secs(1),
    stand_interval: Duration::from_secs(20),
    ask_again_after: Duration::from_millis(500),
    silence_max: Duration::from_secs(60),
    settle_after: Duration::from_millis(200),
    linger: Duration::from_secs(6),
    unknown_max: Duration::from_secs(5),
    ended_max: Duration::from_secs(600),
    recheck_after: Duration::from_millis(300),
};
