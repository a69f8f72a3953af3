//! Outgoing calls to a backend: a channel that connects on first use, a deadline, and the trace. Knows no service.

use std::future::Future;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::global;
use opentelemetry::propagation::Injector;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::url;

/// The interval between probes of an idle connection with calls in flight, so that a dead peer is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// The reason why a backend cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The address is not one of `http://host:port` and `https://host:port`.
    #[error("`{}` is no address of the form http://host:port or https://host:port", url::shown(.0))]
    Address(String),
    /// The address holds a user or a password, which would never be sent.
    #[error("the address must not hold a user and a password")]
    Credentials,
    /// The file with the authority's certificate cannot be read.
    #[error("{path}: {source}")]
    Authority {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tonic::transport::Error),
}

/// The reason why a call returned no response.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The deadline passed.
    Timeout,
    /// The backend, or the way to it, returned an error.
    Status(Status),
}

/// A backend that is connected on the first call, and again whenever needed.
#[derive(Debug)]
pub struct Target {
    endpoint: Endpoint,
    channel: OnceLock<Channel>,
}

impl Target {
    /// Validates an address and reads the certificates.
    ///
    /// # Errors
    /// Every variant of [`ChannelError`]; an unreachable backend shows only at the first call.
    pub fn new(url: &str, authority: Option<&Path>, connect_timeout: Duration) -> Result<Self, ChannelError> {
        let address = || ChannelError::Address(url.to_owned());
        if url::has_credentials(url) {
            return Err(ChannelError::Credentials);
        }
        // Other forms, for sockets in the file system, are the library's own.
        let uri: http::Uri = url.parse().map_err(|_| address())?;
        let endpoint = Endpoint::from(uri.clone());
        let bare = uri.path() == "/" && uri.query().is_none() && uri.host().is_some();
        let endpoint = match uri.scheme_str() {
            Some("http") if bare => endpoint,
            Some("https") if bare => endpoint.tls_config(tls(authority)?)?,
            _ => return Err(address()),
        };
        Ok(Self {
            endpoint: endpoint
                .connect_timeout(connect_timeout)
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL),
            channel: OnceLock::new(),
        })
    }

    /// Returns the channel to call through, shared by all calls.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn channel(&self) -> Channel {
        // Created here and not in `new`, so that a configuration can be validated without a runtime.
        self.channel.get_or_init(|| self.endpoint.connect_lazy()).clone()
    }
}

fn tls(authority: Option<&Path>) -> Result<ClientTlsConfig, ChannelError> {
    let config = ClientTlsConfig::new();
    let Some(path) = authority else {
        return Ok(config.with_native_roots());
    };
    let pem = std::fs::read(path).map_err(|source| ChannelError::Authority {
        path: path.display().to_string(),
        source,
    })?;
    Ok(config.ca_certificate(Certificate::from_pem(pem)))
}

/// Makes one call within `deadline`, connecting included. Sends the deadline and the current trace to the callee.
///
/// # Errors
/// Every variant of [`Failure`].
pub async fn within<Q, A, F>(deadline: Duration, message: Q, call: impl FnOnce(Request<Q>) -> F) -> Result<A, Failure>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    let context = tracing::Span::current().context();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut Metadata(request.metadata_mut()));
    });
    match tokio::time::timeout(deadline, call(request)).await {
        Err(_) => Err(Failure::Timeout),
        // The callee or our own transport may notice the deadline first; tonic's transport calls it cancelled.
        Ok(Err(status)) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => Err(Failure::Timeout),
        Ok(Err(status)) => Err(Failure::Status(status)),
        Ok(Ok(response)) => Ok(response.into_inner()),
    }
}

/// Writes a trace into gRPC metadata (W3C Trace Context: `traceparent`, `tracestate`).
struct Metadata<'m>(&'m mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        // Baggage is never forwarded: it may hold a client's data.
        if key == "baggage" {
            return;
        }
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}
