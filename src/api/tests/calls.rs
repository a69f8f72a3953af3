//! Calls that say one thing twice.

use std::time::Duration;

use futures_util::stream;
use tonic::{Code, Request, Status};

use super::http::exchange;
use super::support::{Api, ROOT, event, refusal};
use crate::proto::v1;
use crate::proto::v1::publish_service_client::PublishServiceClient;

type Grpc = tonic::client::Grpc<tonic::transport::Channel>;

fn authorized<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(10));
    let token = format!("Bearer {ROOT}").parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request
}

/// Sends messages to a method, as a stream.
async fn send<M, A>(grpc: &mut Grpc, path: &str, messages: Vec<M>) -> Result<(), Status>
where
    M: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, A>::default();
    let request = authorized(stream::iter(messages));
    let answered = grpc.streaming(request, path.parse().unwrap(), codec).await?;
    answered.into_inner().message().await.map(drop)
}

fn named(name: &str) -> v1::PublishRequest {
    v1::PublishRequest {
        event_name: name.to_owned(),
        ..event()
    }
}

async fn names_kept(api: &Api) -> Vec<String> {
    let request = v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        ..Default::default()
    };
    let history = api.steward().await.list_history(request).await.unwrap().into_inner();
    history.events.into_iter().map(|event| event.event_name).collect()
}

#[tokio::test]
async fn a_method_of_one_message_does_nothing_with_two() {
    let api = Api::start().await;
    let mut grpc = Grpc::new(api.channel().await);
    let publish = "/roomcast.v1.PublishService/Publish";
    // The longer ones arrive in frames of their own.
    let long = "x".repeat(60 << 10);
    for text in ["\"short\"", &format!("\"{long}\"")] {
        let mut two = vec![named("one"), named("two")];
        two[0].payload = super::support::json(text);
        let status = send::<_, v1::PublishResponse>(&mut grpc, publish, two)
            .await
            .unwrap_err();
        let expected = (Code::Unimplemented, "UNIMPLEMENTED_FEATURE".to_owned(), String::new());
        assert_eq!(refusal(&status), expected, "{status}");
    }
    let watch = vec![v1::WatchRequest::default(); 2];
    let watched = send::<_, v1::WatchResponse>(&mut grpc, "/roomcast.v1.WatchService/Watch", watch);
    assert_eq!(watched.await.unwrap_err().code(), Code::Unimplemented);
    let none = send::<v1::PublishRequest, v1::PublishResponse>(&mut grpc, publish, Vec::new());
    let expected = (Code::InvalidArgument, "UNDECODABLE_MESSAGE".to_owned(), String::new());
    assert_eq!(refusal(&none.await.unwrap_err()), expected);
    send::<_, v1::PublishResponse>(&mut grpc, publish, vec![named("end")])
        .await
        .unwrap();
    assert_eq!(names_kept(&api).await, ["end"]);
}

#[tokio::test]
async fn a_method_of_one_message_does_nothing_with_two_over_grpc_web() {
    let api = Api::start().await;
    // Empty messages: one is refused for its tenant, by the method.
    for (count, status) in [(1, "grpc-status:3\r\n"), (2, "grpc-status:12\r\n")] {
        let body = "\0\0\0\0\0".repeat(count);
        let request = format!(
            "POST /roomcast.v1.PublishService/Publish HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {ROOT}\r\ngrpc-timeout: 5S\r\ncontent-type: application/grpc-web+proto\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let (_, head, body) = exchange(&api, &request).await;
        let answer = format!("{head}\r\n{body}").replace(": ", ":");
        assert!(answer.contains(status), "{answer}");
    }
}

#[tokio::test]
async fn a_credential_or_a_deadline_that_is_given_twice_is_refused() {
    let api = Api::start().await;
    let mut publisher = PublishServiceClient::new(api.channel().await);
    let root = format!("Bearer {ROOT}");
    for other in [root.as_str(), "Bearer guessed", "Basic x", ""] {
        for (first, second) in [(root.as_str(), other), (other, root.as_str())] {
            let mut request = authorized(named("no"));
            let metadata = request.metadata_mut();
            metadata.insert("authorization", first.parse().unwrap());
            metadata.append("authorization", second.parse().unwrap());
            let status = publisher.publish(request).await.unwrap_err();
            let expected = (Code::Unauthenticated, "UNAUTHENTICATED".to_owned(), String::new());
            assert_eq!(refusal(&status), expected, "{first} {second}");
            let head = format!("authorization: {first}\r\nauthorization: {second}");
            let request =
                format!("GET /v1/rooms/r/stats?tenant=a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n\r\n");
            assert_eq!(exchange(&api, &request).await.0, 401, "{first} {second}");
        }
    }
    let mut request = authorized(named("no"));
    request.metadata_mut().append("grpc-timeout", "5S".parse().unwrap());
    let status = publisher.publish(request).await.unwrap_err();
    let expected = (
        Code::InvalidArgument,
        "INVALID_FIELD".to_owned(),
        "grpc-timeout".to_owned(),
    );
    assert_eq!(refusal(&status), expected);
    publisher.publish(authorized(named("end"))).await.unwrap();
    assert_eq!(names_kept(&api).await, ["end"]);
}
