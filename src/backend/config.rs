//! Configuration of the application behind the gateway.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The service that receives client events and requests. Every failure is a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Backend")]
pub struct Config {
    /// Address of the application's `ClientEventService`, as `http://host:port` or `https://host:port`. Connected on first
    /// use.
    pub url: String,
    /// For `https`: the certificate of the authority to trust, in PEM. The system's authorities when not set.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Deadline of a call, connecting included (default 2 s).
    #[serde(default = "default_timeout", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// The largest reply, in bytes (default 65,536).
    #[serde(default = "default_answer_bytes_max")]
    pub answer_bytes_max: usize,
    /// The most calls in flight (default 1,000). More are refused at once.
    #[serde(default = "default_in_flight_max")]
    pub in_flight_max: usize,
}

impl Config {
    /// Returns the defaults for an application at `url`.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            timeout: default_timeout(),
            answer_bytes_max: default_answer_bytes_max(),
            in_flight_max: default_in_flight_max(),
        }
    }
}

const fn default_timeout() -> Duration {
    Duration::from_secs(2)
}

const fn default_answer_bytes_max() -> usize {
    65_536
}

const fn default_in_flight_max() -> usize {
    1_000
}
