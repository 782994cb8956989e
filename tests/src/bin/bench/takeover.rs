//! Taking over: the leader is killed twenty times, with the defaults of a facility, while two GPUs work through a
//! long job. How long until somebody else leads, and whether a GPU noticed.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use hearth_agent::{Agent, NodeConfig, Transfer};
use hearth_client::{
    FarmClient,
    v1::{self, SetPriority, control_job_request::Action},
};
use hearth_simulator::Simulator;
use hearth_storage::Roots;
use hearth_tests::{
    clips,
    farm::{request, wait_for_nodes},
    processes::{Process, free_port, program},
    redis_server::{RedisServer, try_ask},
};

use crate::Figure;

const KILLS: u32 = 20;

/// A chunk of so many frames lasts five seconds: a sixth of the default.
const CHUNK: u32 = 10;
const SECONDS_PER_FRAME: f64 = 0.5;

pub(crate) async fn measure() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("tempdir");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut roots = Roots::default();
    for root in ["plates", "comps"] {
        std::fs::create_dir_all(dir.path().join(root)).expect("root");
        roots.insert(root, dir.path().join(root));
    }
    clips::make(&dir.path().join("plates/clip"), 1..=2_000, 16, 9);
    let redis = RedisServer::start(&dir.path().join("redis")).await;
    let ports = [free_port(), free_port()];
    let mut coordinators = ports.map(|port| coordinator(dir.path(), port, &redis));
    let urls = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let (mut simulators, mut nodes) = (Vec::new(), Vec::new());
    for index in 0..2 {
        let name = format!("node{index}");
        let config = hearth_simulator::Config {
            base: dir.path().join(&name),
            seconds_per_frame: SECONDS_PER_FRAME,
            ..Default::default()
        };
        let simulator = Simulator::start(any, config).await.expect("simulator");
        let transfer = Some(Transfer::Shared);
        nodes.push(NodeConfig { name, comfyui: simulator.url(), transfer, ..NodeConfig::default() });
        simulators.push(simulator);
    }
    let config = hearth_agent::Config {
        coordinator: urls.join(","),
        nodes,
        roots,
        state: dir.path().join("agent"),
        metrics_listen: any,
        ..Default::default()
    };
    let agent = Agent::start(config).await.expect("agent");
    let client = FarmClient::new(&urls.join(",")).expect("client");
    wait_for_nodes(&client, 2).await;
    let submission = v1::SubmitJobRequest { chunk_frames: CHUNK, ..request("clip", "resize-sharpen", "out") };
    let job = client.submit(submission).await.expect("accepted").job.expect("a job").job_id;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut times = Vec::new();
    for kill in 0..KILLS {
        let address: String =
            try_ask(&redis.url(), &["HGET", "hearth:leader", "address"]).await.expect("a leader");
        let leader = urls.iter().position(|url| *url == address).expect("one of them");
        let killed = Instant::now();
        coordinators[leader].kill();
        // A write is answered once it is durable: by the new leader.
        let priority = Action::SetPriority(SetPriority { priority: kill });
        client.control(job, priority).await.expect("somebody leads");
        times.push(killed.elapsed().as_secs_f64());
        coordinators[leader] = coordinator(dir.path(), ports[leader], &redis);
        // The other comes up, and a chunk or two go by.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let mut gaps: Vec<f64> =
        simulators.iter().flat_map(Simulator::idle_gaps).map(|gap| gap.as_secs_f64()).collect();
    gaps.sort_by(f64::total_cmp);
    times.sort_by(f64::total_cmp);
    agent.stop().await.expect("agent");
    let chunk = f64::from(CHUNK) * SECONDS_PER_FRAME;
    vec![
        Figure::new(
            format!(
                "from kill -9 of the leader to a write answered by the next, {KILLS} kills, default lease of 3 s"
            ),
            format!("median {:.2} s, longest {:.2} s", times[times.len() / 2], times[times.len() - 1]),
            "at most 5 s",
        ),
        Figure::new(
            format!("longest idle gap of a GPU in that time, between {} chunks of {chunk} s", gaps.len() + 2),
            format!("{:.0} ms", gaps.last().copied().unwrap_or_default() * 1000.0),
            format!("the prefetched chunk lasts {chunk} s, by default 30 s"),
        ),
    ]
}

fn coordinator(dir: &Path, port: u16, redis: &RedisServer) -> Process {
    let mut command = Command::new(program("hearth-coordinator"));
    let roots = format!("plates={0}/plates,comps={0}/comps", dir.display());
    command
        .env("XDG_CONFIG_HOME", dir)
        .args(["--listen", &format!("127.0.0.1:{port}"), "--metrics-listen", "127.0.0.1:0"])
        .args(["--store", &redis.url(), "--roots", &roots]);
    Process::start(&mut command, &dir.join(format!("coordinator{port}.log")))
}
