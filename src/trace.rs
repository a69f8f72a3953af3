//! Traces that begin elsewhere, in the form of W3C Trace Context: the caller, over any wire, is the parent of the span
//! in which the call is served.

use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The name of the field without which there is no trace.
pub const TRACEPARENT: &str = "traceparent";

/// Makes the trace in `carrier` the parent of a span. Call it before the span is entered: afterwards it is too late.
#[must_use]
pub fn adopt(span: Span, carrier: &dyn Extractor) -> Span {
    if !span.is_disabled() && carrier.get(TRACEPARENT).is_some() {
        let parent = global::get_text_map_propagator(|propagator| propagator.extract(carrier));
        // Fails only where no OpenTelemetry layer is installed, and then nothing is exported either.
        let _ = span.set_parent(parent);
    }
    span
}
