//! One agent process: its nodes and its metrics.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hearth_storage::Calls;
use hearth_telemetry::{Listener, metrics_limits, serve_metrics};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{Config, chunk::Darkroom, delivery::Encoder, node, telemetry::Meters};

/// Looks at a storage root that may hang at a time, and how long each is waited for.
const STORAGE_CALLS: usize = 8;
const STORAGE_PATIENCE: Duration = Duration::from_secs(30);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("no ComfyUI server given; name one with --comfyui http://127.0.0.1:8188")]
    NoNodes,
    #[error("no storage root given; name them with --roots plates=/mnt/plates,comps=/mnt/comps")]
    NoRoots,
    #[error("two nodes are called {name}; give one of them another name")]
    SameName { name: String },
    #[error("'{name}' is no name of a pool; '+', '!' and commas put pools together")]
    PoolName { name: String },
    #[error("'{url}' is no ComfyUI address; write it as http://host:port")]
    Address { url: String },
    #[error("cannot listen on {address} for metrics; is another program using it?")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the HTTP client cannot be made")]
    Http(#[source] reqwest::Error),
    #[error("no threads for pictures can be had")]
    Threads(#[source] io::Error),
    #[error("node {node} cannot be run")]
    Node { node: String, source: io::Error },
    #[error("a part of the agent ended by a mistake of its own; please report this")]
    Ended(#[source] tokio::task::JoinError),
    #[error("metrics cannot be served")]
    Metrics(#[source] io::Error),
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    pub metrics_address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), AgentError>>,
}

impl Agent {
    pub async fn start(config: Config) -> Result<Self, AgentError> {
        let nodes = config.all_nodes();
        if nodes.is_empty() {
            return Err(AgentError::NoNodes);
        }
        if config.roots.is_empty() {
            return Err(AgentError::NoRoots);
        }
        let mut names = std::collections::HashSet::new();
        for node in &nodes {
            if !names.insert(&node.name) {
                return Err(AgentError::SameName { name: node.name.clone() });
            }
            if let Some(name) = node.pools.iter().find(|name| name.contains(['+', '!', ','])) {
                return Err(AgentError::PoolName { name: name.clone() });
            }
            let scheme = node.comfyui.starts_with("http://") || node.comfyui.starts_with("https://");
            if !scheme || reqwest::Url::parse(&node.comfyui).is_err() {
                return Err(AgentError::Address { url: node.comfyui.clone() });
            }
        }
        // Another part of the program may have chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = http().map_err(AgentError::Http)?;
        let address = config.metrics_listen;
        let listener = Listener::bind(address, metrics_limits())
            .await
            .map_err(|source| AgentError::Listen { address, source })?;
        let metrics_address =
            listener.local_addr().map_err(|source| AgentError::Listen { address, source })?;

        let mut registry = Registry::default();
        let meters = Arc::new(Meters::register(&mut registry));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let config = Arc::new(config);
        let darkroom = Darkroom::open(config.conversions).map_err(AgentError::Threads)?;
        let encoder = Encoder::find(&config.ffmpeg).await;
        let calls = Calls::new(STORAGE_CALLS, STORAGE_PATIENCE);
        for node in nodes {
            let (config, http, meters, stop) = (config.clone(), http.clone(), meters.clone(), stop.clone());
            let shared = (darkroom.clone(), encoder.clone(), calls.clone());
            tasks.spawn(async move {
                let name = node.name.clone();
                Box::pin(node::run(node, &config, http, meters, shared, stop))
                    .await
                    .map_err(|source| AgentError::Node { node: name, source })
            });
        }
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            serve_metrics(listener, Arc::new(registry), || Ok(()), stopped).await.map_err(AgentError::Metrics)
        });
        info!(coordinator = config.coordinator, metrics = %metrics_address, "the agent is up");
        Ok(Self { metrics_address, stop, tasks })
    }

    /// Ends. What ComfyUI runs goes on there, and is taken up by the next agent.
    pub async fn stop(mut self) -> Result<(), AgentError> {
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap_or_else(|error| Err(AgentError::Ended(error)))?;
        }
        Ok(())
    }

    /// Works until `stop` resolves or something breaks.
    pub async fn work(mut self, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        tokio::select! {
            () = stop => self.stop().await,
            Some(task) = self.tasks.join_next() => task.unwrap_or_else(|error| Err(AgentError::Ended(error))),
        }
    }
}

/// What talks to ComfyUI.
pub(crate) fn http() -> reqwest::Result<reqwest::Client> {
    // Where ComfyUI is, the configuration says, and nobody who answers for it.
    let nowhere = reqwest::redirect::Policy::none();
    reqwest::Client::builder().redirect(nowhere).no_proxy().tcp_nodelay(true).build()
}

/// Runs an agent until `stop` resolves.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    let agent = Agent::start(config).await?;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    agent.work(stop).await
}
