//! Logs and traces of the process: who writes them, in which form, and where they go.
//!
//! Everything below only uses `tracing`. Logs go to standard error, readable on a terminal and as JSON otherwise. Spans go
//! to an OTLP collector when an endpoint is set; nothing is kept or sent when none is. No span or log line carries a
//! token, a payload or an address.

mod config;
pub mod names;

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
use tracing_subscriber::filter::{EnvFilter, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

pub use config::{Config, LogFormat};

/// How long the spans of the last moments may take to reach the collector when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error("is no log filter: {0}")]
    Filter(#[from] ParseError),
    /// The collector's address cannot be used.
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// Somebody else in this process has already installed a subscriber.
    #[error("telemetry is already running in this process")]
    Running,
}

/// Running telemetry. Dropping it does not end it; see [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logs and traces for the whole process. Needs a running tokio runtime when an OTLP endpoint is set.
    ///
    /// # Errors
    /// Every variant of [`TelemetryError`]; nothing runs then.
    pub fn start(config: &Config) -> Result<Self, TelemetryError> {
        let spans = config
            .otlp_endpoint
            .as_deref()
            .map(|url| exporter(config, url))
            .transpose()?;
        let traces = spans.as_ref().map(traces);
        let logs = logs(config.log_format).with_filter(log_filter(config)?);
        let subscriber = tracing_subscriber::registry().with(logs).with(traces);
        subscriber.try_init().map_err(|_| TelemetryError::Running)?;
        if let Some(provider) = &spans {
            global::set_text_map_propagator(TraceContextPropagator::new());
            global::set_tracer_provider(provider.clone());
        }
        Ok(Self { spans })
    }

    /// Sends what is not sent yet. Waits at most 5 s for the collector.
    pub async fn shutdown(self) {
        let Some(provider) = self.spans else { return };
        // The SDK waits by blocking its thread, and its exporter needs the runtime to go on meanwhile.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("last spans were not delivered");
        }
    }
}

/// Checks what [`Telemetry::start`] would refuse, without starting anything.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn check(config: &Config) -> Result<(), TelemetryError> {
    log_filter(config).map(drop)
}

fn log_filter(config: &Config) -> Result<EnvFilter, TelemetryError> {
    // Built from the text alone: `EnvFilter`'s other constructors read RUST_LOG behind the configuration's back.
    Ok(EnvFilter::builder().parse(&config.log)?)
}

fn logs<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let pretty = match format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let layer = fmt::layer().with_writer(std::io::stderr);
    if pretty {
        layer.with_ansi(terminal).with_target(false).boxed()
    } else {
        layer.json().flatten_event(true).boxed()
    }
}

fn traces<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    // Only our own spans: those of h2, hyper and tonic would report the exporter's own calls, each causing the next.
    let ours = filter_fn(|metadata| {
        let level_max = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
        metadata.target().starts_with(env!("CARGO_PKG_NAME")) && *metadata.level() <= level_max
    });
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        .with_threads(false)
        .with_location(false)
        .with_filter(ours.with_max_level_hint(Level::DEBUG))
}

fn exporter(config: &Config, url: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(url);
    if url.starts_with("https:") {
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
