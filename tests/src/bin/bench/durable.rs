//! Through gRPC and the embedded store: nodes that render nothing, but take and report chunks as agents do.
//! Every assignment and every result is durable before anybody hears of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hearth_client::v1::{self, attach_request::Message as Say, attach_response::Message as Order};
use hearth_coordinator::{
    Coordinator,
    farm::{Key, Record},
    store::{Embedded, Group, Lead, Store as _},
};
use hearth_storage::Roots;
use hearth_tests::{clips, farm::request};
use hearth_workflows::library::Library;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::Figure;

const NODES: usize = 128;

/// Chunks that each node holds.
const SLOTS: u32 = 8;

const FRAMES: i64 = 40_000;
const TIME: Duration = Duration::from_secs(5);

pub(crate) async fn measure() -> Vec<Figure> {
    let limit = commits().await;
    let dir = tempfile::tempdir().expect("tempdir");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut roots = Roots::default();
    for root in ["plates", "comps"] {
        std::fs::create_dir_all(dir.path().join(root)).expect("root");
        roots.insert(root, dir.path().join(root));
    }
    // One picture under many names: the clip must be there, but nobody renders it.
    let clip = dir.path().join("plates/clip");
    clips::make(&clip, 1..=1, 8, 8);
    for frame in 2..=FRAMES {
        std::fs::hard_link(clip.join("plate.0001.png"), clip.join(format!("plate.{frame:04}.png")))
            .expect("link");
    }
    let config = hearth_coordinator::Config {
        listen: any,
        metrics_listen: any,
        store: dir.path().join("farm.redb").into(),
        roots,
        ..hearth_coordinator::Config::default()
    };
    let coordinator = Coordinator::start(&config).await.expect("coordinator");
    let url = format!("http://{}", coordinator.address);
    let (done, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
    let nodes: Vec<_> = (0..NODES)
        .map(|index| tokio::spawn(node(url.clone(), index, done.clone(), running.clone())))
        .collect();
    let client = hearth_client::FarmClient::new(&url).expect("client");
    let submission = v1::SubmitJobRequest { chunk_frames: 1, ..request("clip", "resize-sharpen", "out") };
    client.submit(submission).await.expect("accepted");
    // Once every node is at work.
    while done.load(Ordering::Relaxed) < NODES as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What the farm itself counts as done; it answers between two commits, so it is durable.
    let finished = async || client.job(1).await.expect("there").counts.unwrap_or_default().done;
    let (before, started) = (finished().await, Instant::now());
    while started.elapsed() < TIME && done.load(Ordering::Relaxed) < FRAMES as u64 - 2_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = (finished().await - before) as f64 / started.elapsed().as_secs_f64();
    running.store(false, Ordering::Relaxed);
    nodes.iter().for_each(tokio::task::JoinHandle::abort);
    coordinator.stop().await.expect("stopped");
    vec![
        Figure::new(
            format!("gRPC and embedded store, {NODES} nodes with {SLOTS} chunks of one frame each"),
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

/// Durable commits a second of the store alone, one small record each: the disk's limit.
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

/// A node that reports every chunk at once.
async fn node(url: String, index: usize, done: Arc<AtomicU64>, running: Arc<AtomicBool>) {
    let library = Library::read::<&str>(&[]);
    let classes = library.get("resize-sharpen").expect("shipped").needed_classes();
    let capabilities = v1::Capabilities {
        node_classes: classes.into_iter().map(str::to_owned).collect(),
        roots: vec!["plates".to_owned(), "comps".to_owned()],
        ..v1::Capabilities::default()
    };
    let hello = v1::Hello {
        node: format!("node{index}"),
        capabilities: Some(capabilities),
        readiness: Some(v1::NodeReadiness { slots: SLOTS, ..v1::NodeReadiness::default() }),
        ..v1::Hello::default()
    };
    let (sender, receiver) = mpsc::channel(256);
    let say = async |message| sender.send(v1::AttachRequest { message: Some(message) }).await.expect("open");
    say(Say::Hello(hello)).await;
    let mut client = v1::agents_client::AgentsClient::connect(url).await.expect("connected");
    let mut orders = client.attach(ReceiverStream::new(receiver)).await.expect("attached").into_inner();
    while let Ok(Some(order)) = orders.message().await {
        let Some(Order::Assignment(assignment)) = order.message else {
            if matches!(order.message, Some(Order::ResultAck(_))) {
                done.fetch_add(1, Ordering::Relaxed);
            }
            continue;
        };
        if !running.load(Ordering::Relaxed) {
            return;
        }
        let frames = match assignment.work {
            Some(v1::assignment::Work::Chunk(chunk)) => chunk.frames,
            _ => String::new(),
        };
        let outcome = v1::attempt_result::Outcome::Succeeded(v1::Succeeded { seconds: 1.0 });
        say(Say::Result(v1::AttemptResult {
            attempt_id: assignment.attempt_id,
            job_id: assignment.job_id,
            frames,
            outcome: Some(outcome),
        }))
        .await;
    }
}
