//! The whole of Hearth in a minute: a clip is split over four simulated nodes, rendered, put together, and
//! compared with the same clip rendered by one node in one piece.

use std::{
    collections::BTreeSet,
    io::IsTerminal as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use hearth_agent::{NodeConfig, Transfer};
use hearth_client::{
    FarmClient,
    cli::Progress,
    v1::{self, JobState, NodeState, submit_job_request::Workflow, watch_job_response::Update},
};
use hearth_simulator::Simulator;
use hearth_storage::Roots;
use hearth_workflows::{
    FrameSet,
    library::Library,
    manifest::{Manifest, SplitRule},
};

use crate::{
    clip,
    farm::{self, Farm, StandaloneError},
};

/// Seconds a frame of the four nodes: the fastest is four times as fast as the slowest.
const SPEEDS: [f64; 4] = [0.05, 0.075, 0.10, 0.20];

/// The fastest node stands alone in this pool; it renders the clip in one piece.
const ONE_NODE: &str = "one-node";

/// Longest wait for four servers of this process to answer.
const START: Duration = Duration::from_secs(30);

/// What is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Demonstrated {
    /// Every frame is blended with its neighbours: without handles every cut would show
    Temporal,
    /// Every frame alone is scaled and sharpened
    Resize,
}

impl Demonstrated {
    fn name(self) -> &'static str {
        match self {
            Self::Temporal => "temporal-smooth",
            Self::Resize => "resize-sharpen",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Temporal => "every frame is blended with its neighbours, so each chunk needs handles",
            Self::Resize => "every frame is sharpened alone, so any frames make a chunk",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// What is rendered
    #[arg(long, value_enum, default_value_t = Demonstrated::Temporal)]
    workflow: Demonstrated,
    /// Frames of the clip
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(8..=1000))]
    frames: u32,
    /// Where clip and result are written [default: a new folder below the system's temporary one]
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(crate) async fn run(flags: Flags) -> Result<(), StandaloneError> {
    let folder = folder(flags.folder)?;
    let plates = folder.join("plates/sh010");
    println!("hearth demo: one clip, four nodes, every pixel proved");
    println!();
    let last = clip::make(&plates, flags.frames)?;
    println!("clip      {} frames of {}x{}: {}", flags.frames, clip::WIDTH, clip::HEIGHT, plates.display());

    let (simulators, farm) = start(&folder).await?;
    let client = FarmClient::new(&farm.url)?;
    wait_for_nodes(&client).await?;
    println!("farm      coordinator at {}, {} nodes:", farm.url, SPEEDS.len());
    for node in client.nodes().await? {
        println!("          {}  {}", node.name, node.device);
    }
    println!("workflow  {}: {}", flags.workflow.name(), flags.workflow.told());
    println!();

    let split = render(&client, request("split", "comps/sh010", "", named(flags.workflow.name()))).await?;
    let unsplit =
        request("in one piece", "comps/sh010-in-one-piece", ONE_NODE, never_split(flags.workflow.name())?);
    let whole = render(&client, unsplit).await?;
    if whole.chunks != 1 {
        return Err(StandaloneError::Proof(format!("the unsplit render was split into {}", whole.chunks)));
    }
    let Compared { frames: compared, off, seam } = compare(&folder, last, &split.cuts)?;
    farm.stop().await?;
    for simulator in simulators {
        simulator.stop().await;
    }

    println!();
    if off > 0 {
        return Err(StandaloneError::Proof(format!(
            "the split render is up to {off} of 255 off the unsplit one, {seam} of 255 at the cuts"
        )));
    }
    println!(
        "proved    {compared} of {compared} frames equal the unsplit render, byte for byte of every pixel"
    );
    println!(
        "seam      error {seam}: the largest difference of any pixel beside any of {} cuts",
        split.cuts.len()
    );
    println!("frames    {} in {} chunks on {} nodes", split.frames, split.chunks, split.nodes);
    println!(
        "seconds   {:.1} split, {:.1} in one piece on the fastest node alone",
        split.seconds, whole.seconds
    );
    println!(
        "speed-up  {:.2} times that node (the four together are {:.2} times as fast)",
        whole.seconds / split.seconds,
        SPEEDS.iter().map(|speed| SPEEDS[0] / speed).sum::<f64>()
    );
    println!("sequence  {}", folder.join("comps/sh010/plate.%04d.png").display());
    Ok(())
}

fn folder(wanted: Option<PathBuf>) -> Result<PathBuf, StandaloneError> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        |source| StandaloneError::Files { what, source }
    };
    let folder = match wanted {
        Some(folder) => folder,
        None => tempfile::Builder::new()
            .prefix("hearth-demo-")
            .tempdir()
            .map_err(failed(&std::env::temp_dir()))?
            // The result is for the person to look at.
            .keep(),
    };
    for root in ["plates", "comps"] {
        std::fs::create_dir_all(folder.join(root)).map_err(failed(&folder.join(root)))?;
    }
    folder.canonicalize().map_err(failed(&folder))
}

async fn start(folder: &Path) -> Result<(Vec<Simulator>, Farm), StandaloneError> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut simulators, mut nodes) = (Vec::new(), Vec::new());
    for (index, seconds_per_frame) in SPEEDS.into_iter().enumerate() {
        let name = format!("gpu{}", index + 1);
        let config = hearth_simulator::Config {
            base: folder.join("comfyui").join(&name),
            seconds_per_frame,
            ..hearth_simulator::Config::default()
        };
        let output = config.output();
        let simulator = Simulator::start(any, config).await.map_err(StandaloneError::Simulator)?;
        nodes.push(NodeConfig {
            name,
            comfyui: simulator.url(),
            // One node shares a file system with the agent, the others upload and download.
            transfer: Some(if index == 0 { Transfer::Shared } else { Transfer::Http }),
            output: (index == 0).then_some(output),
            pools: if index == 0 { vec![ONE_NODE.to_owned()] } else { Vec::new() },
            ..NodeConfig::default()
        });
        simulators.push(simulator);
    }
    let mut roots = Roots::default();
    roots.insert("plates", folder.join("plates"));
    roots.insert("comps", folder.join("comps"));
    let farm = farm::start(folder, any, &roots, nodes, |coordinator, _| {
        // A short clip: small chunks show more than the half minute that suits a real one.
        coordinator.target_chunk_seconds = 1;
    })
    .await?;
    Ok((simulators, farm))
}

async fn wait_for_nodes(client: &FarmClient) -> Result<(), StandaloneError> {
    let started = Instant::now();
    loop {
        let nodes = client.nodes().await?;
        let ready = nodes.iter().filter(|node| node.state() == NodeState::Idle).count();
        if ready == SPEEDS.len() {
            return Ok(());
        }
        if started.elapsed() > START {
            return Err(StandaloneError::Job(format!("only {ready} of {} nodes came up", SPEEDS.len())));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn request(name: &str, output: &str, pool: &str, workflow: Workflow) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        name: name.to_owned(),
        show: "demo".to_owned(),
        workflow: Some(workflow),
        clip: "plates/sh010/plate.%04d.png".to_owned(),
        output: output.to_owned(),
        pool: pool.to_owned(),
        ..v1::SubmitJobRequest::default()
    }
}

fn named(workflow: &str) -> Workflow {
    Workflow::WorkflowName(workflow.to_owned())
}

/// The same graph under a manifest that forbids every split.
fn never_split(workflow: &str) -> Result<Workflow, StandaloneError> {
    let library = Library::read::<&Path>(&[]);
    let workflow = library.get(workflow).map_err(|error| StandaloneError::Job(error.to_string()))?;
    let manifest = Manifest { split: SplitRule::Whole, ..workflow.manifest().clone() };
    let manifest = toml::to_string(&manifest).map_err(|error| StandaloneError::Job(error.to_string()))?;
    Ok(Workflow::WorkflowSource(v1::WorkflowSource {
        name: format!("{}-in-one-piece", workflow.name()),
        manifest,
        graph: workflow.graph_text().to_owned(),
    }))
}

struct Rendered {
    frames: u64,
    chunks: usize,
    nodes: usize,
    seconds: f64,
    /// First frames of all chunks but the first.
    cuts: BTreeSet<i64>,
}

/// Submits, shows the progress, and waits for the end.
async fn render(client: &FarmClient, request: v1::SubmitJobRequest) -> Result<Rendered, StandaloneError> {
    let submitted = client.submit(request).await?.job.unwrap_or_default();
    let mut watch = client.watch(submitted.job_id, false);
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    let (mut chunks, mut nodes, mut last) = (0, BTreeSet::new(), v1::Job::default());
    let mut cuts = BTreeSet::new();
    while let Some(update) = watch.next().await? {
        match update {
            Update::Job(job) => {
                progress.job(&job);
                last = job;
            }
            Update::ChunkFinished(chunk) => {
                chunks += 1;
                let frames = chunk.frames.parse::<FrameSet>().unwrap_or_default();
                cuts.extend(frames.first().map(|frame| frame.0));
                nodes.insert(chunk.node);
            }
            Update::Failure(failure) => progress.failure(&failure),
            Update::Preview(_) => {}
        }
    }
    progress.finish();
    if last.state() != JobState::Done {
        return Err(StandaloneError::Job(format!("job {} did not finish: {}", last.name, last.message)));
    }
    let seconds = (last.ended_unix_ms - last.submitted_unix_ms) as f64 / 1000.0;
    cuts.pop_first();
    Ok(Rendered { frames: last.counts.unwrap_or_default().done, chunks, nodes: nodes.len(), seconds, cuts })
}

/// How far the split render is from the unsplit one.
struct Compared {
    frames: u32,
    /// Largest difference of any channel of any pixel, of 255.
    off: u8,
    /// The same in the frames beside a cut.
    seam: u8,
}

/// Compares the pixels of both sequences.
fn compare(folder: &Path, last: u32, cuts: &BTreeSet<i64>) -> Result<Compared, StandaloneError> {
    let (mut off, mut seam) = (0, 0);
    for number in 1001..=last {
        let file = format!("plate.{number:04}.png");
        let read = |sequence: &str| image::open(folder.join("comps").join(sequence).join(&file));
        let (split, whole) = (read("sh010")?, read("sh010-in-one-piece")?);
        let (split8, whole8) = (split.to_rgb8(), whole.to_rgb8());
        if split8.dimensions() != whole8.dimensions() {
            return Err(StandaloneError::Proof(format!(
                "frame {number} is not of the unsplit render's size"
            )));
        }
        let differences = split8.iter().zip(whole8.iter()).map(|(a, b)| a.abs_diff(*b));
        let worst = differences.max().unwrap_or(0);
        off = off.max(worst);
        // A cut is named for the frame behind it.
        if cuts.contains(&i64::from(number)) || cuts.contains(&i64::from(number + 1)) {
            seam = seam.max(worst);
        }
        // The workflow must have done something, or the proof proves nothing.
        if split == image::open(folder.join("plates/sh010").join(&file))? {
            return Err(StandaloneError::Proof(format!("frame {number} is the plate itself")));
        }
    }
    let extra = std::fs::read_dir(folder.join("comps/sh010"))
        .map_err(|source| StandaloneError::Files { what: "the comparison".to_owned(), source })?
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "png"))
        .count();
    if extra as u32 != last - 1000 {
        return Err(StandaloneError::Proof(format!("{extra} frames instead of {}", last - 1000)));
    }
    Ok(Compared { frames: last - 1000, off, seam })
}
