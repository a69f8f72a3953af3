//! What goes wrong, when it is asked to. Each fault ends mended.

use std::fmt::{Display, Formatter};
use std::time::Duration;

use futures_util::future::join_all;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::changes::{self, Change};
use super::fleet::{Broker, Fleet, PARTITIONS};
use super::hands::{Hand, Streams};
use crate::support::eventually;
use crate::support::proxy::{Proxy, Way};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing, but that some clients read slowly, as in every round.
    Nothing,
    /// A gateway is killed (`SIGKILL`) and started again.
    GatewayKilled,
    /// A gateway is stopped where it stands for so many seconds (`SIGSTOP`).
    GatewayPaused(u64),
    /// All gateways, one after the other, are asked to end (`SIGTERM`) and started again.
    RollingRestart,
    /// Between a gateway and NATS nothing passes for so many seconds, and nobody is told.
    Partition(u64),
    /// The same, one way only.
    DeafGateway(u64),
    /// The same, the other way only.
    MuteGateway(u64),
    /// Every packet between a gateway's network namespace and NATS is lost for so many seconds.
    PacketsLost(u64),
    /// The same, one way only.
    PacketsLostIn(u64),
    /// The same, the other way only.
    PacketsLostOut(u64),
    /// The connections of a gateway to NATS are reset, three times.
    ConnectionsReset,
    /// NATS is killed and started again.
    NatsKilled,
    /// NATS is stopped where it stands for so many seconds.
    NatsPaused(u64),
    /// Another stream takes all storage that is not set aside for this deployment's, for so many seconds.
    StorageTaken(u64),
    /// The disk of the first server is full for so many seconds. Then there is space again, and an operator starts the server
    /// anew, as it asks for: by itself it writes no more.
    DiskFull(u64),
    /// The leader of a stream is killed, and started again when there is another.
    LeaderKilled,
    /// The leaders of all streams hand over.
    LeadersStepDown,
    /// The wall clock of a gateway jumps ahead by so many seconds, stays there while the gateway is killed and started again,
    /// jumps behind by as many while its connections to NATS are reset, and then is right.
    ClockJumps(u64),
    /// A server hands over its leaderships and its clients and ends; then it is started again.
    LameDuck,
    /// An operator does something to streams.
    Hand(Streams, Hand),
    /// A setting is raised on one gateway after the other, and lowered again.
    Changed(Change),
    /// A gateway with other partitions tries to be one of them.
    Differs,
}

impl Fault {
    /// What is tried on one server.
    pub const ON_ONE: [Self; 11] = [
        Self::Nothing,
        Self::GatewayKilled,
        Self::GatewayPaused(5),
        Self::RollingRestart,
        Self::Partition(5),
        Self::DeafGateway(5),
        Self::MuteGateway(5),
        Self::ConnectionsReset,
        Self::NatsKilled,
        Self::NatsPaused(5),
        Self::StorageTaken(3),
    ];

    /// What is tried on a cluster of three.
    pub const ON_THREE: [Self; 9] = [
        Self::LeaderKilled,
        Self::LeadersStepDown,
        Self::LameDuck,
        Self::NatsPaused(5),
        Self::GatewayKilled,
        Self::Partition(14),
        Self::RollingRestart,
        Self::ConnectionsReset,
        Self::GatewayPaused(40),
    ];

    /// What is tried where network namespaces are allowed.
    pub const IN_NAMESPACE: [Self; 3] = [Self::PacketsLost(8), Self::PacketsLostIn(8), Self::PacketsLostOut(8)];

    /// What is tried where gateways have wall clocks of their own.
    pub const WITH_CLOCKS: [Self; 2] = [Self::ClockJumps(90), Self::ClockJumps(3600)];

    /// What is tried where the first server has a small disk.
    pub const ON_SMALL_DISK: [Self; 1] = [Self::DiskFull(5)];

    /// What operators do to streams, on one server.
    pub fn by_hand() -> Vec<Self> {
        let laid = |streams| Hand::ALL.map(|hand| Self::Hand(streams, hand));
        let all = Streams::ALL.into_iter().flat_map(laid);
        all.chain([Self::Hand(Streams::Histories, Hand::RoomsPurged)]).collect()
    }

    /// What is deployed, on one server.
    pub fn by_deployment() -> Vec<Self> {
        let changed = Change::ALL.map(Self::Changed).into_iter();
        changed.chain([Self::Differs]).collect()
    }

    /// Whether rooms lose older events while the streams keep those of other rooms.
    pub fn cuts_rooms(self) -> bool {
        match self {
            Self::Hand(_, hand) => hand == Hand::RoomsPurged,
            Self::Changed(change) => change.cuts(),
            _ => false,
        }
    }

    /// Does it, and mends it.
    pub async fn happen(self, fleet: &Fleet, random: &mut StdRng) {
        let victim = random.random_range(0..fleet.gateways.len());
        let server = random.random_range(0..fleet.broker.servers().len());
        let gateway = &fleet.gateways[victim];
        match self {
            Self::Nothing => sleep(Duration::from_secs(2)).await,
            Self::GatewayKilled => {
                gateway.kill();
                sleep(Duration::from_millis(random.random_range(0..2000))).await;
                gateway.restart().await;
            }
            Self::GatewayPaused(seconds) => {
                gateway.pause().await;
                sleep(Duration::from_secs(seconds)).await;
                gateway.resume();
            }
            Self::RollingRestart => {
                for gateway in &fleet.gateways {
                    gateway.stop().await;
                    gateway.restart().await;
                }
            }
            Self::Partition(seconds) => part(fleet, victim, seconds, &[Way::ToClient, Way::ToServer]).await,
            Self::DeafGateway(seconds) => part(fleet, victim, seconds, &[Way::ToClient]).await,
            Self::MuteGateway(seconds) => part(fleet, victim, seconds, &[Way::ToServer]).await,
            Self::PacketsLost(seconds) => packets_lost(fleet, seconds, "both").await,
            Self::PacketsLostIn(seconds) => packets_lost(fleet, seconds, "in").await,
            Self::PacketsLostOut(seconds) => packets_lost(fleet, seconds, "out").await,
            Self::ConnectionsReset => {
                for _ in 0..3 {
                    fleet.network(victim).iter().for_each(Proxy::reset);
                    sleep(Duration::from_millis(random.random_range(100..1500))).await;
                }
            }
            Self::NatsKilled => {
                let server = &fleet.broker.servers()[server];
                server.kill();
                sleep(Duration::from_millis(random.random_range(0..4000))).await;
                server.restart().await;
            }
            Self::NatsPaused(seconds) => {
                let server = &fleet.broker.servers()[server];
                server.pause().await;
                sleep(Duration::from_secs(seconds)).await;
                server.resume();
            }
            Self::StorageTaken(seconds) => {
                let filler = fleet.fill_up().await;
                sleep(Duration::from_secs(seconds)).await;
                filler.empty().await;
            }
            Self::ClockJumps(seconds) => clock_jumps(fleet, victim, Duration::from_secs(seconds)).await,
            Self::DiskFull(seconds) => disk_full(fleet, seconds).await,
            Self::LeaderKilled => leader_killed(fleet, random.random_range(0..PARTITIONS)).await,
            Self::LeadersStepDown => {
                join_all((0..PARTITIONS).map(|partition| fleet.step_down(partition))).await;
                sleep(Duration::from_secs(1)).await;
            }
            Self::Hand(streams, hand) => {
                hand.lay_on(streams, fleet).await;
                // Long enough for every node to have looked at everything.
                sleep(Duration::from_secs(4)).await;
                if streams == Streams::ControlLog {
                    // One that was not there before: what is revoked is refused there as well.
                    gateway.stop().await;
                    gateway.restart().await;
                }
            }
            Self::Changed(change) => change.roll(fleet).await,
            Self::Differs => changes::differ(gateway).await,
            Self::LameDuck => {
                let server = &fleet.broker.servers()[server];
                server.lame_duck();
                server.ended().await;
                server.restart().await;
            }
        }
    }
}

async fn part(fleet: &Fleet, gateway: usize, seconds: u64, ways: &[Way]) {
    for proxy in fleet.network(gateway) {
        for &way in ways {
            proxy.freeze(way);
        }
    }
    sleep(Duration::from_secs(seconds)).await;
    fleet.network(gateway).iter().for_each(Proxy::mend);
}

async fn clock_jumps(fleet: &Fleet, victim: usize, by: Duration) {
    const WHILE: Duration = Duration::from_secs(2);
    let (gateway, clock) = (&fleet.gateways[victim], &fleet.clocks[victim]);
    clock.ahead(by);
    sleep(WHILE).await;
    gateway.kill();
    gateway.restart().await;
    sleep(WHILE).await;
    clock.behind(by);
    fleet.network(victim).iter().for_each(Proxy::reset);
    sleep(WHILE).await;
    clock.mend();
}

async fn disk_full(fleet: &Fleet, seconds: u64) {
    let disk = fleet.disk.as_ref().expect("the first server has one");
    let server = &fleet.broker.servers()[0];
    let found = || server.log().matches("no space left on device").count();
    let before = found();
    disk.fill();
    eventually("the server to find its disk full", || async {
        (found() > before).then_some(())
    })
    .await;
    sleep(Duration::from_secs(seconds)).await;
    disk.relieve();
    server.stop().await;
    server.restart().await;
}

async fn packets_lost(fleet: &Fleet, seconds: u64, way: &str) {
    let namespace = fleet.namespace.as_ref().expect("the first gateway is in one");
    namespace.lose(way);
    sleep(Duration::from_secs(seconds)).await;
    namespace.mend();
}

async fn leader_killed(fleet: &Fleet, partition: u16) {
    let Broker::Three(cluster) = &fleet.broker else {
        panic!("a server alone has no other to lead");
    };
    let stream = Fleet::stream(partition);
    let leader = cluster.stream_leader(&stream).await;
    cluster.server(leader).kill();
    cluster.stream_leader(&stream).await;
    sleep(Duration::from_secs(1)).await;
    cluster.server(leader).restart().await;
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("none (slow clients)"),
            Self::GatewayKilled => f.write_str("gateway kill -9"),
            Self::GatewayPaused(seconds) => write!(f, "gateway paused {seconds} s"),
            Self::RollingRestart => f.write_str("rolling restart"),
            Self::Partition(seconds) => write!(f, "parted from NATS {seconds} s"),
            Self::DeafGateway(seconds) => write!(f, "hears no NATS {seconds} s"),
            Self::MuteGateway(seconds) => write!(f, "not heard by NATS {seconds} s"),
            Self::PacketsLost(seconds) => write!(f, "packets lost {seconds} s, both ways"),
            Self::PacketsLostIn(seconds) => write!(f, "packets lost {seconds} s, to the gateway"),
            Self::PacketsLostOut(seconds) => write!(f, "packets lost {seconds} s, from the gateway"),
            Self::ConnectionsReset => f.write_str("NATS connections reset"),
            Self::NatsKilled => f.write_str("NATS kill -9"),
            Self::NatsPaused(seconds) => write!(f, "NATS paused {seconds} s"),
            Self::StorageTaken(seconds) => write!(f, "NATS storage taken {seconds} s"),
            Self::LeaderKilled => f.write_str("stream leader kill -9"),
            Self::ClockJumps(seconds) => write!(f, "clock jumps {seconds} s, ahead and behind"),
            Self::DiskFull(seconds) => write!(f, "disk of NATS full {seconds} s"),
            Self::LeadersStepDown => f.write_str("leaders step down"),
            Self::LameDuck => f.write_str("lame duck"),
            Self::Hand(streams, hand) => write!(f, "{streams} {hand}"),
            Self::Changed(change) => write!(f, "{change} changed, up and down"),
            Self::Differs => f.write_str("a gateway with other partitions"),
        }
    }
}
