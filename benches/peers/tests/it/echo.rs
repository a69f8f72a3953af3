//! The bare echo answers each of the three ways to publish.

use std::process::Command;

use proto::{
    PublishBatchRequest, PublishRequest, PublishStreamRequest, Target, publish_service_client::PublishServiceClient,
    target,
};
use tokio_stream::StreamExt as _;

use crate::peer::Peer;

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

fn request() -> PublishRequest {
    PublishRequest {
        targets: vec![Target {
            target: Some(target::Target::Room("a".to_owned())),
        }],
        ..PublishRequest::default()
    }
}

#[tokio::test]
async fn echo() {
    let peer = Peer::start(&mut Command::new(env!("CARGO_BIN_EXE_echo")));
    let mut client = PublishServiceClient::connect(peer.says("grpc").to_owned())
        .await
        .unwrap();

    let response = client.publish(request()).await.unwrap().into_inner();
    assert_eq!(response.results.len(), 1);
    assert_eq!(response.results[0].room, "a");

    let requests = vec![request(), request()];
    let response = client.publish_batch(PublishBatchRequest { requests }).await.unwrap();
    assert_eq!(response.into_inner().results.len(), 2);

    let requests = (7..10).map(|sequence| PublishStreamRequest {
        sequence,
        request: Some(request()),
    });
    let answers = client.publish_stream(tokio_stream::iter(requests)).await.unwrap();
    let answered: Vec<_> = answers
        .into_inner()
        .map(|answer| answer.unwrap().sequence)
        .collect()
        .await;
    assert_eq!(answered, [7, 8, 9]);
}
