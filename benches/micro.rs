//! The parts of the hot path one by one, in nanoseconds: for a first look at a change, on a quiet machine. What can be
//! compared between machines and over time is `hotpath` (instructions) and `memory` (bytes).
//!
//! ```sh
//! cargo bench --bench micro               # all
//! cargo bench --bench micro -- decode     # those whose name contains this
//! ```

#![expect(
    clippy::wildcard_imports,
    reason = "the modules group the names of the benchmarks, no more"
)]

mod support;

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use futures_util::FutureExt as _;
use roomcast::bus::Delivery;
use roomcast::event::{Event, EventName, Retention, Timestamp};
use roomcast::identity::{ConnectionId, Expiry, Identity, UserId};
use roomcast::json::Json;
use roomcast::policy::{Action, Policy as _, Question, RulePolicy};
use roomcast::position::{ChainLink, Epoch, Offset, Position};
use roomcast::presence::memory::{Config as PresenceConfig, MemoryPresence};
use roomcast::presence::{Departure, Member, Presence as _};
use roomcast::room::{Room, RoomPattern, Tenant};
use roomcast::session::Encoder;
use roomcast::shard::local::{CHUNK, LocalRooms, RoomItem};
use roomcast::transport::native::json::{self, JsonProtocol};
use roomcast::transport::native::protobuf::{self, ProtobufProtocol};
use roomcast::transport::websocket::frame::{Limits, Reader};
use support::{Shard, messages};

fn main() {
    divan::main();
}

/// An event as the bus hands it out.
fn event(offset: u64) -> Arc<Event> {
    let publish = support::publish("room:1", Retention::Reliable);
    let epoch = Epoch::from_bits(7);
    Arc::new(Event {
        room: publish.room,
        id: publish.id,
        name: publish.name,
        retention: publish.retention,
        link: Some(ChainLink {
            position: position(epoch, offset),
            prev: Offset(offset - 1),
        }),
        time: Timestamp(1_800_000_000_000),
        actor: Some(user(1)),
        except: publish.except,
        payload: publish.payload,
    })
}

const fn position(epoch: Epoch, offset: u64) -> Position {
    Position {
        epoch,
        offset: Offset(offset),
    }
}

fn user(number: u32) -> UserId {
    UserId::parse(&support::user(number)).expect("the name is valid")
}

/// A complete frame of an event with a payload of 200 bytes.
mod encode {
    use super::*;

    #[divan::bench]
    fn event_json(bencher: Bencher<'_, '_>) {
        let event = event(1);
        bencher.bench(|| JsonProtocol.event(black_box(&event)));
    }

    #[divan::bench]
    fn event_protobuf(bencher: Bencher<'_, '_>) {
        let event = event(1);
        bencher.bench(|| ProtobufProtocol.event(black_box(&event)));
    }
}

/// A client's message to a command.
mod decode {
    use super::*;

    #[divan::bench]
    fn publish_json(bencher: Bencher<'_, '_>) {
        let text = messages::publish_json();
        bencher.bench(|| json::decode(black_box(&text)));
    }

    #[divan::bench]
    fn publish_protobuf(bencher: Bencher<'_, '_>) {
        let bytes = messages::publish_protobuf();
        bencher.bench(|| protobuf::decode(black_box(&bytes)));
    }

    #[divan::bench]
    fn join_json(bencher: Bencher<'_, '_>) {
        bencher.bench(|| json::decode(black_box(r#"{"id":3,"join":{"room":"room:1","presence":"members"}}"#)));
    }

    #[divan::bench]
    fn join_protobuf(bencher: Bencher<'_, '_>) {
        let bytes = messages::join_protobuf();
        bencher.bench(|| protobuf::decode(black_box(&bytes)));
    }
}

/// Reading masked frames, one in each read of the socket, without decoding what they hold.
mod frame {
    use super::*;

    fn read(bencher: Bencher<'_, '_>, opcode: u8, payload: &[u8]) {
        let frame = messages::masked_frame(opcode, payload);
        let limits = Limits::default();
        bencher
            .with_inputs(|| (Reader::default(), frame.clone()))
            .bench_local_refs(|(reader, frame)| {
                let fed = reader.feed(frame, &limits, 0, &mut |incoming| {
                    black_box(incoming);
                    ControlFlow::Continue(())
                });
                fed.expect("the frame is well formed");
            });
    }

    #[divan::bench]
    fn read_text_of_200_bytes(bencher: Bencher<'_, '_>) {
        read(bencher, 0x1, support::payload().as_str().as_bytes());
    }

    #[divan::bench]
    fn read_binary_of_200_bytes(bencher: Bencher<'_, '_>) {
        read(bencher, 0x2, &[7; support::PAYLOAD_BYTES]);
    }

    #[divan::bench]
    fn read_ping(bencher: Bencher<'_, '_>) {
        read(bencher, 0x9, b"ping");
    }
}

/// One decision of the rules, `room:*` without a condition and `project:*` by a condition over the claims.
mod decide {
    use super::*;

    fn ask(bencher: Bencher<'_, '_>, room: &str, action: &Action) {
        let policy: RulePolicy = support::policy();
        let identity = Arc::new(Identity {
            tenant: Tenant::default(),
            user: user(1),
            claims: Json::from(&serde_json::Value::from(support::claims())).into(),
            expiry: Expiry(u64::MAX),
        });
        let question = Question {
            identity,
            connection: ConnectionId::random(),
            room: support::room(room),
            action: action.clone(),
        };
        bencher.with_inputs(|| question.clone()).bench_values(|question| {
            let decided = policy.authorize(question).now_or_never();
            assert!(matches!(decided, Some(Ok(_))), "the rules allow it at once");
        });
    }

    fn publish() -> Action {
        Action::Publish(EventName::parse("task:created").expect("the name is valid"))
    }

    #[divan::bench]
    fn join(bencher: Bencher<'_, '_>) {
        ask(bencher, "room:1", &Action::Join);
    }

    #[divan::bench]
    fn join_by_condition(bencher: Bencher<'_, '_>) {
        ask(bencher, "project:7", &Action::Join);
    }

    #[divan::bench]
    fn publish_by_condition(bencher: Bencher<'_, '_>) {
        ask(bencher, "project:7", &publish());
    }
}

/// Names of rooms, and what they are called on NATS.
mod name {
    use roomcast::nats::Subjects;

    use super::*;

    #[divan::bench]
    fn partition_and_subject(bencher: Bencher<'_, '_>) {
        let room = support::room("project:7:tasks");
        let subjects = Subjects::new("roomcast").expect("the name is valid");
        bencher.bench(|| subjects.history(Subjects::partition(black_box(&room), 64), black_box(&room)));
    }

    #[divan::bench]
    fn parse_room(bencher: Bencher<'_, '_>) {
        let tenant = Tenant::default();
        bencher.bench(|| Room::parse(&tenant, black_box("project:7:tasks")));
    }

    #[divan::bench]
    fn match_pattern(bencher: Bencher<'_, '_>) {
        let pattern = RoomPattern::parse("project:{project}:tasks").expect("the pattern is valid");
        bencher.bench(|| pattern.matches(black_box("project:7:tasks")));
    }
}

/// The rooms of a shard.
mod hub {
    use super::*;

    /// Rooms with so many members each.
    fn local(rooms: u32, members: u32) -> LocalRooms {
        let mut local = LocalRooms::default();
        for (room, member) in (0..rooms).flat_map(|room| (0..members).map(move |member| (room, member))) {
            let name = support::room(&format!("room:{room}"));
            local.begin_join(&name, member);
            let entered = local.finish_join(&name, member, position(Epoch::from_bits(7), 0));
            entered.expect("the join was begun");
        }
        local
    }

    #[divan::bench(args = [1, 1_000, 100_000])]
    fn find_room(bencher: Bencher<'_, '_>, rooms: u32) {
        let local = local(rooms, 1);
        let name = support::room(&format!("room:{}", rooms / 2));
        bencher.bench_local(|| local.find(black_box(&name)));
    }

    /// Putting one event in line and naming a chunk of members for it.
    #[divan::bench]
    fn enqueue_and_next_chunk(bencher: Bencher<'_, '_>) {
        let mut local = local(1, u32::try_from(CHUNK).expect("a chunk is small"));
        let (name, mut targets, mut offset) = (support::room("room:0"), Vec::new(), 0);
        let mut next = || {
            offset += 1;
            Delivery::new(event(offset), None)
        };
        let deliveries: Vec<_> = (0..1_000).map(|_| next()).collect();
        let mut turn = deliveries.iter().cycle();
        bencher.counter(ItemsCount::new(CHUNK)).bench_local(|| {
            let delivery = turn.next().expect("it goes round");
            local.enqueue(&name, RoomItem::Event(Arc::clone(delivery)));
            local.next_chunk(&mut targets)
        });
    }
}

/// Publishing into a room of the in-process bus that one shard is in; its member gets the event, so nothing piles up.
mod bus {
    use super::*;

    fn publish(bencher: Bencher<'_, '_>, retention: Retention) {
        let mut shard = Shard::new();
        let member = shard.connect(0, support::Encoding::Json);
        shard.join(member, "room:1", false);
        let publish = support::publish("room:1", retention);
        let permit = shard.permit(&publish);
        bencher.with_inputs(|| publish.clone()).bench_local_values(|publish| {
            shard.publish((&permit, publish));
            shard.deliver();
        });
    }

    #[divan::bench]
    fn publish_reliable(bencher: Bencher<'_, '_>) {
        publish(bencher, Retention::Reliable);
    }

    #[divan::bench]
    fn publish_ephemeral(bencher: Bencher<'_, '_>) {
        publish(bencher, Retention::Ephemeral);
    }
}

/// A user that comes and goes in a room of so many others.
mod presence {
    use super::*;

    #[divan::bench(args = [10, 1_000])]
    fn enter_and_leave(bencher: Bencher<'_, '_>, others: u32) {
        let presence = MemoryPresence::new(PresenceConfig::default());
        let room = support::room("room:1");
        let member = |number| Member {
            connection: ConnectionId::random(),
            user: user(number),
        };
        for number in 0..others {
            presence.enter(&room, &member(number), None).expect("it has no state");
        }
        let newcomer = member(others);
        bencher.bench_local(|| {
            presence.enter(&room, &newcomer, None).expect("it has no state");
            presence.leave(&room, &newcomer, Departure::Left);
        });
    }
}
