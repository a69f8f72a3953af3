//! One shard without sockets, its lease in the test's hands.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::admission::{self, Admission};
use crate::auth::{AuthError, Authenticator};
use crate::backend::NoBackend;
use crate::bus::memory::{self as memory_bus, MemoryBus};
use crate::counters::Counters;
use crate::event::{EventId, EventName, Except, Payload, Publish, Retention, Timestamp};
use crate::hub::{Mailbox, ShardMessage};
use crate::identity::{ConnectionId, Expiry, Identity, UserId};
use crate::json::Json;
use crate::lease::Lease;
use crate::policy::{
    Action, Admitted, Bearer, Denied, Edition, Explanation, Permit, Policy, Question, RevocationEffect,
    RevocationEntry, RevocationId, Revocations, RulePolicy, Service,
};
use crate::presence::memory::{self as memory_presence, MemoryPresence};
use crate::presence::{Change, Counts, Detail};
use crate::room::{Room, Tenant};
use crate::rooms::{HomeRooms, Rooms};
use crate::session::link::{FrameKind, Link, SendError};
use crate::session::{Config, Cursor, ProtocolId};
use crate::shard::{Application, Key, Services, Sessions, ShardEndpoint};
use crate::transport::carrier::Carrier;
use crate::transport::native::{self, json};
use crate::transport::protocol::Protocols;
use crate::transport::sse;

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn room(name: &str) -> Room {
    Room::parse(&Tenant::default(), name).unwrap()
}

fn service() -> Service {
    Service {
        name: "backend".into(),
        publish: true,
        read: true,
        manage: true,
        subscribe: false,
        tenants: None,
    }
}

/// The permit for a backend to put somebody into a room.
pub fn permit(name: &str) -> Permit {
    service().permit(room(name), Action::Join).unwrap()
}

/// A change without members.
pub fn change(name: &str, version: u64) -> Arc<Change> {
    Arc::new(Change {
        room: room(name),
        version,
        known: 0..version,
        detail: Detail::Members,
        counts: Counts::default(),
        joined: Vec::new(),
        present: Vec::new(),
        updated: Vec::new(),
        left: Vec::new(),
        counts_only: true,
    })
}

/// Keeps what it is sent.
#[derive(Default)]
pub struct Recorder {
    pub text: String,
    /// Of a client that does not speak the default protocol.
    pub other: Option<(ProtocolId, Carrier)>,
}

impl Link for Recorder {
    fn protocol(&self) -> ProtocolId {
        self.other
            .as_ref()
            .map_or(ProtocolId::DEFAULT, |(protocol, _)| *protocol)
    }

    fn send(&mut self, frame: &bytes::Bytes, _: FrameKind, _: u64) -> Result<(), SendError> {
        self.text.push_str(&String::from_utf8_lossy(frame));
        Ok(())
    }

    fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        self.other.as_mut()?.1.cursor_mut()
    }

    fn is_one_way(&self) -> bool {
        self.other.as_ref().is_some_and(|(_, carrier)| carrier.is_one_way())
    }

    fn backlog_bytes(&self) -> usize {
        0
    }

    fn pause(&mut self, _: bool) {}
}

/// A token is the user's name and, behind a space, more claims: `ada "jti":"1"`.
struct ByName;

impl Authenticator for ByName {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        let (user, claims) = token.split_once(' ').unwrap_or((token, r#""x":0"#));
        let identity = Identity {
            tenant: Tenant::default(),
            user: UserId::parse(user).unwrap(),
            claims: Json::parse(format!("{{\"sub\":\"{user}\",{claims}}}")).unwrap().into(),
            expiry: Expiry(u64::MAX / 2),
        };
        Box::pin(std::future::ready(Ok(identity)))
    }
}

/// A policy that answers questions only while it is open.
pub struct LeaseGate {
    pub inner: RulePolicy,
    is_open: watch::Sender<bool>,
    postpone: AtomicBool,
}

impl LeaseGate {
    pub fn close(&self) {
        self.is_open.send_replace(false);
    }

    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Sets whether there are decisions.
    pub fn decides(&self, decides: bool) {
        self.postpone.store(!decides, Ordering::SeqCst);
    }

    /// Puts other rules in force: these rooms may be joined, and their presence seen where `sees`; templates as given.
    pub fn swap(&self, rooms: &[&str], sees: bool, auto_join: &[&str]) {
        let allow: &[&str] = if sees { &["join", "presence"] } else { &["join"] };
        let rules = rooms
            .iter()
            .map(|room| serde_json::json!({"name": room, "room": room, "allow": allow}));
        let config = serde_json::json!({"rules": rules.collect::<Vec<_>>(), "auto_join": auto_join});
        let prepared = self.inner.prepare(&serde_json::from_value(config).unwrap());
        self.inner.swap(prepared.unwrap());
    }
}

impl Policy for LeaseGate {
    fn admit<'a>(&'a self, identity: &'a Identity, id: ConnectionId) -> BoxFuture<'a, Result<Admitted, Denied>> {
        self.inner.admit(identity, id)
    }

    /// Decides first and waits then: the answer is an old one.
    fn authorize(&self, question: Question) -> BoxFuture<'_, Result<Permit, Denied>> {
        Box::pin(async move {
            let answer = if self.postpone.load(Ordering::SeqCst) {
                Err(Denied {
                    rule: None,
                    reason: "nobody knows".into(),
                    undecided: true,
                })
            } else {
                self.inner.authorize(question).await
            };
            self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
            answer
        })
    }

    fn explain(&self, question: Question) -> BoxFuture<'_, Explanation> {
        self.inner.explain(question)
    }

    fn revoke(&self, entry: &Arc<RevocationEntry>, left: Duration) -> RevocationEffect {
        self.inner.revoke(entry, left)
    }

    fn restore(&self, tenant: &Tenant, id: RevocationId, expires: Timestamp, left: Duration) {
        self.inner.restore(tenant, id, expires, left);
    }

    fn revocations(&self) -> &Revocations {
        self.inner.revocations()
    }

    fn auto_join(&self, bearer: Bearer<'_>) -> Result<Vec<Permit>, Denied> {
        self.inner.auto_join(bearer)
    }

    fn edition(&self) -> Edition {
        self.inner.edition()
    }
}

/// One shard.
pub struct Shard {
    pub sessions: Sessions<Recorder>,
    pub policy: Arc<LeaseGate>,
    mailbox: Arc<Mailbox>,
    rooms: Rooms,
    admission: Arc<Admission>,
    lease: Lease,
    pub protocols: Protocols,
    opening: String,
}

impl Shard {
    /// Everybody may do everything, is put into a home room, and may be in three rooms. The lease holds until
    /// [`Self::lapse`].
    pub fn new() -> Self {
        let rules = serde_json::json!({
            "rules": [
                {"name": "all", "room": "{room}", "allow": ["join", "publish", "presence", "history"]},
                {"name": "homes", "room": "home:{user}", "allow": ["history"]},
            ],
            "auto_join": ["home:{sub}"],
        });
        let policy = Arc::new(LeaseGate {
            inner: RulePolicy::new(&serde_json::from_value(rules).unwrap()).unwrap(),
            is_open: watch::channel(true).0,
            postpone: AtomicBool::new(false),
        });
        let bus = memory_bus::Config::default();
        let (mailbox, receiver) = Mailbox::open(0, bus.in_flight_events_max, 8192, Arc::default());
        let presence = Arc::new(MemoryPresence::new(memory_presence::Config::default()));
        let rooms = Rooms::new(Arc::new(MemoryBus::new(bus)), presence);
        let connections = admission::Config {
            per_address_max: u32::MAX,
            ..admission::Config::default()
        };
        let (admission, lease) = (Arc::new(Admission::new(connections)), Lease::lapsed());
        lease.renew(Instant::now(), HOUR);
        let protocols = sse::add_to(native::protocols(), &sse::Config::default());
        let services = Services {
            auth: Arc::new(ByName),
            policy: policy.clone(),
            rooms: rooms.clone(),
            application: Arc::new(Application::new(Arc::new(NoBackend), HomeRooms::default())),
            lease: lease.clone(),
            admission: Arc::clone(&admission),
            encoders: protocols.encoders(),
            counters: Counters::default(),
            config: Arc::new(ArcSwap::from_pointee(Config {
                rooms_max: 3,
                ..Config::default()
            })),
        };
        let endpoint = ShardEndpoint {
            mailbox: Arc::clone(&mailbox),
            receiver,
        };
        Self {
            sessions: Sessions::new(services, endpoint),
            policy,
            mailbox,
            rooms,
            admission,
            lease,
            protocols,
            opening: String::new(),
        }
    }

    /// Connects a user; what it is told first is kept apart.
    pub fn connect(&mut self, user: &str) -> Key {
        let key = self.open(Recorder::default(), Some(user.to_owned()));
        self.drive();
        self.opening = self.told(key);
        key
    }

    /// A connection that has not said who it is.
    pub fn anonymous(&mut self) -> Key {
        self.open(Recorder::default(), None)
    }

    /// A connection.
    pub fn open(&mut self, link: Recorder, token: Option<String>) -> Key {
        let address: IpAddr = Ipv4Addr::LOCALHOST.into();
        let _place = self.admission.enter(address).unwrap();
        self.sessions.open(link, token)
    }

    /// The connection of a client.
    pub fn connection(&self, key: Key) -> ConnectionId {
        self.sessions.clients.session(key).unwrap().connection
    }

    /// The first messages of the client that connected last.
    pub fn opening(&self, _: Key) -> &str {
        &self.opening
    }

    /// A client sends a message.
    pub fn say(&mut self, key: Key, text: &str) {
        match json::decode(text) {
            Ok(request) => self.sessions.command(key, request),
            Err(error) => self.sessions.undecoded(key, error.id, error.refusal()),
        }
        self.drive();
    }

    /// Takes the messages of a client since the last call.
    pub fn told(&mut self, key: Key) -> String {
        self.sessions
            .link(key)
            .map(|link| std::mem::take(&mut link.text))
            .unwrap_or_default()
    }

    pub async fn publish(&mut self, name: &str, event: &str) {
        self.publish_as(name, event, Retention::Reliable, Except::NOBODY).await;
        self.drive();
    }

    /// Publishes an event that stays in line until [`Self::drive`].
    pub async fn publish_as(&mut self, name: &str, event: &str, retention: Retention, except: Except) {
        let publish = Publish {
            room: room(name),
            id: EventId::random(),
            name: EventName::parse(event).unwrap(),
            retention,
            payload: Payload::Json(Json::parse("{}".to_owned()).unwrap()),
            actor: None,
            except,
            key: None,
            expected: None,
        };
        let action = Action::Publish(publish.name.clone());
        let permit = service().permit(publish.room.clone(), action).unwrap();
        self.rooms.publish(&permit, publish).await.unwrap();
    }

    /// Sends a message, and begins with it.
    pub async fn begin(&mut self, message: ShardMessage) {
        assert!(self.mailbox.send(message).await);
        let happening = self.sessions.next().await;
        self.sessions.handle(happening);
    }

    pub async fn message(&mut self, message: ShardMessage) {
        assert!(self.mailbox.send(message).await);
        self.drive();
    }

    /// Carries out what has happened, in the order of a shard's loop.
    pub fn drive(&mut self) {
        loop {
            let happening = tokio::task::unconstrained(self.sessions.next()).now_or_never();
            let is_done = happening.is_none();
            if let Some(happening) = happening {
                self.sessions.handle(happening);
            }
            self.sessions.take_inbound();
            while self.sessions.has_work() {
                self.sessions.fan_out();
                self.sessions.recheck_some();
            }
            if is_done {
                return;
            }
        }
    }

    /// The same, after those who were woken had their turn.
    pub async fn settle(&mut self) {
        for _ in 0..10 {
            self.drive();
            tokio::task::yield_now().await;
        }
    }

    /// The lease holds no longer; the shard finds that out by itself.
    pub fn lapse(&mut self) {
        self.lease.lapse();
    }

    pub fn renew(&mut self) {
        self.lease.renew(Instant::now(), HOUR);
        self.drive();
    }
}
