//! A shard whose connections are entries of a list.

use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::spawn;
use crate::event::{Event, Payload};
use crate::hub::{
    Ask, AskEnd, AskRefusal, AskStart, Audience, JoinRefusal, Mailbox, MailboxReceiver, Order, Outcome, ShardMessage,
    Verb,
};
use crate::identity::{ConnectionId, Expiry, Identity, UserId};
use crate::json::Json;
use crate::notice::Notice;
use crate::room::Tenant;

#[derive(Default)]
pub(in crate::api::tests) struct FakeShard {
    connections: Mutex<Vec<(ConnectionId, Arc<Identity>)>>,
    pub(in crate::api::tests) sent: Mutex<Vec<(ConnectionId, Arc<Event>)>>,
    /// Orders that are kept unanswered; `None` while they are answered.
    unanswered: Mutex<Option<Vec<ShardMessage>>>,
    /// Whether connections are in as many rooms as they may be.
    pub(in crate::api::tests) full: Mutex<bool>,
    /// The asks whose client thinks.
    pub(in crate::api::tests) thinking: Mutex<Vec<oneshot::Sender<AskEnd>>>,
    /// What was ordered, in words.
    pub(in crate::api::tests) orders: Mutex<Vec<String>>,
}

impl FakeShard {
    pub(super) fn start() -> (Arc<Self>, Arc<Mailbox>) {
        let (mailbox, letters) = Mailbox::open(0, 16, 16, Arc::default());
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

    async fn work(&self, mut letters: MailboxReceiver) {
        while let Some(message) = letters.messages.recv().await {
            let kept = self.unanswered.lock().unwrap().is_some();
            if kept {
                self.unanswered.lock().unwrap().as_mut().unwrap().push(message);
            } else {
                self.obey(message);
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

    fn obey(&self, message: ShardMessage) {
        match message {
            ShardMessage::Order(order, reply) => reply.send(self.carry_out(&order)).unwrap(),
            ShardMessage::Ask(ask, reply) => drop(reply.send(self.ask(&ask))),
            ShardMessage::Revoke(revocation, notice, reply) => {
                self.note(format!("revoke {:?} {}", revocation.scope, said(&notice)));
                reply.send(3).unwrap();
            }
            ShardMessage::Recheck(_) | ShardMessage::Signal(_) => {}
        }
    }

    /// Asks a client that does what the method says.
    fn ask(&self, ask: &Ask) -> AskStart {
        let audience = Audience::Connection(ask.tenant.clone(), ask.connection);
        if self.meant(&audience).is_empty() {
            return AskStart::NotHere;
        }
        let (end, ended) = oneshot::channel();
        let end_with = match ask.method.as_str() {
            "cannot" => return AskStart::Refused(AskRefusal::CannotAnswer),
            "too_many" => return AskStart::Refused(AskRefusal::TooMany),
            "not_now" => return AskStart::Refused(AskRefusal::Unavailable),
            "think" => {
                self.thinking.lock().unwrap().push(end);
                return AskStart::Delivered(ended);
            }
            "refuse" => AskEnd::Error(Notice::parse("busy", "Not now.").unwrap()),
            "mumble" => AskEnd::Unreadable,
            "leave" => AskEnd::Lost,
            "large" => AskEnd::Answered(Payload::Binary(vec![7; 60_000].into())),
            _ => AskEnd::Answered(ask.payload.clone()),
        };
        end.send(end_with).unwrap();
        AskStart::Delivered(ended)
    }

    fn note(&self, order: String) {
        self.orders.lock().unwrap().push(order);
    }

    fn carry_out(&self, Order { audience, verb }: &Order) -> Outcome {
        let meant = self.meant(audience);
        let count = u32::try_from(meant.len()).unwrap();
        match verb {
            Verb::Join(permit) => {
                self.note(format!("join {}", permit.room().name()));
                if *self.full.lock().unwrap() && count > 0 {
                    return Outcome {
                        refused: Some(JoinRefusal::RoomLimit),
                        ..Outcome::default()
                    };
                }
            }
            Verb::Leave(room, notice) => self.note(format!("leave {} {}", room.name(), said(notice))),
            Verb::Disconnect(reason, notice) => {
                self.note(format!("disconnect {} {}", reason.as_str(), said(notice)));
            }
            Verb::Send(event) => {
                let sent = meant.into_iter().map(|(connection, _)| (connection, event.clone()));
                self.sent.lock().unwrap().extend(sent);
                self.note("send".to_owned());
            }
            Verb::Count => {}
            Verb::Identify => {
                return Outcome::identified(meant.into_iter().next().map(|(_, identity)| identity));
            }
        }
        Outcome::of(count)
    }
}

fn said(notice: &Notice) -> String {
    format!("{}: {}", notice.reason(), notice.message())
}
