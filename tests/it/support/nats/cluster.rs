//! Three servers that know each other.

use std::net::SocketAddr;

use serde_json::Value;

use super::address::Address;
use super::options::NatsOptions;
use super::server::{NatsServer, until};

/// As many as stay able to decide when one is lost.
const SERVERS: usize = 3;

/// A cluster of three servers with replicated streams.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// The newest release, with nothing special.
    pub async fn start() -> Self {
        Self::start_with(NatsOptions::default()).await
    }

    /// Three servers. They know each other and have a leader for their streams when this returns.
    pub async fn start_with(options: NatsOptions) -> Self {
        Self::start_each(std::array::from_fn(|_| options.clone())).await
    }

    /// The same, each server with options of its own.
    pub async fn start_each(options: [NatsOptions; SERVERS]) -> Self {
        let addresses: Vec<_> = (0..SERVERS).map(|_| Address::claim()).collect();
        let peers: Vec<_> = addresses.iter().map(Address::routes).collect();
        let servers = addresses.into_iter().zip(options).enumerate();
        let cluster = Self {
            servers: servers
                .map(|(number, (address, options))| NatsServer::launch(format!("n{number}"), address, options, &peers))
                .collect(),
        };
        cluster.ready().await;
        cluster
    }

    /// Waits until every server runs, serves, and follows the same leader.
    pub async fn ready(&self) {
        for server in &self.servers {
            server.ready().await;
        }
        until(
            || format!("a leader that all follow\n{}", self.logs()),
            || async { self.is_whole().await.then_some(()) },
        )
        .await;
    }

    /// For clients: the addresses of all servers, with commas between.
    pub fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// For clients, and for proxies before them.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(NatsServer::address).collect()
    }

    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    pub fn server(&self, number: usize) -> &NatsServer {
        &self.servers[number]
    }

    /// Waits until all servers that run name the same one of them as the leader of what they decide together; which.
    pub async fn meta_leader(&self) -> usize {
        until(|| format!("a leader\n{}", self.logs()), || self.agreed_leader()).await
    }

    /// Waits until a stream has a leader that runs and knows itself to be it; which.
    pub async fn stream_leader(&self, stream: &str) -> usize {
        until(
            || format!("a leader of the stream {stream}\n{}", self.logs()),
            || self.leads(stream),
        )
        .await
    }

    /// Waits until the stream has a leader and every replica has all of it.
    pub async fn stream_whole(&self, stream: &str) {
        until(
            || format!("all replicas of the stream {stream}\n{}", self.logs()),
            || async {
                let leader = self.leads(stream).await?;
                let found = stream_of(&self.servers[leader], stream).await?;
                let replicas = found.pointer("/cluster/replicas")?.as_array()?;
                replicas.iter().all(is_current).then_some(())
            },
        )
        .await;
    }

    async fn leads(&self, stream: &str) -> Option<usize> {
        for (number, server) in self.servers.iter().enumerate() {
            if let Some(found) = stream_of(server, stream).await
                && found.pointer("/cluster/leader").and_then(Value::as_str) == Some(server.name())
            {
                return Some(number);
            }
        }
        None
    }

    /// Each server knows the leader, and the leader knows each other server.
    async fn is_whole(&self) -> bool {
        let Some(leader) = self.agreed_leader().await else {
            return false;
        };
        let Some(known) = self.servers[leader].monitor("/jsz").await else {
            return false;
        };
        let replicas = known.pointer("/meta_cluster/replicas").and_then(Value::as_array);
        replicas.is_some_and(|replicas| replicas.len() == SERVERS - 1 && replicas.iter().all(is_current))
    }

    /// The server that all who can answer name as the leader, if they are most of the cluster and it is among them.
    async fn agreed_leader(&self) -> Option<usize> {
        let mut answering = Vec::new();
        let mut names = Vec::new();
        for (number, server) in self.servers.iter().enumerate().filter(|(_, server)| answers(server)) {
            let cluster = server.monitor("/jsz").await?;
            names.push(cluster.pointer("/meta_cluster/leader")?.as_str()?.to_owned());
            answering.push(number);
        }
        let most = answering.len() > SERVERS / 2;
        let first = names
            .first()
            .filter(|first| most && names.iter().all(|name| name == *first))?;
        answering
            .into_iter()
            .find(|&number| self.servers[number].name() == first)
    }

    fn logs(&self) -> String {
        let logs = self
            .servers
            .iter()
            .map(|server| format!("{}:\n{}", server.name(), server.log()));
        logs.collect()
    }
}

/// A stream as the server sees it.
async fn stream_of(server: &NatsServer, stream: &str) -> Option<Value> {
    if !answers(server) {
        return None;
    }
    let all = server.monitor("/jsz?accounts=true&streams=true").await?;
    let accounts = all.get("account_details")?.as_array()?.iter();
    let mut streams = accounts
        .filter_map(|account| account.get("stream_detail")?.as_array())
        .flatten();
    streams
        .find(|found| found.get("name").and_then(Value::as_str) == Some(stream))
        .cloned()
}

/// Whether it is worth asking.
fn answers(server: &NatsServer) -> bool {
    server.is_running() && !server.is_paused()
}

fn is_current(replica: &Value) -> bool {
    let is = |name| replica.get(name).and_then(Value::as_bool).unwrap_or(false);
    is("current") && !is("offline")
}
