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

#[derive(Debug, Clone, Args)]
pub(super) struct Overrides {
    /// Sets one key over file and environment, for example client.listen=127.0.0.1:0; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub pairs: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn load(&self) -> Result<Config, Failure> {
        let sources = Sources::of_process(self.config.clone(), self.overrides.pairs.clone());
        Ok(Config::load(&sources)?)
    }
}

/// Splits `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
