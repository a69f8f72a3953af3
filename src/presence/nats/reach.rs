//! The reach of an event: the number of connections over all nodes. Each node is asked, and replies for what it serves.
//!
//! Coalescing: requests that arrive while a query is written go out together, so many publishes cost one message. A node
//! that leaves a query unanswered makes numbers unknown, but is awaited only once. A node that was given up without a
//! goodbye makes them unknown until its lease has ended: it may only be stopped, and deliver when it resumes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_nats::Message;
use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::wire::{self, Said};
use crate::event::Except;
use crate::identity::{ConnectionId, UserId};
use crate::nats::nodes::Nodes;
use crate::nats::{Nats, NatsError, Subscription};
use crate::presence::memory::MemoryPresence;
use crate::presence::{REACH_WITHIN, Reach};
use crate::proto::node_v1::{PresenceMessage, PresenceReach, PresenceReachRequest, PresenceReachRoom};
use crate::room::{Room, Tenant};
use crate::sync::lock;

/// The most rooms of one query: so many names fit into a message.
const ROOMS_MAX: usize = 500;

/// The most queries in flight; further requests coalesce meanwhile, so that load makes queries larger and not more.
const OPEN_MAX: usize = 8;

/// A request of one publish.
struct Wanted {
    room: Room,
    except: Except,
    /// This node's number.
    own: u32,
    told: oneshot::Sender<Option<u32>>,
}

/// A query in flight.
struct Question {
    wanted: Vec<Wanted>,
    sums: Vec<u32>,
    awaited: BTreeSet<u64>,
    until: Instant,
}

/// State shared by the task and its callers.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    work: Notify,
}

#[derive(Default)]
struct Waiting {
    wanted: Vec<Wanted>,
    /// Living nodes that left a query unanswered.
    silent: BTreeSet<u64>,
}

/// Queries the other nodes, and replies to their queries.
pub(super) struct Reaching {
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    memory: Arc<MemoryPresence>,
    queue: Queue,
}

/// Subscriptions of a [`Reaching`].
pub(super) struct Listening {
    questions: Subscription,
    answers: Subscription,
}

impl std::fmt::Debug for Reaching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reaching").finish_non_exhaustive()
    }
}

impl Reaching {
    pub(super) fn new(nats: Arc<Nats>, nodes: Arc<Nodes>, memory: Arc<MemoryPresence>) -> Self {
        Self {
            nats,
            nodes,
            memory,
            queue: Queue::default(),
        }
    }

    fn inbox(&self) -> String {
        format!("{}.r", self.nats.subjects().inbox())
    }

    pub(super) async fn listen(&self) -> Result<Listening, NatsError> {
        let control = self.nats.control();
        let (asked, inbox) = (self.nats.subjects().reach_of_all(), self.inbox());
        Ok(Listening {
            questions: control
                .subscribe(asked.clone())
                .await
                .map_err(NatsError::subscribing(&asked))?,
            answers: control
                .subscribe(inbox.clone())
                .await
                .map_err(NatsError::subscribing(&inbox))?,
        })
    }

    /// Returns the number of connections, on all nodes, that an event to the room reaches.
    pub(super) fn reach(&self, room: &Room, except: &Except) -> Reach {
        let own = self.memory.reached_now(room, except);
        if self.nodes.is_alone() {
            return Reach::Known(own);
        }
        let (told, answer) = oneshot::channel();
        self.lock().wanted.push(Wanted {
            room: room.clone(),
            except: except.clone(),
            own,
            told,
        });
        self.queue.work.notify_one();
        Reach::Asked(Box::pin(async move {
            let answer = timeout(REACH_WITHIN, answer).await;
            answer.ok()?.ok()?
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        lock(&self.queue.waiting)
    }

    /// Queries and replies until `stop`.
    pub(super) async fn run(self: Arc<Self>, mut listening: Listening, stop: CancellationToken) {
        let mut open: BTreeMap<u64, Question> = BTreeMap::new();
        let mut number = 0;
        loop {
            let until = open.values().map(|question| question.until).min();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(message) = listening.questions.next() => self.answer(message).await,
                Some(message) = listening.answers.next() => self.take(&mut open, &message.payload),
                () = self.queue.work.notified(), if open.len() < OPEN_MAX => {
                    number += 1;
                    if let Some(question) = self.ask(number).await {
                        open.insert(number, question);
                    }
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => self.give_up(&mut open),
            }
        }
    }

    /// Sends one query for all waiting requests, as far as they fit into one message.
    async fn ask(&self, number: u64) -> Option<Question> {
        let (live, hears_all) = self.nodes.may_deliver();
        let live: BTreeSet<u64> = live.iter().map(|node| node.incarnation).collect();
        let (mut wanted, awaited) = {
            let mut waiting = self.lock();
            waiting.silent.retain(|node| live.contains(node));
            let count = waiting.wanted.len().min(ROOMS_MAX);
            let wanted: Vec<Wanted> = waiting.wanted.drain(..count).collect();
            if !waiting.wanted.is_empty() {
                self.queue.work.notify_one();
            }
            let awaited: BTreeSet<u64> = live.difference(&waiting.silent).copied().collect();
            (wanted, awaited)
        };
        wanted.retain(|wanted| !wanted.told.is_closed());
        if wanted.is_empty() {
            return None;
        }
        let request = PresenceReachRequest {
            number,
            rooms: wanted.iter().map(write).collect(),
        };
        let said = Said::ReachRequest(request);
        let bytes = wire::write(self.nodes.own().incarnation, "", "", said);
        self.publish(self.nats.subjects().reach_of_all(), Some(self.inbox()), bytes)
            .await;
        let question = Question {
            sums: wanted.iter().map(|wanted| wanted.own).collect(),
            wanted,
            awaited,
            // Before the callers' own deadline, so that a late node is marked silent here first.
            until: Instant::now() + REACH_WITHIN.mul_f32(0.9),
        };
        if question.awaited.len() < live.len() || !hears_all {
            // A silent node may have members, and so may one that was given up. They are asked all the same: a reply makes
            // a silent node one that is awaited again.
            question.tell(false);
            return None;
        }
        if question.awaited.is_empty() {
            question.tell(true);
            return None;
        }
        Some(question)
    }

    async fn answer(&self, message: Message) {
        let Some(reply) = message.reply else { return };
        let Some((node, Said::ReachRequest(request))) = read(&message.payload) else {
            return;
        };
        if node == self.nodes.own().incarnation {
            return;
        }
        let count = |room: &PresenceReachRoom| {
            let (room, except) = read_room(room)?;
            Some(self.memory.reached_now(&room, &except))
        };
        let counts: Option<Vec<u32>> = request.rooms.iter().map(count).collect();
        // An unreadable room gets no reply, so its number stays unknown.
        let Some(connections) = counts else { return };
        let said = Said::Reach(PresenceReach {
            number: request.number,
            connections,
        });
        let bytes = wire::write(self.nodes.own().incarnation, "", "", said);
        self.publish(reply.to_string(), None, bytes).await;
    }

    fn take(&self, open: &mut BTreeMap<u64, Question>, payload: &Bytes) {
        let Some((node, Said::Reach(answer))) = read(payload) else {
            return;
        };
        // Also for a late reply: the node is awaited again from the next query on.
        self.lock().silent.remove(&node);
        let Some(question) = open.get_mut(&answer.number) else {
            return;
        };
        if answer.connections.len() != question.sums.len() || !question.awaited.remove(&node) {
            return;
        }
        for (sum, connections) in question.sums.iter_mut().zip(&answer.connections) {
            *sum = sum.saturating_add(*connections);
        }
        if question.awaited.is_empty()
            && let Some(question) = open.remove(&answer.number)
        {
            question.tell(true);
        }
    }

    fn give_up(&self, open: &mut BTreeMap<u64, Question>) {
        let now = Instant::now();
        let over: Vec<u64> = open
            .iter()
            .filter(|(_, question)| question.until <= now)
            .map(|(number, _)| *number)
            .collect();
        for question in over.iter().filter_map(|number| open.remove(number)) {
            self.lock().silent.extend(&question.awaited);
            question.tell(false);
        }
    }

    async fn publish(&self, subject: String, reply: Option<String>, bytes: Bytes) {
        let control = self.nats.control();
        if !control.is_connected() {
            return;
        }
        let client = control.client();
        let publishing = async {
            match reply {
                Some(reply) => client.publish_with_reply(subject, reply, bytes).await,
                None => client.publish(subject, bytes).await,
            }
        };
        if !matches!(timeout(REACH_WITHIN, publishing).await, Ok(Ok(()))) {
            tracing::debug!("reach message not sent");
        }
    }
}

impl Question {
    /// Completes all requests. `is_known`: every node has replied.
    fn tell(self, is_known: bool) {
        for (wanted, sum) in self.wanted.into_iter().zip(self.sums) {
            // The publish may have been dropped.
            wanted.told.send(is_known.then_some(sum)).ok();
        }
    }
}

fn read(payload: &Bytes) -> Option<(u64, Said)> {
    let message = PresenceMessage::decode(payload.clone()).ok()?;
    Some((message.incarnation, message.body?))
}

fn write(wanted: &Wanted) -> PresenceReachRoom {
    let (connections, users) = (wanted.except.connections().iter(), wanted.except.users().iter());
    PresenceReachRoom {
        tenant: wanted.room.tenant().to_owned(),
        room: wanted.room.name().to_owned(),
        except_connections: connections
            .map(|connection| Bytes::copy_from_slice(&connection.bits().to_be_bytes()))
            .collect(),
        except_user_ids: users.map(|user| user.as_str().to_owned()).collect(),
    }
}

fn read_room(room: &PresenceReachRoom) -> Option<(Room, Except)> {
    let connection = |bytes: &Bytes| ConnectionId::from_bits(u128::from_be_bytes(bytes[..].try_into().ok()?));
    let connections: Option<Vec<ConnectionId>> = room.except_connections.iter().map(connection).collect();
    let users = room.except_user_ids.iter().map(|user| UserId::parse(user).ok());
    let users: Option<Vec<UserId>> = users.collect();
    let name = Room::parse(&Tenant::parse(&room.tenant).ok()?, &room.room).ok()?;
    Some((name, Except::new(connections?, users?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let room = Room::parse(&Tenant::default(), "r").unwrap();
        for except in [
            Except::NOBODY,
            Except::new(vec![ConnectionId::random()], vec![UserId::parse("ada").unwrap()]),
        ] {
            let wanted = Wanted {
                room: room.clone(),
                except: except.clone(),
                own: 0,
                told: oneshot::channel().0,
            };
            assert_eq!(read_room(&write(&wanted)), Some((room.clone(), except)));
        }
    }
}
