//! Several gateways on a real NATS, each with a network of its own to it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use async_nats::jetstream;
use roomcast::nats::Subjects;

use super::clock::Clock;
use super::disk::Disk;
use super::namespace::Namespace;
use crate::support::nats::{NatsCluster, NatsOptions, NatsServer};
use crate::support::proxy::Proxy;
use crate::support::{Caller, Gateway, GatewayOptions, ROOT, eventually};

/// The name of the deployment in NATS.
const DEPLOYMENT: &str = "chaos";
/// How many streams the rooms are spread over. Few, so that a cluster on two cores has few elections.
pub const PARTITIONS: u16 = 4;

/// One server, or three.
#[derive(Debug)]
pub enum Broker {
    One(NatsServer),
    Three(NatsCluster),
}

impl Broker {
    pub fn servers(&self) -> &[NatsServer] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Three(cluster) => cluster.servers(),
        }
    }

    fn replicas(&self) -> usize {
        self.servers().len()
    }
}

/// The reader of a gateway's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    Read,
    /// The gateways log much into a pipe that is never read.
    Unread,
}

/// What a test may choose about a fleet.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    pub gateways: usize,
    pub nats: NatsOptions,
    /// More of the `[nats]` section of each gateway.
    pub section: String,
    /// More of the gateways' configuration.
    pub config: String,
    /// Whether the first gateway is in a network namespace of its own.
    pub namespace: bool,
    /// Whether each gateway has a wall clock of its own.
    pub clocks: bool,
    /// Whether the first server has a small disk of its own.
    pub disk: bool,
    /// The reader of the gateways' logs.
    pub logs: Logs,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            gateways: 3,
            nats: NatsOptions {
                // Gateways must not go around their proxies.
                advertise: false,
                jetstream: "max_file_store: 900MB".to_owned(),
                ..NatsOptions::default()
            },
            section: "stream_bytes_max = \"48 MiB\"".to_owned(),
            config: String::new(),
            namespace: false,
            clocks: false,
            disk: false,
            logs: Logs::Read,
        }
    }
}

/// Gateways that are one, on one NATS.
#[derive(Debug)]
pub struct Fleet {
    // In this order: gateways end before what they talk to.
    pub gateways: Vec<Gateway>,
    /// Of each gateway, before each server.
    proxies: Vec<Vec<Proxy>>,
    /// Where the first gateway is, if it is in one.
    pub namespace: Option<Namespace>,
    /// Of each gateway, if they have their own.
    pub clocks: Vec<Clock>,
    pub broker: Broker,
    /// Of the first server, if it has its own.
    pub disk: Option<Disk>,
}

impl Fleet {
    /// On one server.
    pub async fn on_one(options: FleetOptions) -> Self {
        let disk = options.disk.then(Disk::make);
        let server = NatsServer::start_with(on_disk(disk.as_ref(), &options.nats)).await;
        Self::start(Broker::One(server), disk, options).await
    }

    /// On a cluster of three, with three replicas.
    pub async fn on_three(options: FleetOptions) -> Self {
        let disk = options.disk.then(Disk::make);
        let first = on_disk(disk.as_ref(), &options.nats);
        let cluster = NatsCluster::start_each([first, options.nats.clone(), options.nats.clone()]).await;
        Self::start(Broker::Three(cluster), disk, options).await
    }

    async fn start(broker: Broker, disk: Option<Disk>, options: FleetOptions) -> Self {
        let mut fleet = Self {
            gateways: Vec::new(),
            proxies: Vec::new(),
            namespace: options.namespace.then(Namespace::make),
            clocks: Vec::new(),
            broker,
            disk,
        };
        for number in 0..options.gateways {
            let namespace = fleet.namespace.as_ref().filter(|_| number == 0);
            let outside = namespace.map_or([127, 0, 0, 1].into(), Namespace::outside);
            let mut proxies = Vec::new();
            for server in fleet.broker.servers() {
                proxies.push(Proxy::at(outside, server.address()).await);
            }
            let mut through = namespace.map(Namespace::through).unwrap_or_default();
            if options.clocks {
                let clock = Clock::new();
                through.extend(clock.through());
                fleet.clocks.push(clock);
            }
            let gateway = Gateway::start(GatewayOptions {
                name: format!("node-{number}"),
                config: config(&proxies, fleet.broker.replicas(), &options),
                through,
                unread_log: options.logs == Logs::Unread,
                reached_at: namespace.map(Namespace::inside),
            });
            fleet.gateways.push(gateway.await);
            fleet.proxies.push(proxies);
        }
        fleet
    }

    /// The network between a gateway and NATS.
    pub fn network(&self, gateway: usize) -> &[Proxy] {
        &self.proxies[gateway]
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(Gateway::clients).collect()
    }

    /// A backend with every right, at one of the gateways.
    pub fn backend(&self, gateway: usize) -> Caller {
        Caller::new(self.gateways[gateway].channel(), ROOT)
    }

    /// A connection of the test's own, around the proxies, to a server that answers.
    pub async fn nats(&self) -> async_nats::Client {
        eventually("a connection to NATS", || async {
            for server in self.broker.servers() {
                if server.is_running()
                    && !server.is_paused()
                    && let Ok(client) = async_nats::connect(server.url()).await
                {
                    return Some(client);
                }
            }
            None
        })
        .await
    }

    /// How subjects and streams are called.
    pub fn subjects() -> Subjects {
        Subjects::new(DEPLOYMENT).unwrap()
    }

    /// The stream of a partition.
    pub fn stream(partition: u16) -> String {
        Self::subjects().stream_of_partition(partition)
    }

    /// Has the leader of a partition's stream hand over to another.
    pub async fn step_down(&self, partition: u16) {
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", Self::stream(partition));
        let answer = self.nats().await.request(subject, "{}".into()).await;
        drop(answer);
    }

    /// Uses up the servers' storage with something else; the answer empties it again.
    pub async fn fill_up(&self) -> Filler {
        let context = jetstream::new(self.nats().await);
        let config = jetstream::stream::Config {
            name: Filler::STREAM.to_owned(),
            subjects: vec![Filler::STREAM.to_owned()],
            num_replicas: self.broker.replicas(),
            ..Default::default()
        };
        context.create_stream(config).await.expect("a stream is made");
        // To the last byte: where a large block no longer fits, a small one may.
        for size in [900_000, 50_000, 2_000, 10] {
            let block = bytes::Bytes::from(vec![0; size]);
            while let Ok(sent) = context.publish(Filler::STREAM, block.clone()).await {
                if sent.await.is_err() {
                    break;
                }
            }
        }
        Filler(context)
    }

    /// Fails if a gateway ended that was to run, or says that something of it broke.
    pub fn assert_sound(&self) {
        for gateway in &self.gateways {
            let log = gateway.log();
            assert!(gateway.is_running(), "{} ended:\n{log}", gateway.name());
            let broken = log.lines().find(|line| line.contains("panicked"));
            assert_eq!(broken, None, "{} panicked:\n{log}", gateway.name());
        }
    }
}

/// What fills the storage up.
#[derive(Debug)]
pub struct Filler(jetstream::Context);

impl Filler {
    const STREAM: &str = "filler";

    /// Gives the storage back.
    pub async fn empty(self) {
        eventually("the storage to be given back", || async {
            self.0.delete_stream(Self::STREAM).await.is_ok().then_some(())
        })
        .await;
    }
}

/// The same server, on this disk.
fn on_disk(disk: Option<&Disk>, options: &NatsOptions) -> NatsOptions {
    let mut options = options.clone();
    if let Some(disk) = disk {
        options.through = disk.through();
        writeln!(options.jetstream, "\n  store_dir: \"{}\"", disk.folder().display())
            .expect("a string takes everything");
    }
    options
}

fn config(proxies: &[Proxy], replicas: usize, options: &FleetOptions) -> String {
    let servers: Vec<_> = proxies.iter().map(|proxy| format!("{:?}", proxy.url())).collect();
    format!(
        r#"
        [session]
        heartbeat_interval = "2s"
        heartbeat_grace = "8s"
        join_rate = {{ per_second = 100000, burst = 100000 }}
        publish_rate = {{ per_second = 100000, burst = 100000 }}
        replay = {{ events_max = 10000, bytes_max = "64 MiB" }}

        [socket]
        outbox_bytes_max = "64 KiB"

        [history]
        events_max = 10000 # history
        age_max = "10m" # history
        bytes_max = "64 MiB"

        [bus]
        last_value_age_max = "1h" # bus

        {more}

        [nats]
        servers = [{servers}]
        deployment = "{DEPLOYMENT}"
        partitions = {PARTITIONS}
        replicas = {replicas}
        idempotency_window = "2m" # nats
        lease = "10s" # nats
        {section}
        "#,
        servers = servers.join(", "),
        more = options.config,
        section = options.section,
    )
}
