//! Everything that can be set. `docs/configuration.md` lists it.

use std::{env, net::SocketAddr, path::PathBuf, time::Duration};

use hearth_storage::Roots;
use hearth_telemetry::{LogFormat, host_name};
use serde::{Deserialize, Serialize};
use tonic::transport::Endpoint;

use crate::hours::Hours;

/// Of one agent: one host, with one node for each ComfyUI server there. Each field but `nodes` can stand in
/// the file, as `HEARTH_<FIELD>`, or as a flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The coordinators, as `http://host:port`, separated by commas. One that leads is found through any of them.
    pub coordinator: String,
    /// Name of this host; empty: what the system says.
    pub host: String,
    /// ComfyUI servers, separated by commas: the short way to write `nodes`.
    pub comfyui: String,
    pub nodes: Vec<NodeConfig>,
    /// Pools of every node that names none itself, separated by commas.
    pub pools: String,
    /// When nodes work that name no hours themselves; none: always.
    pub hours: Option<Hours>,
    /// How frames reach the ComfyUI of nodes that say nothing themselves.
    pub transfer: Transfer,
    /// Storage roots of this host, by name.
    pub roots: Roots,
    /// Where attempts and unreported results are kept.
    pub state: PathBuf,
    /// Where frames are linked for ComfyUI to load; empty: below `state`. ComfyUI must see it under the
    /// same path.
    pub stage: PathBuf,
    /// `/metrics` and `/healthz`.
    pub metrics_listen: SocketAddr,
    /// Attempts that a node holds: one that runs, the others staged and queued behind it.
    pub slots: u32,
    /// Pictures that are decoded, converted and checked at a time; each is in memory as a whole.
    pub conversions: u32,
    /// The program that encodes deliveries: a name in `PATH`, or a path.
    pub ffmpeg: String,
    /// A prompt without any progress for so long is given up, in seconds.
    pub stall_seconds: u64,
    /// A ComfyUI that does not answer for so long has died, in seconds.
    pub dead_seconds: u64,
    pub log_format: LogFormat,
    /// OTLP endpoint for traces, e.g. `http://localhost:4317`.
    pub otlp_endpoint: Option<String>,
}

/// One ComfyUI server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Unique on the farm; empty: `host:port`.
    pub name: String,
    /// `http://host:port`.
    pub comfyui: String,
    pub transfer: Option<Transfer>,
    /// ComfyUI's input folder on this host; without it, where its command line says, with `shared` transfer.
    pub input: Option<PathBuf>,
    /// ComfyUI's output folder on this host; without it results come over HTTP.
    pub output: Option<PathBuf>,
    /// Pools it belongs to.
    pub pools: Vec<String>,
    /// When it works.
    pub hours: Option<Hours>,
    /// Attempts that it holds at a time.
    pub slots: Option<u32>,
    /// Run by `sh -c` when ComfyUI hangs or stays away; empty: nothing is run.
    pub restart: String,
}

/// How frames reach ComfyUI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// It sees the agent's files under the same paths.
    Shared,
    /// Uploaded and downloaded. Works everywhere.
    #[default]
    Http,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            coordinator: "http://127.0.0.1:7400".to_owned(),
            host: String::new(),
            comfyui: String::new(),
            nodes: Vec::new(),
            pools: String::new(),
            hours: None,
            transfer: Transfer::default(),
            roots: Roots::default(),
            state: state_home().join("hearth/agent"),
            stage: PathBuf::new(),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 7402)),
            slots: 2,
            conversions: 2,
            ffmpeg: "ffmpeg".to_owned(),
            stall_seconds: 600,
            dead_seconds: 15,
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        }
    }
}

impl Config {
    /// The coordinators' addresses.
    pub(crate) fn coordinators(&self) -> std::io::Result<Vec<Endpoint>> {
        let urls = self.coordinator.split(',').map(str::trim).filter(|url| !url.is_empty());
        let endpoints: Result<Vec<Endpoint>, _> = urls
            .map(|url| {
                Endpoint::from_shared(url.to_owned())
                    .map_err(|error| std::io::Error::other(format!("coordinator address {url}: {error}")))
            })
            .collect();
        match endpoints {
            Ok(endpoints) if endpoints.is_empty() => Err(std::io::Error::other(
                "no coordinator is named; give its address with --coordinator http://host:7400",
            )),
            endpoints => endpoints,
        }
    }

    /// The host's name.
    pub fn host_name(&self) -> String {
        if self.host.is_empty() { host_name() } else { self.host.clone() }
    }

    /// Every node with its name, pools, hours, transfer and slots filled in.
    pub fn all_nodes(&self) -> Vec<NodeConfig> {
        let list = |text: &str| -> Vec<String> {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let short =
            list(&self.comfyui).into_iter().map(|comfyui| NodeConfig { comfyui, ..NodeConfig::default() });
        let host = self.host_name();
        self.nodes
            .iter()
            .cloned()
            .chain(short)
            .map(|mut node| {
                node.comfyui = node.comfyui.trim_end_matches('/').to_owned();
                if node.name.is_empty() {
                    node.name = node_name(&node.comfyui, &host);
                }
                if node.pools.is_empty() {
                    node.pools = list(&self.pools);
                }
                node.hours = node.hours.take().or_else(|| self.hours.clone());
                node.transfer = node.transfer.or(Some(self.transfer));
                node.slots = node.slots.or(Some(self.slots));
                node
            })
            .collect()
    }

    pub fn stage_dir(&self) -> PathBuf {
        if self.stage.as_os_str().is_empty() { self.state.join("stage") } else { self.stage.clone() }
    }

    pub fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_seconds.max(1))
    }

    pub fn dead(&self) -> Duration {
        Duration::from_secs(self.dead_seconds.max(1))
    }
}

/// `host:port` of the server; a loopback address goes by this host's name.
fn node_name(url: &str, host: &str) -> String {
    let (scheme, place) = url.split_once("://").unwrap_or(("http", url));
    let default = if scheme == "https" { "443" } else { "80" };
    let (server, port) = place.rsplit_once(':').unwrap_or((place, default));
    let is_here = matches!(server, "localhost" | "[::1]") || server.starts_with("127.");
    format!("{}:{port}", if is_here { host } else { server })
}

fn state_home() -> PathBuf {
    let set = env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".local/state"))).unwrap_or_default()
}
