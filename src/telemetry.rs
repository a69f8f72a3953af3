//! Logs and traces of the process: their form, and their destinations.
//!
//! Lower layers only use `tracing`. Logs go to standard error, readable on a terminal and as JSON otherwise, by a thread of
//! their own. Spans go to an OTLP collector when an endpoint is set; otherwise none is kept or sent. No span and no log line
//! carries a token, a payload or an address.

mod config;
mod log_writer;
pub mod names;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tonic::transport::ClientTlsConfig;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, FilterExt, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

pub use config::{Config, LogFormat};

use log_writer::LogWriter;

use crate::url;

/// The finest level that is logged of other crates. What they log below it holds what they transport: frames, headers,
/// messages. A dependency that is new is covered, too.
const FOREIGN_LEVEL_MAX: Level = Level::INFO;

/// Time for which the last spans may take to reach the collector when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which the last log lines may take to be written when the process ends.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason why telemetry does not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter cannot be parsed.
    #[error("is no log filter: {0}")]
    Filter(#[from] ParseError),
    /// The collector's address is none, or holds what nothing would send.
    #[error("{0}")]
    Endpoint(&'static str),
    /// The collector's address cannot be used.
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The log's thread cannot be started.
    #[error("cannot start the log's thread: {0}")]
    Thread(std::io::Error),
    /// Another part of this process has already installed a subscriber.
    #[error("telemetry is already running in this process")]
    Running,
}

/// Running telemetry. Dropping it writes the last log lines and loses the last spans; see [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
    log: LogWriter,
}

impl Telemetry {
    /// Starts logs and traces for the whole process. Needs a running tokio runtime when an OTLP endpoint is set.
    ///
    /// # Errors
    /// Every variant of [`TelemetryError`]; nothing is running.
    pub fn start(config: &Config) -> Result<Self, TelemetryError> {
        let spans = config
            .otlp_endpoint
            .as_deref()
            .map(|endpoint| exporter(config, endpoint))
            .transpose()?;
        let traces = spans.as_ref().map(traces);
        let filter = log_filter(config)?.and(own_or_coarse());
        let form = Form::choose(config.log_format);
        let log = LogWriter::start(std::io::stderr(), form == Form::Json).map_err(TelemetryError::Thread)?;
        let logs = logs(log.clone(), form).with_filter(filter);
        let subscriber = tracing_subscriber::registry().with(logs).with(traces);
        subscriber.try_init().map_err(|_| TelemetryError::Running)?;
        if let Some(provider) = &spans {
            global::set_text_map_propagator(TraceContextPropagator::new());
            global::set_tracer_provider(provider.clone());
        }
        Ok(Self { spans, log })
    }

    /// Flushes spans and log lines. Waits at most 5 s for the collector, and 1 s for the reader of the log.
    pub async fn shutdown(mut self) {
        let Some(provider) = self.spans.take() else { return };
        // The SDK blocks its thread, while its exporter needs the runtime.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("last spans not exported");
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // Lines left after this are lost: a shutdown must not hang on a stuck reader.
        let _ = self.log.flush(LOG_FLUSH_TIMEOUT);
    }
}

/// Routes panics to the log. The standard library's hook writes to standard error by itself, and so blocks the panicking
/// thread when that is a full pipe.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let cause = text.or_else(|| payload.downcast_ref().copied()).unwrap_or_default();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(location, cause, backtrace, "thread panicked");
    }));
}

/// Checks the settings that [`Telemetry::start`] would refuse, without starting anything.
///
/// # Errors
/// [`TelemetryError::Filter`] and [`TelemetryError::Endpoint`].
pub fn check(config: &Config) -> Result<(), TelemetryError> {
    log_filter(config)?;
    config.otlp_endpoint.as_deref().map_or(Ok(()), check_endpoint)
}

fn check_endpoint(endpoint: &str) -> Result<(), TelemetryError> {
    if url::has_credentials(endpoint) {
        return Err(TelemetryError::Endpoint(
            "must not hold a user and a password: neither is sent",
        ));
    }
    let uri = endpoint.parse::<http::Uri>().ok();
    let is_address = uri.is_some_and(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")));
    if is_address {
        Ok(())
    } else {
        Err(TelemetryError::Endpoint(
            "is no address of the form http://host:port or https://host:port",
        ))
    }
}

fn log_filter(config: &Config) -> Result<EnvFilter, TelemetryError> {
    // Built from the text alone: `EnvFilter`'s other constructors read RUST_LOG, which is not a setting of the gateway.
    Ok(EnvFilter::builder().parse(&config.log)?)
}

/// Passes this crate's own lines, and those of other crates that are coarse enough.
fn own_or_coarse<S>() -> impl tracing_subscriber::layer::Filter<S> {
    let filter = filter_fn(|metadata| is_own(metadata.target()) || *metadata.level() <= FOREIGN_LEVEL_MAX);
    // Without the hint, the combined filter would be asked for each event of every level.
    filter.with_max_level_hint(LevelFilter::TRACE)
}

fn is_own(target: &str) -> bool {
    let rest = target.strip_prefix(env!("CARGO_PKG_NAME"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Colored,
    Plain,
    Json,
}

impl Form {
    fn choose(format: LogFormat) -> Self {
        match (format, std::io::stderr().is_terminal()) {
            (LogFormat::Auto | LogFormat::Pretty, true) => Self::Colored,
            (LogFormat::Pretty, false) => Self::Plain,
            (LogFormat::Auto, false) | (LogFormat::Json, _) => Self::Json,
        }
    }
}

fn logs<S>(writer: LogWriter, form: Form) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = fmt::layer().with_writer(writer);
    match form {
        Form::Colored | Form::Plain => layer.with_ansi(form == Form::Colored).with_target(false).boxed(),
        Form::Json => layer.json().flatten_event(true).boxed(),
    }
}

fn traces<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    // Only the gateway's own spans: those of h2, hyper and tonic would report the exporter's calls, each causing the next.
    let ours = filter_fn(|metadata| {
        let level_max = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
        is_own(metadata.target()) && *metadata.level() <= level_max
    });
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        .with_threads(false)
        .with_location(false)
        .with_filter(ours.with_max_level_hint(Level::DEBUG))
}

fn exporter(config: &Config, endpoint: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
    if endpoint.starts_with("https:") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    Ok(SdkTracerProvider::builder()
        .with_resource(resource(config))
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            config.sample_ratio,
        ))))
        .with_batch_exporter(exporter.build()?)
        .build())
}

fn resource(config: &Config) -> Resource {
    let own = config
        .resource_attributes
        .iter()
        .map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    let version = KeyValue::new(names::SERVICE_VERSION, env!("CARGO_PKG_VERSION"));
    // Not `Resource::builder()`, whose detectors read the environment.
    Resource::builder_empty()
        .with_schema_url(own.chain([version]).collect::<Vec<_>>(), names::SCHEMA_URL)
        .with_service_name(config.service_name.clone())
        .build()
}
