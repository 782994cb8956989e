//! The command line of `hearth-agent`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use hearth_storage::Roots;
use hearth_telemetry::{ConfigurationError, LogFormat, configure};
use serde::Serialize;

use crate::{Config, Transfer, hours::Hours};

/// Works beside ComfyUI: renders chunks there and brings them to shared storage.
#[derive(Debug, Parser, Serialize)]
#[command(
    version,
    after_help = "Examples:
  hearth-agent --coordinator http://farm:7400 --comfyui http://127.0.0.1:8188 --roots plates=/mnt/plates,comps=/mnt/comps
  hearth-agent --config /etc/hearth/workstation.toml --hours 'mon-fri 19:00-08:00, sat, sun'
  HEARTH_COMFYUI=http://127.0.0.1:8188,http://127.0.0.1:8189 hearth-agent --config /etc/hearth/agent.toml

Every setting can stand in the file, in the environment as HEARTH_<NAME>, or here; the later wins.
docs/configuration.md lists them all."
)]
pub struct Flags {
    /// Configuration file [default: $XDG_CONFIG_HOME/hearth/agent.toml, if it exists]
    #[arg(long, env = "HEARTH_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The coordinator [default: http://127.0.0.1:7400]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator: Option<String>,
    /// Name of this host [default: what the system says]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// ComfyUI servers of this host, separated by commas
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    comfyui: Option<String>,
    /// Pools of the nodes, separated by commas
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pools: Option<String>,
    /// When the nodes work, e.g. 'mon-fri 19:00-08:00, sat, sun' [default: always]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    hours: Option<Hours>,
    /// How frames reach the ComfyUIs: shared, which see the roots under the same paths, or http [default: http]
    #[arg(long, hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<Transfer>,
    /// Storage roots of this host, as name=/path,name=/path
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    roots: Option<Roots>,
    /// Where attempts and unreported results are kept [default: $XDG_STATE_HOME/hearth/agent]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<PathBuf>,
    /// Where /metrics and /healthz are served [default: 127.0.0.1:7402]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics_listen: Option<SocketAddr>,
    /// The program that encodes deliveries [default: ffmpeg]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ffmpeg: Option<String>,
    /// Give up a prompt without progress after so many seconds [default: 600]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    stall_seconds: Option<u64>,
    /// Count a ComfyUI without an answer as dead after so many seconds [default: 15]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_seconds: Option<u64>,
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
        configure("agent", self.config.clone(), &self)
    }
}
