//! The trace context of messages to other nodes, as one text: that of its `traceparent`.

use std::collections::HashMap;

use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::trace::TRACEPARENT;

/// Returns the current trace; empty for none.
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
    crate::trace::adopt(span, &Text(traceparent))
}

struct Text<'t>(&'t str);

impl Extractor for Text<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT && !self.0.is_empty()).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}
