//! What is too large, too late, too silent or too much for the listener.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use super::support::{Api, Caller, ROOT, Setup, event, json, refusal};
use crate::api::Config;
use crate::proto::v1;

async fn with(config: Config) -> Api {
    Api::with(Setup {
        config,
        ..Setup::default()
    })
    .await
}

/// A batch of more than 1 MiB.
fn too_large() -> v1::PublishBatchRequest {
    let mut request = event();
    request.payload = json(&format!("\"{}\"", "x".repeat(60 << 10)));
    v1::PublishBatchRequest {
        requests: vec![request; 20],
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_compressed_or_not() {
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    let expected = (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned(), String::new());
    let status = publisher.publish_batch(too_large()).await.unwrap_err();
    assert_eq!(refusal(&status), expected);
    let mut compressing = publisher.send_compressed(CompressionEncoding::Gzip);
    compressing.publish(event()).await.unwrap();
    let status = compressing.publish_batch(too_large()).await.unwrap_err();
    assert_eq!(refusal(&status), expected);
}

#[tokio::test]
async fn an_unknown_method_and_a_message_that_does_not_decode_have_reasons() {
    let api = Api::start().await;
    let mut grpc = tonic::client::Grpc::new(tower::ServiceBuilder::new().service(api.channel().await));
    let paths = [
        (
            "/roomcast.v1.PublishService/Shout",
            Code::Unimplemented,
            "UNIMPLEMENTED_FEATURE",
        ),
        (
            "/roomcast.v2.PublishService/Publish",
            Code::Unimplemented,
            "UNIMPLEMENTED_FEATURE",
        ),
        (
            "/roomcast.v1.PublishService/Publish",
            Code::InvalidArgument,
            "UNDECODABLE_MESSAGE",
        ),
    ];
    for (path, code, reason) in paths {
        grpc.ready().await.unwrap();
        // A string in place of the tenant's length-delimited field: tag 1 with a wire type that does not fit.
        let message = v1::Position {
            epoch: "\u{fffd}".to_owned(),
            offset: 7,
        };
        let mut request = tonic::Request::new(message);
        request.set_timeout(Duration::from_secs(5));
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {ROOT}").parse().unwrap());
        let codec = tonic_prost::ProstCodec::<v1::Position, v1::PublishResponse>::default();
        let status = grpc.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!((status.code(), refusal(&status).1.as_str()), (code, reason), "{path}");
    }
}

#[tokio::test]
async fn a_deadline_that_passes_leaves_the_outcome_unknown() {
    // The server shortens the deadline: of one that both watch, the client's own library may tell first.
    let api = with(Config {
        deadline_max: Duration::from_millis(100),
        ..Config::default()
    })
    .await;
    // Nobody takes this order, so the call waits until its deadline.
    api.shard.stop();
    let connection = api.shard.connect("a", "ada");
    let mut request = event();
    request.retention = v1::Retention::Ephemeral.into();
    request.targets = vec![v1::Target {
        target: Some(v1::target::Target::ConnectionId(connection.to_string())),
    }];
    let caller = Caller {
        timeout: Some(Duration::from_secs(3600)),
        ..Caller::with(ROOT)
    };
    let status = api.publisher_of(caller).await.publish(request).await.unwrap_err();
    assert_eq!(
        refusal(&status),
        (Code::DeadlineExceeded, "UNKNOWN_OUTCOME".to_owned(), String::new())
    );
}

#[tokio::test]
async fn a_deadline_above_the_maximum_is_shortened_to_it() {
    let api = with(Config {
        deadline_max: Duration::from_millis(100),
        ..Config::default()
    })
    .await;
    api.shard.stop();
    let request = v1::DisconnectRequest {
        tenant: "a".to_owned(),
        session: Some(v1::disconnect_request::Session::UserId("ada".to_owned())),
        ..v1::DisconnectRequest::default()
    };
    let caller = Caller {
        timeout: Some(Duration::from_secs(3600)),
        ..Caller::with(ROOT)
    };
    let status = api.connections_of(caller).await.disconnect(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let api = with(Config {
        first_bytes_timeout: Duration::from_millis(50),
        ..Config::default()
    })
    .await;
    let mut publisher = api.publisher().await;
    publisher.publish(event()).await.unwrap();
    for said in ["", "PRI * HT", "POST /v"] {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Ends, by EOF or reset, instead of waiting for ever.
        let _ = stream.read_to_end(&mut rest).await;
    }
    // By now the time is over for one that said enough, too; it stays.
    publisher.publish(event()).await.unwrap();
}

#[tokio::test]
async fn headers_above_the_limit_are_refused() {
    let api = Api::start().await;
    let mut request = tonic::Request::new(event());
    request
        .metadata_mut()
        .insert("x-large", "x".repeat(20 << 10).parse().unwrap());
    let status = api.publisher().await.publish(request).await.unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    api.publisher().await.publish(event()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_opens_and_resets_streams_is_closed() {
    let api = Api::start().await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    // HPACK (RFC 7541, appendix A): `:method: POST`, `:scheme: http`, `:path: /`, and `:authority: x` as a literal.
    let headers = [0x83, 0x86, 0x84, 0x01, 0x01, b'x'];
    let (mut reading, mut writing) = stream.into_split();
    let flood = async {
        for id in (1..200_000u32).step_by(2) {
            let open = frame(1, 0x4 | 0x1, id, &headers);
            let reset = frame(3, 0, id, &8u32.to_be_bytes());
            if writing.write_all(&[open, reset].concat()).await.is_err() {
                return;
            }
        }
        panic!("the flood went through");
    };
    let closed = async {
        let mut answers = Vec::new();
        let _ = reading.read_to_end(&mut answers).await;
    };
    tokio::select! {
        () = flood => {}
        () = closed => {}
    }
    api.publisher().await.publish(event()).await.unwrap();
}

/// An HTTP/2 frame (RFC 9113 section 4.1).
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
