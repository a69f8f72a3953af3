//! What publishers, clients and revokers of a round share.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Instant;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::log::{At, Attempt, Micros, Revocation};
use crate::support::Caller;

/// How large a round is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub rooms: usize,
    /// Clients that stay to the end.
    pub readers: usize,
    /// The rooms of each.
    pub joined: usize,
    /// Clients who lose the right to one of their rooms on the way.
    pub victims: usize,
    /// How often the load of one publisher of each kind is there.
    pub publishers: usize,
    /// How many more publish by streams, the cheapest way to much load.
    pub streams: usize,
}

/// One round.
#[derive(Debug)]
pub struct Scene {
    pub seed: u64,
    pub size: Size,
    start: Instant,
    /// Distinguishes the rooms and users of this round from those of others on the same fleet.
    prefix: String,
    pub addresses: Vec<SocketAddr>,
    pub backends: Vec<Caller>,
    /// Publishers begin nothing new from then on.
    pub stop: CancellationToken,
    /// The last event of each room, when it is known.
    pub ends: watch::Sender<Option<Vec<At>>>,
    pub attempts: Mutex<Vec<Attempt>>,
    pub revocations: Mutex<Vec<Revocation>>,
    /// What nobody counts and somebody should read.
    pub remarks: Mutex<Vec<String>>,
}

impl Scene {
    pub fn new(fleet: &Fleet, size: Size, seed: u64, prefix: String) -> Self {
        Self {
            seed,
            size,
            start: Instant::now(),
            prefix,
            addresses: fleet.addresses(),
            backends: (0..fleet.gateways.len()).map(|number| fleet.backend(number)).collect(),
            stop: CancellationToken::new(),
            ends: watch::Sender::new(None),
            attempts: Mutex::default(),
            revocations: Mutex::default(),
            remarks: Mutex::default(),
        }
    }

    pub fn now(&self) -> Micros {
        u64::try_from(self.start.elapsed().as_micros()).expect("a round is short")
    }

    /// Numbers of somebody's own, the same for the same seed.
    pub fn random(&self, who: &str) -> StdRng {
        let salt = who.bytes().fold(self.seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        StdRng::seed_from_u64(salt)
    }

    pub fn room(&self, room: usize) -> String {
        format!("{}:{room}", self.prefix)
    }

    /// Which room this name is.
    pub fn room_named(&self, name: &str) -> usize {
        let number = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix(':'));
        let number = number.and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("a room of another round: {name}"))
    }

    pub fn user(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub fn key(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    pub fn remark(&self, remark: String) {
        let mut remarks = self.remarks.lock().unwrap();
        if remarks.len() < 50 {
            remarks.push(remark);
        }
    }
}
