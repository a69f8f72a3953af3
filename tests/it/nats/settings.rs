//! Which settings nodes share: the documented table, what a node stores, and all the settings there are.

use std::collections::BTreeMap;

use async_nats::jetstream;
use prost::Message as _;
use roomcast::config::{Config, NatsSection};
use roomcast::proto::node_v1::{ClusterSettings, SettingRule};

use super::over;
use crate::support::nats::NatsServer;
use crate::support::{Encoding, Node};
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
    let node = Node::several(Encoding::Json, 2, over(&server.url())).await;
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
