//! Queries to other nodes on behalf of a caller of this one.

use std::collections::{BTreeMap, HashSet};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use super::NatsPresence;
use super::answers::read_figures;
use super::wire::{self, Said};
use crate::event::Timestamp;
use crate::identity::UserId;
use crate::presence::memory::{Share, newer};
use crate::presence::{CONFIRM_WITHIN, Present, RosterPage, UserRooms};
use crate::proto::node_v1 as proto;
use crate::room::{Room, Tenant};

/// The replies to one query.
struct Replies {
    subscriber: Subscriber,
    deadline: Instant,
}

impl Replies {
    /// Returns the next reply and its sender; `None` after the deadline.
    async fn next(&mut self) -> Option<(u64, Said)> {
        loop {
            let message = timeout_at(self.deadline, self.subscriber.next()).await.ok()??;
            if let Some(said) = read(message) {
                return Some(said);
            }
        }
    }
}

fn read(message: Message) -> Option<(u64, Said)> {
    let message = proto::PresenceMessage::decode(message.payload).ok()?;
    Some((message.incarnation, message.body?))
}

impl NatsPresence {
    async fn ask(
        &self,
        subject: String,
        (tenant, room): (&str, &str),
        said: Said,
        deadline: Instant,
    ) -> Option<Replies> {
        let control = self.nats.control();
        if !control.is_connected() {
            return None;
        }
        let asking = async {
            let client = control.client();
            let inbox = client.new_inbox();
            let subscriber = client.subscribe(inbox.clone()).await.ok()?;
            let bytes = wire::write(self.nodes.own().incarnation, tenant, room, said);
            let asked = client.publish_with_reply(subject, inbox, bytes).await;
            asked.ok().map(|()| Replies { subscriber, deadline })
        };
        timeout_at(deadline, asking).await.ok()?
    }

    /// Returns the other living nodes, and whether one that was given up may still have members.
    fn live(&self) -> (HashSet<u64>, bool) {
        let (live, hears_all) = self.nodes.may_deliver();
        (live.iter().map(|node| node.incarnation).collect(), !hears_all)
    }

    /// Returns a page of a room that this node does not follow, and the start of its occupancy. A node with members there
    /// replies, once it knows every user. The room is empty when every node has replied so.
    pub(super) async fn ask_page(
        &self,
        room: &Room,
        after: Option<&UserId>,
        size: usize,
    ) -> (RosterPage, Option<Timestamp>) {
        let deadline = Instant::now() + CONFIRM_WITHIN;
        let here = |partial| {
            let page = self.memory.page_now(room, after, size);
            (RosterPage { partial, ..page }, self.memory.occupancy_now(room).since)
        };
        let (mut awaited, is_unheard) = self.live();
        let Some(node) = self.ask_for_members(room, &mut awaited, deadline).await else {
            return here(!awaited.is_empty() || is_unheard);
        };
        let question = Said::PageRequest(proto::PresencePageRequest {
            after: after.map(|after| after.as_str().to_owned()).unwrap_or_default(),
            size: u32::try_from(size).unwrap_or(u32::MAX),
        });
        let subject = self.nats.subjects().presence_of_node(node);
        let asked = self.ask(subject, (room.tenant(), room.name()), question, deadline);
        let Some(mut replies) = asked.await else {
            return here(true);
        };
        match replies.next().await {
            Some((_, Said::Page(page))) => {
                let members: Vec<Present> = page.users.iter().filter_map(wire::read_present).collect();
                let occupancy = page.figures.as_ref().map(read_figures).unwrap_or_default();
                let page = RosterPage {
                    counts: occupancy.counts,
                    next_after: members.last().filter(|_| page.more).map(|last| last.user.clone()),
                    members,
                    partial: occupancy.partial || is_unheard,
                };
                (page, occupancy.since)
            }
            _ => here(true),
        }
    }

    /// Returns a node that shows members of a room. Removes the nodes that have replied from `awaited`.
    async fn ask_for_members(&self, room: &Room, awaited: &mut HashSet<u64>, deadline: Instant) -> Option<u64> {
        if awaited.is_empty() {
            return None;
        }
        let question = Said::FiguresRequest(proto::PresenceFiguresRequest {});
        let subject = self.nats.subjects().presence_of_all();
        let mut replies = self
            .ask(subject, (room.tenant(), room.name()), question, deadline)
            .await?;
        while !awaited.is_empty() {
            let (node, said) = replies.next().await?;
            let Said::Figures(figures) = said else { continue };
            awaited.remove(&node);
            if figures.users > 0 {
                // One such node is enough: it follows the room, so it can take the census.
                return Some(node);
            }
        }
        None
    }

    /// Returns the rooms of a user, merged over all nodes. Lost users within their grace period are known to a room's
    /// followers.
    pub(super) async fn ask_places(&self, tenant: &Tenant, user: &UserId) -> UserRooms {
        let mut shares: BTreeMap<Room, Vec<Share>> = BTreeMap::new();
        for (room, share) in self.memory.own_rooms_of(tenant, user) {
            shares.entry(room).or_default().push(share);
        }
        let (mut awaited, is_unheard) = self.live();
        let question = Said::PlacesRequest(proto::PresencePlacesRequest {
            user_id: user.as_str().to_owned(),
        });
        let (subject, deadline) = (self.nats.subjects().presence_of_all(), Instant::now() + CONFIRM_WITHIN);
        let mut replies = match &awaited {
            nobody if nobody.is_empty() => None,
            _ => self.ask(subject, (tenant.as_str(), ""), question, deadline).await,
        };
        while let Some(open) = &mut replies
            && !awaited.is_empty()
            && let Some((node, said)) = open.next().await
        {
            let Said::Places(places) = said else { continue };
            if !places.more {
                awaited.remove(&node);
            }
            for (room, share) in places.places.iter().filter_map(|place| read_place(tenant, place)) {
                shares.entry(room).or_default().push(share);
            }
        }
        let partial = !awaited.is_empty() || is_unheard;
        let mut found: BTreeMap<Room, Present> = shares
            .into_iter()
            .filter_map(|(room, shares)| Some((room, together(user, &shares)?)))
            .collect();
        let here = if partial {
            self.memory.find(tenant, user)
        } else {
            self.memory.find_lost(tenant, user)
        };
        for (room, present) in here {
            found.entry(room).or_insert(present);
        }
        UserRooms {
            rooms: found.into_iter().collect(),
            partial,
        }
    }
}

fn read_place(tenant: &Tenant, place: &proto::PresencePlace) -> Option<(Room, Share)> {
    let room = Room::parse(tenant, &place.room).ok()?;
    let (_, share) = wire::read_share(place.present.as_ref()?)?;
    Some((room, share?))
}

/// Merges the nodes' shares of a user to the user as shown.
fn together(user: &UserId, shares: &[Share]) -> Option<Present> {
    let stated = shares.iter().map(|share| share.state.as_deref()).fold(None, newer);
    Some(Present {
        user: user.clone(),
        state: stated.map(|stated| stated.value.clone()),
        connections: shares
            .iter()
            .map(|share| share.connections)
            .fold(0, u32::saturating_add),
        since: shares.iter().map(|share| share.since).min()?,
    })
}
