//! Dispatch: agents as real gRPC streams, each on a connection of its own, whose chunks take no time. Every
//! assignment and every result is durable before anybody hears of it.
//!
//! Held against what the machine can do in the same run: the same streams with nothing in the middle but a batch
//! every 200 µs, and the prioritised queue of BullMQ on the same kind of Redis.

use std::{
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hearth_client::v1::{
    self, assignment::Work, attach_request::Message as Say, attach_response::Message as Order,
};
use hearth_coordinator::{
    Coordinator,
    farm::{Key, Record},
    store::{Embedded, Group, Lead, Store as _, StoreAddress},
};
use hearth_storage::Roots;
use hearth_tests::{clips, farm::request, processes::free_port, redis_server::RedisServer};
use hearth_workflows::library::Library;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::Figure;

const AGENTS: usize = 1_000;

/// Frames of a job, chunks of one frame; and jobs, so that the queue does not run dry.
const FRAMES: i64 = 40_000;
const JOBS: usize = 12;

const TIME: Duration = Duration::from_secs(5);

/// The batch in the middle of the bare streams.
const BATCH: Duration = Duration::from_micros(200);

/// Cycles a second through Redis: what one profiles.
pub(crate) async fn through_redis(slots: u32) -> f64 {
    let dir = tempfile::tempdir().expect("tempdir");
    let redis = RedisServer::start(&dir.path().join("redis")).await;
    dispatched(dir.path(), redis.url().parse().expect("address"), AGENTS, slots).await
}

pub(crate) async fn measure() -> Vec<Figure> {
    let mut figures = embedded().await;
    let mut best = 0.0_f64;
    for slots in [1, 2] {
        let bare = bare(slots).await;
        let rate = through_redis(slots).await;
        best = best.max(rate);
        figures.push(Figure::new(
            format!("gRPC and Redis (append-only, everysec), {AGENTS} agents with {slots} chunks of one frame each"),
            format!("{rate:.0} durable chunk cycles/s"),
            format!(
                "at least 20,000; {:.0} % of {bare:.0}/s through bare streams with a batch every 200 µs",
                rate / bare * 100.0
            ),
        ));
    }
    let (value, against) = match crate::bullmq::rates().await {
        Some(bullmq) => (
            format!(
                "{:.1} times whole cycles, {:.1} times taking and completing alone",
                best / bullmq.whole,
                best / bullmq.taken
            ),
            format!(
                "at least 4 times; BullMQ {:.0} added, taken and completed a second, {:.0} without adding",
                bullmq.whole, bullmq.taken
            ),
        ),
        None => ("not measured".to_owned(), "needs node and npm".to_owned()),
    };
    figures.push(Figure::new(
        "the better of them against BullMQ's prioritised queue, same Redis settings",
        value,
        against,
    ));
    figures
}

/// The same through the embedded store.
async fn embedded() -> Vec<Figure> {
    let limit = commits().await;
    let dir = tempfile::tempdir().expect("tempdir");
    let store = dir.path().join("farm.redb").into();
    let (agents, slots) = (128, 8);
    let rate = dispatched(dir.path(), store, agents, slots).await;
    vec![
        Figure::new(
            format!("gRPC and embedded store, {agents} agents with {slots} chunks of one frame each"),
            format!("{rate:.0} durable chunk cycles/s"),
            "at least 5,000",
        ),
        Figure::new(
            "the same against single durable commits of the store in this run",
            format!("{:.1} cycles for each of {limit:.0} commits/s", rate / limit),
            "group commit: more than 1",
        ),
    ]
}

/// Durable commits a second of the embedded store alone, one small record each: the disk's limit.
async fn commits() -> f64 {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut store = Embedded::open(&dir.path().join("limit.redb")).expect("open");
    let Lead::Ours { epoch, .. } = store.lead().await.expect("lead") else { panic!("nobody else leads") };
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < Duration::from_secs(2) {
        let change = (Key::Meta, Some(Record(count.to_string())));
        let group = Arc::new(Group { changes: vec![change], events: Vec::new() });
        store.commit(epoch, group).await.expect("commit");
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

/// A coordinator's settings, with a clip of [`FRAMES`] frames in `plates/clip`.
pub(crate) fn config(dir: &Path, store: StoreAddress) -> hearth_coordinator::Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut roots = Roots::default();
    for root in ["plates", "comps"] {
        std::fs::create_dir_all(dir.join(root)).expect("root");
        roots.insert(root, dir.join(root));
    }
    // One picture under many names: the clip must be there, but nobody renders it.
    let clip = dir.join("plates/clip");
    clips::make(&clip, 1..=1, 8, 8);
    for frame in 2..=FRAMES {
        std::fs::hard_link(clip.join("plate.0001.png"), clip.join(format!("plate.{frame:04}.png")))
            .expect("link");
    }
    hearth_coordinator::Config { listen: any, metrics_listen: any, store, roots, ..Default::default() }
}

/// Submits so many jobs of [`FRAMES`] frames.
pub(crate) async fn submit(client: &hearth_client::FarmClient, jobs: usize) {
    for job in 0..jobs {
        let output = format!("out{job}");
        let submission =
            v1::SubmitJobRequest { chunk_frames: 1, ..request("clip", "resize-sharpen", &output) };
        client.submit(submission).await.expect("accepted");
    }
}

/// Durable cycles a second with so many agents.
async fn dispatched(dir: &Path, store: StoreAddress, agents: usize, slots: u32) -> f64 {
    let coordinator = Coordinator::start(&config(dir, store)).await.expect("coordinator");
    let url = format!("http://{}", coordinator.address);
    let load = Load::start(&url, agents, slots);
    let client = hearth_client::FarmClient::new(&url).expect("client");
    submit(&client, JOBS).await;
    // What the farm itself counts as done; it answers between two commits, so it is durable.
    let finished = async || {
        let jobs = client.jobs(v1::ListJobsRequest::default()).await.expect("there").jobs;
        jobs.iter().map(|job| job.counts.unwrap_or_default().done).sum::<u64>()
    };
    let rate = load.rate(finished).await;
    load.stop();
    coordinator.stop().await.expect("stopped");
    rate
}

/// Agents that take and report chunks and render nothing.
pub(crate) struct Load {
    done: Arc<AtomicU64>,
    running: Arc<AtomicBool>,
    agents: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(url: &str, agents: usize, slots: u32) -> Self {
        let (done, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let library = Library::read::<&str>(&[]);
        let classes = library.get("resize-sharpen").expect("shipped").needed_classes();
        // As many names as a ComfyUI with some custom nodes has.
        let others = (0..700).map(|number| format!("SomeCustomNodeClass{number}"));
        let classes: Vec<String> = classes.into_iter().map(str::to_owned).chain(others).collect();
        let models = (0..200).map(|number| format!("checkpoints/some_model_{number}.safetensors")).collect();
        let digest = |names: &Vec<String>| hearth_proto::names::digest(names.iter().map(String::as_str));
        let capabilities = v1::Capabilities {
            node_classes_digest: digest(&classes),
            models_digest: digest(&models),
            roots: vec!["plates".to_owned(), "comps".to_owned()],
            ..v1::Capabilities::default()
        };
        let names = Arc::new([classes, models]);
        let mut handles = Vec::new();
        for index in 0..agents {
            let hello = v1::Hello {
                node: format!("node{index}"),
                capabilities: Some(capabilities.clone()),
                readiness: Some(v1::NodeReadiness { slots, ..v1::NodeReadiness::default() }),
                ..v1::Hello::default()
            };
            handles.push(tokio::spawn(agent(
                url.to_owned(),
                hello,
                names.clone(),
                done.clone(),
                running.clone(),
            )));
        }
        Self { done, running, agents: handles }
    }

    /// Until about every agent is at work.
    pub(crate) async fn wait(&self) {
        while self.done() < 2 * self.agents.len() as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Results that were acknowledged.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Cycles a second by `finished`, once every agent is at work.
    async fn rate(&self, finished: impl AsyncFn() -> u64) -> f64 {
        self.wait().await;
        let (before, started) = (finished().await, Instant::now());
        let most = (FRAMES as u64) * JOBS as u64 - 10_000;
        while started.elapsed() < TIME && self.done.load(Ordering::Relaxed) < most {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (finished().await - before) as f64 / started.elapsed().as_secs_f64()
    }

    pub(crate) fn stop(self) {
        self.running.store(false, Ordering::Relaxed);
        self.agents.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// An agent that reports every chunk at once.
async fn agent(
    url: String,
    hello: v1::Hello,
    names: Arc<[Vec<String>; 2]>,
    done: Arc<AtomicU64>,
    running: Arc<AtomicBool>,
) {
    let (sender, mut orders) = loop {
        let (sender, receiver) = mpsc::channel(256);
        let first = v1::AttachRequest { message: Some(Say::Hello(hello.clone())) };
        sender.send(first).await.expect("there is room");
        // Ten thousand at once are more than a listener takes in one go.
        if let Ok(mut client) = v1::agents_client::AgentsClient::connect(url.clone()).await
            && let Ok(attached) = client.attach(ReceiverStream::new(receiver)).await
        {
            break (sender, attached.into_inner());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let say = async |message| {
        // The stream ends with the measurement.
        let _ = sender.send(v1::AttachRequest { message: Some(message) }).await;
    };
    while let Ok(Some(order)) = orders.message().await {
        let Some(Order::Assignment(assignment)) = order.message else {
            match order.message {
                Some(Order::ResultAck(_)) => {
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Some(Order::WantNames(_)) => {
                    for names in names.iter().cloned() {
                        say(Say::Names(v1::Names { names })).await;
                    }
                }
                _ => {}
            }
            continue;
        };
        if !running.load(Ordering::Relaxed) {
            return;
        }
        let frames = match assignment.work {
            Some(Work::Chunk(chunk)) => chunk.frames,
            _ => String::new(),
        };
        let outcome = v1::attempt_result::Outcome::Succeeded(v1::Succeeded {
            seconds: 1.0,
            ..v1::Succeeded::default()
        });
        say(Say::Result(v1::AttemptResult {
            attempt_id: assignment.attempt_id,
            job_id: assignment.job_id,
            frames,
            outcome: Some(outcome),
        }))
        .await;
    }
}

/// Cycles a second of the same agents with nothing in the middle but a batch every 200 µs.
async fn bare(slots: u32) -> f64 {
    let (results, batches) = mpsc::channel(8_192);
    let cycles = Arc::new(AtomicU64::new(0));
    let middle = tokio::spawn(middle(batches, cycles.clone()));
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(v1::agents_server::AgentsServer::new(Bare { results, slots }))
        .serve(address);
    let server = tokio::spawn(server);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let load = Load::start(&format!("http://{address}"), AGENTS, slots);
    let rate = load.rate(async || cycles.load(Ordering::Relaxed)).await;
    load.stop();
    server.abort();
    middle.abort();
    rate
}

type ToAgent = mpsc::Sender<Result<v1::AttachResponse, Status>>;

#[derive(Debug)]
struct Bare {
    results: mpsc::Sender<(ToAgent, v1::AttemptResult)>,
    slots: u32,
}

#[tonic::async_trait]
impl v1::agents_server::Agents for Bare {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let (sender, receiver) = mpsc::channel(64);
        for number in 0..self.slots {
            send(&sender, assignment(number.into())).await;
        }
        let results = self.results.clone();
        tokio::spawn(async move {
            while let Some(Ok(request)) = incoming.next().await {
                if let Some(Say::Result(result)) = request.message
                    && results.send((sender.clone(), result)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn middle(mut results: mpsc::Receiver<(ToAgent, v1::AttemptResult)>, cycles: Arc<AtomicU64>) {
    let mut batch = Vec::new();
    loop {
        tokio::time::sleep(BATCH).await;
        results.recv_many(&mut batch, 8_192).await;
        for (agent, result) in batch.drain(..) {
            let number = cycles.fetch_add(1, Ordering::Relaxed);
            send(&agent, Order::ResultAck(v1::ResultAck { attempt_id: result.attempt_id })).await;
            send(&agent, assignment(number)).await;
        }
    }
}

/// As large as a real one.
fn assignment(number: u64) -> Order {
    Order::Assignment(v1::Assignment {
        attempt_id: format!("bare-1-{number}"),
        job_id: 1,
        traceparent: String::new(),
        storage: std::collections::HashMap::new(),
        work: Some(Work::Chunk(v1::Chunk { frames: number.to_string(), source: None })),
    })
}

async fn send(agent: &ToAgent, message: Order) {
    // The agent ends with the measurement.
    let _ = agent.send(Ok(v1::AttachResponse { message: Some(message) })).await;
}
