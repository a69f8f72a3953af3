//! The names that appear in traces, in one place. `docs/telemetry.md` defines each; a test compares the two.
//!
//! Span and field names inside `tracing` macros are literals there, as the macros require, and are listed here.

/// The version of the OpenTelemetry semantic conventions the attribute names are taken from.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// The version of this service.
pub const SERVICE_VERSION: &str = "service.version";
