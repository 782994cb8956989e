//! A farm on real ComfyUI servers, in one process.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use clap::Args;
use hearth_agent::{NodeConfig, Transfer};
use hearth_storage::Roots;
use hearth_telemetry::until_stopped;

use crate::farm::{self, StandaloneError};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// ComfyUI servers, separated by commas
    #[arg(long, env = "HEARTH_COMFYUI", value_delimiter = ',', required = true)]
    comfyui: Vec<String>,
    /// Storage roots, as name=/path,name=/path [default: home=$HOME]
    #[arg(long, env = "HEARTH_ROOTS")]
    roots: Option<Roots>,
    /// Where `hearth` connects
    #[arg(long, env = "HEARTH_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// Where the farm is kept [default: $XDG_STATE_HOME/hearth/standalone]
    #[arg(long, env = "HEARTH_STATE")]
    state: Option<PathBuf>,
    /// The ComfyUI servers see these roots under the same paths: frames are not uploaded
    #[arg(long)]
    shared: bool,
    /// Folders with workflow folders
    #[arg(long)]
    workflows: Vec<PathBuf>,
}

pub(crate) async fn run(flags: Flags) -> Result<(), StandaloneError> {
    let roots = flags.roots.unwrap_or_else(|| {
        let mut roots = Roots::default();
        roots.insert("home", env::home_dir().unwrap_or_else(|| PathBuf::from("/")));
        roots
    });
    let state = flags.state.unwrap_or_else(state_dir);
    let transfer = Some(if flags.shared { Transfer::Shared } else { Transfer::Http });
    let nodes = flags
        .comfyui
        .iter()
        .map(|url| NodeConfig { comfyui: url.clone(), transfer, ..NodeConfig::default() })
        .collect();
    let workflows = flags.workflows;
    let farm = farm::start(&state, flags.listen, &roots, nodes, |coordinator, agent| {
        coordinator.workflows = workflows;
        coordinator.metrics_listen = usual_metrics(hearth_coordinator::Config::default().metrics_listen);
        agent.metrics_listen = usual_metrics(hearth_agent::Config::default().metrics_listen);
    })
    .await?;
    println!("the farm is up at {}", farm.url);
    println!(
        "metrics: http://{}/metrics (coordinator), http://{}/metrics (agent)",
        farm.coordinator.metrics_address, farm.agent.metrics_address
    );
    println!("storage roots: {}", roots.names().collect::<Vec<_>>().join(", "));
    println!("submit with:  hearth --coordinator {} submit …", farm.url);
    // Ends early when a part of the farm does.
    farm.agent.work(until_stopped()).await?;
    println!("stopped; what ComfyUI runs goes on there and is taken up again by the next start");
    Ok(farm.coordinator.stop().await?)
}

/// The address that monitoring expects, or any port of it while another program has that.
fn usual_metrics(usual: SocketAddr) -> SocketAddr {
    let is_free = TcpListener::bind(usual).is_ok();
    if is_free { usual } else { SocketAddr::new(usual.ip(), 0) }
}

fn state_dir() -> PathBuf {
    let set = env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let state = set.or_else(|| env::home_dir().map(|home| home.join(".local/state"))).unwrap_or_default();
    state.join("hearth/standalone")
}
