//! Logs as text or JSON on standard error, and traces over OTLP where an endpoint is configured.

use std::{io::IsTerminal as _, str::FromStr};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("'{other}' is no log format; write text or json")),
        }
    }
}

/// How a program logs and traces.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    /// Service name in traces, e.g. `hearth-coordinator`.
    pub service: &'static str,
    pub format: LogFormat,
    /// What is logged when `HEARTH_LOG` and `RUST_LOG` say nothing, e.g. `info`.
    pub level: &'static str,
    /// OTLP over gRPC, e.g. `http://localhost:4317`; `None`: no traces.
    pub otlp_endpoint: Option<String>,
}

/// Why logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("cannot send traces to {endpoint}")]
    Otlp { endpoint: String, source: opentelemetry_otlp::ExporterBuildError },
}

/// Sends what is left of the traces when it is dropped.
#[derive(Debug)]
pub struct LogsGuard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for LogsGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // The program ends: there is nobody left to tell.
            let _ = provider.shutdown();
        }
    }
}

impl Logs {
    /// Installs the logs for the whole program. A second call in one process leaves the first in force.
    pub fn install(self) -> Result<LogsGuard, LogsError> {
        let filter = EnvFilter::try_from_env("HEARTH_LOG")
            .or_else(|_| EnvFilter::try_from_default_env())
            .unwrap_or_else(|_| EnvFilter::new(self.level));
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
        let lines = match self.format {
            LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let provider = self.otlp_endpoint.as_deref().map(|to| tracer(self.service, to)).transpose()?;
        let traces = provider.as_ref().map(|provider| {
            opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
            tracing_opentelemetry::layer().with_tracer(provider.tracer(self.service)).with_filter(
                EnvFilter::new("hearth=info,hearth_coordinator=info,hearth_agent=info,hearth_client=info"),
            )
        });
        let _ = tracing_subscriber::registry().with(traces).with(lines.with_filter(filter)).try_init();
        Ok(LogsGuard { provider })
    }
}

fn tracer(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, LogsError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| LogsError::Otlp { endpoint: endpoint.to_owned(), source })?;
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
