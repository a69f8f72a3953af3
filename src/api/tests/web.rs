//! gRPC-Web from a browser: over HTTP/1.1, from listed origins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;

use super::http::exchange;
use super::support::{Api, ROOT, Setup, event};
use crate::api::Config;
use crate::proto::v1;

async fn with_origin() -> Api {
    let config = Config {
        web_origins: vec!["https://app.example".parse().unwrap()],
        ..Config::default()
    };
    Api::with(Setup {
        config,
        ..Setup::default()
    })
    .await
}

fn request(origin: &str) -> String {
    let message = event().encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frame = [&[0][..], &length[..], &message[..]].concat();
    // As text, so that the whole exchange is text.
    let body = STANDARD.encode(frame);
    format!(
        "POST /roomcast.v1.PublishService/Publish HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n\
         content-type: application/grpc-web-text\r\naccept: application/grpc-web-text\r\ngrpc-timeout: 5S\r\n\
         authorization: Bearer {ROOT}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_browser_publishes_over_grpc_web() {
    let api = with_origin().await;
    let (status, head, body) = exchange(&api, &request("https://app.example")).await;
    assert_eq!(status, 200, "{head}");
    assert!(
        head.contains("access-control-allow-origin: https://app.example"),
        "{head}"
    );
    assert!(head.contains("content-type: application/grpc-web-text"), "{head}");
    // One chunk per frame, each base64 of its own.
    let frames: Vec<u8> = body
        .lines()
        .filter_map(|line| STANDARD.decode(line).ok())
        .flatten()
        .collect();
    let length = u32::from_be_bytes(frames[1..5].try_into().unwrap()) as usize;
    let response = v1::PublishResponse::decode(&frames[5..5 + length]).unwrap();
    assert_eq!(response.results[0].room, "r");
    let trailers = String::from_utf8_lossy(&frames[5 + length + 5..]).into_owned();
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn other_origins_are_not_allowed_to_read() {
    let api = with_origin().await;
    for origin in ["https://evil.example", "https://app.example.evil", "null"] {
        let preflight = format!(
            "OPTIONS /roomcast.v1.PublishService/Publish HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\naccess-control-request-headers: authorization,content-type\r\n\r\n"
        );
        let (_, head, _) = exchange(&api, &preflight).await;
        assert!(!head.contains("access-control-allow-origin"), "{origin}: {head}");
    }
    let none = Api::start().await;
    for (api, origin) in [(&none, "https://app.example"), (&api, "https://evil.example")] {
        let (status, head, _) = exchange(api, &request(origin)).await;
        assert_eq!(
            (status, head.contains("access-control-allow-origin")),
            (403, false),
            "{head}"
        );
        // A form of another page needs no permission to be sent, so it must not be carried out.
        let body = r#"{"tenant":"a","targets":[{"room":"r"}],"eventName":"e","payload":1}"#;
        let form = format!(
            "POST /v1/publish HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n\
             authorization: Bearer {ROOT}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(exchange(api, &form).await.0, 403);
    }
}
