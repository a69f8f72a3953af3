//! Connection counts of the listener: beginning and open, in all and per address.
//!
//! A connection begins when it is accepted and is open once its first bytes have arrived, TLS included. The two stages are
//! counted apart, so silent connections take no place from those that speak.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::connection::Connection;
use crate::api::config::Config;
use crate::rate::Notice;
use crate::sync::lock;

/// Counts the connections of one listener.
#[derive(Debug)]
pub(super) struct Places {
    beginning: Bounds,
    open: Bounds,
    counts: Mutex<Counts>,
    /// Rate-limited notice of connections closed for lack of a place.
    full: Notice,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    max: usize,
    per_address_max: usize,
}

#[derive(Debug, Default)]
struct Counts {
    beginning: Taken,
    open: Taken,
    /// Open connections without a valid credential, the oldest first. Some may have ended or been proven since.
    unproven: VecDeque<Weak<Connection>>,
}

/// The places taken in one of the two stages.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place, released on drop.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
    is_open: bool,
}

/// The bound that is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The connections of the address.
    Address,
    /// The connections of the listener.
    Listener,
}

impl Places {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            beginning: Bounds {
                max: config.handshakes_max,
                per_address_max: config.handshakes_per_address_max,
            },
            open: Bounds {
                max: config.connections_max,
                per_address_max: config.connections_per_address_max,
            },
            counts: Mutex::default(),
            full: Notice::default(),
        })
    }

    /// Logs closed connections, at a limited rate.
    pub(super) fn note(&self, full: Full) {
        if let Some(count) = self.full.count() {
            tracing::warn!(count, ?full, "connection limit reached, connection closed");
        }
    }

    /// Takes a place for a beginning connection.
    pub(super) fn begin(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let address = address.to_canonical();
        self.lock().beginning.take(address, self.beginning)?;
        Ok(Place {
            places: Arc::clone(self),
            address,
            is_open: false,
        })
    }

    /// Moves a connection from beginning to open. While the listener is full, the oldest connection without a valid
    /// credential is evicted: callers have priority.
    pub(super) fn open(self: &Arc<Self>, connection: &Arc<Connection>, beginning: Place) -> Result<Place, Full> {
        let address = beginning.address;
        drop(beginning);
        loop {
            let mut counts = self.lock();
            match counts.open.take(address, self.open) {
                Ok(()) => {
                    counts.enlist(connection, self.open.max);
                    return Ok(Place {
                        places: Arc::clone(self),
                        address,
                        is_open: true,
                    });
                }
                Err(Full::Address) => return Err(Full::Address),
                Err(Full::Listener) => {
                    let oldest = counts.oldest_unproven().ok_or(Full::Listener)?;
                    // Ending it takes the same lock, to release its place.
                    drop(counts);
                    oldest.end();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }
}

impl Counts {
    fn enlist(&mut self, connection: &Arc<Connection>, max: usize) {
        // Swept before the list outgrows the connections: most entries have ended or been proven.
        if self.unproven.len() >= 2 * max.max(32) {
            self.unproven
                .retain(|other| other.upgrade().is_some_and(|other| !other.is_proven()));
        }
        self.unproven.push_back(Arc::downgrade(connection));
    }

    fn oldest_unproven(&mut self) -> Option<Arc<Connection>> {
        while let Some(oldest) = self.unproven.pop_front() {
            if let Some(oldest) = oldest.upgrade().filter(|oldest| !oldest.is_proven()) {
                return Some(oldest);
            }
        }
        None
    }
}

impl Taken {
    fn take(&mut self, address: IpAddr, bounds: Bounds) -> Result<(), Full> {
        let own = self.by_address.get(&address).copied().unwrap_or_default();
        if own >= bounds.per_address_max {
            return Err(Full::Address);
        }
        if self.all >= bounds.max {
            return Err(Full::Listener);
        }
        self.all += 1;
        self.by_address.insert(address, own + 1);
        Ok(())
    }

    fn give_back(&mut self, address: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(own) = self.by_address.get_mut(&address) {
            *own -= 1;
            if *own == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        let taken = if self.is_open {
            &mut counts.open
        } else {
            &mut counts.beginning
        };
        taken.give_back(self.address);
    }
}
