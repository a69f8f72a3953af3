//! Reads runs of a room's events from the stream, without a gap between two of them, and finds out what the stream has
//! removed.

use std::sync::Arc;
use std::time::Duration;

use super::partition::Partition;
use super::proof::{Removal, Removed, Run};
use super::server::{Keep, StreamState};
use super::shared::NatsBusInner;
use crate::event::Event;
use crate::nats::request::RequestFailed;
use crate::room::Room;

/// The most reads from a replica that lags behind the leader. The pauses between them grow, to 150 ms in all: a replica that
/// lags further is left to the next attempt.
const ATTEMPTS_MAX: u32 = 6;

const PAUSE: Duration = Duration::from_millis(10);

/// The most removed sequences to list. A stream that has removed more than this between its first and its last message
/// is not asked which: the list would weigh half a megabyte and more.
const LISTED_MAX: u64 = 65_536;

impl NatsBusInner {
    /// Reads a room's events from a sequence on, at least up to `want` if the stream has one there. A replica may serve
    /// the read, which is then compared with the leader: an event that is still there proves that nothing after it was
    /// removed meanwhile.
    pub(super) async fn run(
        &self,
        partition: &Partition,
        room: &Room,
        from: u64,
        want: u64,
        keep: Keep,
    ) -> Result<Run<Event>, RequestFailed> {
        let from = from.max(1);
        let subject = self.server.nats.subjects().history(partition.number, room);
        for attempt in 0..ATTEMPTS_MAX {
            tokio::time::sleep(PAUSE * attempt).await;
            let read = self.server.events(partition.number, room, from, keep).await?;
            // The leader goes after the replica: a removal during the read then shows in `first`.
            let first = self.server.next(&partition.stream, &subject, from).await?;
            let first = first.map(|(seq, _)| seq);
            if read.full || first.is_none_or(|first| read.reached >= first.max(want)) {
                return Ok(Run::settled(read.events, first, read.cut));
            }
        }
        Err(RequestFailed::unavailable("a replica lags behind"))
    }

    /// Reports whether it is proven that a stream has removed nothing after `after`, below `before` or, without it, at
    /// all.
    pub(super) async fn is_unbroken(
        &self,
        partition: &Partition,
        after: u64,
        before: Option<u64>,
    ) -> Result<bool, RequestFailed> {
        Ok(self.removal(partition, after, before).await? == Removal::Nothing)
    }

    /// Looks for something that a stream has removed after `after`, below `before` or, without it, at all.
    pub(super) async fn removal(
        &self,
        partition: &Partition,
        after: u64,
        before: Option<u64>,
    ) -> Result<Removal, RequestFailed> {
        let next = after.saturating_add(1);
        if before.is_some_and(|before| before <= next) {
            return Ok(Removal::Nothing);
        }
        let (first, removed) = partition.removals();
        // A stream's oldest sequence only rises.
        if next < first {
            return Ok(Removal::Something);
        }
        if removed > LISTED_MAX {
            return Ok(Removal::Unknown);
        }
        let removed = partition.removed.pass(async || self.removed(partition).await).await?;
        Ok(removed.look(after, before))
    }

    async fn removed(&self, partition: &Partition) -> Result<Arc<Removed>, RequestFailed> {
        let info = self.server.removed(&partition.stream).await?;
        let removed = Removed::of(&info);
        let state = StreamState::of(&info);
        if state.created != partition.identity().created {
            return Err(RequestFailed::unavailable("the stream is another one"));
        }
        partition.is_in(&state);
        Ok(Arc::new(removed))
    }
}
