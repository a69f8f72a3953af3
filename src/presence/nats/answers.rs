//! This node's replies to queries that go to all nodes.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::wire::{self, PART_BYTES, Said};
use crate::event::Timestamp;
use crate::identity::UserId;
use crate::presence::memory::{MemoryPresence, Share};
use crate::presence::{Counts, Occupancy};
use crate::proto::node_v1 as proto;
use crate::room::{Room, Tenant};

/// Replies from this node's state.
#[derive(Debug)]
pub(super) struct Answers {
    memory: Arc<MemoryPresence>,
    own: u64,
}

impl Answers {
    pub(super) const fn new(memory: Arc<MemoryPresence>, own: u64) -> Self {
        Self { memory, own }
    }

    /// Returns the reply, in as many messages as it takes.
    pub(super) fn answer(&self, room: Option<&Room>, tenant: &str, said: &Said) -> Vec<Bytes> {
        let answers = match (said, room) {
            (Said::FiguresRequest(_), Some(room)) => vec![Said::Figures(self.figures(room, false))],
            (Said::PlacesRequest(request), _) => self.places(tenant, request),
            _ => Vec::new(),
        };
        let write = |said| wire::write(self.own, "", "", said);
        answers.into_iter().map(write).collect()
    }

    fn figures(&self, room: &Room, settled: bool) -> proto::PresenceFigures {
        write_figures(self.memory.occupancy_now(room), settled)
    }

    /// Replies with a page. `is_complete`: this node knows every user of the room.
    pub(super) fn page(&self, room: &Room, request: &proto::PresencePageRequest, is_complete: bool) -> Bytes {
        let after = UserId::parse(&request.after).ok();
        let size = usize::try_from(request.size).unwrap_or(usize::MAX);
        let page = self.memory.page_now(room, after.as_ref(), size);
        let mut bytes = 0;
        let all = page.members.len();
        let users = page.members.iter().map(wire::write_present);
        let users: Vec<proto::NodePresent> = users
            // Bounded in bytes, not only in users: the reply must fit into one NATS message. The asker continues behind it.
            .take_while(|present| {
                bytes += present.encoded_len() + 8;
                bytes <= 4 * PART_BYTES
            })
            .collect();
        let page = proto::PresencePage {
            figures: Some(self.figures(room, is_complete)),
            more: page.next_after.is_some() || users.len() < all,
            users,
        };
        wire::write(self.own, "", "", Said::Page(page))
    }

    fn places(&self, tenant: &str, request: &proto::PresencePlacesRequest) -> Vec<Said> {
        let (Ok(tenant), Ok(user)) = (Tenant::parse(tenant), UserId::parse(&request.user_id)) else {
            return Vec::new();
        };
        let places = self.memory.own_rooms_of(&tenant, &user);
        let place = |(room, share): &(Room, Share)| proto::PresencePlace {
            room: room.name().to_owned(),
            present: Some(wire::write_share(&user, share)),
        };
        let mut answers = vec![proto::PresencePlaces::default()];
        let mut bytes = 0;
        for place in places.iter().map(place) {
            bytes += place.encoded_len() + 8;
            let last = answers.last_mut().expect("there is at least one");
            if bytes > PART_BYTES && !last.places.is_empty() {
                last.more = true;
                bytes = 0;
                answers.push(proto::PresencePlaces {
                    places: vec![place],
                    more: false,
                });
            } else {
                last.places.push(place);
            }
        }
        answers.into_iter().map(Said::Places).collect()
    }
}

fn write_figures(occupancy: Occupancy, settled: bool) -> proto::PresenceFigures {
    proto::PresenceFigures {
        settled,
        users: occupancy.counts.users,
        connections: occupancy.counts.connections,
        occupied_since_ms: occupancy.since.map_or(0, |since| since.0),
    }
}

/// Reads the numbers of a room.
pub(super) fn read_figures(figures: &proto::PresenceFigures) -> Occupancy {
    Occupancy {
        counts: Counts {
            users: figures.users,
            connections: figures.connections,
        },
        since: (figures.users > 0).then_some(Timestamp(figures.occupied_since_ms)),
        partial: !figures.settled,
    }
}
