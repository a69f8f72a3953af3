//! Takes received messages, and replies to requests.

use async_nats::Message;
use prost::Message as _;

use super::super::news;
use super::super::site::Asked;
use super::super::wire::{self, Said};
use super::subscriptions::Source;
use super::waiting::Waiter;
use super::{CENSUS_FOR_OTHERS_WITHIN, Driver};
use crate::proto::node_v1::{PresenceMessage, PresencePageRequest, PresenceRecall};
use crate::room::Room;

impl Driver {
    pub(super) async fn hear(&mut self, source: Source, message: Message) {
        if is_from(&message.payload, self.nodes.own().incarnation) {
            return;
        }
        let Ok(mut heard) = PresenceMessage::decode(message.payload) else {
            tracing::debug!("foreign presence message ignored");
            return;
        };
        let Some(said) = heard.body.take() else { return };
        let node = heard.incarnation;
        if let Said::Activities(activities) = &said {
            let happened = news::read(activities);
            happened.for_each(|activity| self.memory.announce_here(activity));
            return;
        }
        if let Said::Recall(PresenceRecall {}) = said {
            return self.site.recalled(self.now_ms());
        }
        let (room, asked) = match source {
            Source::Room(room) => (Some(room), Asked::Everybody),
            Source::Direct => (wire::room_of(&heard), Asked::Us),
        };
        let reply = message.reply.map(|reply| reply.to_string());
        let said = match said {
            Said::Census(census) => {
                let rooms = wire::read_census(&census, self.nodes.own().incarnation);
                let outs = self.site.counted(census.number, rooms, self.now_ms());
                return self.send(outs, reply).await;
            }
            Said::Account(account) => {
                let stands = wire::read_account(&account);
                let outs = self.site.account(node, account.number, stands, self.now_ms());
                return self.send(outs, None).await;
            }
            Said::PageRequest(request) => {
                let (Some(room), Some(reply)) = (room, reply) else {
                    return;
                };
                return self.page_asked(room, request, reply).await;
            }
            said => said,
        };
        let answers = self.answers.answer(room.as_ref(), &heard.tenant, &said);
        if let Some(reply) = &reply {
            for answer in answers {
                self.publish(reply.clone(), None, answer).await;
            }
        }
        let Some(room) = room else { return };
        if let Some(body) = self.reader.read(node, &room, said) {
            let outs = self.site.receive(node, &room, body, asked, self.now_ms());
            self.send(outs, reply).await;
        }
    }

    /// Replies to a page request of a node that does not follow the room.
    async fn page_asked(&mut self, room: Room, request: PresencePageRequest, reply: String) {
        if !self.site.replica().follows(&room) {
            let answer = self.answers.page(&room, &request, false);
            return self.publish(reply, None, answer).await;
        }
        let (census, outs) = self
            .site
            .confirm(std::slice::from_ref(&room), CENSUS_FOR_OTHERS_WITHIN, self.now_ms());
        self.waiting.add(census, room, Waiter::Page(reply, request));
        self.send(outs, None).await;
    }
}

/// Reports whether a message is this node's own, without decoding all of it: its first field is the sender.
fn is_from(payload: &[u8], node: u64) -> bool {
    const FIXED64_FIELD_1: u8 = 0x09;
    payload
        .split_first()
        .is_some_and(|(tag, rest)| *tag == FIXED64_FIELD_1 && rest.starts_with(&node.to_le_bytes()))
}
