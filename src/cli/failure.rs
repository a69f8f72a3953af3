//! Failures of commands, and their exit codes.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use crate::config::ConfigError;

/// Time for which the last line may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// Reason why a command failed. The exit codes are documented in `roomcast --help`.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Refused. Already reported where the text is empty.
    #[error("{0}")]
    No(String),
    /// The arguments contradict each other.
    #[error("{0}")]
    Usage(String),
    /// No reply, or an error of the system.
    #[error("{0}")]
    Undone(String),
}

impl Failure {
    /// Prints one line on standard error and returns the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        let text = self.to_string();
        if !text.is_empty() {
            // A full pipe must not block the end; the exit code says the same.
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

/// Formats an error with its causes in one line: the outermost alone often says only "transport error".
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Libraries tend to repeat the text of their cause.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
