//! A farm in this process: coordinator, agent and simulators over real sockets.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hearth_agent::{Agent, NodeConfig, Transfer};
use hearth_client::{
    FarmClient,
    v1::{self, NodeState, submit_job_request::Workflow, watch_job_response::Update},
};
use hearth_coordinator::Coordinator;
use hearth_simulator::Simulator;
use hearth_storage::Roots;

/// Longest wait for anything that should happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A farm with its folders: `plates` and `comps` are storage roots.
#[derive(Debug)]
pub struct Farm {
    pub dir: tempfile::TempDir,
    pub simulators: Vec<Simulator>,
    /// Where they serve, or have served: `node0` first.
    pub urls: Vec<String>,
    pub client: FarmClient,
    pub coordinator: Coordinator,
    pub agent: Agent,
}

/// How a farm is made.
pub struct Setup {
    pub simulators: Vec<hearth_simulator::Config>,
    pub transfer: Transfer,
    /// The agent reads results from ComfyUI's output folder.
    pub shared_output: bool,
    pub tune_coordinator: Box<dyn FnOnce(&mut hearth_coordinator::Config)>,
    pub tune_agent: Box<dyn FnOnce(&mut hearth_agent::Config)>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("simulators", &self.simulators).finish_non_exhaustive()
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            simulators: vec![hearth_simulator::Config::default(); 2],
            transfer: Transfer::Shared,
            shared_output: true,
            tune_coordinator: Box::new(|_| {}),
            tune_agent: Box::new(|_| {}),
        }
    }
}

impl Farm {
    pub async fn start(setup: Setup) -> Self {
        Self::start_in(tempfile::tempdir().expect("tempdir"), setup).await
    }

    pub async fn start_in(dir: tempfile::TempDir, setup: Setup) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut roots = Roots::default();
        for root in ["plates", "comps"] {
            let path = dir.path().join(root);
            std::fs::create_dir_all(&path).expect("root");
            roots.insert(root, path);
        }
        let (mut simulators, mut nodes) = (Vec::new(), Vec::new());
        for (index, mut config) in setup.simulators.into_iter().enumerate() {
            let name = format!("node{index}");
            config.base = dir.path().join(&name);
            let output = config.output();
            let simulator = Simulator::start(any, config).await.expect("simulator");
            nodes.push(NodeConfig {
                name,
                comfyui: simulator.url(),
                transfer: Some(setup.transfer),
                output: setup.shared_output.then_some(output),
                ..NodeConfig::default()
            });
            simulators.push(simulator);
        }
        let mut config = hearth_coordinator::Config {
            listen: any,
            metrics_listen: any,
            store: dir.path().join("farm.redb").into(),
            roots: roots.clone(),
            retry_delay_ms: 50,
            heartbeat_ms: 500,
            ..hearth_coordinator::Config::default()
        };
        (setup.tune_coordinator)(&mut config);
        let coordinator = Coordinator::start(&config).await.expect("coordinator");
        let url = format!("http://{}", coordinator.address);
        let mut config = hearth_agent::Config {
            coordinator: url.clone(),
            nodes,
            roots,
            state: dir.path().join("agent"),
            metrics_listen: any,
            dead_seconds: 2,
            stall_seconds: 30,
            ..hearth_agent::Config::default()
        };
        (setup.tune_agent)(&mut config);
        let agent = Agent::start(config).await.expect("agent");
        let client = FarmClient::new(&url).expect("client");
        let urls = simulators.iter().map(Simulator::url).collect();
        let farm = Self { dir, simulators, urls, client, coordinator, agent };
        farm.wait_for_nodes(farm.simulators.len()).await;
        farm
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Waits until so many nodes are ready.
    pub async fn wait_for_nodes(&self, count: usize) {
        wait_for_nodes(&self.client, count).await;
    }

    /// Submits and waits for the end; the job and its latest failures, oldest first.
    pub async fn run(&self, request: v1::SubmitJobRequest) -> (v1::Job, Vec<v1::Failure>) {
        let job = self.client.submit(request).await.expect("accepted").job.expect("a job");
        finish(&self.client, job.job_id).await
    }

    pub async fn stop(self) {
        self.agent.stop().await.expect("agent");
        self.coordinator.stop().await.expect("coordinator");
        for simulator in self.simulators {
            simulator.stop().await;
        }
    }
}

/// A submission of the clip in `plates/<clip>` to `comps/<output>`.
pub fn request(clip: &str, workflow: &str, output: &str) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        workflow: Some(Workflow::WorkflowName(workflow.to_owned())),
        clip: format!("plates/{clip}/plate.%04d.png"),
        output: format!("comps/{output}"),
        ..v1::SubmitJobRequest::default()
    }
}

/// A workflow of a test's own, from its folder's texts.
pub fn source(name: &str, manifest: &str, graph: &str) -> Workflow {
    Workflow::WorkflowSource(v1::WorkflowSource {
        name: name.to_owned(),
        manifest: manifest.to_owned(),
        graph: graph.to_owned(),
    })
}

/// Follows a job to its end; the job and its latest failures, oldest first.
pub async fn finish(client: &FarmClient, job: u64) -> (v1::Job, Vec<v1::Failure>) {
    let following = async {
        let mut watch = client.watch(job, false);
        let mut last = v1::Job::default();
        while let Some(update) = watch.next().await.expect("the watch goes on") {
            if let Update::Job(job) = update {
                last = job;
            }
        }
        // The job remembers them; a watch that began after one would not tell it.
        let failures = last.failures.iter().rev().cloned().collect();
        (last, failures)
    };
    let ended = tokio::time::timeout(PATIENCE * 2, following).await;
    match ended {
        Ok(ended) => ended,
        Err(_) => panic!("job {job} does not end: {:?}", client.job(job).await),
    }
}

/// Waits until `happened` says so of the job.
pub async fn until(client: &FarmClient, job: u64, happened: impl Fn(&v1::Job) -> bool) -> v1::Job {
    let started = Instant::now();
    loop {
        let view = client.job(job).await.expect("the job is there");
        if happened(&view) {
            return view;
        }
        assert!(started.elapsed() < PATIENCE, "it never happens: {view:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until `happened`; `what` says for what.
pub async fn eventually(what: &str, happened: impl Fn() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < PATIENCE, "it never happens: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn wait_for_nodes(client: &FarmClient, count: usize) {
    let started = Instant::now();
    loop {
        let nodes = client.nodes().await.unwrap_or_default();
        let is_ready = |node: &&v1::Node| matches!(node.state(), NodeState::Idle | NodeState::Busy);
        if nodes.iter().filter(is_ready).count() >= count {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "nodes do not come up: {nodes:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The frames of a finished job equal `expected`, none more, none less, and nothing is left behind.
pub fn assert_right(
    comps: &Path,
    output: &str,
    expected: &std::collections::BTreeMap<hearth_workflows::Frame, image::DynamicImage>,
) {
    let made = crate::clips::read(&comps.join(output));
    let names: Vec<String> = expected.keys().map(|frame| format!("plate.{:04}.png", frame.0)).collect();
    assert_eq!(made.keys().cloned().collect::<Vec<_>>(), names);
    for (frame, picture) in expected {
        assert!(made[&format!("plate.{:04}.png", frame.0)] == *picture, "frame {frame} is not right");
    }
    assert_eq!(crate::clips::leftovers(comps), Vec::<String>::new());
}
