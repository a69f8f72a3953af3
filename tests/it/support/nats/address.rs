//! A loopback address that nobody else uses.
//!
//! A port of 127.0.0.1 that was free a moment ago may be taken when a server starts again, be it by the client that tries to
//! reconnect to it. Of the sixteen million loopback addresses each server gets one for itself instead.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// How many addresses are tried. One in a million is taken.
const TRIES: u64 = 64;
/// Below what the kernel gives to outgoing connections, so that none of those is ever in the way.
const PORTS: [u16; 3] = [14_222, 16_222, 18_222];

/// An address of one's own, for as long as this lives.
#[derive(Debug)]
pub struct Address {
    ip: IpAddr,
    /// Bound on the address and never accepted from: whoever else would take the address fails to bind this, and the kernel
    /// gives it back when this program ends.
    _claim: TcpListener,
}

impl Address {
    pub fn claim() -> Self {
        let random = RandomState::new();
        (0..TRIES)
            .find_map(|attempt| Self::try_claim(random.hash_one(attempt)))
            .expect("one of many loopback addresses is free")
    }

    fn try_claim(random: u64) -> Option<Self> {
        let [a, b, c, ..] = random.to_le_bytes();
        // Not 127.0, which everybody uses, and no host part of 0 or 255.
        let ip = Ipv4Addr::new(127, a.clamp(1, 254), b, c.clamp(1, 254));
        let claim = TcpListener::bind((ip, 12_222)).ok()?;
        let free = PORTS.iter().all(|&port| TcpListener::bind((ip, port)).is_ok());
        free.then_some(Self {
            ip: ip.into(),
            _claim: claim,
        })
    }

    /// One of the three ports.
    pub fn port(&self, which: usize) -> SocketAddr {
        (self.ip, PORTS[which]).into()
    }

    pub(super) fn clients(&self) -> SocketAddr {
        self.port(0)
    }

    pub(super) fn routes(&self) -> SocketAddr {
        self.port(1)
    }

    pub(super) fn monitor(&self) -> SocketAddr {
        self.port(2)
    }
}
