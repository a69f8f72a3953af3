//! Health and reflection.

use futures_util::{StreamExt as _, stream};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::support::{Api, Caller, ROOT, refusal};
use crate::readiness::Unready;

#[tokio::test]
async fn health_is_told_without_a_credential_and_follows_the_node() {
    let api = Api::start().await;
    let mut client = HealthClient::new(api.channel().await);
    let request = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for (serving, status) in [(true, ServingStatus::Serving), (false, ServingStatus::NotServing)] {
        api.readiness.set(Unready::Starting, !serving);
        for service in [
            "",
            "roomcast.v1.PublishService",
            "roomcast.v1.RoomService",
            "roomcast.v1.UserService",
            "roomcast.v1.ConnectionService",
            "roomcast.v1.AccessService",
            "roomcast.v1.WatchService",
            "roomcast.v1.SubscribeService",
        ] {
            let answer = client.check(request(service)).await.unwrap().into_inner();
            assert_eq!(answer.status(), status, "{service}");
        }
    }
    api.readiness.set(Unready::Starting, false);
    let mut watch = client.watch(request("")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    api.stop.cancel();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}

macro_rules! reflects {
    ($test:ident, $version:ident) => {
        #[tokio::test]
        async fn $test() {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let api = Api::start().await;
            let ask = |request| {
                stream::iter([ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(request),
                }])
            };
            let mut client = ServerReflectionClient::with_interceptor(api.channel().await, Caller::with(ROOT));
            let list = ask(MessageRequest::ListServices(String::new()));
            let mut answers = client.server_reflection_info(list).await.unwrap().into_inner();
            let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
            let MessageResponse::ListServicesResponse(list) = answer else {
                panic!("no list: {answer:?}");
            };
            let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
            for name in [
                "roomcast.v1.PublishService",
                "roomcast.v1.RoomService",
                "roomcast.v1.UserService",
                "roomcast.v1.ConnectionService",
                "roomcast.v1.AccessService",
                "roomcast.v1.WatchService",
                "roomcast.v1.SubscribeService",
                "grpc.health.v1.Health",
            ] {
                assert!(names.contains(&name), "{name} is not in {names:?}");
            }
            assert!(
                !names.contains(&"roomcast.backend.v1.AuthorizerService"),
                "backends serve it, not the gateway"
            );
            let symbol = MessageRequest::FileContainingSymbol("roomcast.v1.VersionConflict".to_owned());
            let mut answers = client
                .server_reflection_info(ask(symbol))
                .await
                .unwrap()
                .into_inner();
            let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
            assert!(
                matches!(answer, MessageResponse::FileDescriptorResponse(_)),
                "{answer:?}"
            );

            let mut stranger = ServerReflectionClient::new(api.channel().await);
            let list = ask(MessageRequest::ListServices(String::new()));
            let status = stranger.server_reflection_info(list).await.unwrap_err();
            assert_eq!(refusal(&status).1, "UNAUTHENTICATED");
        }
    };
}

reflects!(reflection_v1_lists_what_is_served, v1);
reflects!(reflection_v1alpha_lists_what_is_served, v1alpha);
