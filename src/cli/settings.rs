//! The arguments that name a configuration, shared by every command that reads one.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::config::{Config, Sources};

#[derive(Debug, Clone, Args)]
pub(super) struct Settings {
    /// The configuration file (TOML); without one the defaults hold, and what the environment and flags set
    #[arg(long, short, value_name = "FILE", env = "ROOMCAST_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub overrides: Overrides,
}

// No doc comment: clap would show it as the help of the command.
#[allow(missing_docs, reason = "clap would print it")]
#[derive(Debug, Clone, Args)]
pub struct Overrides {
    /// Sets one key over file and environment, for example client.listen=127.0.0.1:0; may be repeated
    // Parsed by hand: clap would repeat the value, which may be a secret.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub pairs: Vec<String>,
}

impl Settings {
    pub(super) fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.sources()?)?)
    }

    pub(super) fn sources(&self) -> Result<Sources, Failure> {
        Ok(Sources::of_process(self.config.clone(), self.overrides.parsed()?))
    }
}

impl Overrides {
    pub(super) fn parsed(&self) -> Result<Vec<(String, String)>, Failure> {
        let pairs = self.pairs.iter().map(|text| pair(text));
        let pairs: Result<_, _> = pairs.collect();
        pairs.map_err(|expected| Failure::Usage(format!("--set: {expected}")))
    }
}

/// Splits `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
