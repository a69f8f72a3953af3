//! How a command ends when it does not end well.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use crate::config::ConfigError;

/// The most time for the last line to be written.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// Why a command did not do what it was asked. The numbers are documented in `roomcast --help`.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The answer is no. Already said where the text is empty.
    #[error("{0}")]
    No(String),
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers, or the machine refuses.
    #[error("{0}")]
    Undone(String),
}

impl Failure {
    /// Says it in one line on standard error and gives the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        let text = self.to_string();
        if !text.is_empty() {
            // A full pipe must not hold up the end; the exit code says the same.
            let (sender, written) = sync_channel(1);
            thread::spawn(move || {
                let _ = writeln!(std::io::stderr(), "roomcast: {text}");
                let _ = sender.send(());
            });
            let _ = written.recv_timeout(WRITE_MAX);
        }
        ExitCode::from(match self {
            Self::No(_) => 1,
            Self::Usage(_) => 2,
            Self::Undone(_) => 3,
        })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Unreadable { .. } => Self::Undone(error.to_string()),
            ConfigError::Wrong(_) => Self::No(error.to_string()),
        }
    }
}

/// An error with its causes in one line: the outermost alone often says only "transport error".
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Libraries tend to repeat their cause in their own words.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
