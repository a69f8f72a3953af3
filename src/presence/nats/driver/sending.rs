//! Sends what the [`Reconciler`](super::Reconciler) decided, and replies.

use bytes::Bytes;
use tokio::time::timeout;

use super::super::site::Out;
use super::super::update::Body;
use super::super::wire::{self, PART_BYTES, Said};
use super::{Driver, SEND_WITHIN};
use crate::proto::node_v1::PresenceRecall;
use crate::room::Room;

impl Driver {
    /// Sends in order.
    pub(super) async fn send(&mut self, outs: Vec<Out>, answer_to: Option<String>) {
        for out in outs {
            match out {
                Out::Follow(room) => {
                    if self.subscriptions.follow(&room).await {
                        self.shared.set_followed(&room, true);
                    }
                }
                Out::Unfollow(room) => {
                    self.shared.set_followed(&room, false);
                    self.subscriptions.unfollow(&room);
                }
                Out::Tell(room, body) => {
                    let subject = self.nats.subjects().presence(&room);
                    self.publish_body(subject, None, body).await;
                }
                Out::TellNode(node, room, body) => {
                    let subject = self.nats.subjects().presence_of_node(node);
                    self.publish_body(subject, Some(&room), body).await;
                }
                Out::Answer(room, body) => {
                    if let Some(reply) = answer_to.clone() {
                        self.publish_body(reply, Some(&room), body).await;
                    }
                }
                Out::Recall(node) => {
                    let said = Said::Recall(PresenceRecall {});
                    let bytes = wire::write(self.nodes.own().incarnation, "", "", said);
                    let subject = self.nats.subjects().presence_of_node(node);
                    self.publish(subject, None, bytes).await;
                }
                Out::Census(number, rooms) => {
                    let said = wire::write_census(number, &rooms);
                    let bytes = wire::write(self.nodes.own().incarnation, "", "", said);
                    let subject = self.nats.subjects().presence_of_all();
                    self.publish(subject, Some(self.inbox.clone()), bytes).await;
                }
                Out::Account(number, stands) => {
                    let said = wire::write_account(number, &stands);
                    let bytes = wire::write(self.nodes.own().incarnation, "", "", said);
                    if let Some(reply) = answer_to.clone() {
                        self.publish(reply, None, bytes).await;
                    }
                }
                Out::Confirmed(room, census, is_complete) => self.confirmed(room, census, is_complete).await,
            }
        }
    }

    async fn publish_body(&mut self, subject: String, room: Option<&Room>, body: Body) {
        let reply = matches!(body, Body::Ask(_)).then(|| self.inbox.clone());
        for bytes in wire::write_body(self.nodes.own().incarnation, room, body, PART_BYTES) {
            self.publish(subject.clone(), reply.clone(), bytes).await;
        }
    }

    /// Sends, if there is a connection. A message that is not sent is detected as a gap after the reconnect.
    pub(super) async fn publish(&mut self, subject: String, reply: Option<String>, bytes: Bytes) {
        let control = self.nats.control();
        if !control.is_connected() {
            return;
        }
        let sending = async {
            let order = control.in_order().await;
            let client = order.client();
            match reply {
                Some(reply) => client.publish_with_reply(subject, reply, bytes).await,
                None => client.publish(subject, bytes).await,
            }
        };
        if !matches!(timeout(SEND_WITHIN, sending).await, Ok(Ok(()))) {
            tracing::debug!("presence message not sent");
        }
    }
}
