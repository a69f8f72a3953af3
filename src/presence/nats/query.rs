//! Asking other nodes, for whoever asks this one.

use std::collections::{BTreeMap, HashSet};

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use super::answers::read_figures;
use super::wire::{self, Said};
use super::{ANSWER_WITHIN, NatsPresence};
use crate::identity::UserId;
use crate::presence::memory::{Share, newer};
use crate::presence::{Occupancy, Present, RosterPage};
use crate::proto::node_v1 as proto;
use crate::room::{Room, Tenant};

/// What comes back for one question.
struct Replies {
    subscriber: Subscriber,
    deadline: Instant,
}

impl Replies {
    /// The next reply and who gave it; `None` when nobody is there to answer, or the time is over.
    async fn next(&mut self) -> Option<(u64, Said)> {
        loop {
            let message = timeout_at(self.deadline, self.subscriber.next()).await.ok()??;
            if message.status == Some(StatusCode::NO_RESPONDERS) {
                return None;
            }
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
    async fn ask(&self, subject: String, (tenant, room): (&str, &str), said: Said) -> Option<Replies> {
        let control = self.nats.control();
        if !control.is_connected() {
            return None;
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
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

    /// What one who knows says about a room, and who that is; else the most that anybody knows.
    pub(super) async fn ask_figures(&self, room: &Room) -> (Occupancy, Option<u64>) {
        let mut best = (self.memory.occupancy_now(room), None);
        let question = Said::FiguresRequest(proto::PresenceFiguresRequest {});
        let subject = self.nats.subjects().presence(room);
        let Some(mut replies) = self.ask(subject, ("", ""), question).await else {
            return best;
        };
        while let Some((node, said)) = replies.next().await {
            let Said::Figures(figures) = said else { continue };
            let occupancy = read_figures(&figures);
            if figures.settled {
                return (occupancy, Some(node));
            }
            if occupancy.counts.users > best.0.counts.users {
                best = (occupancy, Some(node));
            }
        }
        best
    }

    /// A page of a room that this node does not know, from one who does.
    pub(super) async fn ask_page(&self, room: &Room, after: Option<&UserId>, size: usize) -> RosterPage {
        let here = || self.memory.page_now(room, after, size);
        let (_, Some(node)) = self.ask_figures(room).await else {
            return here();
        };
        let question = Said::PageRequest(proto::PresencePageRequest {
            after: after.map(|after| after.as_str().to_owned()).unwrap_or_default(),
            size: u32::try_from(size).unwrap_or(u32::MAX),
        });
        let subject = self.nats.subjects().presence_of_node(node);
        let Some(mut replies) = self.ask(subject, (room.tenant(), room.name()), question).await else {
            return here();
        };
        match replies.next().await {
            Some((_, Said::Page(page))) => {
                let members: Vec<Present> = page.users.iter().filter_map(wire::read_present).collect();
                RosterPage {
                    counts: page
                        .figures
                        .map(|figures| read_figures(&figures).counts)
                        .unwrap_or_default(),
                    next_after: members.last().filter(|_| page.more).map(|last| last.user.clone()),
                    members,
                }
            }
            _ => here(),
        }
    }

    /// The rooms a user is in: as this node shows them where it knows everybody, else as all nodes together say.
    pub(super) async fn ask_places(&self, tenant: &Tenant, user: &UserId) -> Vec<(Room, Present)> {
        let mut shares: BTreeMap<Room, Vec<Share>> = BTreeMap::new();
        for (room, share) in self.memory.own_rooms_of(tenant, user) {
            shares.entry(room).or_default().push(share);
        }
        let mut awaited: HashSet<u64> = self.nodes.live().iter().map(|node| node.incarnation).collect();
        let question = Said::PlacesRequest(proto::PresencePlacesRequest {
            user_id: user.as_str().to_owned(),
        });
        let subject = self.nats.subjects().presence_of_all();
        let mut replies = match &awaited {
            nobody if nobody.is_empty() => None,
            _ => self.ask(subject, (tenant.as_str(), ""), question).await,
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
        if !awaited.is_empty() {
            tracing::debug!(
                nodes = awaited.len(),
                "not all nodes said in time which rooms a user is in"
            );
        }
        let mut found: BTreeMap<Room, Present> = shares
            .into_iter()
            .filter_map(|(room, shares)| Some((room, together(user, &shares)?)))
            .collect();
        let here = self.memory.find(tenant, user).into_iter();
        found.extend(here.filter(|(room, _)| self.shared.knows(room)));
        found.into_iter().collect()
    }
}

fn read_place(tenant: &Tenant, place: &proto::PresencePlace) -> Option<(Room, Share)> {
    let room = Room::parse(tenant, &place.room).ok()?;
    let (_, share) = wire::read_share(place.present.as_ref()?)?;
    Some((room, share?))
}

/// How a user is shown of whom nodes have these shares.
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
