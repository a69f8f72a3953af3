//! Requests that wait until a room is known completely.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::proto::node_v1::PresencePageRequest;
use crate::room::Room;

/// A waiting request.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A caller of the port.
    Caller(oneshot::Sender<bool>),
    /// Another node's page request, and its reply subject.
    Page(String, PresencePageRequest),
}

/// Waiting requests by census and room.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<(u64, Room), Vec<Waiter>>);

impl Waiting {
    pub(super) fn add(&mut self, census: u64, room: Room, waiter: Waiter) {
        self.0.entry((census, room)).or_default().push(waiter);
    }

    /// Takes the requests that wait for a room of a census.
    pub(super) fn take(&mut self, census: u64, room: Room) -> Vec<Waiter> {
        self.0.remove(&(census, room)).unwrap_or_default()
    }
}
