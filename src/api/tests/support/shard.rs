//! A shard whose connections are entries of a list.

use std::sync::{Arc, Mutex};

use super::spawn;
use crate::event::Event;
use crate::hub::{Audience, JoinRefusal, Joined, Letters, Mailbox, Order};
use crate::identity::{ConnectionId, Expiry, Identity, UserId};
use crate::json::Json;
use crate::notice::Notice;
use crate::room::Tenant;

#[derive(Default)]
pub(in crate::api::tests) struct FakeShard {
    connections: Mutex<Vec<(ConnectionId, Arc<Identity>)>>,
    pub(in crate::api::tests) sent: Mutex<Vec<(ConnectionId, Arc<Event>)>>,
    /// Orders that are kept unanswered; `None` while they are answered.
    unanswered: Mutex<Option<Vec<Order>>>,
    /// Whether connections are in as many rooms as they may be.
    pub(in crate::api::tests) full: Mutex<bool>,
    /// What was ordered, in words.
    pub(in crate::api::tests) orders: Mutex<Vec<String>>,
}

impl FakeShard {
    pub(super) fn start() -> (Arc<Self>, Arc<Mailbox>) {
        let (mailbox, letters) = Mailbox::open(0, 16, 16);
        let shard = Arc::new(Self::default());
        let working = shard.clone();
        spawn(async move { working.work(letters).await });
        (shard, mailbox)
    }

    /// Opens a connection.
    pub(in crate::api::tests) fn connect(&self, tenant: &str, user: &str) -> ConnectionId {
        let identity = Identity {
            tenant: Tenant::parse(tenant).unwrap(),
            user: UserId::parse(user).unwrap(),
            claims: Json::parse(format!("{{\"sub\":\"{user}\",\"projects\":[\"7\"]}}"))
                .unwrap()
                .into(),
            expiry: Expiry(u64::MAX),
        };
        let connection = ConnectionId::random();
        self.connections.lock().unwrap().push((connection, Arc::new(identity)));
        connection
    }

    /// Answers nothing from now on.
    pub(in crate::api::tests) fn stop(&self) {
        *self.unanswered.lock().unwrap() = Some(Vec::new());
    }

    /// Who a connection is.
    pub(in crate::api::tests) fn identity(&self, connection: ConnectionId) -> Arc<Identity> {
        let connections = self.connections.lock().unwrap();
        let found = connections.iter().find(|(id, _)| *id == connection);
        found.unwrap().1.clone()
    }

    async fn work(&self, mut letters: Letters) {
        while let Some(order) = letters.orders.recv().await {
            let kept = self.unanswered.lock().unwrap().is_some();
            if kept {
                self.unanswered.lock().unwrap().as_mut().unwrap().push(order);
            } else {
                self.obey(order);
            }
        }
    }

    fn meant(&self, audience: &Audience) -> Vec<(ConnectionId, Arc<Identity>)> {
        let connections = self.connections.lock().unwrap();
        let meant = connections.iter().filter(|(connection, identity)| match audience {
            Audience::User(tenant, user) => identity.tenant == *tenant && identity.user == *user,
            Audience::Connection(tenant, id) => identity.tenant == *tenant && connection == id,
        });
        meant.cloned().collect()
    }

    fn obey(&self, order: Order) {
        let count = |audience: &Audience| u32::try_from(self.meant(audience).len()).unwrap();
        let (told, reply, answer) = match order {
            Order::Join(audience, permit, reply) => {
                let full = *self.full.lock().unwrap() && count(&audience) > 0;
                let joined = Joined {
                    connections: if full { 0 } else { count(&audience) },
                    refused: full.then_some(JoinRefusal::RoomLimit),
                };
                self.orders
                    .lock()
                    .unwrap()
                    .push(format!("join {}", permit.room().name()));
                reply.send(joined).unwrap();
                return;
            }
            Order::Leave(audience, room, notice, reply) => (
                format!("leave {} {}", room.name(), said(&notice)),
                reply,
                count(&audience),
            ),
            Order::Disconnect(audience, reason, notice, reply) => {
                let told = format!("disconnect {} {}", reason.as_str(), said(&notice));
                (told, reply, count(&audience))
            }
            Order::Revoke(revocation, notice, reply) => {
                (format!("revoke {:?} {}", revocation.scope, said(&notice)), reply, 3)
            }
            Order::Send(audience, event, reply) => {
                let meant = self.meant(&audience);
                let reached = u32::try_from(meant.len()).unwrap();
                let sent = meant.into_iter().map(|(connection, _)| (connection, event.clone()));
                self.sent.lock().unwrap().extend(sent);
                ("send".to_owned(), reply, reached)
            }
            Order::Identify(audience, reply) => {
                let identity = self.meant(&audience).into_iter().next().map(|(_, identity)| identity);
                reply.send(identity).unwrap();
                return;
            }
            Order::Count(audience, reply) => {
                reply.send(count(&audience)).unwrap();
                return;
            }
            Order::Presence(_) | Order::Degraded(_) | Order::Drain(_) => return,
        };
        self.orders.lock().unwrap().push(told);
        reply.send(answer).unwrap();
    }
}

fn said(notice: &Notice) -> String {
    format!("{}: {}", notice.reason(), notice.message())
}
