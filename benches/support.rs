//! A shard without sockets: the real sessions, bus, presence and policy of a gateway, driven by hand over links that
//! count what they are sent and drop it. Shared by the benchmarks that run inside one process.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub mod messages;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use roomcast::admission::{self, Admission, Place};
use roomcast::auth::{self, JwtAuthenticator, TokenIssuer};
use roomcast::backend::NoBackend;
use roomcast::bus::memory::{self as memory_bus, MemoryBus};
use roomcast::error::CloseReason;
use roomcast::event::{EventId, EventName, Except, Payload, Publish, Retention};
use roomcast::hub::Mailbox;
use roomcast::json::Json;
use roomcast::policy::{self, Action, ActionName, Permit, RuleConfig, RulePolicy, Service};
use roomcast::presence::memory::{self as memory_presence, MemoryPresence};
use roomcast::room::{Room, Tenant};
use roomcast::rooms::{HomeRooms, Rooms};
use roomcast::session::link::{FrameKind, Link, SendError};
use roomcast::session::{Command, Config, JoinOptions, PresenceMode, ProtocolId, Request};
use roomcast::shard::Key;
use roomcast::shard::{Application, Services, Sessions, ShardEndpoint};
use roomcast::transport::native;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// The size of the payload the figures are told for, in bytes.
pub const PAYLOAD_BYTES: usize = 200;

/// An encoding of the native protocol.
#[derive(Debug, Clone, Copy)]
pub enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    fn protocol(self) -> ProtocolId {
        ProtocolId::new(self as usize)
    }
}

/// A connection that takes everything at once and keeps nothing.
#[derive(Debug)]
pub struct Sink {
    protocol: ProtocolId,
    place: Place,
    /// Frames it was sent.
    pub frames: u32,
}

impl Link for Sink {
    fn protocol(&self) -> ProtocolId {
        self.protocol
    }

    fn send(&mut self, frame: &Bytes, _kind: FrameKind, _now_ms: u64) -> Result<(), SendError> {
        self.frames += u32::from(!frame.is_empty());
        Ok(())
    }

    fn backlog_bytes(&self) -> usize {
        0
    }

    fn pause(&mut self, _paused: bool) {}
}

/// An address of its own for each client.
fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

/// A shard, and what of the node it speaks to.
pub struct Shard {
    /// The sessions.
    pub sessions: Sessions<Sink>,
    rooms: Rooms,
    presence: Arc<MemoryPresence>,
    admission: Arc<Admission>,
    issuer: TokenIssuer,
    service: Service,
}

impl Shard {
    /// A shard nobody is connected to, with the defaults of a gateway.
    ///
    /// Everybody may do everything in `room:*`. In `project:*` a condition over the token's claims decides.
    pub fn new() -> Self {
        let (issuer, config) = TokenIssuer::for_development();
        let auth = auth::Config {
            issuers: vec![config],
            ..auth::Config::default()
        };
        let bus = memory_bus::Config::default();
        let (mailbox, receiver) = Mailbox::open(0, bus.in_flight_events_max, 1024, Arc::default());
        let presence = Arc::new(MemoryPresence::new(memory_presence::Config::default()));
        let rooms = Rooms::new(Arc::new(MemoryBus::new(bus)), Arc::clone(&presence) as _);
        let admission = Arc::new(Admission::new(admission::Config::default()));
        let services = Services {
            lease: roomcast::lease::Lease::unlimited(),
            auth: Arc::new(JwtAuthenticator::new(&auth).expect("the issuer is well configured")),
            policy: Arc::new(policy()),
            rooms: rooms.clone(),
            application: Arc::new(Application::new(Arc::new(NoBackend), HomeRooms::default())),
            admission: Arc::clone(&admission),
            encoders: native::protocols().encoders(),
            counters: roomcast::counters::Counters::default(),
            config: Arc::new(ArcSwap::from_pointee(Config::default())),
        };
        Self {
            sessions: Sessions::new(services, ShardEndpoint { mailbox, receiver }),
            rooms,
            presence,
            admission,
            issuer,
            service: service(),
        }
    }

    /// Runs what presence does by itself, until `stop`.
    pub fn run_presence(&self, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.presence).run(stop)
    }

    /// Connects a user of its own, whose token is verified and whose claims are kept.
    pub fn connect(&mut self, number: u32, encoding: Encoding) -> Key {
        let place = self.admission.enter(address(number)).expect("the node is not full");
        let token = self
            .issuer
            .issue(&user(number), Duration::from_secs(86_400), claims())
            .expect("the token can be signed");
        let link = Sink {
            protocol: encoding.protocol(),
            place,
            frames: 0,
        };
        self.sessions.open(link, Some(token))
    }

    /// Has a client join a room; `presence` is whether it wants to see who comes and goes.
    pub fn join(&mut self, key: Key, room: &str, presence: bool) {
        self.sessions.command(key, join(room, presence));
    }

    /// Has a client leave a room.
    pub fn leave(&mut self, key: Key, room: &str) {
        self.sessions.command(key, leave(room));
    }

    /// Ends a client's connection.
    pub fn disconnect(&mut self, key: Key) {
        self.sessions.close(key, CloseReason::ClientLeft);
        for closed in self.sessions.take_closed() {
            self.admission.leave(closed.link.place);
        }
    }

    /// Publishes an event as a backend does.
    pub fn publish(&self, (permit, publish): (&Permit, Publish)) {
        let published = self.rooms.publish(permit, publish).now_or_never();
        assert!(matches!(published, Some(Ok(_))), "the bus takes an event at once");
    }

    /// The permit for [`Self::publish`].
    pub fn permit(&self, publish: &Publish) -> Permit {
        let action = Action::Publish(publish.name.clone());
        let permit = self.service.permit(publish.room.clone(), action);
        permit.expect("the service may publish")
    }

    /// Hands out what waits, to the last member.
    pub fn deliver(&mut self) {
        self.sessions.take_inbound();
        while self.sessions.has_work() {
            self.sessions.fan_out();
        }
    }

    /// Carries out what came from the bus, presence and effects meanwhile.
    pub fn handle_all(&mut self) {
        while let Some(happening) = tokio::task::unconstrained(self.sessions.next()).now_or_never() {
            self.sessions.handle(happening);
        }
        self.deliver();
    }

    /// The frames a client was sent.
    pub fn frames(&mut self, key: Key) -> u32 {
        self.sessions.link(key).map_or(0, |link| link.frames)
    }
}

/// The rules the benchmarks run with.
pub fn policy() -> RulePolicy {
    let everything = [
        ActionName::Join,
        ActionName::Publish,
        ActionName::Presence,
        ActionName::History,
    ];
    let rule = |name: &str, room: &str, when: Option<&str>| RuleConfig {
        name: name.to_owned(),
        room: Some(room.to_owned()),
        allow: everything.to_vec(),
        events: Vec::new(),
        methods: Vec::new(),
        when: when.map(str::to_owned),
        authorizer: false,
        validate: false,
    };
    let config = policy::Config {
        rules: vec![
            rule("open", "room:{room}", None),
            rule("projects", "project:{project}", Some("room.project in claims.projects")),
        ],
        ..policy::Config::default()
    };
    RulePolicy::new(&config).expect("the rules are well formed")
}

/// The user with this number.
pub fn user(number: u32) -> String {
    format!("user-{number:08}")
}

/// What a token says besides the registered claims.
pub fn claims() -> Map<String, Value> {
    let claims = json!({"role": "member", "projects": ["7"]});
    claims.as_object().cloned().unwrap_or_default()
}

/// A room of the tenant everybody is of.
pub fn room(name: &str) -> Room {
    Room::parse(&Tenant::default(), name).expect("the name is valid")
}

/// An event with a payload of [`PAYLOAD_BYTES`].
pub fn publish(room_name: &str, retention: Retention) -> Publish {
    Publish {
        room: room(room_name),
        id: EventId::from_bits(7),
        name: EventName::parse("task:created").expect("the name is valid"),
        retention,
        payload: Payload::Json(payload()),
        actor: None,
        except: Except::NOBODY,
        key: None,
        expected: None,
    }
}

/// A JSON object of [`PAYLOAD_BYTES`].
pub fn payload() -> Json {
    let frame = r#"{"text":""}"#.len();
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(PAYLOAD_BYTES - frame));
    Json::parse(text).expect("it is JSON")
}

/// The join command.
pub fn join(room: &str, presence: bool) -> Request {
    let options = JoinOptions {
        presence: if presence {
            PresenceMode::Members
        } else {
            PresenceMode::None
        },
        ..JoinOptions::default()
    };
    Request {
        id: 1,
        command: Command::Join {
            room: room.to_owned(),
            options,
        },
    }
}

/// The leave command.
pub fn leave(room: &str) -> Request {
    Request {
        id: 1,
        command: Command::Leave { room: room.to_owned() },
    }
}

fn service() -> Service {
    Service {
        name: "bench".into(),
        publish: true,
        read: true,
        manage: true,
        subscribe: false,
        tenants: None,
    }
}
