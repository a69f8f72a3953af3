//! One round: load, a fault in the midst of it, the end, and what the stream holds then.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use roomcast::proto::v1;
use roomcast::proto::v1::payload::Content;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Request;

use super::check::{Outcome, Wrong, check};
use super::faults::Fault;
use super::fleet::Fleet;
use super::log::{Log, Reader, Revocation, Stored, Truth};
use super::publisher::{self, Kind, Publisher};
use super::reader::{Client, Habits};
use super::scene::{Scene, Size};
use super::socket::stamp_of;
use crate::support::{Encoding, TENANT, eventually};

/// How long there is load before the fault, at least, and after it was mended.
const STEADY: Duration = Duration::from_millis(1500);
/// How long a revocation may take: longer than the lease of a node that says nothing.
const REVOKING: Duration = Duration::from_secs(25);

/// Runs a round and checks it. `name` distinguishes it on its fleet.
pub async fn run(fleet: &Fleet, fault: Fault, size: Size, seed: u64, name: &str) -> Outcome {
    let scene = Arc::new(Scene::new(fleet, size, seed, name.to_owned()));
    let mut readers = readers(&scene);
    let mut publishers = publishers(&scene);
    let mut random = scene.random("fault");
    let lead = random.random_range(STEADY..STEADY * 2);
    let happening = async {
        sleep(lead).await;
        fault.happen(fleet, &mut random).await;
        sleep(STEADY).await;
    };
    tokio::join!(happening, revoke_all(&scene));
    scene.stop.cancel();
    while let Some(ended) = publishers.join_next().await {
        ended.expect("a publisher does not break");
    }
    let mut ends = Vec::new();
    for room in 0..size.rooms {
        ends.push(publisher::end(&scene, room).await);
    }
    scene.ends.send_replace(Some(ends));
    let mut logs = Vec::new();
    while let Some(reader) = readers.join_next().await {
        logs.push(reader.expect("a client does not break"));
    }
    fleet.assert_sound();
    conclude(fleet, fault, &scene, logs).await
}

/// Reads the stream, and checks.
async fn conclude(fleet: &Fleet, fault: Fault, scene: &Scene, readers: Vec<Reader>) -> Outcome {
    let mut log = Log {
        attempts: std::mem::take(&mut *scene.attempts.lock().unwrap()),
        revocations: std::mem::take(&mut *scene.revocations.lock().unwrap()),
        readers,
        ..Log::default()
    };
    for room in 0..scene.size.rooms {
        log.truth.insert(room, truth(scene, room).await);
    }
    let findings = super::stream::compare(fleet, fault, scene, &mut log.truth).await;
    let mut outcome = check(&log);
    outcome.findings.extend(findings);
    let remarks = std::mem::take(&mut *scene.remarks.lock().unwrap());
    for remark in remarks {
        println!("  remark: {remark}");
    }
    outcome
}

fn readers(scene: &Arc<Scene>) -> JoinSet<Reader> {
    let mut readers = JoinSet::new();
    let Size { rooms, joined, .. } = scene.size;
    for index in 0..scene.size.readers {
        let habits = Habits {
            encoding: if index % 4 == 0 {
                Encoding::Json
            } else {
                Encoding::Protobuf
            },
            slow: index % 6 == 5,
            silence: Duration::from_secs(if index % 2 == 0 { 5 } else { 60 }),
        };
        let rooms = (0..joined).map(|step| (index + step) % rooms).collect();
        readers.spawn(Client::new(Arc::clone(scene), &format!("reader-{index}"), rooms, habits).run());
    }
    for index in 0..scene.size.victims {
        let habits = Habits {
            encoding: Encoding::Protobuf,
            slow: false,
            silence: Duration::from_secs(if index % 2 == 0 { 5 } else { 60 }),
        };
        let rooms = vec![index % rooms, (index + 1) % rooms];
        readers.spawn(Client::new(Arc::clone(scene), &format!("victim-{index}"), rooms, habits).run());
    }
    readers
}

fn publishers(scene: &Arc<Scene>) -> JoinSet<()> {
    let mut publishers = JoinSet::new();
    let kinds = Kind::ALL.repeat(scene.size.publishers).into_iter();
    let kinds = kinds.chain(std::iter::repeat_n(Kind::Stream, scene.size.streams));
    for (by, kind) in (0..).zip(kinds) {
        publishers.spawn(Publisher::new(Arc::clone(scene), kind, by).run());
    }
    publishers
}

/// Takes a room from each victim, one after the other while the load is there.
async fn revoke_all(scene: &Scene) {
    let mut random = scene.random("revoker");
    let calls = (0..scene.size.victims).map(|victim| {
        let wait = Duration::from_millis(random.random_range(500..5_000));
        let gateway = random.random_range(0..scene.backends.len());
        async move {
            sleep(wait).await;
            revoke(scene, victim, gateway).await;
        }
    });
    futures_util::future::join_all(calls).await;
}

async fn revoke(scene: &Scene, victim: usize, gateway: usize) {
    let (user, room) = (scene.user(&format!("victim-{victim}")), victim % scene.size.rooms);
    for attempt in 0..8 {
        let gateway = (gateway + attempt) % scene.backends.len();
        let mut request = Request::new(v1::RevokeRequest {
            tenant: TENANT.to_owned(),
            subject: Some(v1::revoke_request::Subject::UserId(user.clone())),
            scope: Some(v1::revoke_request::Scope::Room(scene.room(room))),
            ttl: Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            }),
            reason: "project_left".to_owned(),
            ..Default::default()
        });
        request.set_timeout(REVOKING);
        let called = scene.now();
        let call = async { scene.backends[gateway].access.clone().revoke(request).await };
        match tokio::time::timeout(REVOKING, call).await {
            Ok(Ok(response)) => {
                let returned = scene.now();
                let revocation = Revocation {
                    user,
                    room,
                    returned,
                    unconfirmed: response.into_inner().unconfirmed_node_ids.len(),
                    took: returned - called,
                };
                return scene.revocations.lock().unwrap().push(revocation);
            }
            Ok(Err(status)) => scene.remark(format!("revoke of {user} at {gateway}: {status:?}")),
            Err(_) => scene.remark(format!("revoke of {user} at {gateway}: no answer")),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// What the stream holds of a room, by the gateways' word.
async fn truth(scene: &Scene, room: usize) -> Truth {
    let mut truth = Truth::default();
    let mut page_token = String::new();
    loop {
        let page = eventually("a page of history", || page(scene, room, &page_token)).await;
        if let (true, Some(first)) = (truth.events.is_empty(), page.events.first()) {
            truth.epoch = first.position.clone().unwrap_or_default().epoch.into();
        }
        truth.events.extend(page.events.into_iter().map(stored));
        if page.next_page_token.is_empty() {
            return truth;
        }
        page_token = page.next_page_token;
    }
}

async fn page(scene: &Scene, room: usize, page_token: &str) -> Option<v1::ListHistoryResponse> {
    let request = v1::ListHistoryRequest {
        tenant: TENANT.to_owned(),
        room: scene.room(room),
        order: v1::HistoryOrder::OldestFirst.into(),
        page_size: 300,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let backend = &scene.backends[room % scene.backends.len()];
    let answer = backend.rooms.clone().list_history(request).await;
    answer.ok().map(tonic::Response::into_inner)
}

fn stored(event: v1::Event) -> Stored {
    let id = match event.payload.and_then(|payload| payload.content) {
        Some(Content::Json(json)) => stamp_of(&json),
        _ => None,
    };
    Stored {
        offset: event.position.unwrap_or_default().offset,
        id,
    }
}

/// Whether a run went well enough to go on.
pub fn is_clean(outcome: &Outcome) -> bool {
    Wrong::ALL.iter().all(|&wrong| outcome.count(wrong) == 0)
}
