//! Spans reach a collector, and belong to the trace of the backend that called.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use roomcast::proto::v1;
use roomcast::telemetry::{self, Telemetry};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::support::{Encoding, Node, TENANT, draft, eventually, over_nats, to_room, user};

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request
            .into_inner()
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        self.spans.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

const PARENT: &str = "b7ad6b7169203331";

/// The only test that starts telemetry: there is one of it in a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_is_a_span_in_the_trace_of_its_caller() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serve = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let mut server = JoinSet::new();
    server.spawn(async move { serve.await.unwrap() });
    let telemetry = Telemetry::start(&telemetry::Config {
        log: "off".to_owned(),
        otlp_endpoint: Some(endpoint),
        ..Default::default()
    })
    .unwrap();

    Box::pin(story(&collector, "0af7651916cd43dd8448eb211c80319c")).await;
    // Published on one gateway, delivered on the other.
    Box::pin(over_nats(story(&collector, "4bf92f3577b34da6a3ce929d0e0e4736"))).await;
    telemetry.shutdown().await;
    let spans = collector.spans.lock().unwrap();
    let all = format!("{spans:?}");
    assert!(
        !all.contains("a secret text") && !all.contains(crate::support::ROOT),
        "no payloads, no tokens"
    );
    let names: Vec<String> = spans.iter().map(|span| span.name.clone()).collect();
    assert!(names.iter().all(|name| !name.contains("secret room")), "{names:?}");
}

/// Publishes in a trace of the caller's, and finds the way of the event in it.
async fn story(collector: &Collector, trace: &str) {
    let node = Node::start(Encoding::Json).await;
    // Clients go to gateways by turns, backends to the first.
    let _first = node.connect(user("somebody")).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("a secret room").await;
    let mut request = Request::new(v1::PublishRequest {
        tenant: TENANT.to_owned(),
        targets: vec![to_room("a secret room")],
        ..draft("hello", json!("a secret text"))
    });
    let parent = format!("00-{trace}-{PARENT}-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    node.backend().publishing.publish(request).await.unwrap();
    ada.expect_event("a secret room", "hello").await;
    node.finish().await;

    // The whole way of the event, each step within the one before.
    let mut parent = PARENT.to_owned();
    for name in ["api.publish", "bus.publish", "hub.deliver"] {
        let span = eventually("the next span of the publish", || async {
            let spans = collector.spans.lock().unwrap();
            let ours = |span: &&Span| span.name == name && hex(&span.trace_id) == trace;
            spans.iter().find(ours).cloned()
        })
        .await;
        assert_eq!(hex(&span.parent_span_id), parent, "{name}");
        parent = hex(&span.span_id);
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}
