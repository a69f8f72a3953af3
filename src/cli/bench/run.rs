//! One run, from the gateway to the report.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use super::Bench;
use super::gateway::{self, Gateway};
use super::latency::Latency;
use super::member::{Crowd, Member};
use super::publisher::{Published, Publisher, Schedule};
use super::report::{Counts, Moment, Report, Timeline};
use super::tally::Faults;
use super::wire::Wire;
use crate::auth::IssuerConfig;
use crate::cli::failure::Failure;
use crate::cli::publish::{bearer, channel};
use crate::cli::token::{configured, development, mint, read_secret, subject};

/// How many members connect at once.
const ENTERING_MAX: usize = 64;

/// The most streams that publish; each takes its share of the rooms.
const PUBLISHERS_MAX: usize = 8;

/// How long the members' tokens are good for: longer than any run.
const TOKEN_TTL: Duration = Duration::from_secs(3 * 3600);

/// From the last preparation to the first event.
const LEAD: Duration = Duration::from_millis(50);

/// How long to listen for what comes although everything has come.
const LINGER: Duration = Duration::from_millis(250);

/// How long connecting to the gRPC API may take.
const GRPC_TIMEOUT: Duration = Duration::from_secs(10);

type Members = JoinSet<Result<Faults, Failure>>;

pub(super) async fn measure(bench: &Bench) -> Result<Report, Failure> {
    let gateway = bench.gateway().await?;
    let grpc = channel(&gateway.grpc, GRPC_TIMEOUT)?;
    let token = gateway.service_token.as_deref().map(bearer).transpose()?;
    let rooms = bench.room_names();
    let members = bench.members(&gateway, &rooms)?;
    let crowd = Arc::new(bench.crowd(&gateway.url).await?);
    let moment = || Moment::now(gateway.pid);

    let before = moment()?;
    let mut tasks = enter(&crowd, members).await?;
    let entered = moment()?;
    let schedule = bench.schedule(&gateway, rooms, crowd.start);
    let published = publish(schedule, &grpc, token.as_ref()).await?;
    let acknowledged = moment()?;
    settle(&crowd, bench.members, bench.patience).await;
    let settled = moment()?;
    sleep(LINGER).await;
    let faults = leave(&crowd, &mut tasks).await?;
    drop(gateway.own);
    Ok(Report {
        wire: crowd.wire,
        timeline: Timeline {
            before,
            entered,
            acknowledged,
            settled,
        },
        counts: Counts {
            members: bench.members,
            rooms: bench.rooms,
            events: bench.events,
            rate: bench.rate,
            burst: bench.burst,
            payload_bytes: bench.payload_bytes,
            class: bench.class,
            busy: crowd.busy.load(Ordering::Relaxed),
            received: crowd.received.load(Ordering::Relaxed),
        },
        published,
        faults,
        latency: std::mem::replace(
            &mut *crowd.latency.lock().unwrap_or_else(PoisonError::into_inner),
            Latency::new(),
        ),
    })
}

impl Bench {
    async fn gateway(&self) -> Result<Gateway, Failure> {
        let (Some(url), Some(grpc)) = (&self.url, &self.grpc) else {
            return gateway::start(&self.settings.pairs).await;
        };
        Ok(Gateway {
            url: url.clone(),
            grpc: grpc.clone(),
            service_token: self.token.clone(),
            issuer: self.issuer()?,
            tenant: self.tenant.clone(),
            pid: self.pid,
            own: None,
        })
    }

    fn issuer(&self) -> Result<IssuerConfig, Failure> {
        match (&self.config, &self.user_token_secret, &self.user_token_secret_file) {
            (Some(path), ..) => configured(path),
            (_, Some(secret), _) => Ok(development(secret.clone())),
            (.., Some(path)) => Ok(development(read_secret(path)?)),
            (None, None, None) => Err(Failure::Usage("name a secret for the members' tokens".to_owned())),
        }
    }

    /// Rooms that no run before has used.
    fn room_names(&self) -> Vec<String> {
        let run = gateway::random::<8>();
        (0..self.rooms).map(|number| format!("bench:{run}:{number}")).collect()
    }

    fn members(&self, gateway: &Gateway, rooms: &[String]) -> Result<Vec<Member>, Failure> {
        let member = |(number, room): (u32, &String)| {
            let user = format!("bench-{number}");
            let claims = subject(&gateway.issuer.claims, &user, &gateway.tenant);
            Ok(Member {
                number,
                token: mint(&gateway.issuer, &user, TOKEN_TTL, claims)?,
                room: room.clone(),
            })
        };
        (0..self.members).zip(rooms.iter().cycle()).map(member).collect()
    }

    async fn crowd(&self, url: &str) -> Result<Crowd, Failure> {
        Ok(Crowd {
            url: url.to_owned(),
            address: resolve(url).await?,
            wire: if self.protobuf { Wire::Protobuf } else { Wire::Json },
            events: self.events.into(),
            entrance: Semaphore::new(ENTERING_MAX),
            start: Instant::now(),
            inside: watch::Sender::new(0),
            complete: watch::Sender::new(0),
            received: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            latency: Mutex::new(Latency::new()),
            stop: CancellationToken::new(),
        })
    }

    fn schedule(&self, gateway: &Gateway, rooms: Vec<String>, start: Instant) -> Schedule {
        let interval = (self.rate > 0).then(|| Duration::from_secs(self.burst.into()) / self.rate);
        Schedule {
            tenant: gateway.tenant.clone(),
            rooms,
            events: self.events.into(),
            burst: self.burst.into(),
            interval,
            payload_bytes: self.payload_bytes as usize,
            class: self.class.into(),
            start,
            first: Instant::now() + LEAD,
        }
    }
}

async fn resolve(url: &str) -> Result<SocketAddr, Failure> {
    let wrong = || Failure::Usage(format!("{url} is no WebSocket address"));
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    let default = match uri.scheme_str() {
        Some("ws") => 80,
        Some("wss") => 443,
        _ => return Err(wrong()),
    };
    let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']);
    let found = lookup_host((host, uri.port_u16().unwrap_or(default))).await;
    let mut found = found.map_err(|error| Failure::Undone(format!("{url}: {error}")))?;
    found
        .next()
        .ok_or_else(|| Failure::Undone(format!("{url}: the host has no address")))
}

/// Lets everybody in, and waits until they are.
async fn enter(crowd: &Arc<Crowd>, members: Vec<Member>) -> Result<Members, Failure> {
    let all = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let mut tasks = JoinSet::new();
    for member in members {
        let crowd = crowd.clone();
        tasks.spawn(async move { member.run(&crowd).await });
    }
    let mut inside = crowd.inside.subscribe();
    tokio::select! {
        biased;
        Some(ended) = tasks.join_next() => {
            let faults = ended.map_err(|error| Failure::Undone(error.to_string()))??;
            return Err(Failure::No(format!("a member was disconnected while others connected ({faults:?})")));
        }
        _ = inside.wait_for(|inside| *inside == all) => {}
    }
    Ok(tasks)
}

async fn publish(
    schedule: Schedule,
    grpc: &Channel,
    token: Option<&MetadataValue<Ascii>>,
) -> Result<Published, Failure> {
    let schedule = Arc::new(schedule);
    let step = schedule.rooms.len().min(PUBLISHERS_MAX);
    let mut tasks = JoinSet::new();
    for first_room in 0..step {
        let publisher = Publisher {
            schedule: schedule.clone(),
            first_room,
            step,
        };
        tasks.spawn(publisher.run(grpc.clone(), token.cloned()));
    }
    let mut published = Published::default();
    while let Some(ended) = tasks.join_next().await {
        published.add(ended.map_err(|error| Failure::Undone(error.to_string()))??);
    }
    Ok(published)
}

/// Waits until everybody has everything, or nothing has come for a while.
async fn settle(crowd: &Crowd, members: u32, patience: Duration) {
    let mut complete = crowd.complete.subscribe();
    let mut received = crowd.received.load(Ordering::Relaxed);
    while timeout(patience, complete.wait_for(|complete| *complete == members))
        .await
        .is_err()
    {
        let now = crowd.received.load(Ordering::Relaxed);
        if now == received {
            break;
        }
        received = now;
    }
}

/// Sends everybody away and asks what went wrong.
async fn leave(crowd: &Crowd, tasks: &mut Members) -> Result<Faults, Failure> {
    crowd.stop.cancel();
    let mut faults = Faults::default();
    while let Some(ended) = tasks.join_next().await {
        faults.add(ended.map_err(|error| Failure::Undone(error.to_string()))??);
    }
    Ok(faults)
}
