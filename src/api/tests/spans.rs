//! The spans of a publish, as they would be exported.

use std::sync::{Arc, Mutex};

use opentelemetry::trace::{SpanKind, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing_subscriber::layer::SubscriberExt as _;

use super::support::{Api, ROOT, event};

/// Keeps what is exported.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

#[tokio::test]
async fn a_publish_is_a_server_span_of_the_callers_trace_without_secrets() {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    // With a single subscriber in the process, tracing lets the first thread that meets a span decide for all whether it
    // is wanted; tests without one run beside this.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // The runtime of the test has one thread, so the listener's tasks see this subscriber, too.
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let api = Api::start().await;
    api.enter("r", "ada");
    let mut request = tonic::Request::new(event());
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    api.publisher().await.publish(request).await.unwrap();

    let spans = kept.0.lock().unwrap().clone();
    let span = spans.iter().find(|span| span.name == "api.publish").unwrap();
    assert_eq!(
        span.span_context.trace_id().to_string(),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(span.span_kind, SpanKind::Server);
    let attribute = |name: &str| {
        let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
        found.map(|attribute| attribute.value.clone())
    };
    assert_eq!(attribute("roomcast.reached"), Some(1.into()));
    assert_eq!(attribute("roomcast.rooms"), Some(1.into()));
    let written = format!("{span:?}");
    assert!(!written.contains("hello") && !written.contains(ROOT), "{written}");
}
