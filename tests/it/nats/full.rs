//! There is no room for more in NATS: what a publisher is told, and what comes afterwards.

use async_nats::jetstream;
use roomcast::nats::Credentials;
use serde_json::json;
use tonic::Code;

use super::{member, over};
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::{Encoding, Node, TENANT, draft, eventually, reason, to_room};

/// Whose stream takes what room there is: anybody's in the account.
const OTHER: &str = "other";

/// Publishes until nothing is taken any more, to the last byte.
async fn fill_up(context: &jetstream::Context) {
    let config = jetstream::stream::Config {
        name: OTHER.to_owned(),
        subjects: vec![OTHER.to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await.expect("a stream is made");
    for size in [900_000, 50_000, 2_000, 10] {
        let block = bytes::Bytes::from(vec![0; size]);
        while let Ok(sent) = context.publish(OTHER, block.clone()).await {
            if sent.await.is_err() {
                break;
            }
        }
    }
}

/// A publish that finds no room says that nothing is stored, and why; members stay; when there is room again all goes on.
async fn story(options: NatsOptions) {
    let server = NatsServer::start_with(options).await;
    let url = server.url();
    let node = Node::several(Encoding::Json, 2, move |config| {
        over(&url)(config);
        let nats = config.nats.as_mut().expect("there are several gateways");
        nats.credentials = Credentials::Password {
            user: "gateway".to_owned(),
            password: "right".to_owned(),
        };
        (nats.partitions, nats.stream_bytes_max) = (1, 4 << 20);
    })
    .await;
    let mut ada = member(&node, 1).await;
    let backend = node.of_several(0).backend();

    let connecting = async_nats::ConnectOptions::with_user_and_password("gateway".to_owned(), "right".to_owned());
    let client = connecting.connect(server.url()).await.expect("the server answers");
    let context = jetstream::new(client);
    fill_up(&context).await;
    let request = roomcast::proto::v1::PublishRequest {
        tenant: TENANT.to_owned(),
        targets: vec![to_room("r")],
        ..draft("no room", json!({"much": "x".repeat(2_000)}))
    };
    let refused = backend.send(request).await.expect_err("there is no room for it");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "NOT_STORED")
    );
    assert!(refused.message().contains("the storage of nats is full"), "{refused:?}");

    context.delete_stream(OTHER).await.expect("the stream is there");
    eventually("room for an event", || async {
        let request = roomcast::proto::v1::PublishRequest {
            targets: vec![to_room("r")],
            ..draft("after", json!({}))
        };
        backend.send(request).await.is_ok().then_some(())
    })
    .await;
    ada.expect_event("r", "after").await;
    node.finish().await;
}

#[tokio::test]
async fn the_account_has_used_up_what_it_may() {
    let config =
        "accounts { A { users: [{ user: gateway, password: right }], jetstream: { max_mem: 0, max_file: 128MB } } }";
    let options = NatsOptions {
        config: config.to_owned(),
        ..NatsOptions::default()
    };
    Box::pin(story(options)).await;
}

#[tokio::test]
async fn the_server_has_used_up_what_it_may() {
    let options = NatsOptions {
        config: "authorization { user: gateway, password: right }".to_owned(),
        jetstream: "max_file_store: 128MB".to_owned(),
        ..NatsOptions::default()
    };
    Box::pin(story(options)).await;
}
