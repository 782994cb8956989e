//! Size: a large farm loaded again from Redis, and ten thousand agents connected to one coordinator.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use hearth_client::{FarmClient, v1};
use hearth_coordinator::{
    driver::now,
    farm::{
        AssignedWork, Capabilities, Command as Told, Effect, Farm, FarmConfig, FarmTag, JobFilter, NodeAbout,
        Outcome, Priority, Session, Submission,
    },
    store::{Group, Lead, Redis, RedisOptions, Store as _},
};
use hearth_tests::{
    farm::PATIENCE,
    processes::{Process, free_port, program},
    redis_server::RedisServer,
};
use hearth_workflows::{FrameRange, library::Library};

use crate::{Figure, core::spec, dispatch};

const JOBS: u64 = 10_000;
const FRAMES_OF_JOB: u64 = 100;

/// Frames of a chunk: half of every job is finished in such pieces.
const CHUNK: u64 = 5;

const AGENTS: usize = 10_000;

/// Jobs of 40,000 frames.
const WAITING_JOBS: usize = 25;

pub(crate) async fn measure() -> Vec<Figure> {
    let mut figures = vec![reload().await];
    figures.extend(ten_thousand().await);
    figures
}

/// A farm of many half-finished jobs, as its records.
fn half_finished() -> Group {
    let library = Library::read::<&str>(&[]);
    let workflow = Arc::new(library.get("resize-sharpen").expect("shipped").clone());
    let mut farm = Farm::new(FarmConfig::default(), FarmTag("b".to_owned()));
    let range = FrameRange::new(1, FRAMES_OF_JOB as i64).expect("range");
    for job in 0..JOBS {
        let spec = spec(&workflow, range, job, CHUNK);
        let submission = Submission::one(spec, Priority::DEFAULT, workflow.clone());
        farm.apply(now(), Told::Submit(Box::new(submission)));
    }
    let capabilities = Capabilities {
        classes: Arc::new(workflow.needed_classes().into_iter().map(str::to_owned).collect()),
        roots: ["plates", "comps"].map(str::to_owned).into(),
        ..Capabilities::default()
    };
    let (name, session) = ("node".into(), Session(1));
    let about =
        NodeAbout { name, host: "host".to_owned(), agent_version: "0".to_owned(), instance: String::new() };
    let node = about.name.clone();
    let hello = Told::Hello {
        session,
        about: Box::new(about),
        capabilities: Box::new(capabilities),
        slots: 64,
        reason: String::new(),
        held: Vec::new(),
    };
    let mut step = farm.apply(now(), hello);
    let (mut running, mut results) = (std::collections::VecDeque::new(), 0);
    loop {
        for effect in step.effects.drain(..) {
            if let Effect::Assign { assignment, .. } = effect
                && let AssignedWork::Chunk(frames) = assignment.work
            {
                running.push_back((assignment.attempt, frames));
            }
        }
        if results == JOBS * FRAMES_OF_JOB / CHUNK / 2 {
            break;
        }
        let Some((attempt, frames)) = running.pop_front() else { break };
        results += 1;
        let outcome = Outcome::Succeeded { seconds: 1.0, published: None };
        step = farm.apply(now(), Told::Result { session, node: node.clone(), attempt, frames, outcome });
    }
    let changes = farm.keys().into_iter().map(|key| (key.clone(), farm.record(&key))).collect();
    Group { changes, events: Vec::new() }
}

async fn reload() -> Figure {
    let dir = tempfile::tempdir().expect("tempdir");
    let server = RedisServer::start(&dir.path().join("redis")).await;
    let open = || {
        let options = RedisOptions {
            prefix: "hearth:".to_owned(),
            certificate: None,
            lease: Duration::from_secs(3),
            advertise: String::new(),
        };
        Redis::new(server.url().parse().expect("address"), options).expect("store")
    };
    let mut store = open();
    let Lead::Ours { epoch, .. } = store.lead().await.expect("lead") else { panic!("nobody else leads") };
    let Group { changes, .. } = half_finished();
    let records = changes.len();
    for some in changes.chunks(20_000) {
        let group = Group { changes: some.to_vec(), events: Vec::new() };
        store.commit(epoch, Arc::new(group)).await.expect("commit");
    }
    store.resign(epoch).await.expect("resigned");
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let mut store = open();
        let Lead::Ours { epoch, .. } = store.lead().await.expect("lead") else { panic!("nobody else leads") };
        let loaded = store.load().await.expect("load");
        let farm = Farm::restore(now(), FarmConfig::default(), &loaded).expect("readable").expect("a farm");
        times.push(started.elapsed().as_secs_f64());
        assert_eq!(farm.jobs(&JobFilter::default()).1 as u64, JOBS);
        store.resign(epoch).await.expect("resigned");
    }
    times.sort_by(f64::total_cmp);
    Figure::new(
        format!(
            "a farm of {JOBS} jobs with {} frames, {records} records, loaded again from Redis",
            JOBS * FRAMES_OF_JOB
        ),
        format!("median {:.2} s, longest {:.2} s", times[2], times[4]),
        "under 3 s",
    )
}

async fn ten_thousand() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("tempdir");
    // The clip for a million frames; the settings are those of the process below.
    dispatch::config(dir.path(), dir.path().join("unused").into());
    let redis = RedisServer::start(&dir.path().join("redis")).await;
    let (port, metrics) = (free_port(), free_port());
    let coordinator = coordinator(dir.path(), port, metrics, &redis);
    let url = format!("http://127.0.0.1:{port}");
    let client = FarmClient::new(&url).expect("client");
    let started = Instant::now();
    while client.nodes().await.is_err() {
        assert!(started.elapsed() < PATIENCE, "the coordinator does not come up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    dispatch::submit(&client, WAITING_JOBS).await;
    let waiting = client.jobs(v1::ListJobsRequest::default()).await.expect("jobs").jobs;
    let waiting: u64 = waiting.iter().map(|job| job.counts.unwrap_or_default().waiting).sum();
    let load = dispatch::Load::start(&url, AGENTS, 2);
    load.wait().await;
    // Every one of them, too.
    while client.nodes().await.expect("nodes").len() < AGENTS {
        assert!(started.elapsed() < PATIENCE * 2, "not every agent connects");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let begun = Instant::now();
    let before = load.done();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let rate = (load.done() - before) as f64 / begun.elapsed().as_secs_f64();
    let connected = client.nodes().await.expect("nodes").len();
    // Another part of the program may have chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = reqwest::get(format!("http://127.0.0.1:{metrics}/metrics")).await.expect("metrics");
    let p99 = percentile(&text.text().await.expect("text"), "hearth_decision_seconds", 0.99);
    let status = std::fs::read_to_string(format!("/proc/{}/status", coordinator.pid())).expect("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("peak memory");
    let peak: f64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    load.stop();
    let what = format!("{connected} connected agents, {waiting} frames waiting at first");
    vec![
        Figure::new(
            format!("{what}: coordinator's memory at its peak"),
            format!("{:.0} MiB", peak / 1024.0),
            "under 500 MiB",
        ),
        Figure::new(
            format!("{what}: 99 of 100 decisions took at most"),
            format!("{:.0} µs", p99 * 1e6),
            format!("under 1 ms; {rate:.0} durable chunk cycles/s meanwhile"),
        ),
    ]
}

/// The upper bound of the bucket in which the percentile lies.
fn percentile(metrics: &str, name: &str, part: f64) -> f64 {
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    let count = metrics.lines().find(|line| line.starts_with(&format!("{name}_count"))).and_then(value);
    let count = count.expect("a count");
    let buckets = metrics.lines().filter(|line| line.starts_with(&format!("{name}_bucket")));
    for line in buckets {
        let bound = line.split_once("le=\"").and_then(|(_, rest)| rest.split('"').next()).expect("a bound");
        if value(line).expect("a number") >= count * part {
            return bound.parse().unwrap_or(f64::INFINITY);
        }
    }
    f64::INFINITY
}

fn coordinator(dir: &Path, port: u16, metrics: u16, redis: &RedisServer) -> Process {
    let mut command = Command::new(program("hearth-coordinator"));
    let roots = format!("plates={0}/plates,comps={0}/comps", dir.display());
    command
        .env("XDG_CONFIG_HOME", dir)
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--metrics-listen", &format!("127.0.0.1:{metrics}")])
        .args(["--store", &redis.url(), "--roots", &roots]);
    Process::start(&mut command, &dir.join("coordinator.log"))
}
