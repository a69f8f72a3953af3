//! Configuration of logs and traces.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Telemetry")]
pub struct Config {
    /// Filter of log lines: a level (`info`), or levels by module (`warn,roomcast=info,roomcast::transport=debug`). Other
    /// libraries' lines at INFO are left out by default.
    pub log: String,
    /// Form of log lines: `auto` is `pretty` on a terminal and `json` otherwise.
    pub log_format: LogFormat,
    /// Destination of spans by OTLP over gRPC, for example `http://localhost:4317`. Not set: no spans. The variable
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` sets it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Share of traces that is recorded when the caller has not decided, from 0 to 1.
    pub sample_ratio: f64,
    /// Name of this service in traces. The variable `OTEL_SERVICE_NAME` sets it too.
    pub service_name: String,
    /// Further attributes of the resource, such as `deployment.environment.name`.
    pub resource_attributes: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: "warn,roomcast=info".to_owned(),
            log_format: LogFormat::Auto,
            otlp_endpoint: None,
            sample_ratio: 1.0,
            service_name: env!("CARGO_PKG_NAME").to_owned(),
            resource_attributes: BTreeMap::new(),
        }
    }
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable on a terminal, JSON otherwise.
    Auto,
    /// Readable, one line each.
    Pretty,
    /// One JSON object per line.
    Json,
}
