mod asks;
mod loss;
mod node;
mod silence;

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use self::node::{Member, within};
use crate::cluster::{Cluster, ClusterError, Found, NotDone, Place, Revoke};
use crate::error::CloseReason;
use crate::event::{Event, EventId, EventName, Except, Payload, Retention, Timestamp};
use crate::hub::{Audience, JoinRefusal, Outcome, Verb};
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::notice::Notice;
use crate::policy::{Policy as _, Revocation, RevocationId, RevocationScope, RevocationState, RevocationSubject};
use crate::proto::node_v1::NodeOrder;
use crate::room::{Room, Tenant};
use crate::testing::nats::NatsServer;
use crate::testing::proxy::Proxy;

const TTL: Duration = Duration::from_secs(60);

fn ada() -> UserId {
    UserId::parse("ada").unwrap()
}

fn all_of_ada() -> Audience {
    Audience::User(Tenant::default(), ada())
}

fn connection(id: ConnectionId) -> Audience {
    Audience::Connection(Tenant::default(), id)
}

fn room(name: &str) -> Room {
    Room::parse(&Tenant::default(), name).unwrap()
}

/// What takes `ada` out of a room.
fn revoke(name: &str) -> Revoke {
    Revoke {
        revocation: Revocation {
            tenant: Tenant::default(),
            subject: RevocationSubject::User(ada()),
            issued_before: None,
            scope: RevocationScope::Room(room(name)),
        },
        ttl: TTL,
        notice: Notice::parse("", "left").unwrap(),
    }
}

fn greeting() -> Arc<Event> {
    Arc::new(Event {
        room: Room::nameless(&Tenant::default()),
        id: EventId::random(),
        name: EventName::parse("greeting").unwrap(),
        retention: Retention::Ephemeral,
        link: None,
        time: Timestamp::now(),
        actor: None,
        except: Except::NOBODY,
        payload: Payload::Json(Json::parse("{}".to_owned()).unwrap()),
    })
}

async fn pair(server: &NatsServer) -> (Member, Member) {
    let (a, b) = tokio::join!(Member::start("a", server), Member::start("b", server));
    a.sees(1).await;
    b.sees(1).await;
    (a, b)
}

/// Orders something through a node; answers how many connections it came to.
async fn order(through: &Member, audience: Audience, verb: Verb) -> Result<u32, ClusterError> {
    let outcome = through.cluster.order(audience.order(verb)).await;
    outcome.map(|outcome| outcome.connections)
}

fn notice(message: &str) -> Notice {
    Notice::parse("", message).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_reach_connections_on_the_other_node() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    a.shard.connect("ada");
    let there = b.shard.connect("ada");
    b.shard.connect("ben");
    let cluster: &Cluster = &a.cluster;
    assert_eq!(order(&a, all_of_ada(), Verb::Count).await, Ok(2));
    let found = cluster.find(&connection(there)).await.unwrap();
    let Some(Found { identity, place }) = found else {
        panic!("not found")
    };
    assert_eq!((identity.user.clone(), place), (ada(), Place::There(b.incarnation())));
    let greet = connection(there).order(Verb::Send(greeting()));
    assert_eq!(cluster.order_at(place, greet).await, Ok(Outcome::of(1)));
    let join = Verb::Join(node::permit(room("r")));
    let joined = cluster.order(all_of_ada().order(join.clone())).await.unwrap();
    assert_eq!((joined.connections, joined.refused), (2, None));
    let leave = Verb::Leave(room("r"), notice("bye"));
    assert_eq!(order(&a, all_of_ada(), leave).await, Ok(2));
    b.shard.refuse_joins(JoinRefusal::RoomLimit);
    let joined = cluster.order(connection(there).order(join)).await.unwrap();
    assert_eq!((joined.connections, joined.refused), (0, Some(JoinRefusal::RoomLimit)));
    let disconnect = Verb::Disconnect(CloseReason::Kicked, Notice::default());
    assert_eq!(order(&a, connection(there), disconnect).await, Ok(1));
    assert_eq!(
        b.shard.told(),
        ["send", "join r", "leave r bye", "disconnect kicked "],
        "each once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_no_node_has_is_not_found_and_a_silent_node_is_named() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    let nobody = connection(ConnectionId::random());
    assert_eq!(a.cluster.find(&nobody).await, Ok(None));
    b.shard.stop_answering();
    let silent = a.cluster.find(&nobody).await;
    assert_eq!(silent, Err(ClusterError::Silent(vec!["b".into()])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_in_force_on_every_node_when_it_returns_and_on_those_that_come_later() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    a.shard.connect("ada");
    b.shard.connect("ada");
    let revoked = a.cluster.revoke(revoke("r")).await.unwrap().carried;
    assert_eq!(
        (revoked.confirmed.len(), revoked.unconfirmed.len()),
        (2, 0),
        "{revoked:?}"
    );
    assert_eq!(revoked.memberships, 2);
    for node in [&a, &b] {
        assert!(node.shuts_out("r"));
        assert!(!node.shuts_out("s"));
        assert_eq!(node.shard.told(), ["revoke left"]);
    }
    let late = Member::start("c", &server).await;
    assert!(late.shuts_out("r"));
    assert!(late.lease.holds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_released_its_lease_is_not_waited_for() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    b.end().await;
    // Waits for the record of the end to be read, which comes before the withdrawal's.
    let revoked = within("the revocation", a.cluster.revoke(revoke("r")))
        .await
        .unwrap()
        .carried;
    assert_eq!((revoked.confirmed, revoked.unconfirmed), (vec!["a".to_owned()], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_confirm_is_named_once_its_lease_has_run_out() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    b.shard.stop_answering();
    let revoked = a.cluster.revoke(revoke("r")).await.unwrap().carried;
    assert_eq!(
        (revoked.confirmed, revoked.unconfirmed),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
    assert!(!b.lease.holds() && a.lease.holds());
    // It goes on as soon as it has carried out what it missed.
    b.shard.answer_again();
    within("the lease", b.lease.held()).await;
    assert!(b.shuts_out("r"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_may_deliver_until_its_lease_ends_and_one_that_ends_may_not() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let a = Member::start("a", &server).await;
    let b = Member::with_lease("b", proxy.url(), Duration::from_secs(8)).await;
    let c = Member::start("c", &server).await;
    a.sees(2).await;
    c.end().await;
    proxy.freeze_both();
    a.is_left_alone().await;
    // Asked in this order: what holds afterwards has held before.
    let hears_all = a.hears_all();
    assert!(
        !hears_all || !b.lease.holds(),
        "a stopped node is forgotten while it may deliver"
    );
    within("the end of the lease", async {
        while !a.hears_all() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!b.lease.holds());
    proxy.mend();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_leases_lapse_and_nothing_is_promised() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    server.kill();
    within("the lease to lapse", async {
        while a.lease.holds() || b.lease.holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(a.cluster.revoke(revoke("r")).await.is_err());
    server.restart().await;
    within("the leases", async { tokio::join!(a.lease.held(), b.lease.held()) }).await;
    let revoked = within("the revocation", a.cluster.revoke(revoke("r")))
        .await
        .unwrap()
        .carried;
    assert_eq!(revoked.confirmed.len(), 2, "{revoked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_comes_again_is_answered_and_not_carried_out_again() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    b.shard.connect("ada");
    let leave = Verb::Leave(room("r"), Notice::default());
    let order = super::wire::order(&all_of_ada().order(leave));
    let order = NodeOrder {
        id: super::wire::id_bytes(7),
        sender: a.incarnation(),
        traceparent: String::new(),
        order: Some(order),
    };
    let client = a.nats.control().client();
    for _ in 0..3 {
        let subject = a.nats.subjects().node(b.incarnation());
        let answer = client.request(subject, order.encode_to_vec().into()).await.unwrap();
        let answer = crate::proto::node_v1::NodeAnswer::decode(&*answer.payload).unwrap();
        assert_eq!(answer.sender, b.incarnation());
    }
    assert_eq!(b.shard.told(), ["leave r "]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_counted_and_changes_nothing() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    let client = a.nats.control().client();
    let subjects = [
        a.nats.subjects().all_nodes(),
        a.nats.subjects().command("x"),
        format!("{}.o.x", b.nats.subjects().inbox()),
    ];
    for subject in subjects {
        client.publish(subject, "junk".into()).await.unwrap();
    }
    within("three to be counted", async {
        while b.peers.ignored().total() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(a.cluster.revoke(revoke("r")).await.unwrap().carried.confirmed.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_access_is_back_on_every_node_when_the_call_returns() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    let revoked = a.cluster.revoke(revoke("r")).await.unwrap();
    for node in [&b, &a] {
        // Again is no error: a call may be repeated.
        let carried = node.cluster.restore(Tenant::default(), revoked.id).await.unwrap();
        assert_eq!((carried.confirmed.len(), carried.unconfirmed.len()), (2, 0));
        assert!(!a.shuts_out("r") && !b.shuts_out("r"));
    }
    let late = Member::start("c", &server).await;
    assert!(!late.shuts_out("r"));
    let other = RevocationId::from_bits(revoked.id.bits() + 1);
    let elsewhere = Tenant::parse("elsewhere").unwrap();
    for (tenant, id) in [(Tenant::default(), other), (elsewhere, revoked.id)] {
        assert_eq!(late.cluster.restore(tenant, id).await, Err(NotDone::NotFound));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_repeated_is_prolonged_and_restored_as_one() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    let first = a.cluster.revoke(revoke("r")).await.unwrap();
    let longer = Revoke {
        ttl: TTL * 2,
        ..revoke("r")
    };
    let again = b.cluster.revoke(longer).await.unwrap();
    assert_eq!(again.id, first.id);
    let find = |node: &Member| node.policy.revocations().find(&Tenant::default(), first.id);
    let Some(RevocationState::InForce(entry)) = find(&a) else {
        panic!("not in force")
    };
    let length = entry.expires.0 - entry.created.0;
    assert!(length >= 119_000, "{length} ms");
    assert_eq!(find(&a), find(&b));
    b.cluster.restore(Tenant::default(), first.id).await.unwrap();
    assert!(!a.shuts_out("r") && !b.shuts_out("r"));
    let anew = a.cluster.revoke(revoke("r")).await.unwrap();
    assert_ne!(anew.id, first.id);
    assert!(a.shuts_out("r") && b.shuts_out("r"));
}

/// Whichever is stored first: when both have returned, access is withdrawn or it was given back after it was withdrawn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_races_a_revocation_leaves_no_revocation_without_effect() {
    let server = NatsServer::start().await;
    let (a, b) = pair(&server).await;
    for turn in 0..20 {
        let first = a.cluster.revoke(revoke("r")).await.unwrap();
        let (restored, again) = tokio::join!(
            b.cluster.restore(Tenant::default(), first.id),
            a.cluster.revoke(revoke("r"))
        );
        restored.unwrap();
        let again = again.unwrap();
        let is_out = again.id != first.id;
        assert_eq!((a.shuts_out("r"), b.shuts_out("r")), (is_out, is_out), "turn {turn}");
        if is_out {
            b.cluster.restore(Tenant::default(), again.id).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_confirm_a_restore_is_named_and_serves_nobody() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let a = Member::start("a", &server).await;
    let b = Member::with_lease("b", proxy.url(), Duration::from_secs(5)).await;
    a.sees(1).await;
    let revoked = a.cluster.revoke(revoke("r")).await.unwrap();
    proxy.freeze_both();
    let carried = a.cluster.restore(Tenant::default(), revoked.id).await.unwrap();
    assert_eq!(carried.unconfirmed, ["b"]);
    assert!(!b.lease.holds() && b.shuts_out("r"));
    proxy.mend();
    within("the lease", b.lease.held()).await;
    assert!(!b.shuts_out("r"));
    assert!(matches!(
        b.cluster.restore(Tenant::default(), revoked.id).await,
        Ok(carried) if carried.unconfirmed.is_empty()
    ));
}
