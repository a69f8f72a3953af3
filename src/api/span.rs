//! The spans of the API: fixed names, their parent from the caller's W3C trace context.

use opentelemetry::propagation::Extractor;
use tonic::metadata::{KeyRef, MetadataMap};
use tracing::Span;
use tracing::field::Empty;

use super::credentials::Caller;
use crate::proto::v1;
use crate::trace;

/// Opens the span of one published event.
pub(super) fn publish(metadata: &MetadataMap, caller: &Caller) -> Span {
    let span = tracing::info_span!(
        "api.publish",
        otel.kind = "server",
        roomcast.service = &*caller.service.name,
        roomcast.rooms = Empty,
        roomcast.reached = Empty,
    );
    trace::adopt(span, &Metadata(metadata))
}

/// Opens the span of a batch.
pub(super) fn publish_batch(metadata: &MetadataMap, caller: &Caller) -> Span {
    let span = tracing::info_span!(
        "api.publish_batch",
        otel.kind = "server",
        roomcast.service = &*caller.service.name,
    );
    trace::adopt(span, &Metadata(metadata))
}

/// Opens the span of a unary call to any service but `PublishService`.
pub(super) fn room(metadata: &MetadataMap, caller: &Caller, method: &'static str) -> Span {
    let span = tracing::info_span!(
        "api.room",
        otel.kind = "server",
        rpc.method = method,
        roomcast.service = &*caller.service.name,
    );
    trace::adopt(span, &Metadata(metadata))
}

/// Records a publish's results in its span.
pub(super) fn record_publish(results: &[v1::PublishResult]) {
    let span = Span::current();
    if !span.is_disabled() {
        // Signed: the OpenTelemetry layer writes unsigned numbers as text.
        let reached: Option<i64> = results.iter().map(|result| result.reached.map(i64::from)).sum();
        span.record("roomcast.rooms", i64::try_from(results.len()).unwrap_or(i64::MAX));
        span.record("roomcast.reached", reached);
    }
}

struct Metadata<'m>(&'m MetadataMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        let names = self.0.keys().map(|key| match key {
            KeyRef::Ascii(key) => key.as_str(),
            KeyRef::Binary(key) => key.as_str(),
        });
        names.collect()
    }
}
