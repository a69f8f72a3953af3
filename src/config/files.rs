//! Secrets and certificates: given in place or, better, in a file of their own.

use std::path::{Path, PathBuf};

use crate::auth::Secret;

/// Reason why a secret or a certificate is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Both the value and the file are given.
    #[error("is given together with its `_file` twin; keep one of them")]
    Twice,
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file holds nothing.
    #[error("the file {0} is empty")]
    Empty(PathBuf),
}

/// Returns the secret itself, or the content of its `_file` twin.
pub(super) fn secret(value: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, FileError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(FileError::Twice),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, None) => Ok(None),
        (None, Some(path)) => {
            let secret = Secret::read(path).map_err(|source| unreadable(path, source))?;
            if secret.expose().is_empty() {
                return Err(FileError::Empty(path.to_owned()));
            }
            Ok(Some(secret))
        }
    }
}

/// Reads a file.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: std::io::Error) -> FileError {
    FileError::Unreadable {
        path: path.to_owned(),
        source,
    }
}
