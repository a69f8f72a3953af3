//! The failure of a request to a stream.

use std::error::Error;
use std::sync::Arc;

/// The reason why a stream's server did not do what was requested. Cheap to clone: callers of a single-flight request
/// share its failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestFailed {
    /// The stream does not exist.
    #[error("nats stream lost")]
    NoStream,
    /// The stream is sealed.
    #[error("nats stream sealed")]
    ReadOnly,
    /// No response arrived in time, or one that says "not now".
    #[error("nats unavailable")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
}

impl RequestFailed {
    /// Returns the failure of a request that may succeed later, with its cause: an error, or words.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(cause.into().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_cause() {
        let cause = std::io::Error::other("connection reset");
        let failed = RequestFailed::unavailable(cause).clone();
        assert_eq!(failed.to_string(), "nats unavailable");
        assert_eq!(failed.source().unwrap().to_string(), "connection reset");
        let in_words = RequestFailed::unavailable("no answer in time");
        assert_eq!(in_words.source().unwrap().to_string(), "no answer in time");
        assert!(RequestFailed::NoStream.source().is_none());
    }
}
