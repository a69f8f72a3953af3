//! The configuration: one tree of settings, read from a file, the environment and the command line.
//!
//! Only this module reads files and environment variables. Each section is the plain `Config` of the component it
//! configures; where such a type is not serde's business, a mirror in [`sections`] says how it is written. Defaults are
//! the components' own. A key nobody knows is an error, and so is every value that cannot work.

mod problem;
mod sections;
mod sources;
mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hub::admission;
use crate::telemetry;

pub use problem::{ConfigError, Problem};
pub use sources::Sources;
pub use values::{Secret, SecretError, Size};

/// Everything that can be set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many connections the node serves.
    #[serde(with = "sections::Connections")]
    pub connections: admission::Config,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
}

impl Config {
    /// Reads all sources and checks the result.
    ///
    /// # Errors
    /// Every variant of [`ConfigError`].
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config: Self = sources.merged()?.extract()?;
        config.check()?;
        Ok(config)
    }

    /// The settings as a TOML file that sets the same; secrets are left out.
    ///
    /// # Panics
    /// Never: every section is a table of values TOML knows.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("sections hold only what TOML can express")
    }

    /// A JSON Schema of the file.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// What serde cannot see: values out of range, and settings that do not fit together.
    fn check(&self) -> Result<(), ConfigError> {
        let problems = sections::check(self);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Wrong(problems))
        }
    }
}
