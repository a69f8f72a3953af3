//! What is left when everybody has gone: nothing.

use std::time::Duration;

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::{Join, PresenceMode};
use roomcast::rate::Rate;
use serde_json::json;

use crate::support::{Encoding, InRoom as _, Node, eventually, home_rooms, over_encodings, user};

over_encodings! {
    ; alone: after_everybody_has_gone_the_bus_holds_no_room_and_no_event,
}

/// Rooms are forgotten as soon as nobody is in them.
fn forgetful(config: &mut Config) {
    home_rooms(config);
    let nothing = HistoryLimits {
        events_max: 0,
        ..Default::default()
    };
    config.bus.history = HistoryRules::new([], nothing);
    config.bus.room_idle_max = Duration::ZERO;
    config.bus.sweep_interval = Duration::from_millis(20);
    config.session.join_rate = Rate {
        per_second: 100_000,
        burst: 100_000,
    };
}

async fn after_everybody_has_gone_the_bus_holds_no_room_and_no_event(encoding: Encoding) {
    let node = Node::with(encoding, forgetful).await;
    let backend = node.backend();
    for turn in 0..3 {
        let mut clients = Vec::new();
        for n in 0..12 {
            let mut client = node.connect(user(&format!("user {n}"))).await;
            for room in 0..5 {
                let join = Join {
                    presence: if (n + room) % 2 == 0 {
                        PresenceMode::Members.into()
                    } else {
                        PresenceMode::None.into()
                    },
                    state_json: Some(turn.to_string()),
                    ..Join::in_room(&format!("room {}", (n + room) % 7))
                };
                client.try_join(join).await.unwrap();
            }
            backend.publish(&format!("room {}", n % 7), "n", json!(n)).await;
            clients.push(client);
        }
        assert!(node.bus_usage().rooms > 7 + 12, "{:?}", node.bus_usage());
        // They go in every way there is; one in the middle of what it does.
        for (n, mut client) in clients.into_iter().enumerate() {
            match n % 4 {
                0 => client.close().await,
                1 => client.crash(),
                2 => {
                    for room in 0..7 {
                        client.leave(&format!("room {room}")).await;
                    }
                }
                _ => {
                    use roomcast::proto::client_v1::client_frame::Command;
                    client.say(Command::Join(Join::in_room("a room of its own"))).await;
                }
            }
        }
        node.until_connections(0).await;
    }
    eventually("the bus to forget every room", || async {
        let usage = node.bus_usage();
        (usage.rooms == 0 && usage.in_flight_events == 0 && usage.history_bytes == 0).then_some(())
    })
    .await;
    node.finish().await;
}
