//! Heads of rooms.

use super::live::LiveRoom;
use super::partition::Partition;
use super::server::StreamState;
use super::shared::NatsBusInner;
use crate::nats::request::RequestFailed;
use crate::position::{Offset, Position};
use crate::room::Room;

/// The head of a room, as its leader reports it.
#[derive(Debug, Clone)]
pub(super) struct ReportedHead {
    /// The position of its newest event, or one that precedes all its later events.
    pub head: Position,
    /// The head is an event.
    pub is_event: bool,
    /// The stream's state before the head was read.
    pub state: StreamState,
}

impl NatsBusInner {
    /// Reads the head of a room from its leader.
    pub(super) async fn stand(&self, partition: &Partition, room: &Room) -> Result<ReportedHead, RequestFailed> {
        let state = partition.states.pass(async || self.state(partition).await).await?;
        self.head_after(partition, room, state).await
    }

    /// Reads the head once every earlier subscription is in effect.
    pub(super) async fn head_for_members(&self, live: &LiveRoom) -> Result<Position, RequestFailed> {
        let partition = self.partitions.at(live.partition);
        let state = self.state_after_barrier(partition).await?;
        Ok(self.head_after(partition, &live.room, state).await?.head)
    }

    /// Reads the state of a partition's stream once every earlier subscription is in effect.
    pub(super) async fn state_after_barrier(&self, partition: &Partition) -> Result<StreamState, RequestFailed> {
        let ask = async || {
            let passed = self.server.barrier(partition.number).await;
            let state = self.state(partition).await?;
            passed.map(|()| state)
        };
        partition.joins.pass(ask).await
    }

    /// Checks the stream of a room with members here, whose head is known.
    pub(super) async fn stand_at(&self, partition: &Partition, head: Position) -> Result<ReportedHead, RequestFailed> {
        let state = partition.states.pass(async || self.state(partition).await).await?;
        let identity = partition.identity();
        if identity.created != state.created || identity.epoch != head.epoch {
            return Err(RequestFailed::unavailable("the history began anew"));
        }
        let is_event = true;
        Ok(ReportedHead { head, is_event, state })
    }

    async fn head_after(
        &self,
        partition: &Partition,
        room: &Room,
        state: StreamState,
    ) -> Result<ReportedHead, RequestFailed> {
        let identity = partition.identity();
        let subject = self.server.nats.subjects().history(partition.number, room);
        let head = self.server.head(&partition.stream, &subject).await?;
        // If the history started afresh between the two queries, the head matches neither the old sequences nor the old
        // epoch.
        if identity.created != state.created || identity != partition.identity() {
            return Err(RequestFailed::unavailable("the history began anew"));
        }
        let epoch = identity.epoch;
        let is_event = head.is_some();
        let offset = Offset(head.map_or(state.last, |stored| stored.seq));
        partition.has(offset.0);
        Ok(ReportedHead {
            head: Position { epoch, offset },
            is_event,
            state,
        })
    }
}
