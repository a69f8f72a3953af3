//! What is not gRPC, and what libraries answer by themselves.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::http::exchange;
use super::support::{Api, Caller, ROOT, event, refusal};
use crate::proto::v1;

const PUBLISH: &str = "/roomcast.v1.PublishService/Publish";

/// A publish over HTTP/2 that is gRPC except for what is wrong with its head. By hand: a client library would end a call of no
/// length itself.
async fn over_http2(api: &Api, method: Method, content_type: &str, timeout: &str) -> Response<Incoming> {
    use prost::Message as _;
    let message = event().encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &length, &message].concat();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{}{PUBLISH}", api.address))
        .header("content-type", content_type)
        .header("te", "trailers")
        .header("authorization", format!("Bearer {ROOT}"))
        .header("grpc-timeout", timeout);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    client.request(request).await.unwrap()
}

/// How many events room `r` of tenant `a` has had.
async fn published(api: &Api) -> u64 {
    let request = v1::GetRoomStatsRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
    };
    let stats = api.steward().await.get_room_stats(request).await.unwrap().into_inner();
    stats.head.map_or(0, |head| head.offset)
}

#[tokio::test]
async fn what_is_not_grpc_is_refused_and_not_carried_out() {
    let api = Api::start().await;
    for (method, content_type, expected) in [
        (Method::GET, "application/grpc", 405),
        (Method::PUT, "application/grpc+proto", 405),
        (Method::GET, "application/grpc-web", 405),
        (Method::POST, "application/json", 415),
        (Method::POST, "application/grpc+json", 415),
        (Method::POST, "", 415),
    ] {
        let answer = over_http2(&api, method.clone(), content_type, "5S").await;
        assert_eq!(answer.status(), expected, "{method} {content_type}");
        let allow = answer.headers().get("allow").map(|allow| allow.to_str().unwrap());
        assert_eq!(allow, (expected == 405).then_some("POST"), "{method} {content_type}");
    }
    let http1 = |method: &str, path: &str, headers: &str| {
        format!("{method} {path} HTTP/1.1\r\nconnection: close\r\nauthorization: Bearer {ROOT}\r\n{headers}\r\n")
    };
    let grpc = "host: x\r\ncontent-type: application/grpc\r\n";
    for (request, expected, allow) in [
        (http1("POST", PUBLISH, grpc), 505, None),
        (http1("GET", PUBLISH, grpc), 405, Some("allow: post")),
        (http1("GET", PUBLISH, "host: x\r\n"), 405, Some("allow: post")),
        (
            http1("POST", PUBLISH, "host: x\r\ncontent-type: application/json\r\n"),
            415,
            None,
        ),
        (http1("GET", "/", "host: x\r\n"), 404, None),
    ] {
        let (status, head, body) = exchange(&api, &request).await;
        assert_eq!(status, expected, "{request}");
        assert!(allow.is_none_or(|allow| head.contains(allow)), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["reason"], "UNIMPLEMENTED_FEATURE", "{body}");
    }
    assert_eq!(published(&api).await, 0);
    let answer = over_http2(&api, Method::POST, "application/grpc+proto", "5S").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(published(&api).await, 1);
}

#[tokio::test]
async fn the_mirror_answers_with_the_statuses_of_http() {
    let api = Api::start().await;
    let one = |method: &str, path: &str, hosts: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\n{hosts}connection: close\r\nauthorization: Bearer {ROOT}\r\ncontent-length: 0\r\n\r\n"
        )
    };
    let host = "host: x\r\n";
    for (request, expected, reason, allow) in [
        (
            one("PUT", "/v1/publish", host),
            405,
            "UNIMPLEMENTED_FEATURE",
            "allow: post",
        ),
        (
            one("POST", "/v1/rooms/r/stats", host),
            405,
            "UNIMPLEMENTED_FEATURE",
            "allow: get",
        ),
        (one("GET", "/v1/elsewhere", host), 404, "UNIMPLEMENTED_FEATURE", ""),
        (
            one("GET", "/v1/rooms/%zz/stats?tenant=a", host),
            400,
            "UNDECODABLE_MESSAGE",
            "",
        ),
        (
            one("GET", "/v1/rooms/r%2/stats?tenant=a", host),
            400,
            "UNDECODABLE_MESSAGE",
            "",
        ),
        (
            one("GET", "/v1/rooms/r/stats?tenant=%zz", host),
            400,
            "UNDECODABLE_MESSAGE",
            "",
        ),
        (
            one("GET", "/v1/rooms/r/stats?tenant=a", "host: x\r\nhost: y\r\n"),
            400,
            "INVALID_FIELD",
            "",
        ),
        (one("GET", "/v1/rooms/r/stats?tenant=a", ""), 400, "INVALID_FIELD", ""),
    ] {
        let (status, head, body) = exchange(&api, &request).await;
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{head}\n{body}"));
        assert_eq!((status, &body["reason"]), (expected, &Value::from(reason)), "{request}");
        assert!(head.contains(allow), "{head}");
    }
    let (status, ..) = exchange(&api, &one("GET", "/v1/rooms/%7Ar/stats?tenant=%61", host)).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_deadline_of_no_length_is_over_before_the_call_begins() {
    let api = Api::start().await;
    for timeout in ["0S", "0n", "0H"] {
        for _ in 0..20 {
            let answer = over_http2(&api, Method::POST, "application/grpc", timeout).await;
            let status = tonic::Status::from_header_map(answer.headers()).unwrap();
            let (code, reason, _) = refusal(&status);
            assert_eq!((code, reason.as_str()), (Code::DeadlineExceeded, "UNKNOWN_OUTCOME"));
        }
    }
    assert_eq!(published(&api).await, 0);
}

#[tokio::test]
async fn what_a_library_refuses_has_a_reason_too() {
    let api = Api::start().await;
    let mut health = HealthClient::new(api.channel().await);
    let unknown = HealthCheckRequest {
        service: "elsewhere".to_owned(),
    };
    let status = health.check(unknown).await.unwrap_err();
    assert_eq!(refusal(&status).1, "SERVICE_NOT_FOUND");

    let mut reflection = ServerReflectionClient::with_interceptor(api.channel().await, Caller::with(ROOT));
    let ask = stream::iter([ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("elsewhere".to_owned())),
    }]);
    let mut answers = reflection.server_reflection_info(ask).await.unwrap().into_inner();
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), refusal(&status).1.as_str()),
        (Code::NotFound, "SERVICE_NOT_FOUND")
    );
}
