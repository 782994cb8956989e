//! The command line of `hearth-coordinator`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};
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
    #[command(subcommand)]
    #[serde(skip)]
    tool: Option<Tool>,
    /// Configuration file [default: $XDG_CONFIG_HOME/hearth/coordinator.toml, if it exists]
    #[arg(long, global = true, env = "HEARTH_CONFIG")]
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
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreAddress>,
    /// Where clients and agents reach this coordinator [default: this host's name and the port of --listen]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    /// Before every key in Redis, so that two farms can share one [default: hearth:]
    #[arg(long, global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    store_prefix: Option<String>,
    /// Storage roots of this host, as name=/path,name=/path
    #[arg(long, global = true)]
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
    /// What to do instead of coordinating, and the settings for it.
    pub fn tool(&mut self) -> Option<Tool> {
        self.tool.take()
    }

    /// File < environment < flags.
    pub fn config(self) -> Result<Config, ConfigurationError> {
        configure("coordinator", self.config.clone(), &self)
    }
}

/// What can be done with a farm's store while nobody coordinates.
#[derive(Debug, Clone, Subcommand)]
pub enum Tool {
    /// Look after the farm's store: check, export, import, recover
    #[command(subcommand)]
    Farm(FarmTool),
}

#[derive(Debug, Clone, Subcommand)]
pub enum FarmTool {
    /// Say whether every invariant of the farm holds; a Redis may be in use meanwhile
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write every record of the farm, one JSON value a line
    Export {
        /// Where to; - is the standard output
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Fill an empty store with an exported farm
    Import {
        /// Where from; - is the standard input
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Fill an empty store with the unfinished jobs whose work lies on storage
    Recover {
        /// Folders to look through, with everything below them
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
}
