//! The command line of `hearth-coordinator`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use hearth_storage::Roots;
use hearth_telemetry::{ConfigurationError, LogFormat, configure};
use serde::Serialize;

use crate::{Config, store::StoreAddress};

/// Takes jobs, decides which node runs what, and remembers.
#[derive(Debug, Parser, Serialize)]
#[command(
    version,
    after_help = "Examples:
  hearth-coordinator --roots plates=/mnt/plates,comps=/mnt/comps
  HEARTH_LISTEN=0.0.0.0:7400 hearth-coordinator --config /etc/hearth/coordinator.toml
  HEARTH_STORE=redis://farm:secret@redis:6379 hearth-coordinator --roots plates=/mnt/plates,comps=/mnt/comps

Every setting can stand in the file, in the environment as HEARTH_<NAME>, or here; the later wins.
docs/configuration.md lists them all."
)]
pub struct Flags {
    /// Configuration file [default: $XDG_CONFIG_HOME/hearth/coordinator.toml, if it exists]
    #[arg(long, env = "HEARTH_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Where clients and agents connect [default: 127.0.0.1:7400]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    /// Where /metrics and /healthz are served [default: 127.0.0.1:7401]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics_listen: Option<SocketAddr>,
    /// Where the farm is kept: a file, or redis://user:password@host:6379/0, rediss://…,
    /// redis+sentinel://host,host/mymaster [default: $XDG_STATE_HOME/hearth/farm.redb]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreAddress>,
    /// Where clients and agents reach this coordinator [default: this host's name and the port of --listen]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    /// Storage roots of this host, as name=/path,name=/path
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    roots: Option<Roots>,
    /// A folder with workflow folders; can be given several times
    #[arg(long)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workflows: Vec<PathBuf>,
    /// Seconds that an attempt lives without being heard of [default: 30]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_seconds: Option<u64>,
    /// text or json [default: text]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
    /// Send traces there over OTLP, e.g. http://localhost:4317
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    otlp_endpoint: Option<String>,
}

impl Flags {
    /// File < environment < flags.
    pub fn config(self) -> Result<Config, ConfigurationError> {
        configure("coordinator", self.config.clone(), &self)
    }
}
