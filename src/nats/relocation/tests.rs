use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use futures_util::future::{join, join3};
use prost::Message as _;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::nats::{Config, Nats, Subjects, Subscription};
use crate::proto::node_v1::Heartbeat;
use crate::testing::nats::{NatsCluster, NatsServer};

/// The timeout of a fact.
const PATIENCE: Duration = Duration::from_secs(30);

/// The number of moves while all peers publish.
const MOVES: usize = 8;

/// The pause between two events of a publisher.
const PAUSE: Duration = Duration::from_millis(1);

const END: &str = "end";

/// A node that hears and answers heartbeats.
struct Peer {
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    _running: DropGuard,
}

impl Peer {
    async fn join(config: &Config, name: &str) -> Self {
        let nats = Nats::connect(config).await.unwrap();
        let nodes = Nodes::new(Arc::clone(&nats), name);
        let (stop, listening) = (CancellationToken::new(), nodes.listen().await.unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(Arc::clone(&nodes).run(listening, stop.clone()));
        Self {
            nats,
            nodes,
            _running: stop.drop_guard(),
        }
    }

    async fn knows(&self, count: usize) {
        until("the others to be known", async || self.nodes.live().len() == count).await;
    }

    /// Publishes numbers until `stop`, and then the end. Returns their count.
    async fn publish(&self, subject: &str, name: &str, stop: &AtomicBool) -> usize {
        let mut count = 0;
        let say = async |text: String| {
            let order = self.nats.control().in_order().await;
            let payload = format!("{name} {text}").into();
            order.client().publish(subject.to_owned(), payload).await.unwrap();
        };
        while !stop.load(Ordering::SeqCst) {
            say(count.to_string()).await;
            count += 1;
            tokio::time::sleep(PAUSE).await;
        }
        say(END.to_owned()).await;
        count
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited for {what}"));
}

/// Starts a deployment, with streams of its names.
async fn deployment(urls: &str) -> Config {
    let config = Config {
        servers: urls.split(',').map(str::to_owned).collect(),
        deployment: format!("t{:016x}", rand::random::<u64>()),
        partitions: 1,
        ..Config::default()
    };
    let subjects = Subjects::new(&config.deployment).unwrap();
    let context = jetstream::new(async_nats::connect(&config.servers).await.unwrap());
    let others = ['c', 'm', 'v'].map(|letter| (subjects.stream_of(letter), subjects.all_of(letter)));
    for (name, subject) in others
        .into_iter()
        .chain([(subjects.stream_of_partition(0), subjects.histories(0))])
    {
        let stream = stream::Config {
            name,
            subjects: vec![subject],
            ..stream::Config::default()
        };
        until("a stream", async || context.create_stream(stream.clone()).await.is_ok()).await;
    }
    config
}

fn server_of(link: &ManagedConnection) -> String {
    link.client().server_info().server_id
}

/// Moves, and checks that nothing is missed.
async fn moves(peer: &Peer, link: &ManagedConnection) {
    let (from, connects) = (server_of(link), link.connects());
    let old = relocate(&peer.nodes, link).await.unwrap();
    assert_ne!(server_of(link), from);
    assert_eq!(link.connects(), connects, "nothing was missed");
    old.client.drain().await.unwrap();
}

/// Reads until both publishers have ended, and returns the numbers of each.
async fn read(mut messages: Subscription) -> [Vec<usize>; 2] {
    let (mut read, mut ends) = ([Vec::new(), Vec::new()], 0);
    while ends < 2 {
        let message = timeout(PATIENCE, messages.next()).await.unwrap().unwrap();
        let text = std::str::from_utf8(&message.payload).unwrap();
        let (name, number) = text.split_once(' ').unwrap();
        if number == END {
            ends += 1;
        } else {
            read[usize::from(name == "b")].push(number.parse().unwrap());
        }
    }
    read
}

#[track_caller]
fn assert_all(read: &[usize], count: usize) {
    for (place, number) in read.iter().enumerate() {
        let around = &read[place.saturating_sub(3)..(place + 4).min(read.len())];
        assert_eq!(*number, place, "{around:?}");
    }
    assert_eq!(read.len(), count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_while_links_move_again_and_again() {
    let cluster = NatsCluster::start().await;
    let config = deployment(&cluster.url()).await;
    let (a, b) = join(Peer::join(&config, "a"), Peer::join(&config, "b")).await;
    join(a.knows(1), b.knows(1)).await;
    let subject = format!("{}.l.room.e", config.deployment);
    let (at_a, at_b) = (a.nats.fanout(), b.nats.fanout());
    let pattern = format!("{}.l.room.*", config.deployment);
    let (at_a, at_b) = join(at_a.subscribe(pattern.clone()), at_b.subscribe(pattern)).await;
    for peer in [&a, &b] {
        let fanout = peer.nats.fanout().client();
        assert!(roll_call::is_answered(&peer.nodes, &fanout, &fanout, PATIENCE).await);
    }
    let stop = AtomicBool::new(false);
    let story = async {
        for _ in 0..MOVES {
            moves(&a, a.nats.fanout()).await;
            moves(&b, b.nats.control()).await;
            // All at once, as when a server ends that serves them all.
            let both = join(moves(&a, a.nats.control()), moves(&b, b.nats.fanout()));
            let all = join3(moves(&a, a.nats.fanout()), both, moves(&b, b.nats.control()));
            Box::pin(all).await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    let publishing = join(a.publish(&subject, "a", &stop), b.publish(&subject, "b", &stop));
    let reading = join(read(at_a.unwrap()), read(at_b.unwrap()));
    let ((), (by_a, by_b), (at_a, at_b)) = Box::pin(join3(story, publishing, reading)).await;
    for read in [at_a, at_b] {
        assert_all(&read[0], by_a);
        assert_all(&read[1], by_b);
    }
}

/// Joins a node that sends heartbeats and answers none.
async fn mute(peer: &Peer) {
    let heartbeat = Heartbeat {
        node_id: "mute".to_owned(),
        incarnation: 7,
        sequence: 1,
        ..Heartbeat::default()
    };
    let client = peer.nats.control().client();
    let payload = heartbeat.encode_to_vec().into();
    client
        .publish(peer.nats.subjects().heartbeats(), payload)
        .await
        .unwrap();
    peer.knows(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_moved_before_all_had_answered_counts_as_made_anew() {
    let cluster = NatsCluster::start().await;
    let config = deployment(&cluster.url()).await;
    let peer = Peer::join(&config, "a").await;
    mute(&peer).await;
    let link = peer.nats.control();
    let connects = link.connects();
    relocate(&peer.nodes, link).await.unwrap();
    assert_eq!(link.connects(), connects + 1, "something may have been missed");
}

/// Returns the number of the cluster's connections with this name.
async fn connections(cluster: &NatsCluster, name: &str) -> usize {
    let mut count = 0;
    for server in cluster.servers() {
        let Some(all) = server.monitor("/connz").await else {
            continue;
        };
        let all = all.get("connections").and_then(Value::as_array).cloned();
        let of_name = |connection: &&Value| connection.get("name").and_then(Value::as_str) == Some(name);
        count += all.iter().flatten().filter(of_name).count();
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_while_it_should_move_comes_back_by_itself() {
    let cluster = NatsCluster::start().await;
    let config = deployment(&cluster.url()).await;
    let peer = Peer::join(&config, "a").await;
    mute(&peer).await;
    let link = peer.nats.fanout();
    let (line, connects) = (link.line().number, link.connects());
    let subject = format!("{}.l.room.e", config.deployment);
    let mut messages = link.subscribe(subject.clone()).await.unwrap();
    let breaks = async {
        until("the new connection", async || {
            connections(&cluster, "roomcast fanout").await == 2
        })
        .await;
        link.client().force_reconnect().await.unwrap();
    };
    let (moved, ()) = join(relocate(&peer.nodes, link), breaks).await;
    assert!(matches!(moved, Err(Stuck::Broken)), "{moved:?}");
    assert_eq!((link.line().number, link.connects()), (line, connects + 1));
    until("one connection", async || {
        connections(&cluster, "roomcast fanout").await == 1
    })
    .await;
    let client = link.client();
    for number in ["1", "2"] {
        client.publish(subject.clone(), number.into()).await.unwrap();
        let message = timeout(PATIENCE, messages.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, number);
    }
}

#[tokio::test]
async fn there_is_nowhere_to_go_from_the_only_server() {
    let server = NatsServer::start().await;
    let config = deployment(&server.url()).await;
    let peer = Peer::join(&config, "a").await;
    let stuck = relocate(&peer.nodes, peer.nats.control()).await.unwrap_err();
    assert!(matches!(stuck, Stuck::Alone), "{stuck}");
}
