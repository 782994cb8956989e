//! Peers that lie, break or flood: agents, a ComfyUI, clients and plain connections, drawn from a seed. Whatever they do,
//! the honest get their frames, nothing is called done that is not there, and memory stays bounded.
//!
//! `HEARTH_ACTS=10000 HEARTH_SEED=7 cargo nextest run -p hearth-tests --test hostile` plays more, or others.

use std::{net::SocketAddr, time::Duration};

use hearth_agent::NodeConfig;
use hearth_client::v1::{
    self, JobState, assignment, attach_request::Message as Say, attach_response::Message as Order,
    attempt_result::Outcome, submit_job_request::Workflow,
};
use hearth_proto::names::digest;
use hearth_simulator::{Config, Simulator};
use hearth_tests::{
    clips,
    farm::{Farm, Setup, assert_right, finish, request, until},
    processes::peak_mebibytes,
    reference::unsplit,
};
use hearth_workflows::{FrameRange, library::Library};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

const FRAMES: i64 = 36;

/// How long one act may keep a liar busy.
const ACT: Duration = Duration::from_millis(400);

/// Connections that are held open to the end.
const HELD: usize = 40;

/// What all of it may cost in memory, beside what was there before.
const MOST_MEBIBYTES: u64 = 1_024;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

/// The most memory that this process has had, in MiB.
fn peak() -> u64 {
    peak_mebibytes(std::process::id())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_peers_do_the_honest_get_their_frames() {
    let (seed, acts) = (number("HEARTH_SEED", 1), number("HEARTH_ACTS", 200));
    println!("replay with HEARTH_SEED={seed} HEARTH_ACTS={acts}");
    let dir = tempfile::tempdir().expect("a folder");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    // A ComfyUI of which one in five connections is somebody else's.
    let behind = Simulator::start(any, Config { base: dir.path().join("behind"), ..Config::default() });
    let behind = behind.await.expect("simulator");
    let liar = liar(behind.url().trim_start_matches("http://").parse().expect("an address"), seed).await;
    let slow = Config { seconds_per_frame: 0.05, ..Config::default() };
    let farm = Farm::start(Setup {
        simulators: vec![slow.clone(), slow],
        transfer: hearth_agent::Transfer::Http,
        shared_output: false,
        tune_agent: Box::new(move |config| {
            config.nodes.push(NodeConfig { name: "liar".to_owned(), comfyui: liar, ..NodeConfig::default() });
            config.stall_seconds = 5;
        }),
        ..Setup::default()
    })
    .await;
    let plates = farm.path("plates/sh010");
    clips::make(&plates, 1..=FRAMES, 24, 16);
    let library = Library::read::<&str>(&[]);
    let workflow = library.get("resize-sharpen").expect("shipped");
    let range = FrameRange::new(1, FRAMES).expect("a range");
    let expected = unsplit(workflow, &std::collections::BTreeMap::new(), &plates, range).await;
    let before = peak();

    let show = "dune".to_owned();
    let small =
        v1::SubmitJobRequest { chunk_frames: 2, show, ..request("sh010", "resize-sharpen", "during") };
    let during = farm.client.submit(small.clone()).await.expect("accepted").job.expect("a job").job_id;
    // Whoever lists jobs knows what attempts are called.
    let attempts = until(&farm.client, during, |job| !job.attempts.is_empty()).await.attempts;
    let peers = Peers {
        grpc: farm.coordinator.address,
        metrics: farm.coordinator.metrics_address,
        classes: workflow.needed_classes().into_iter().map(str::to_owned).collect(),
        honest: during,
        tag: attempts[0].attempt_id.split('-').next().expect("a tag").to_owned(),
    };
    let mut rng = StdRng::seed_from_u64(seed);
    let mut held = Vec::new();
    let mut playing = JoinSet::new();
    for act in 0..acts {
        let own = StdRng::seed_from_u64(seed.wrapping_mul(1 << 20) + act);
        if held.len() < HELD && rng.random_bool(0.1) {
            held.extend(TcpStream::connect(peers.grpc).await.ok());
        }
        while playing.len() >= 8 {
            playing.join_next().await.expect("one plays").expect("a liar does not panic");
        }
        let peers = peers.clone();
        playing.spawn(async move {
            // However it ends.
            let _ = timeout(ACT, peers.act(own)).await;
        });
    }
    while let Some(played) = playing.join_next().await {
        played.expect("a liar does not panic");
    }

    let (job, failures) = finish(&farm.client, during).await;
    assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.message);
    assert_right(&farm.path("comps"), "during", &expected);
    let (job, failures) = farm.run(v1::SubmitJobRequest { output: "comps/after".to_owned(), ..small }).await;
    assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.message);
    assert_right(&farm.path("comps"), "after", &expected);
    // The lists can be read by everybody.
    farm.client.jobs(v1::ListJobsRequest { limit: 1_000, ..Default::default() }).await.expect("jobs");
    farm.client.nodes().await.expect("nodes");
    let used = peak().saturating_sub(before);
    println!("{acts} acts, {used} MiB more at the most");
    assert!(used < MOST_MEBIBYTES, "{used} MiB");
    drop(held);
    farm.stop().await;
    behind.stop().await;
}

/// A ComfyUI's address behind which somebody sits.
async fn liar(behind: SocketAddr, seed: u64) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        let mut rng = StdRng::seed_from_u64(seed);
        while let Ok((mut stream, _)) = listener.accept().await {
            let lie = rng.random_bool(0.2).then(|| rng.random_range(0..8_u32));
            tokio::spawn(async move {
                let Some(lie) = lie else {
                    let Ok(mut honest) = TcpStream::connect(behind).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut honest).await;
                    return;
                };
                let _ = stream.read(&mut [0; 4_096]).await;
                let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
                let told = match lie {
                    0 => format!("{ok}{}", "[".repeat(200_000)),
                    1 => "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
                        .to_owned(),
                    2 => format!("{ok}{{}}"),
                    3 => format!("{ok}{{\"devices\": [{{\"vram_total\": 1e999, \"name\": NaN}}]}}"),
                    4 => format!("{ok}<html>Sign in</html>"),
                    5 => "\u{0}\u{1}garbage\r\n\r\n".repeat(100),
                    6 => String::new(),
                    _ => ok.to_owned(),
                };
                let _ = stream.write_all(told.as_bytes()).await;
                // Without end, for a while.
                for _ in 0..(if lie == 7 { 4_096 } else { 0 }) {
                    if stream.write_all(&[b'0'; 8_192]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    url
}

/// Everybody who means no good, and what they know.
#[derive(Clone)]
struct Peers {
    grpc: SocketAddr,
    metrics: SocketAddr,
    /// What a node must have to be given work.
    classes: Vec<String>,
    honest: u64,
    /// With which the names of attempts begin.
    tag: String,
}

impl Peers {
    async fn act(&self, mut rng: StdRng) -> Option<()> {
        match rng.random_range(0..10) {
            0..4 => self.agent(rng).await,
            4..7 => self.client(rng).await,
            7 => self.noise(self.grpc, rng).await,
            8 => self.noise(self.metrics, rng).await,
            _ => self.watcher(rng).await,
        }
    }

    /// Comes as a node: under a name that it should not have, with numbers that are none, with results of work that it
    /// never did.
    async fn agent(&self, mut rng: StdRng) -> Option<()> {
        let mut client =
            v1::agents_client::AgentsClient::connect(format!("http://{}", self.grpc)).await.ok()?;
        let (say, said) = mpsc::channel(64);
        let node = match rng.random_range(0..4) {
            0 => "node0".to_owned(),
            1 => text(&mut rng),
            _ => format!("hostile{}", rng.random_range(0..20)),
        };
        let hello = v1::Hello {
            node,
            host: text(&mut rng),
            instance: text(&mut rng),
            capabilities: Some(v1::Capabilities {
                node_classes_digest: digest(self.classes.iter().map(String::as_str)),
                models_digest: digest([]),
                pools: vec![text(&mut rng); rng.random_range(0..400)],
                roots: vec!["plates".to_owned(), "comps".to_owned()],
                device: text(&mut rng),
                vram_bytes: rng.random(),
                ..v1::Capabilities::default()
            }),
            readiness: Some(v1::NodeReadiness {
                slots: rng.random_range(1..3) * rng.random_range(1..u32::MAX / 2).min(100_000),
                ..v1::NodeReadiness::default()
            }),
            held: (0..rng.random_range(0..30)).map(|attempt| self.held(attempt)).collect(),
            ..v1::Hello::default()
        };
        send(&say, Say::Hello(hello)).await?;
        let mut orders = client.attach(ReceiverStream::new(said)).await.ok()?.into_inner();
        loop {
            let order = orders.message().await.ok()??.message?;
            match order {
                Order::WantNames(_) => {
                    send(&say, Say::Names(v1::Names { names: self.classes.clone() })).await?;
                    send(&say, Say::Names(v1::Names { names: Vec::new() })).await?;
                }
                Order::Assignment(given) => {
                    let frames = match given.work {
                        Some(assignment::Work::Chunk(chunk)) => chunk.frames,
                        _ => String::new(),
                    };
                    self.lie(&mut rng, &say, &given.attempt_id, given.job_id, &frames).await?;
                }
                _ => {
                    let attempt = self.held(rng.random_range(0..60));
                    self.lie(&mut rng, &say, &attempt.attempt_id, attempt.job_id, &attempt.frames).await?;
                }
            }
        }
    }

    /// An attempt of the honest job, as somebody else may hold it.
    fn held(&self, attempt: u32) -> v1::HeldAttempt {
        let first = i64::from(attempt) * 2 % FRAMES + 1;
        v1::HeldAttempt {
            attempt_id: format!("{}-{}-{attempt}", self.tag, self.honest),
            job_id: self.honest,
            frames: format!("{first}-{}", first + 1),
        }
    }

    async fn lie(
        &self,
        rng: &mut StdRng,
        say: &mpsc::Sender<v1::AttachRequest>,
        attempt: &str,
        job_id: u64,
        frames: &str,
    ) -> Option<()> {
        let attempt_id = attempt.to_owned();
        let seconds = [f64::NAN, f64::INFINITY, -1.0, 1e308, 0.5][rng.random_range(0..5)];
        let told = match rng.random_range(0..5) {
            0 => Say::Heartbeat(v1::Heartbeat {
                attempt_ids: vec![attempt_id; 100],
                sent_unix_ms: rng.random(),
            }),
            1 => Say::Progress(v1::Progress {
                attempt_id,
                progress: Some(v1::AttemptProgress {
                    step: seconds,
                    steps: f64::NAN,
                    fraction: seconds,
                    graph_node: text(rng),
                    ..v1::AttemptProgress::default()
                }),
            }),
            2 => Say::Preview(v1::Preview {
                attempt_id,
                image: vec![7; rng.random_range(0..3 << 20)],
                ..v1::Preview::default()
            }),
            3 => Say::Result(v1::AttemptResult {
                attempt_id,
                job_id,
                frames: frames.to_owned(),
                outcome: Some(Outcome::Failed(v1::Failed { kind: 3, message: text(rng), frames: text(rng) })),
            }),
            _ => Say::Result(v1::AttemptResult {
                attempt_id,
                job_id,
                frames: frames.to_owned(),
                outcome: Some(Outcome::Succeeded(v1::Succeeded { seconds, ..v1::Succeeded::default() })),
            }),
        };
        send(say, told).await
    }

    /// Asks for what nobody should, with texts that nobody can read.
    async fn client(&self, mut rng: StdRng) -> Option<()> {
        let mut client = v1::farm_client::FarmClient::connect(format!("http://{}", self.grpc)).await.ok()?;
        let clip = [
            "plates/../../etc/passwd",
            "plates/sh010/plate.%04d.png",
            "/etc/%04d.png",
            "plates/%999999999d.png",
            "nowhere/a.####.exr",
        ][rng.random_range(0..5)];
        let frames = [
            "1-1999999x2,".repeat(300),
            text(&mut rng),
            "-9223372036854775808-9223372036854775807".to_owned(),
        ];
        let request = v1::SubmitJobRequest {
            name: text(&mut rng),
            show: text(&mut rng),
            user: text(&mut rng),
            priority: Some(rng.random_range(0..=101)),
            workflow: Some(match rng.random_range(0..3) {
                0 => Workflow::WorkflowName(text(&mut rng)),
                1 => Workflow::WorkflowSource(v1::WorkflowSource {
                    name: text(&mut rng),
                    manifest: "[".repeat(50_000),
                    graph: "{\"1\":".repeat(20_000),
                }),
                _ => Workflow::WorkflowName("resize-sharpen".to_owned()),
            }),
            clip: clip.to_owned(),
            frames: frames[rng.random_range(0..3)].clone(),
            output: ["comps/during", "comps/../out", "comps/hostile", "comps/x\u{1b}]52;c;eA==\u{7}"]
                [rng.random_range(0..4)]
            .to_owned(),
            deadline_unix_ms: rng.random(),
            min_nodes: rng.random(),
            max_nodes: rng.random(),
            chunk_frames: rng.random(),
            overwrite: true,
            anyway: rng.random(),
            pool: [String::new(), text(&mut rng)][rng.random_range(0..2)].clone(),
            ..v1::SubmitJobRequest::default()
        };
        match rng.random_range(0..4) {
            0 => drop(client.submit_job(request).await),
            1 => drop(client.check_job(v1::CheckJobRequest { job: Some(request) }).await),
            2 => drop(
                client
                    .submit_batch(v1::SubmitBatchRequest { jobs: vec![request; 20], ..Default::default() })
                    .await,
            ),
            _ => drop(client.list_clips(v1::ListClipsRequest { folder: clip.to_owned() }).await),
        }
        Some(())
    }

    /// Bytes that are no request; of some, only the first.
    async fn noise(&self, to: SocketAddr, mut rng: StdRng) -> Option<()> {
        let mut stream = TcpStream::connect(to).await.ok()?;
        let mut bytes = vec![0_u8; rng.random_range(1..100_000)];
        rng.fill(bytes.as_mut_slice());
        if rng.random_bool(0.5) {
            bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        stream.write_all(&bytes).await.ok()?;
        stream.read_to_end(&mut Vec::new()).await.ok()?;
        Some(())
    }

    /// Watches with previews, and reads nothing.
    async fn watcher(&self, mut rng: StdRng) -> Option<()> {
        let mut client = v1::farm_client::FarmClient::connect(format!("http://{}", self.grpc)).await.ok()?;
        let mut watches = Vec::new();
        for _ in 0..rng.random_range(1..20) {
            let request = v1::WatchJobRequest { job_id: self.honest, previews: true, cursor: rng.random() };
            watches.push(client.watch_job(request).await.ok()?);
        }
        std::future::pending().await
    }
}

async fn send(say: &mpsc::Sender<v1::AttachRequest>, message: Say) -> Option<()> {
    say.send(v1::AttachRequest { message: Some(message) }).await.ok()
}

/// Long, or steering a terminal, or nothing, or what something else is called.
fn text(rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => String::new(),
        1 => "x".repeat(rng.random_range(1..300_000)),
        2 => "\u{1b}]52;c;eA==\u{7}\u{202e}\n\0".to_owned(),
        3 => "../../../../etc/passwd".to_owned(),
        4 => "node0".to_owned(),
        _ => format!("name{}", rng.random_range(0..1_000)),
    }
}
