//! `check`, `print` and `schema`: commands on a configuration that do not run it.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::output::print;
use super::settings::{Overrides, Settings};
use crate::config::{Config, Sources};

/// Check a configuration file: exit code 0 when it would be served, 1 with a line per problem when not
///
/// Reads the secrets it names and compiles its rules. Settings that work, but probably not as meant, are a line with
/// `warning:`. Environment variables count, as they would in service.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration file (TOML)
    #[arg(value_name = "FILE", env = "ROOMCAST_CONFIG")]
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let sources = Sources::of_process(Some(self.config.clone()), self.overrides.parsed()?);
        for warning in Config::check(&sources)?.warnings() {
            print(format_args!("warning: {warning}"))?;
        }
        print(format_args!("{}: good", self.config.display()))
    }
}

/// Print the configuration in effect, or the defaults, as TOML; secrets appear as (secret)
#[derive(Debug, Args)]
pub(super) struct Print {
    /// Print the defaults alone: no file, no environment
    #[arg(long)]
    defaults: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Print {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let config = if self.defaults {
            Config::default()
        } else {
            self.settings.load()?
        };
        print(config.to_toml().trim_end())
    }
}

/// Print a JSON Schema of the configuration file, for editors
#[derive(Debug, Args)]
pub(super) struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "every command is run the same way")]
    pub(super) fn run(&self) -> Result<(), Failure> {
        print(format_args!("{:#}", Config::schema()))
    }
}
