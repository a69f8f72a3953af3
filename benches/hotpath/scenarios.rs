//! What is counted. Each scenario sets up, does the thing once so that nothing is done for the first time, and then does
//! it again to be counted.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

use roomcast::event::Retention;
use roomcast::shard::Key;
use roomcast::transport::native::{json, protobuf};
use roomcast::transport::websocket::frame::{Incoming, Limits, Reader};

use crate::support::{self, Encoding, Shard, messages};

/// Runs what it is given and counts it.
pub type Counted = fn(&mut dyn FnMut());

/// One thing to count.
pub struct Scenario {
    /// Its name in the baseline.
    pub name: &'static str,
    /// What one is.
    pub unit: &'static str,
    /// How many there are in a run.
    pub units: u32,
    /// By how many per cent the counts of two runs of one program may differ.
    pub tolerated_percent: f64,
    /// Sets up, and hands over what is counted.
    pub run: fn(Counted),
}

/// Members of the room of the fan-out.
const MEMBERS: u32 = 1_000;

/// How often a scenario of one client does its thing, each time with another client.
const CLIENTS: u32 = 100;

/// For what comes to the same instructions every time, but for the layout of code around it.
const EXACT: f64 = 0.5;

/// For what fills hash tables: their keys are drawn at each start, and decide which of them grow. Seen: up to 1.5.
const HASHED: f64 = 2.0;

/// Everything that is counted.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fan-out-single-json",
        unit: "delivery",
        units: MEMBERS,
        tolerated_percent: EXACT,
        run: |counted| fan_out(counted, Encoding::Json, Retention::Reliable, 1),
    },
    Scenario {
        name: "fan-out-single-protobuf",
        unit: "delivery",
        units: MEMBERS,
        tolerated_percent: EXACT,
        run: |counted| fan_out(counted, Encoding::Protobuf, Retention::Reliable, 1),
    },
    Scenario {
        name: "fan-out-single-ephemeral-json",
        unit: "delivery",
        units: MEMBERS,
        tolerated_percent: EXACT,
        run: |counted| fan_out(counted, Encoding::Json, Retention::Ephemeral, 1),
    },
    Scenario {
        name: "fan-out-burst-of-8-json",
        unit: "delivery",
        units: MEMBERS * 8,
        tolerated_percent: EXACT,
        run: |counted| fan_out(counted, Encoding::Json, Retention::Reliable, 8),
    },
    Scenario {
        name: "publish-one-member-json",
        unit: "publish",
        units: CLIENTS,
        tolerated_percent: EXACT,
        run: publish_to_one,
    },
    Scenario {
        name: "join-json",
        unit: "join",
        units: CLIENTS,
        tolerated_percent: HASHED,
        run: |counted| join(counted, "room:1"),
    },
    Scenario {
        name: "join-by-condition-json",
        unit: "join",
        units: CLIENTS,
        tolerated_percent: HASHED,
        run: |counted| join(counted, "project:7"),
    },
    Scenario {
        name: "leave-json",
        unit: "leave",
        units: CLIENTS,
        tolerated_percent: HASHED,
        run: leave,
    },
    Scenario {
        name: "heartbeat",
        unit: "beat",
        units: MEMBERS,
        tolerated_percent: EXACT,
        run: heartbeat,
    },
    Scenario {
        name: "read-ping-frame",
        unit: "frame",
        units: CLIENTS,
        tolerated_percent: EXACT,
        run: |counted| read(counted, 0x9, b"ping"),
    },
    Scenario {
        name: "read-publish-frame-json",
        unit: "frame",
        units: CLIENTS,
        tolerated_percent: EXACT,
        run: |counted| read(counted, 0x1, messages::publish_json().as_bytes()),
    },
    Scenario {
        name: "read-publish-frame-protobuf",
        unit: "frame",
        units: CLIENTS,
        tolerated_percent: EXACT,
        run: |counted| read(counted, 0x2, &messages::publish_protobuf()),
    },
];

/// A shard with members of one room, that has handed out an event.
fn room_of(members: u32, encoding: Encoding, name: &str) -> (Shard, Vec<Key>) {
    let mut shard = Shard::new();
    let keys: Vec<Key> = (0..members).map(|number| shard.connect(number, encoding)).collect();
    for key in &keys {
        shard.join(*key, name, false);
    }
    let publish = support::publish(name, Retention::Reliable);
    shard.publish((&shard.permit(&publish), publish));
    shard.deliver();
    (shard, keys)
}

/// From the bus taking events to every member's connection having been handed them.
fn fan_out(counted: Counted, encoding: Encoding, retention: Retention, events: u32) {
    let (mut shard, keys) = room_of(MEMBERS, encoding, "room:1");
    let publish = support::publish("room:1", retention);
    let permit = shard.permit(&publish);
    let mut publishes = vec![publish; events as usize];
    counted(&mut || {
        for publish in publishes.drain(..) {
            shard.publish((&permit, publish));
        }
        shard.deliver();
    });
    // Connected, joined, the event before; and what was counted, in one piece.
    assert!(
        keys.iter().all(|key| shard.frames(*key) == 4),
        "everybody got everything"
    );
}

fn publish_to_one(counted: Counted) {
    let (mut shard, keys) = room_of(1, Encoding::Json, "room:1");
    let publish = support::publish("room:1", Retention::Reliable);
    let permit = shard.permit(&publish);
    let mut publishes = vec![publish; CLIENTS as usize];
    counted(&mut || {
        for publish in publishes.drain(..) {
            shard.publish((&permit, publish));
            shard.deliver();
        }
    });
    assert_eq!(shard.frames(keys[0]), 3 + CLIENTS, "it got everything");
}

/// From the decoded command to the answer, by clients that join for the first time.
fn join(counted: Counted, name: &str) {
    let (mut shard, _) = room_of(MEMBERS, Encoding::Json, name);
    let newcomers: Vec<Key> = (MEMBERS..MEMBERS + CLIENTS)
        .map(|number| shard.connect(number, Encoding::Json))
        .collect();
    let mut requests = vec![support::join(name, false); newcomers.len()];
    counted(&mut || {
        for (key, request) in newcomers.iter().zip(requests.drain(..)) {
            shard.sessions.command(*key, request);
        }
    });
    assert!(newcomers.iter().all(|key| shard.frames(*key) == 2), "everybody joined");
}

fn leave(counted: Counted) {
    let (mut shard, keys) = room_of(MEMBERS, Encoding::Json, "room:1");
    let leaving = &keys[..CLIENTS as usize];
    let mut requests = vec![support::leave("room:1"); leaving.len()];
    counted(&mut || {
        for (key, request) in leaving.iter().zip(requests.drain(..)) {
            shard.sessions.command(*key, request);
        }
    });
    assert!(leaving.iter().all(|key| shard.frames(*key) == 4), "everybody left");
}

/// A turn of the wheel that gives every quiet connection a sign of life, second by second.
fn heartbeat(counted: Counted) {
    const TURN_S: u32 = 25;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let (mut shard, keys) = room_of(MEMBERS, Encoding::Json, "room:1");
        let not_counted: Counted = |work| work();
        for count in [not_counted, counted] {
            for _ in 0..TURN_S {
                tokio::time::advance(Duration::from_secs(1)).await;
                count(&mut || shard.sessions.tick());
                for key in &keys {
                    shard.sessions.seen(*key);
                }
            }
        }
        let beaten = keys.iter().filter(|key| shard.frames(**key) == 5).count();
        assert_eq!(beaten, keys.len(), "everybody got two signs of life");
    });
}

/// From the bytes of a socket to a command, or to the payload of a ping. Every frame comes in a read of its own.
fn read(counted: Counted, opcode: u8, payload: &[u8]) {
    let frame = messages::masked_frame(opcode, payload);
    let mut inputs = vec![frame; CLIENTS as usize];
    let (mut reader, limits, mut read) = (Reader::default(), Limits::default(), 0);
    counted(&mut || {
        for input in &mut inputs {
            let fed = reader.feed(input, &limits, 0, &mut |incoming| {
                read += u32::from(match incoming {
                    Incoming::Text(text) => black_box(json::decode(text)).is_ok(),
                    Incoming::Binary(bytes) => black_box(protobuf::decode(bytes)).is_ok(),
                    Incoming::Ping(payload) => !black_box(payload).is_empty(),
                    Incoming::Pong | Incoming::Close(_) => false,
                });
                ControlFlow::Continue(())
            });
            assert!(fed.is_ok(), "the frame is well formed");
        }
    });
    assert_eq!(read, CLIENTS, "everything was read");
}
