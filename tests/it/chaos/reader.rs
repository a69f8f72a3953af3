//! A client that comes back by itself, to any gateway, and writes down every frame.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rand::Rng as _;
use rand::rngs::StdRng;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::*;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::log::{At, Reader, Seen};
use super::publisher::position;
use super::scene::Scene;
use super::socket::{OPENING, Socket, open, stamp};
use crate::support::{Encoding, user};

/// How long a client is there after it has everything: what comes twice comes then.
const LINGERING: Duration = Duration::from_millis(300);
/// How long a client tries to get everything after the rooms have ended.
const PERSISTENCE: Duration = Duration::from_secs(90);

/// The first id of commands that are to be refused.
const PRYING: u32 = 1000;

/// How somebody reads.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub encoding: Encoding,
    /// Now and then stops reading, for seconds.
    pub slow: bool,
    /// How long it takes a gateway's silence; that one gives a sign of life every two seconds.
    pub silence: Duration,
}

/// Where it is in one room.
#[derive(Debug, Default)]
struct Place {
    at: Option<At>,
    joined: bool,
    revoked: bool,
    /// When its join was asked for, the last time.
    called: u64,
    /// When it last asked for what it must no longer be shown.
    pried: u64,
}

pub struct Client {
    scene: Arc<Scene>,
    habits: Habits,
    random: StdRng,
    places: Vec<(usize, Place)>,
    log: Reader,
    deadline: Option<Instant>,
}

impl Client {
    pub fn new(scene: Arc<Scene>, name: &str, rooms: Vec<usize>, habits: Habits) -> Self {
        Self {
            habits,
            random: scene.random(name),
            places: rooms.iter().map(|&room| (room, Place::default())).collect(),
            log: Reader {
                user: scene.user(name),
                rooms,
                entries: Vec::new(),
            },
            deadline: None,
            scene,
        }
    }

    /// Reads until it has everything, or patience ends.
    pub async fn run(mut self) -> Reader {
        while !self.is_done() && !self.is_late() {
            let gateway = self.random.random_range(0..self.scene.addresses.len());
            if let Some(socket) = open(self.scene.addresses[gateway], self.habits.encoding, self.habits.slow).await {
                self.note(Seen::Connected(gateway));
                let code = self.stay(socket).await;
                self.note(Seen::Ended(code));
            }
            // Slow ones stay away for a while: short histories have dropped what they missed.
            let wait = self
                .random
                .random_range(if self.habits.slow { 1_000..3_000 } else { 20..250 });
            sleep(Duration::from_millis(wait)).await;
        }
        self.log
    }

    /// One connection, to its end. The answer is its close code.
    async fn stay(&mut self, mut socket: Socket) -> Option<u16> {
        self.places.iter_mut().for_each(|(_, place)| place.joined = false);
        let connect = Command::Connect(Connect {
            // Longer than any clock here is wrong.
            token: user(&self.log.user).expires_in(86_400).token(),
            client: "chaos/1".to_owned(),
            ..Connect::default()
        });
        self.say(&mut socket, 1, connect).await?;
        for index in 0..self.places.len() {
            self.join(&mut socket, index).await?;
        }
        let mut ends = self.scene.ends.subscribe();
        let mut heard = Instant::now();
        loop {
            if self.is_done() {
                self.linger(&mut socket).await;
                return None;
            }
            let patience = (heard + self.habits.silence).saturating_duration_since(Instant::now());
            tokio::select! {
                message = timeout(patience, socket.next()) => {
                    heard = Instant::now();
                    match message {
                        Ok(Some(Ok(Message::Close(close)))) => return close.map(|close| close.code.into()),
                        Ok(Some(Ok(message))) => self.take(&mut socket, &message).await?,
                        // Silent for too long, or broken.
                        Ok(Some(Err(_)) | None) | Err(_) => return None,
                    }
                    self.pry(&mut socket).await?;
                    self.rest().await;
                }
                _ = ends.changed() => {}
            }
            if self.is_late() {
                return None;
            }
        }
    }

    /// Now and then a slow one does not read for a while.
    async fn rest(&mut self) {
        if self.habits.slow && self.random.random_ratio(1, 400) {
            let pause = self.random.random_range(1_000..4_000);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn linger(&mut self, socket: &mut Socket) {
        let until = Instant::now() + LINGERING;
        while let Ok(Some(Ok(message))) = tokio::time::timeout_at(until, socket.next()).await {
            if matches!(message, Message::Close(_)) || self.take(socket, &message).await.is_none() {
                return;
            }
        }
    }

    async fn say(&self, socket: &mut Socket, id: u32, command: Command) -> Option<()> {
        let frame = ClientFrame {
            id,
            command: Some(command),
        };
        let sent = timeout(OPENING, socket.send(self.habits.encoding.encode(&frame))).await;
        sent.ok()?.ok()
    }

    /// Asks to join the room at `index`, from where it left off.
    async fn join(&mut self, socket: &mut Socket, index: usize) -> Option<()> {
        let called = self.scene.now();
        let (room, place) = &mut self.places[index];
        place.called = called;
        let since = place.at.as_ref().map(|at| Position {
            epoch: at.epoch.to_string(),
            offset: at.offset,
        });
        let join = Command::Join(Join {
            room: self.scene.room(*room),
            since,
            ..Join::default()
        });
        let id = u32::try_from(index).expect("few") + 2;
        self.say(socket, id, join).await
    }

    /// Who lost the right to a room asks for its history and its members all the same, twice a second.
    async fn pry(&mut self, socket: &mut Socket) -> Option<()> {
        let now = self.scene.now();
        let due = |place: &Place| place.revoked && now > place.pried + 500_000;
        let Some(index) = self.places.iter().position(|(_, place)| due(place)) else {
            return Some(());
        };
        let (room, place) = &mut self.places[index];
        place.pried = now;
        let room = self.scene.room(*room);
        let presence = PresenceQuery { room: room.clone() };
        let history = HistoryQuery {
            room,
            ..HistoryQuery::default()
        };
        let id = u32::try_from(index).expect("few") + PRYING;
        self.say(socket, id, Command::HistoryQuery(history)).await?;
        self.say(socket, id + PRYING, Command::PresenceQuery(presence)).await
    }

    fn shown(&mut self, room: &str) {
        let room = self.scene.room_named(room);
        let called = self.place(room).pried;
        self.note(Seen::Shown { room, called });
    }

    /// One frame. `None` when the connection is not worth keeping.
    async fn take(&mut self, socket: &mut Socket, message: &Message) -> Option<()> {
        if matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return Some(());
        }
        let frame = self.habits.encoding.decode(message);
        match frame.message.expect("a frame of the server has a message") {
            Said::Error(error) => return self.refused(socket, frame.id, &error).await,
            Said::Joined(joined) => self.joined(joined),
            Said::RoomLeft(left) => {
                let room = self.scene.room_named(&left.room);
                let revoked = left.cause() == RoomChangeCause::Revoked;
                self.left(room, revoked);
                self.note(Seen::Left { room, revoked });
            }
            Said::Event(event) => self.event(&event),
            Said::Resync(resync) => {
                let at = resync.head.expect("a resync says where the room is");
                let (room, at) = (self.scene.room_named(&resync.room), position(&at.epoch, at.offset));
                self.place(room).at = Some(at.clone());
                self.note(Seen::Resync { room, at });
            }
            Said::History(history) => self.shown(&history.room),
            Said::Presence(presence) => self.shown(&presence.room),
            Said::Degraded(degraded) => self.note(Seen::Degraded(degraded.active)),
            _ => {}
        }
        Some(())
    }

    async fn refused(&mut self, socket: &mut Socket, id: u32, error: &ErrorReply) -> Option<()> {
        if id >= PRYING {
            return Some(());
        }
        let index = usize::try_from(id).expect("ids are small").checked_sub(2)?;
        let (room, place) = &mut self.places[index];
        let room = *room;
        if error.code() == ErrorCode::Forbidden {
            place.revoked = true;
            self.note(Seen::Forbidden { room });
            return Some(());
        }
        if !matches!(error.code(), ErrorCode::Unavailable | ErrorCode::RateLimited) {
            self.scene
                .remark(format!("{}: a join is refused: {error:?}", self.log.user));
        }
        sleep(Duration::from_millis(u64::from(error.retry_after_ms).clamp(50, 500))).await;
        self.join(socket, index).await
    }

    fn joined(&mut self, joined: Joined) {
        let at = joined.head.expect("a join tells the room's position");
        let (room, at) = (self.scene.room_named(&joined.room), position(&at.epoch, at.offset));
        let place = self.place(room);
        let (since, called) = (place.at.clone(), place.called);
        place.joined = true;
        if !joined.recovered {
            place.at = Some(at.clone());
        }
        self.note(Seen::Joined {
            room,
            called,
            since,
            at,
            recovered: joined.recovered,
            replayed: joined.replayed,
        });
    }

    fn left(&mut self, room: usize, revoked: bool) {
        let place = self.place(room);
        place.joined = false;
        place.revoked |= revoked;
    }

    fn event(&mut self, event: &Event) {
        let room = self.scene.room_named(&event.room);
        let id = stamp(event);
        if event.epoch.is_empty() {
            let id = id.expect("an ephemeral event has a stamp");
            return self.note(Seen::Ephemeral { room, id });
        }
        let at = position(&event.epoch, event.offset);
        let place = self.place(room);
        // Last values from before the join do not move it.
        if place
            .at
            .as_ref()
            .is_none_or(|last| last.epoch != at.epoch || last.offset < at.offset)
        {
            place.at = Some(at.clone());
        }
        let previous = event.previous_offset;
        self.note(Seen::Event { room, at, previous, id });
    }

    fn place(&mut self, room: usize) -> &mut Place {
        let mut places = self.places.iter_mut();
        let found = places.find(|(other, _)| *other == room);
        &mut found.expect("only what was joined is spoken of").1
    }

    fn note(&mut self, seen: Seen) {
        self.log.entries.push((self.scene.now(), seen));
    }

    /// Whether it has the last event of each of its rooms.
    fn is_done(&mut self) -> bool {
        let ends = self.scene.ends.borrow();
        let Some(ends) = ends.as_ref() else {
            return false;
        };
        self.deadline.get_or_insert_with(|| Instant::now() + PERSISTENCE);
        self.places.iter().all(|(room, place)| {
            let end = &ends[*room];
            let at = place.at.as_ref();
            place.revoked || at.is_some_and(|at| at.epoch == end.epoch && at.offset >= end.offset)
        })
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }
}
