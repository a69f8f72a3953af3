//! A bare tonic server of the gateway's `PublishService`: what a publish costs before anything is done with it.
//!
//! Every call is answered at once with a made-up position. It has no credentials, no deadline, no room and no interceptor.
//!
//! Tuned: a current-thread runtime, which costs half of what the multi-thread one does here; `TCP_NODELAY`; payloads stay
//! slices of the received buffer, as in the gateway. HTTP/2 windows and limits are tonic's defaults, again as in the gateway.

use std::{error::Error, pin::Pin};

use proto::{
    Position, PublishBatchRequest, PublishBatchResponse, PublishBatchResult, PublishRequest, PublishResponse,
    PublishResult, PublishStreamRequest, PublishStreamResponse, Target, publish_batch_result, publish_service_server,
    publish_stream_response, target,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming, transport::Server, transport::server::TcpIncoming};

/// The generated code.
#[allow(
    dead_code,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated, for more than is used here"
)]
mod proto {
    tonic::include_proto!("roomcast.v1");
}

struct Echo;

#[tonic::async_trait]
impl publish_service_server::PublishService for Echo {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        Ok(Response::new(answer(request.into_inner())))
    }

    async fn publish_batch(
        &self,
        request: Request<PublishBatchRequest>,
    ) -> Result<Response<PublishBatchResponse>, Status> {
        let results = request
            .into_inner()
            .requests
            .into_iter()
            .map(|request| PublishBatchResult {
                outcome: Some(publish_batch_result::Outcome::Response(answer(request))),
            });
        Ok(Response::new(PublishBatchResponse {
            results: results.collect(),
        }))
    }

    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<PublishStreamResponse, Status>> + Send>>;

    async fn publish_stream(
        &self,
        requests: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let answers = requests.into_inner().map(|request| {
            let PublishStreamRequest { sequence, request } = request?;
            let outcome = publish_stream_response::Outcome::Response(answer(request.unwrap_or_default()));
            Ok(PublishStreamResponse {
                sequence,
                outcome: Some(outcome),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// One result for each target, as the gateway's.
fn answer(request: PublishRequest) -> PublishResponse {
    PublishResponse {
        results: request.targets.into_iter().map(result).collect(),
    }
}

fn result(target: Target) -> PublishResult {
    let room = match target.target {
        Some(target::Target::Room(room)) => room,
        _ => String::new(),
    };
    PublishResult {
        room,
        position: Some(Position {
            epoch: "made-up".to_owned(),
            offset: 1,
        }),
        duplicate: false,
        reached: 1,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = roomcast_peers::listen(roomcast_peers::Ports::of_process().members)?;
    roomcast_peers::announce(&format!(r#"{{"grpc":"http://{}"}}"#, listener.local_addr()?))?;
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
    Server::builder()
        .add_service(publish_service_server::PublishServiceServer::new(Echo))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
