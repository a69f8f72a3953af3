//! What an operator may say about logs and traces.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Telemetry")]
pub struct Config {
    /// Which log lines are written: a level (`info`), or levels by module (`warn,roomcast=info,roomcast::transport=debug`). Other
    /// libraries' lines at INFO are left out by default.
    pub log: String,
    /// How log lines look: `auto` is `pretty` on a terminal and `json` otherwise.
    pub log_format: LogFormat,
    /// Where spans are sent by OTLP over gRPC, for example `http://localhost:4317`. None are made when it is not set. The
    /// variable `OTEL_EXPORTER_OTLP_ENDPOINT` sets it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// The share of traces that is recorded when the caller has not decided, from 0 to 1.
    pub sample_ratio: f64,
    /// The name this service has in traces. The variable `OTEL_SERVICE_NAME` sets it too.
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

/// How log lines look.
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
