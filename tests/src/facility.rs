//! A facility of real processes: Redis, several coordinators, two agents with three ComfyUIs each, and a link
//! that can be cut between any two parties that talk to each other.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use hearth_client::FarmClient;

use crate::{
    disk::Disk,
    processes::{Process, free_port, program},
    proxy::Proxy,
    redis_server::{RedisServer, try_ask},
};

/// How long a leader is believed, in milliseconds: short, so that much can happen in a test.
pub const LEADER_LEASE: Duration = Duration::from_secs(1);

const NODES_OF_AGENT: usize = 3;

/// Room for the results of a night, and not much more.
const DISK_MEBIBYTES: u64 = 48;

/// One coordinator with its links.
#[derive(Debug)]
pub struct Member {
    pub process: Process,
    /// From clients and agents.
    pub link: Proxy,
    pub to_redis: Proxy,
    port: u16,
}

/// How a facility is made.
#[derive(Debug, Clone)]
pub struct Plan {
    pub coordinators: usize,
    pub agents: usize,
    pub seconds_per_frame: f64,
    pub environment: Vec<(String, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { coordinators: 2, agents: 2, seconds_per_frame: 0.04, environment: Vec::new() }
    }
}

#[derive(Debug)]
pub struct Facility {
    /// What holds the results, where the system lets us mount one. Goes first: what hangs on it could not be killed.
    pub disk: Option<Disk>,
    pub redis: RedisServer,
    pub coordinators: Vec<Member>,
    pub agents: Vec<Process>,
    pub simulators: Vec<Process>,
    /// From the agents to their ComfyUIs.
    pub to_comfyui: Vec<Proxy>,
    pub client: FarmClient,
    ports: Vec<u16>,
    plan: Plan,
    /// Goes last, so that the logs are still there when the processes go.
    pub dir: tempfile::TempDir,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Facility {
    pub async fn start(plan: Plan) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        for root in ["plates", "comps"] {
            fs::create_dir_all(dir.path().join(root)).expect("root");
        }
        let disk = Disk::mount(&dir.path().join("comps"), &dir.path().join("comps.img"), DISK_MEBIBYTES);
        let redis = RedisServer::start(&dir.path().join("redis")).await;
        let mut coordinators = Vec::new();
        for index in 0..plan.coordinators {
            let port = free_port();
            let (link, to_redis) = (Proxy::to(local(port)).await, Proxy::to(local(redis.port)).await);
            let process = coordinator(&dir, &plan, index, port, &link, &to_redis);
            coordinators.push(Member { process, link, to_redis, port });
        }
        let ports: Vec<u16> = (0..plan.agents * NODES_OF_AGENT).map(|_| free_port()).collect();
        let mut to_comfyui = Vec::new();
        for port in &ports {
            to_comfyui.push(Proxy::to(local(*port)).await);
        }
        let simulators =
            ports.iter().enumerate().map(|(index, port)| simulator(&dir, &plan, index, *port)).collect();
        let urls: Vec<String> = coordinators.iter().map(|member| member.link.url()).collect();
        let client = FarmClient::new(&urls.join(",")).expect("client");
        let mut facility = Self {
            disk,
            redis,
            coordinators,
            agents: Vec::new(),
            simulators,
            to_comfyui,
            client,
            ports,
            plan,
            dir,
        };
        facility.agents = (0..facility.plan.agents).map(|index| facility.agent(index)).collect();
        crate::farm::wait_for_nodes(&facility.client, facility.ports.len()).await;
        facility
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The addresses of every coordinator.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.coordinators.iter().map(|member| member.link.url()).collect();
        urls.join(",")
    }

    /// Which coordinator leads, as Redis has it.
    pub async fn leader(&self) -> Option<usize> {
        let address: Option<String> =
            try_ask(&self.redis.url(), &["HGET", "hearth:leader", "address"]).await.ok()?;
        self.coordinators.iter().position(|member| Some(member.link.url()) == address)
    }

    pub async fn wait_for_leader(&self) -> usize {
        let started = Instant::now();
        loop {
            if let Some(leader) = self.leader().await {
                return leader;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "nobody leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it, if it still lives, and starts it anew.
    pub fn restart_coordinator(&mut self, index: usize) {
        let member = &mut self.coordinators[index];
        member.process.kill();
        member.process =
            coordinator(&self.dir, &self.plan, index, member.port, &member.link, &member.to_redis);
    }

    pub fn restart_agent(&mut self, index: usize) {
        self.agents[index].kill();
        self.agents[index] = self.agent(index);
    }

    pub fn restart_simulator(&mut self, index: usize) {
        self.simulators[index].kill();
        self.simulators[index] = simulator(&self.dir, &self.plan, index, self.ports[index]);
    }

    fn agent(&self, index: usize) -> Process {
        let nodes = index * NODES_OF_AGENT..(index + 1) * NODES_OF_AGENT;
        let servers: Vec<String> = self.to_comfyui[nodes].iter().map(Proxy::url).collect();
        let mut command = Command::new(program("hearth-agent"));
        command
            .env("XDG_CONFIG_HOME", self.dir.path())
            .args(["--coordinator", &self.urls(), "--comfyui", &servers.join(",")])
            .args(["--host", &format!("host{index}"), "--metrics-listen", "127.0.0.1:0"])
            .args(["--dead-seconds", "2", "--roots", &roots(&self.dir)])
            .arg("--state")
            .arg(self.path(&format!("agent{index}")));
        Process::start(&mut command, &self.path(&format!("agent{index}.log")))
    }

    /// `hearth …` against this farm.
    pub fn hearth(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(program("hearth"));
        command.args(arguments).env("HEARTH_COORDINATOR", self.urls()).env("HEARTH_ROOTS", roots(&self.dir));
        command.env("XDG_CONFIG_HOME", self.dir.path()).output().expect("hearth runs")
    }

    /// What every agent has said, also in earlier lives.
    pub fn agents_said(&self) -> String {
        self.agents.iter().map(Process::said).collect()
    }
}

fn roots(dir: &tempfile::TempDir) -> String {
    format!("plates={0}/plates,comps={0}/comps", dir.path().display())
}

fn coordinator(
    dir: &tempfile::TempDir,
    plan: &Plan,
    index: usize,
    port: u16,
    link: &Proxy,
    to_redis: &Proxy,
) -> Process {
    let mut command = Command::new(program("hearth-coordinator"));
    command
        .env("XDG_CONFIG_HOME", dir.path())
        .env("HEARTH_RETRY_DELAY_MS", "100")
        .env("HEARTH_HEARTBEAT_MS", "500")
        .env("HEARTH_TARGET_CHUNK_SECONDS", "1")
        .env("HEARTH_MAX_TRIES", "50")
        .env("HEARTH_LEADER_LEASE_MS", LEADER_LEASE.as_millis().to_string())
        .args(["--listen", &format!("127.0.0.1:{port}"), "--advertise", &link.url()])
        .args(["--metrics-listen", "127.0.0.1:0", "--lease-seconds", "4", "--roots", &roots(dir)])
        .args(["--store", &format!("redis://{}", to_redis.address)])
        .envs(plan.environment.iter().cloned());
    Process::start(&mut command, &dir.path().join(format!("coordinator{index}.log")))
}

fn simulator(dir: &tempfile::TempDir, plan: &Plan, index: usize, port: u16) -> Process {
    let mut command = Command::new(program("comfy-simulator"));
    command
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--base")
        .arg(dir.path().join(format!("comfyui{index}")))
        .args(["--seconds-per-frame", &plan.seconds_per_frame.to_string()]);
    Process::start(&mut command, &dir.path().join(format!("simulator{index}.log")))
}
