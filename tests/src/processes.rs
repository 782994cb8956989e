//! A farm of real processes, each of which can be killed.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use hearth_client::FarmClient;

/// A child process that does not outlive its test. Its output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("log file");
        let errors = file.try_clone().expect("log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// SIGKILL: no farewell, no clean-up.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `-STOP`: it stands still, and keeps its connections; `-CONT`: it goes on.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success(), "kill {name} {pid}");
    }

    /// Returns false once the process has ended by itself.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// What it has said, for messages of failing tests.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.said();
            let from = said.len().saturating_sub(4_000);
            eprintln!("--- {}\n{}", self.log.display(), said.get(from..).unwrap_or(&said));
        }
    }
}

/// The most memory that a process has had, in MiB.
pub fn peak_mebibytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux, and it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("told");
    let kibibytes: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kibibytes / 1_024
}

/// A program of this workspace, as built beside the test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let folder = test.ancestors().find(|folder| folder.join(name).is_file());
    match folder {
        Some(folder) => folder.join(name),
        None => panic!("{name} is not built; run tests/run, or cargo build --workspace --bins"),
    }
}

/// Ports of a process: outside the range from which the system takes those for outgoing connections.
const PORTS: u16 = 200;

/// The first of this process's ports, which no other process has while this one lives: what is killed and started again
/// must find its own.
fn first_port() -> u16 {
    static OWN: OnceLock<(File, u16)> = OnceLock::new();
    const PARTS: u16 = 100;
    let take = || {
        for part in (0..PARTS).cycle().skip(std::process::id() as usize % usize::from(PARTS)) {
            let lock = std::env::temp_dir().join(format!("hearth-test-ports-{part}"));
            let lock = File::create(lock).expect("a lock file");
            if lock.try_lock().is_ok() {
                return (lock, 10_000 + part * PORTS);
            }
        }
        unreachable!("it goes round for ever")
    };
    OWN.get_or_init(take).1
}

/// A port that is free, and that nobody else is given.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = first_port() + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Processes: a coordinator, an agent, and simulators.
#[derive(Debug)]
pub struct Processes {
    pub url: String,
    pub client: FarmClient,
    pub coordinator: Process,
    pub agent: Process,
    pub simulators: Vec<Process>,
    ports: Vec<u16>,
    /// Of each simulator.
    options: Vec<Vec<String>>,
    environment: Vec<(String, String)>,
    /// Goes last, so that the logs are still there when the processes go.
    pub dir: tempfile::TempDir,
}

impl Processes {
    /// A farm of `count` nodes at this speed. `environment` is given to coordinator and agent.
    pub async fn start(count: usize, seconds_per_frame: f64, environment: &[(&str, &str)]) -> Self {
        let speed = seconds_per_frame.to_string();
        Self::start_with(&vec![vec!["--seconds-per-frame", &speed]; count], environment).await
    }

    /// A farm whose simulators each have options of their own.
    pub async fn start_with(options: &[Vec<&str>], environment: &[(&str, &str)]) -> Self {
        let count = options.len();
        let owned = |options: &Vec<&str>| options.iter().map(|option| (*option).to_owned()).collect();
        let options: Vec<Vec<String>> = options.iter().map(owned).collect();
        let dir = tempfile::tempdir().expect("tempdir");
        for root in ["plates", "comps"] {
            fs::create_dir_all(dir.path().join(root)).expect("root");
        }
        let url = format!("http://127.0.0.1:{}", free_port());
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let simulators = ports
            .iter()
            .enumerate()
            .map(|(index, port)| simulator(dir.path(), index, *port, &options[index]))
            .collect();
        let coordinator = coordinator(dir.path(), &url, &environment);
        let agent = agent(dir.path(), &url, &ports, &environment);
        let client = FarmClient::new(&url).expect("client");
        let farm = Self { url, client, coordinator, agent, simulators, ports, options, environment, dir };
        crate::farm::wait_for_nodes(&farm.client, count).await;
        farm
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Where a simulator listens.
    pub fn port(&self, simulator: usize) -> u16 {
        self.ports[simulator]
    }

    pub fn restart_simulator(&mut self, index: usize) {
        self.simulators[index].kill();
        let port = self.ports[index];
        self.simulators[index] = simulator(self.dir.path(), index, port, &self.options[index]);
    }

    pub fn restart_agent(&mut self) {
        self.agent.kill();
        self.agent = agent(self.dir.path(), &self.url, &self.ports, &self.environment);
    }

    /// The agent anew, with `nodes` of its configuration file instead of all simulators.
    pub async fn configure_agent(&mut self, nodes: &str) {
        self.agent.kill();
        let file = self.path("hearth/agent.toml");
        fs::create_dir_all(self.path("hearth")).expect("folder");
        fs::write(&file, nodes).expect("written");
        self.agent = agent(self.dir.path(), &self.url, &[], &self.environment);
        crate::farm::wait_for_nodes(&self.client, self.ports.len()).await;
    }

    pub fn restart_coordinator(&mut self) {
        self.coordinator.kill();
        self.coordinator = coordinator(self.dir.path(), &self.url, &self.environment);
    }

    /// `hearth …` against this farm.
    pub fn hearth(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(program("hearth"));
        command.args(arguments).env("HEARTH_COORDINATOR", &self.url).env_remove("HEARTH_ROOTS");
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command.output().expect("hearth runs")
    }
}

fn roots(dir: &Path) -> String {
    format!("plates={0}/plates,comps={0}/comps", dir.display())
}

fn simulator(dir: &Path, index: usize, port: u16, options: &[String]) -> Process {
    let mut command = Command::new(program("comfy-simulator"));
    command
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--base")
        .arg(dir.join(format!("comfyui{index}")))
        .args(options);
    Process::start(&mut command, &dir.join(format!("simulator{index}.log")))
}

fn coordinator(dir: &Path, url: &str, environment: &[(String, String)]) -> Process {
    let mut command = Command::new(program("hearth-coordinator"));
    command
        .env("XDG_CONFIG_HOME", dir)
        .env("HEARTH_RETRY_DELAY_MS", "100")
        .env("HEARTH_HEARTBEAT_MS", "500")
        .env("HEARTH_TARGET_CHUNK_SECONDS", "1")
        .args(["--listen", url.trim_start_matches("http://"), "--metrics-listen", "127.0.0.1:0"])
        .args(["--lease-seconds", "4", "--roots", &roots(dir)])
        .arg("--store")
        .arg(dir.join("farm.redb"));
    command.envs(environment.iter().cloned());
    Process::start(&mut command, &dir.join("coordinator.log"))
}

fn agent(dir: &Path, url: &str, ports: &[u16], environment: &[(String, String)]) -> Process {
    let servers: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    let mut command = Command::new(program("hearth-agent"));
    command
        .env("XDG_CONFIG_HOME", dir)
        .args(["--coordinator", url, "--host", "host"])
        .args(["--metrics-listen", "127.0.0.1:0", "--dead-seconds", "2", "--roots", &roots(dir)])
        .arg("--state")
        .arg(dir.join("agent"));
    if !servers.is_empty() {
        command.args(["--comfyui", &servers.join(",")]);
    }
    command.envs(environment.iter().cloned());
    Process::start(&mut command, &dir.join("agent.log"))
}
