//! What a publish costs over a bare tonic call. A measurement, for a release build on a quiet machine:
//! `cargo test --release --lib api::tests::cost -- --ignored --nocapture`.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::support::{Api, Authorized, Caller, ROOT, event, spawn};
use crate::proto::v1;
use crate::proto::v1::publish_service_client::PublishServiceClient;
use crate::proto::v1::publish_service_server::{PublishService, PublishServiceServer};

/// How long each round takes.
const ROUND: Duration = Duration::from_secs(2);

/// Calls on the way at once.
const AT_ONCE: usize = 32;

/// Answers without doing anything.
struct Echo;

#[tonic::async_trait]
impl PublishService for Echo {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let room = request.into_inner().event;
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

async fn echo() -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    spawn(async move {
        let server = Server::builder().add_service(PublishServiceServer::new(Echo));
        server.serve_with_incoming(incoming).await.unwrap();
    });
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Calls per second.
async fn rate(client: &PublishServiceClient<Authorized>) -> f64 {
    let begun = Instant::now();
    let workers = (0..AT_ONCE).map(|_| {
        let mut client = client.clone();
        async move {
            let mut calls = 0u32;
            while begun.elapsed() < ROUND {
                client.publish(event()).await.unwrap();
                calls += 1;
            }
            calls
        }
    });
    let calls: u32 = futures_util::future::join_all(workers).await.into_iter().sum();
    f64::from(calls) / begun.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a measurement for a release build"]
async fn a_publish_costs_little_more_than_a_bare_call() {
    let api = Api::start().await;
    let published = api.publisher().await;
    let bare = PublishServiceClient::with_interceptor(echo().await, Caller::with(ROOT));
    let mut ratios = Vec::new();
    for _ in 0..5 {
        // Beside each other, so that what else the machine does hits both.
        let (bare, published) = (rate(&bare).await, rate(&published).await);
        println!(
            "bare {bare:.0}/s, publish {published:.0}/s, ratio {:.2}",
            published / bare
        );
        ratios.push(published / bare);
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[2] >= 0.6, "{ratios:?}");

    let begun = Instant::now();
    let requests = (0..200_000u64).map(|sequence| v1::PublishStreamRequest {
        sequence,
        request: Some(event()),
    });
    let answers = api
        .publisher()
        .await
        .publish_stream(stream::iter(requests))
        .await
        .unwrap();
    let answered = answers
        .into_inner()
        .fold(0u32, |count, answer| async move { count + u32::from(answer.is_ok()) });
    let answered = f64::from(answered.await);
    println!("stream {:.0}/s", answered / begun.elapsed().as_secs_f64());
}
