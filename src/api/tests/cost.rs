//! What a publish costs the listener over a bare tonic call, in CPU time of the thread that serves, so that what else
//! the machine does hardly counts. A measurement for a release build:
//! `cargo test --release --lib api::tests::cost -- --ignored --nocapture`.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::support::{Api, Authorized, Caller, ROOT, event};
use crate::proto::v1;
use crate::proto::v1::publish_service_client::PublishServiceClient;
use crate::proto::v1::publish_service_server::{PublishService, PublishServiceServer};

/// Calls of one round.
const CALLS: u32 = 20_000;

/// Calls on the way at once.
const AT_ONCE: u32 = 32;

/// Answers without doing anything.
struct Echo;

#[tonic::async_trait]
impl PublishService for Echo {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let room = request.into_inner().event_name;
        let results = vec![v1::PublishResult {
            room,
            ..v1::PublishResult::default()
        }];
        Ok(Response::new(v1::PublishResponse { results }))
    }

    async fn publish_batch(
        &self,
        _: Request<v1::PublishBatchRequest>,
    ) -> Result<Response<v1::PublishBatchResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<v1::PublishStreamResponse, Status>> + Send>>;

    async fn publish_stream(
        &self,
        _: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// A server on a thread of its own.
struct Served {
    address: SocketAddr,
    /// What the kernel knows of the thread's time (proc(5), `schedstat`).
    schedstat: PathBuf,
}

impl Served {
    /// Runs `start` on a new thread, which goes on for as long as the process.
    fn by<F: Future<Output = SocketAddr>>(start: impl FnOnce() -> F + Send + 'static) -> Self {
        let (told, known) = sync_channel(1);
        std::thread::spawn(move || {
            let thread = fs::read_link("/proc/thread-self").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let address = start().await;
                let schedstat = PathBuf::from("/proc").join(thread).join("schedstat");
                told.send(Self { address, schedstat }).unwrap();
                std::future::pending::<()>().await;
            });
        });
        known.recv().unwrap()
    }

    fn cpu(&self) -> Duration {
        let text = fs::read_to_string(&self.schedstat).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    async fn client(&self) -> PublishServiceClient<Authorized> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        PublishServiceClient::with_interceptor(endpoint.connect().await.unwrap(), Caller::with(ROOT))
    }
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    super::support::spawn(async move {
        let server = Server::builder().add_service(PublishServiceServer::new(Echo));
        server.serve_with_incoming(incoming).await.unwrap();
    });
    address
}

async fn published() -> SocketAddr {
    // It has to live as long as the thread.
    let api = Box::leak(Box::new(Api::start().await));
    api.address
}

/// CPU time of the server for one unary call.
async fn unary(served: &Served) -> Duration {
    let client = served.client().await;
    let before = served.cpu();
    join_all((0..AT_ONCE).map(|_| {
        let mut client = client.clone();
        async move {
            for _ in 0..CALLS / AT_ONCE {
                client.publish(event()).await.unwrap();
            }
        }
    }))
    .await;
    served.cpu().saturating_sub(before) / CALLS
}

/// CPU time of the server for one event of a stream.
async fn streamed(served: &Served) -> Duration {
    let requests = (0..u64::from(CALLS)).map(|sequence| v1::PublishStreamRequest {
        sequence,
        request: Some(event()),
    });
    let mut client = served.client().await;
    let before = served.cpu();
    let answers = client
        .publish_stream(stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answers.map(Result::unwrap).count().await, CALLS as usize);
    served.cpu().saturating_sub(before) / CALLS
}

#[tokio::test]
#[ignore = "a measurement for a release build"]
async fn a_publish_costs_little_more_than_a_bare_call() {
    let (bare, publish) = (Served::by(echo), Served::by(published));
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (bare, publish, event) = (unary(&bare).await, unary(&publish).await, streamed(&publish).await);
        let ratio = bare.as_secs_f64() / publish.as_secs_f64();
        println!("server CPU: bare call {bare:?}, publish {publish:?} (ratio {ratio:.2}), streamed event {event:?}");
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[2] >= 0.6, "{ratios:?}");
}
