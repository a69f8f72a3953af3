//! Sources of settings: a file, the environment, the command line; each later one wins.
//!
//! This is the only module of the crate that reads the process environment.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Config;
use super::problem::{ConfigError, Problem};

/// The prefix of the gateway's environment variables.
const PREFIX: &str = "ROOMCAST_";

/// Separates the levels of a key in a variable's name. Two underscores, because a Kubernetes Service named `roomcast`
/// injects `ROOMCAST_PORT=tcp://..`, which is no setting.
const LEVEL: &str = "__";

/// Variables of the OpenTelemetry specification, with their keys.
const STANDARD: [(&str, &str); 2] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    ("OTEL_SERVICE_NAME", "telemetry.service_name"),
];

/// Settings of one run, lowest precedence first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; any other is ignored.
    pub environment: Vec<(String, String)>,
    /// `key=value` pairs of the command line, keys with dots.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// Collects the file, if one is named, and the variables of this process.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        Self {
            file,
            environment: environment(),
            overrides,
        }
    }

    /// Merges the sources over the defaults; each value keeps its origin.
    pub(super) fn merged(&self) -> Result<Figment, ConfigError> {
        let mut settings = Figment::from(Serialized::defaults(Config::default()));
        if let Some(path) = &self.file {
            let text = read(path)?;
            let name = path.display().to_string();
            if let Err(error) = toml::from_str::<toml::Table>(&text) {
                return Err(ConfigError::Wrong(vec![Problem::of_syntax(&name, &text, &error)]));
            }
            let toml = Toml::string(&text);
            settings = settings.merge(File { name, toml });
        }
        // Standard variables first: the gateway's own are more specific.
        for (name, key) in STANDARD {
            if let Some(value) = self.variable(name) {
                settings = settings.merge(Setting::new(
                    format!("the environment variable {name}"),
                    key.to_owned(),
                    value,
                ));
            }
        }
        for (name, value) in &self.environment {
            if let Some(key) = key_of(name) {
                settings = settings.merge(Setting::new(format!("the environment variable {name}"), key, value));
            }
        }
        for (key, value) in &self.overrides {
            settings = settings.merge(Setting::new(format!("--set {key}"), key.clone(), value));
        }
        Ok(settings)
    }

    /// Returns the machine's name from the environment, which in Kubernetes is the pod's; else a random one.
    pub(super) fn host_name(&self) -> String {
        self.variable("HOSTNAME")
            .map_or_else(|| format!("node-{:08x}", rand::random::<u32>()), ToOwned::to_owned)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let mut found = self
            .environment
            .iter()
            .filter(|(other, value)| other == name && !value.is_empty());
        found.next().map(|(_, value)| value.as_str())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
fn environment() -> Vec<(String, String)> {
    // A variable that is not UTF-8 cannot be the gateway's.
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.collect()
}

/// Converts `ROOMCAST_CLIENT__LISTEN` to `client.listen`; a name without a level is no setting.
fn key_of(name: &str) -> Option<String> {
    let key = name.strip_prefix(PREFIX)?;
    key.contains(LEVEL)
        .then(|| key.to_ascii_lowercase().replace(LEVEL, "."))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// The file, named in errors as on the command line.
struct File {
    name: String,
    toml: figment::providers::Data<Toml>,
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        self.toml.data()
    }
}

/// One key with a value written as text, parsed as TOML would be: `true`, `5`, `["a"]`, and any other text as itself.
struct Setting {
    origin: String,
    key: String,
    value: Value,
}

impl Setting {
    fn new(origin: String, key: String, value: &str) -> Self {
        let Ok(value) = value.parse();
        Self { origin, key, value }
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        let nested = figment::util::nest(&self.key, self.value.clone());
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_level_are_settings() {
        assert_eq!(key_of("ROOMCAST_CLIENT__LISTEN").as_deref(), Some("client.listen"));
        assert_eq!(
            key_of("ROOMCAST_GRPC__TLS__KEY_FILE").as_deref(),
            Some("grpc.tls.key_file")
        );
        for name in ["ROOMCAST_PORT", "ROOMCAST_PORT_8080_TCP_ADDR", "PATH", "CLIENT__LISTEN"] {
            assert_eq!(key_of(name), None, "{name}");
        }
    }
}
