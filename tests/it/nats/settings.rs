//! Which settings nodes share: the documented table, what a node stores, and all the settings there are.

use std::collections::BTreeMap;

use async_nats::jetstream;
use prost::Message as _;
use roomcast::config::{Config, NatsSection};
use roomcast::gateway::{self, Listeners};
use roomcast::nats;
use roomcast::proto::node_v1::{ClusterSettings, SettingRule};
use roomcast::room::RoomPattern;
use roomcast::rooms::HomeRooms;
use tokio::net::TcpListener;

use super::over;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::{Encoding, Gateway, GatewayOptions, Node, home_rooms, usual};
use crate::tools::root;

/// The sections of which every setting is either shared or known to concern one node only.
const SECTIONS: [&str; 4] = ["nats", "history", "bus", "presence"];

/// Settings of these sections that concern one node only, and may differ as they like.
const LOCAL: [&str; 28] = [
    // How this node reaches NATS, and what it expects of it.
    "nats.servers",
    "nats.deployment",
    "nats.creds_file",
    "nats.nkey_file",
    "nats.user",
    "nats.password_file",
    "nats.token_file",
    "nats.tls",
    "nats.ping_interval",
    "nats.request_timeout",
    "nats.publish_timeout",
    "nats.start_timeout",
    "nats.publishes_in_flight_max",
    "nats.sweep_interval",
    // An answer by bytes is an answer by a part of what is stored.
    "history.bytes_max",
    // Memory and rhythm of this process; some of it of a node that is alone.
    "bus.history_bytes_max",
    "bus.idempotency_window",
    "bus.idempotency_keys_max",
    "bus.in_flight_events_max",
    "bus.in_flight_wait_max",
    "bus.rooms_max",
    "bus.room_idle_max",
    "bus.forgotten_rooms_max",
    "bus.sweep_interval",
    "presence.flush_interval",
    "presence.counts_interval",
    "presence.counts_coalesce_interval",
    "presence.activity_capacity",
];

/// The documented table: the keys, each with its rule.
fn documented() -> BTreeMap<String, SettingRule> {
    let page = std::fs::read_to_string(root().join("docs/nats.md")).unwrap();
    let table = page.split("## Settings of the cluster").nth(1).unwrap();
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with("| `"));
    let entry = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), rule(cells[2]))
    };
    rows.map(entry).collect()
}

/// The rule that a cell of the table describes with its first words.
#[track_caller]
fn rule(cell: &str) -> SettingRule {
    let rules = [
        ("are refused", SettingRule::Equal),
        ("the largest holds", SettingRule::Largest),
        ("each ", SettingRule::Own),
    ];
    let found = rules.iter().find(|(words, _)| cell.starts_with(words));
    found.unwrap_or_else(|| panic!("`{cell}` names no rule")).1
}

#[tokio::test]
async fn what_a_node_stores_is_documented() {
    let server = NatsServer::start().await;
    let over = over(&server.url());
    let settings = move |config: &mut gateway::Config| {
        over(config);
        home_rooms(config);
    };
    let node = Node::several(Encoding::Json, 2, settings).await;
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let records = context.get_stream("roomcast-m").await.unwrap();
    let record = records
        .get_last_raw_message_by_subject("roomcast.m.settings")
        .await
        .unwrap();
    let stored = ClusterSettings::decode(record.payload).unwrap().settings;
    let stored: BTreeMap<_, _> = stored
        .into_iter()
        .map(|setting| (setting.key.clone(), setting.rule()))
        .collect();
    assert_eq!(stored, documented());
    node.finish().await;
}

#[test]
fn every_setting_is_shared_or_local() {
    let config = Config {
        nats: Some(NatsSection::default()),
        ..Config::default()
    };
    let printed: toml::Table = config.to_toml().parse().unwrap();
    let shared = documented();
    for section in SECTIONS {
        for key in printed[section].as_table().unwrap().keys() {
            let key = format!("{section}.{key}");
            let is_local = LOCAL.contains(&&*key);
            assert!(
                shared.contains_key(&key) != is_local,
                "{key} has to be either shared or local"
            );
        }
    }
}

/// The first start of a gateway over this server with another configuration: its refusal.
async fn refusal(server: &NatsServer, change: impl FnOnce(&mut gateway::Config)) -> String {
    match start(server, change).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

async fn start(
    server: &NatsServer,
    change: impl FnOnce(&mut gateway::Config),
) -> Result<gateway::Gateway, gateway::StartError> {
    let mut config = usual();
    config.nats = Some(nats::Config {
        servers: vec![server.url()],
        partitions: 3,
        ..nats::Config::default()
    });
    change(&mut config);
    let listener = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listeners = Listeners {
        client: listener().await,
        grpc: listener().await,
        admin: None,
    };
    gateway::Gateway::start(config, listeners).await
}

/// Sets the template of users' rooms.
fn rooms_of_users(template: &str) -> impl FnOnce(&mut gateway::Config) {
    let template = RoomPattern::parse(template).unwrap();
    |config| config.home_rooms = HomeRooms::new(Some(template), None).unwrap()
}

/// A gateway with another template would publish to rooms that the users are not in, and answer OK.
#[tokio::test]
async fn another_template_of_home_rooms_is_refused_until_the_record_is_purged() {
    let server = NatsServer::start().await;
    let first = start(&server, rooms_of_users("user:{user}")).await.unwrap();
    let without = start(&server, |_| {}).await.unwrap();
    let other = || rooms_of_users("{tenant}:user:{user}");
    let refused = refusal(&server, other()).await;
    assert!(
        refused.contains(
            "grpc.user_room is {tenant}:user:{user} on this node and user:{user} in the cluster: set it to user:{user}; \
             to change it, end all nodes, purge the subject"
        ),
        "{refused}"
    );
    first.shutdown().await;
    without.shutdown().await;
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let records = context.get_stream("roomcast-m").await.unwrap();
    records.purge().filter("roomcast.m.settings").await.unwrap();
    start(&server, other()).await.unwrap().shutdown().await;
}

async fn with_max_payload(bytes: usize) -> NatsServer {
    let options = NatsOptions {
        config: format!("max_payload: {bytes}"),
        ..NatsOptions::default()
    };
    NatsServer::start_with(options).await
}

#[tokio::test]
async fn a_max_payload_below_the_largest_event_is_logged() {
    let server = with_max_payload(40_000).await;
    let gateway = Gateway::start(GatewayOptions {
        name: "small".to_owned(),
        config: format!("[nats]\nservers = [{:?}]\npartitions = 3", server.url()),
        ..GatewayOptions::default()
    })
    .await;
    let log = gateway.log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("nats max_payload below the largest allowed event"))
        .collect();
    assert_eq!(warnings.len(), 2, "{log}");
    for (warning, setting) in warnings
        .iter()
        .zip(["grpc.payload_bytes_max", "session.payload_bytes_max"])
    {
        assert!(warning.contains(setting) && warning.contains("39.0 KiB"), "{warning}");
    }
}

#[tokio::test]
async fn a_max_payload_below_the_messages_of_nodes_is_refused() {
    let server = with_max_payload(20_000).await;
    let refused = refusal(&server, |_| {}).await;
    assert!(
        refused.contains("max_payload of the server is 19.5 KiB, nodes need 32 KiB among themselves: raise it"),
        "{refused}"
    );
}
