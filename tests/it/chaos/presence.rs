//! Who is where, while nodes fail: everybody of a killed node leaves, once; whoever is somewhere else as well stays; after a
//! partition and after any number of reconnects there are no ghosts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::v1;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::fleet::{Fleet, FleetOptions};
use crate::support::proxy::Proxy;
use crate::support::{Client, TENANT, User, user};

const ROOM: &str = "hall";
/// How long a fact may take that nobody measures.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who watches the room, and is in it.
struct Observer {
    client: Client,
    name: String,
    members: BTreeSet<String>,
}

impl Observer {
    async fn at(fleet: &Fleet, gateway: usize) -> Self {
        let name = format!("observer-{gateway}");
        let mut client = fleet.gateways[gateway].connect(user(&name)).await;
        let presence = client.join_to_see(ROOM).await;
        let mut members: BTreeSet<String> = presence.members.into_iter().map(|member| member.user_id).collect();
        // It may come with the next change.
        members.remove(&name);
        Self { client, name, members }
    }

    /// Takes in one change. Whoever comes was not there, and whoever goes was.
    async fn change(&mut self) {
        let Said::PresenceDelta(delta) = self.client.push().await else {
            return;
        };
        let told = delta.joined.into_iter().chain(delta.present);
        for member in told.filter(|member| member.user_id != self.name) {
            let new = self.members.insert(member.user_id.clone());
            assert!(new, "{}: {} comes twice", self.name, member.user_id);
        }
        for gone in delta.left_user_ids {
            assert!(
                self.members.remove(&gone),
                "{}: {gone} goes and was not there",
                self.name
            );
        }
    }

    /// Waits until exactly these are there, beside those who watch.
    async fn until(&mut self, expected: &BTreeSet<String>) {
        let others = |members: &BTreeSet<String>| -> BTreeSet<String> {
            let mut members = members.clone();
            members.retain(|member| !member.starts_with("observer-"));
            members
        };
        let deadline = Instant::now() + PATIENCE;
        while others(&self.members) != *expected {
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = timeout(left, self.change()).await;
            let differ: Vec<_> = others(&self.members)
                .symmetric_difference(expected)
                .take(5)
                .cloned()
                .collect();
            assert!(changed.is_ok(), "{} is wrong about {differ:?}", self.name);
        }
    }
}

async fn fleet(gateways: usize) -> Fleet {
    let config = "[presence]\nleave_grace = \"0s\"".to_owned();
    let options = FleetOptions {
        gateways,
        config,
        ..FleetOptions::default()
    };
    Fleet::on_one(options).await
}

async fn enter(fleet: &Fleet, gateway: usize, user: User) -> Client {
    let mut client = fleet.gateways[gateway].connect(user).await;
    client.join(ROOM).await;
    client
}

async fn observers(fleet: &Fleet) -> Vec<Observer> {
    let mut observers = Vec::new();
    for gateway in 0..fleet.gateways.len() {
        observers.push(Observer::at(fleet, gateway).await);
    }
    observers
}

/// Waits until a gateway lists exactly these, beside those who watch.
async fn until_listed(fleet: &Fleet, gateway: usize, expected: &BTreeSet<String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = v1::ListMembersRequest {
            tenant: TENANT.to_owned(),
            room: ROOM.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let listed = fleet.backend(gateway).rooms.clone().list_members(request).await;
        let listed = listed.map(|listed| listed.into_inner().members).unwrap_or_default();
        let names = listed.into_iter().map(|member| member.user_id);
        let names: BTreeSet<String> = names.filter(|name| !name.starts_with("observer-")).collect();
        if names == *expected {
            return;
        }
        let differ: Vec<_> = names.symmetric_difference(expected).take(5).collect();
        assert!(Instant::now() < deadline, "gateway {gateway} lists wrongly: {differ:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn node_killed(members: usize) {
    let fleet = fleet(3).await;
    let mut watching = observers(&fleet).await.split_off(1);
    let mut there = Vec::new();
    let mut names = BTreeSet::new();
    for index in 0..members {
        let name = format!("m-{index}");
        there.push(enter(&fleet, 0, user(&name)).await);
        names.insert(name);
    }
    for observer in &mut watching {
        observer.until(&names).await;
    }
    let killed = Instant::now();
    fleet.gateways[0].kill();
    for observer in &mut watching {
        observer.until(&BTreeSet::new()).await;
        let took = killed.elapsed();
        println!(
            "{members} members of a killed node are gone for {} after {took:.1?}",
            observer.name
        );
        // 4 s on a quiet machine.
        assert!(took < Duration::from_secs(15), "{took:?}");
    }
}

/// A user with two tabs at two nodes, one of which is killed.
async fn tabs() {
    let fleet = fleet(3).await;
    let mut observer = Observer::at(&fleet, 2).await;
    let (first, second) = (enter(&fleet, 0, user("ada")).await, enter(&fleet, 1, user("ada")).await);
    let (ben, ada) = (BTreeSet::from(["ben".to_owned()]), BTreeSet::from(["ada".to_owned()]));
    let both = &ben | &ada;
    let other = enter(&fleet, 0, user("ben")).await;
    observer.until(&both).await;
    fleet.gateways[0].kill();
    drop((first, other));
    // Ben shows when the node is known to be gone. Ada never went: the observer would have said that she came twice.
    observer.until(&ada).await;
    second.crash();
    observer.until(&BTreeSet::new()).await;
}

/// A node cut off from NATS, on which somebody goes and somebody comes meanwhile.
async fn parted(seconds: u64) {
    let fleet = fleet(3).await;
    let mut watching = observers(&fleet).await;
    let mut here = enter(&fleet, 0, user("here")).await;
    let leaves = enter(&fleet, 0, user("leaves")).await;
    let mut there = enter(&fleet, 1, user("there")).await;
    let all: BTreeSet<String> = ["here", "leaves", "there"].map(str::to_owned).into();
    for observer in &mut watching {
        observer.until(&all).await;
    }
    let parted = Instant::now();
    fleet.network(0).iter().for_each(Proxy::freeze_both);
    let beyond: BTreeSet<String> = ["there".to_owned()].into();
    for observer in &mut watching[1..] {
        observer.until(&beyond).await;
    }
    println!(
        "members of a parted node are gone elsewhere after {:.1?}",
        parted.elapsed()
    );
    leaves.crash();
    let clients = watching.iter_mut().map(|observer| &mut observer.client);
    let clients = clients.chain([&mut here, &mut there]);
    meanwhile(clients, sleep(Duration::from_secs(seconds))).await;
    let healed = Instant::now();
    fleet.network(0).iter().for_each(Proxy::mend);
    let now: BTreeSet<String> = ["here", "there"].map(str::to_owned).into();
    for observer in &mut watching {
        observer.until(&now).await;
    }
    for gateway in 0..3 {
        until_listed(&fleet, gateway, &now).await;
    }
    println!(
        "after {seconds} s, everybody agrees {:.1?} after the healing",
        healed.elapsed()
    );
    drop((here, there));
}

/// So many reconnects a second, at any node; then quiet: no ghosts.
async fn reconnects(per_second: u32, seconds: u64) {
    let fleet = Arc::new(fleet(3).await);
    let mut watching = observers(&fleet).await;
    let watchers = watching.iter_mut().map(|observer| &mut observer.client);
    let count = meanwhile(watchers, churn(&fleet, per_second, seconds)).await;
    let quiet = Instant::now();
    for observer in &mut watching {
        observer.until(&BTreeSet::new()).await;
    }
    for gateway in 0..3 {
        until_listed(&fleet, gateway, &BTreeSet::new()).await;
    }
    println!(
        "{count} reconnects in {seconds} s: no ghosts {:.1?} after the last",
        quiet.elapsed()
    );
}

/// Of a hundred users somebody comes so many times a second, and goes soon after, with a word or without. Answers how many
/// came.
async fn churn(fleet: &Arc<Fleet>, per_second: u32, seconds: u64) -> u32 {
    let mut random = StdRng::seed_from_u64(7);
    let mut coming = interval(Duration::from_secs(1) / per_second);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut visits = JoinSet::new();
    let mut count = 0;
    while Instant::now() < until {
        coming.tick().await;
        count += 1;
        let (gateway, stays) = (random.random_range(0..3), random.random_range(10..2_000));
        let (fleet, name) = (Arc::clone(fleet), format!("m-{}", random.random_range(0..100)));
        visits.spawn(async move {
            let mut client = enter(&fleet, gateway, user(&name)).await;
            sleep(Duration::from_millis(stays)).await;
            if stays % 2 == 0 {
                client.leave(ROOM).await;
            }
            client.crash();
        });
    }
    visits.join_all().await;
    count
}

/// Does something while these go on reading.
async fn meanwhile<T>(clients: impl Iterator<Item = &mut Client>, something: impl Future<Output = T>) -> T {
    tokio::select! {
        done = something => done,
        _ = join_all(clients.map(Client::read_on)) => unreachable!("whoever reads on does so for ever"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_killed_node_leave_everywhere_once() {
    node_killed(60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_at_another_node_as_well_stays_when_one_is_killed() {
    tabs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_agree_who_is_there_after_a_partition() {
    parted(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_no_ghosts_after_reconnects() {
    reconnects(50, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn long_presence() {
    node_killed(500).await;
    parted(60).await;
    reconnects(100, 30).await;
}
