//! Coordinator and agent, put together in this process.

use std::{net::SocketAddr, path::Path};

use hearth_agent::{Agent, AgentError, NodeConfig};
use hearth_coordinator::{Coordinator, ServerError};
use hearth_storage::Roots;

/// Why the standalone farm cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StandaloneError {
    #[error(transparent)]
    Coordinator(#[from] ServerError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Client(#[from] hearth_client::ClientError),
    #[error("cannot start a simulator")]
    Simulator(#[source] std::io::Error),
    #[error("cannot make {what}")]
    Files { what: String, source: std::io::Error },
    #[error("cannot make the test clip")]
    Clip(#[from] image::ImageError),
    #[error("{0}")]
    Job(String),
    #[error("{0}; the split is not right, please report this")]
    Proof(String),
}

/// A running farm.
#[derive(Debug)]
pub(crate) struct Farm {
    pub(crate) coordinator: Coordinator,
    pub(crate) agent: Agent,
    pub(crate) url: String,
}

/// Starts a farm whose files are below `state`.
pub(crate) async fn start(
    state: &Path,
    listen: SocketAddr,
    roots: &Roots,
    nodes: Vec<NodeConfig>,
    tune: impl FnOnce(&mut hearth_coordinator::Config, &mut hearth_agent::Config),
) -> Result<Farm, StandaloneError> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut coordinator_config = hearth_coordinator::Config {
        listen,
        metrics_listen: any,
        store: state.join("farm.redb").into(),
        roots: roots.clone(),
        ..hearth_coordinator::Config::default()
    };
    let mut agent_config = hearth_agent::Config {
        nodes,
        roots: roots.clone(),
        state: state.join("agent"),
        metrics_listen: any,
        ..hearth_agent::Config::default()
    };
    tune(&mut coordinator_config, &mut agent_config);
    let coordinator = Coordinator::start(&coordinator_config).await?;
    let url = format!("http://{}", coordinator.address);
    agent_config.coordinator.clone_from(&url);
    let agent = Agent::start(agent_config).await?;
    Ok(Farm { coordinator, agent, url })
}

impl Farm {
    pub(crate) async fn stop(self) -> Result<(), StandaloneError> {
        self.agent.stop().await?;
        self.coordinator.stop().await?;
        Ok(())
    }
}
