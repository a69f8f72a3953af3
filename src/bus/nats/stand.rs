//! Where a room stands.

use super::live::LiveRoom;
use super::partition::Partition;
use super::server::{Silence, StreamState};
use super::shared::Shared;
use crate::position::{Offset, Position};
use crate::room::Room;

/// Where a room stands, by its leader.
#[derive(Debug, Clone)]
pub(super) struct Stand {
    /// Its newest event, or what all its later events come after.
    pub head: Position,
    /// Whether the head is an event.
    pub is_event: bool,
    /// How the stream was before.
    pub state: StreamState,
}

impl Shared {
    /// Where a room stands, by its leader.
    pub(super) async fn stand(&self, partition: &Partition, room: &Room) -> Result<Stand, Silence> {
        let state = partition.states.pass(async || self.state(partition).await).await?;
        self.head_after(partition, room, state).await
    }

    /// The same once every subscription that was made before is in effect.
    pub(super) async fn head_for_members(&self, live: &LiveRoom) -> Result<Position, Silence> {
        let partition = self.partition(live.partition);
        let state = self.state_after_barrier(partition).await?;
        Ok(self.head_after(partition, &live.room, state).await?.head)
    }

    /// How a partition's stream is once every subscription that was made before is in effect.
    pub(super) async fn state_after_barrier(&self, partition: &Partition) -> Result<StreamState, Silence> {
        let ask = async || {
            let passed = self.server.barrier(partition.number).await;
            let state = self.state(partition).await?;
            passed.map(|()| state)
        };
        partition.joins.pass(ask).await
    }

    /// Where a room with members here stands, which is known.
    pub(super) async fn stand_at(&self, partition: &Partition, head: Position) -> Result<Stand, Silence> {
        let state = partition.states.pass(async || self.state(partition).await).await?;
        let identity = partition.identity();
        if identity.created != state.created || identity.epoch != head.epoch {
            return Err(Silence::Away);
        }
        let is_event = true;
        Ok(Stand { head, is_event, state })
    }

    async fn head_after(&self, partition: &Partition, room: &Room, state: StreamState) -> Result<Stand, Silence> {
        let identity = partition.identity();
        let subject = self.server.nats.subjects().history(partition.number, room);
        let head = self.server.head(&partition.stream, &subject).await?;
        // A history that began anew between the two questions has neither the old one's last sequence nor its epoch.
        if identity.created != state.created || identity != partition.identity() {
            return Err(Silence::Away);
        }
        let epoch = identity.epoch;
        let is_event = head.is_some();
        let offset = Offset(head.map_or(state.last, |stored| stored.seq));
        partition.has(offset.0);
        Ok(Stand {
            head: Position { epoch, offset },
            is_event,
            state,
        })
    }
}
