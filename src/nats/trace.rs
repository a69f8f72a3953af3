//! The trace that what is sent to other nodes belongs to, as W3C Trace Context writes it.

use std::collections::HashMap;

use opentelemetry::global;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The name of the value, as a header and elsewhere.
pub const TRACEPARENT: &str = "traceparent";

/// The current trace; empty for none.
#[must_use]
pub fn current() -> String {
    let span = Span::current();
    if span.is_disabled() {
        return String::new();
    }
    let mut carrier = HashMap::new();
    let context = span.context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut carrier));
    carrier.remove(TRACEPARENT).unwrap_or_default()
}

/// Makes another node's trace the parent of a span that was not entered yet.
#[must_use]
pub fn adopt(span: Span, traceparent: &str) -> Span {
    if !span.is_disabled() && !traceparent.is_empty() {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        let parent = global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
        // Fails only where no OpenTelemetry layer is installed, and then nothing is exported either.
        let _ = span.set_parent(parent);
    }
    span
}
