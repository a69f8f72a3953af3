//! Subscriptions of a node: its own subjects, and the rooms it follows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::nats::{Nats, NatsError, Subscription};
use crate::room::Room;

/// Time for which the connection may take to accept a subscription.
const SUBSCRIBE_WITHIN: Duration = Duration::from_millis(500);

/// The most rooms that are retried together.
const RETRIES_MAX: usize = 200;

/// Origin of a message.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The subject of a room.
    Room(Room),
    /// A subject of this node, or of all nodes.
    Direct,
}

pub(super) struct Subscriptions {
    nats: Arc<Nats>,
    messages: SelectAll<BoxStream<'static, (Source, Message)>>,
    /// Subscribed rooms. Each subscription ends with its guard.
    rooms: HashMap<Room, DropGuard>,
    activity: Option<DropGuard>,
    /// Rooms whose subscription failed.
    missing: HashSet<Room>,
}

impl Subscriptions {
    pub(super) fn new(nats: Arc<Nats>) -> Self {
        Self {
            nats,
            messages: SelectAll::new(),
            rooms: HashMap::new(),
            activity: None,
            missing: HashSet::new(),
        }
    }

    /// Returns the next message. Pends for ever without a subscription.
    pub(super) async fn next(&mut self) -> Option<(Source, Message)> {
        self.messages.next().await
    }

    /// Subscribes to a subject for as long as the node runs.
    pub(super) async fn add(&mut self, source: Source, subject: String) -> Result<(), NatsError> {
        let Some(subscriber) = self.subscribe(subject.clone()).await else {
            return Err(NatsError::Permission(format!("subscribe to {subject}")));
        };
        let messages = subscriber.map(move |message| (source.clone(), message));
        self.messages.push(messages.boxed());
        Ok(())
    }

    /// Subscribes to a room. When that fails, [`Self::retry`] tries again.
    pub(super) async fn follow(&mut self, room: &Room) -> bool {
        let subject = self.nats.subjects().presence(room);
        let Some(guard) = self.listen(Source::Room(room.clone()), subject).await else {
            self.missing.insert(room.clone());
            return false;
        };
        self.missing.remove(room);
        self.rooms.insert(room.clone(), guard);
        true
    }

    pub(super) fn unfollow(&mut self, room: &Room) {
        self.missing.remove(room);
        self.rooms.remove(room);
    }

    /// Subscribes to activity, or ends that subscription.
    pub(super) async fn watch(&mut self, is_watched: bool) {
        if !is_watched {
            self.activity = None;
        } else if self.activity.is_none() {
            let subject = self.nats.subjects().activity();
            self.activity = self.listen(Source::Direct, subject).await;
        }
    }

    /// Retries failed subscriptions. Returns the rooms that are now subscribed.
    pub(super) async fn retry(&mut self) -> Vec<Room> {
        let mut followed = Vec::new();
        let missing: Vec<Room> = self.missing.iter().take(RETRIES_MAX).cloned().collect();
        for room in missing {
            if !self.follow(&room).await {
                // The connection accepts none at the moment; the rest waits for the next round.
                break;
            }
            followed.push(room);
        }
        followed
    }

    async fn listen(&mut self, source: Source, subject: String) -> Option<DropGuard> {
        let subscriber = self.subscribe(subject).await?;
        let end = CancellationToken::new();
        let messages = subscriber.map(move |message| (source.clone(), message));
        self.messages
            .push(messages.take_until(end.clone().cancelled_owned()).boxed());
        Some(end.drop_guard())
    }

    async fn subscribe(&mut self, subject: String) -> Option<Subscription> {
        let subscribing = self.nats.control().subscribe(subject);
        timeout(SUBSCRIBE_WITHIN, subscribing).await.ok()?.ok()
    }
}
