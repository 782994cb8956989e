//! One attempt at one chunk: stage → queue → watch → collect → publish. Reporting is the node's.
//!
//! Nothing of an attempt is ever written where another attempt writes: its folders carry its id, and the id of its
//! prompt follows from it.

mod collect;
mod convert;
mod darkroom;
mod failure;
mod input;
mod places;
mod queue;
mod source;
mod stage;
mod watch;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use hearth_proto::v1::{self, AttemptPhase, FailureKind};
use hearth_storage::{
    Calls, Roots, StorageId,
    manifest::{ChunkManifest, ManifestDigest},
};
use hearth_workflows::{
    FrameRange, FrameSet, RootPath, SequencePath, Split, View, Workflow, format::Encoding, manifest::Load,
    split::ChunkPlan,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info_span, warn};

use crate::{
    comfy::{Client, PreviewPicture, PromptId, Socket},
    config::Transfer,
    delivery::Encoder,
};

pub use darkroom::Darkroom;
pub use failure::Failure;
pub use source::Source;

/// What every attempt of a node shares.
#[derive(Debug, Clone)]
pub struct Workbench {
    /// Name of the node.
    pub node: String,
    pub client: Client,
    pub socket: Socket,
    pub roots: Arc<Roots>,
    /// The agent's calls to storage that may hang.
    pub calls: Calls,
    pub transfer: Transfer,
    /// ComfyUI's input and output folder on this host, where they are configured.
    pub input: Option<PathBuf>,
    pub output: Option<PathBuf>,
    pub stage: PathBuf,
    /// Where pictures are converted on this host.
    pub darkroom: Darkroom,
    /// What encodes deliveries on this host.
    pub encoder: Encoder,
    /// A prompt without progress for so long hangs.
    pub stall: Duration,
    /// A ComfyUI without an answer for so long has died.
    pub dead: Duration,
}

impl Workbench {
    /// The bench of an attempt whose job was submitted to this storage, by root: nothing is written to another one.
    #[must_use]
    pub fn on_storage(&self, storage: BTreeMap<String, StorageId>) -> Self {
        Self { roots: Arc::new(self.roots.on_storage(storage)), ..self.clone() }
    }
}

/// A chunk to render.
#[derive(Debug, Clone)]
pub struct ChunkTask {
    pub attempt: String,
    pub workflow: Arc<Workflow>,
    pub parameters: BTreeMap<String, String>,
    /// `None`: the workflow makes its frames out of nothing.
    pub clip: Option<TaskClip>,
    /// First and last frame of the clip, or of what is made.
    pub clip_range: FrameRange,
    pub frames: FrameSet,
    pub work_dir: RootPath,
    /// The job's own description, kept beside its results; empty when it was not sent.
    pub job_manifest: Arc<str>,
}

/// The clip that a chunk is of.
#[derive(Debug, Clone)]
pub struct TaskClip {
    pub path: SequencePath,
    /// What its files are.
    pub encoding: Encoding,
    /// How the node that loads the frames gets them.
    pub staged: Encoding,
    /// How its light is shown to the workflow.
    pub view: Option<View>,
    pub load: Load,
    /// Of a clip that is still being made.
    pub source: Option<Source>,
}

impl ChunkTask {
    /// Reads an assignment; the message says what of it cannot be understood.
    pub fn read(
        attempt: &str,
        chunk: &v1::Chunk,
        job: &v1::JobDefinition,
        workflow: Arc<Workflow>,
    ) -> Result<Self, Failure> {
        let unreadable = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(FailureKind::Internal, format!("the assignment's {what} cannot be read: {error}"))
        };
        let clip = match &workflow.manifest().clip {
            None => None,
            Some(input) => {
                let encoding = Encoding {
                    format: job.clip_format.parse().map_err(|error| unreadable("clip format", &error))?,
                    colour: job
                        .clip_colour_space
                        .parse()
                        .map_err(|error| unreadable("colour space", &error))?,
                };
                Some(TaskClip {
                    path: job.clip.parse().map_err(|error| unreadable("clip", &error))?,
                    encoding,
                    // The coordinator has refused what cannot be staged.
                    staged: workflow.manifest().staged(encoding).unwrap_or(encoding),
                    view: match job.view.as_str() {
                        "" => None,
                        text => Some(text.parse().map_err(|error| unreadable("view", &error))?),
                    },
                    load: input.load,
                    source: chunk
                        .source
                        .as_ref()
                        .map(Source::read)
                        .transpose()
                        .map_err(|error| unreadable("source", &error))?,
                })
            }
        };
        Ok(Self {
            attempt: attempt.to_owned(),
            workflow,
            parameters: job.parameters.clone().into_iter().collect(),
            clip,
            clip_range: FrameRange::new(job.clip_first, job.clip_last)
                .ok_or_else(|| unreadable("clip range", &"it ends before it starts"))?,
            frames: chunk.frames.parse().map_err(|error| unreadable("frames", &error))?,
            work_dir: job.work_dir.parse().map_err(|error| unreadable("work folder", &error))?,
            job_manifest: job.manifest.as_str().into(),
        })
    }

    /// The id under which ComfyUI knows its prompt.
    fn prompt_id(&self) -> PromptId {
        PromptId::of_attempt(&self.attempt)
    }

    fn split(&self) -> Result<Split, Failure> {
        let split = self.workflow.manifest().split(&self.parameters);
        split.map_err(|error| Failure::new(FailureKind::Internal, error))
    }

    fn plan(&self) -> Result<ChunkPlan, Failure> {
        Ok(self.split()?.plan(&self.frames, self.clip_range, self.workflow.manifest().shape()))
    }
}

/// What an attempt tells while it runs.
#[derive(Debug, Clone)]
pub enum Told {
    Progress(v1::AttemptProgress),
    Preview(PreviewPicture),
}

/// Takes what an attempt tells. Must not block.
pub type Tell<'a> = &'a (dyn Fn(Told) + Send + Sync);

/// How an attempt ended.
#[derive(Debug)]
pub enum Ending {
    /// Published; seconds in ComfyUI, and of a chunk what lies on storage now.
    Done {
        seconds: f64,
        published: Option<ManifestDigest>,
    },
    Failed(Failure),
    /// Not wanted any more; nothing of it is left, unless ComfyUI does not let go of it.
    Cancelled {
        let_go: bool,
    },
}

impl Ending {
    /// For meters: `done`, `cancelled`, or the kind of failure.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Done { .. } => "done".to_owned(),
            Self::Cancelled { .. } => "cancelled".to_owned(),
            Self::Failed(failure) => {
                failure.kind.as_str_name().trim_start_matches("FAILURE_KIND_").to_lowercase()
            }
        }
    }
}

/// Renders a chunk. `adopt`: ComfyUI may know the prompt already, from an earlier life of the agent.
pub async fn render(
    bench: &Workbench,
    task: &Arc<ChunkTask>,
    adopt: bool,
    tell: Tell<'_>,
    cancel: &CancellationToken,
) -> Ending {
    let rendered = tokio::select! {
        rendered = steps(bench, task, adopt, tell) => Some(rendered),
        () = cancel.cancelled() => None,
    };
    let ending = match rendered {
        Some(Ok((seconds, published))) => Ending::Done { seconds, published: Some(published) },
        Some(Err(failure)) => Ending::Failed(failure),
        None => Ending::Cancelled { let_go: true },
    };
    let stop = match &ending {
        Ending::Done { .. } => false,
        Ending::Failed(failure) => failure.may_still_run(),
        Ending::Cancelled { .. } => true,
    };
    let let_go = !stop || queue::stop(&bench.client, &task.prompt_id()).await;
    let swept = sweep(bench, task, matches!(ending, Ending::Done { .. }));
    if tokio::time::timeout(bench.stall.min(SWEEP), swept).await.is_err() {
        warn!("what the attempt has left is not removed: storage does not answer");
    }
    match ending {
        Ending::Cancelled { .. } => Ending::Cancelled { let_go },
        ending => ending,
    }
}

async fn steps(
    bench: &Workbench,
    task: &Arc<ChunkTask>,
    adopt: bool,
    tell: Tell<'_>,
) -> Result<(f64, ManifestDigest), Failure> {
    let place = collect::Place::of(bench, task);
    let published = tokio::time::timeout(bench.stall, place.published()).await;
    if let Some(published) = published.map_err(|_| hangs("looked for", bench.stall))? {
        return Ok((0.0, published));
    }
    let plan = task.plan()?;
    tell(phase(AttemptPhase::Staging));
    // Heard from now on: events may come before the reply to the prompt.
    let events = bench.socket.subscribe();
    let known = adopt && queue::is_known(&bench.client, &task.prompt_id()).await?;
    let (prompt, heard_under) = if known {
        // Bound again only to know its savers; the files it loads are those of its earlier life.
        let staged = stage::names_only(bench, task, &plan).await?;
        (queue::bind(bench, task, &plan, &staged, &places::names_only(task)).await?, None)
    } else {
        let staging = async {
            let staged = stage::stage(bench, task, &plan).await?;
            Ok::<_, Failure>((staged, places::stage(bench, task).await?))
        };
        let staging = tokio::time::timeout(bench.stall, staging.instrument(info_span!("stage"))).await;
        let (staged, pictures) = staging.unwrap_or_else(|_| Err(hangs("staged", bench.stall)))?;
        let prompt = queue::bind(bench, task, &plan, &staged, &pictures).await?;
        let queued = queue::queue(bench, &task.attempt, &prompt);
        let heard_under = queued.instrument(info_span!("queue")).await?;
        (prompt, heard_under)
    };
    tell(phase(AttemptPhase::Queued));
    let prompt_id = task.prompt_id();
    let watched = watch::watch(bench, &prompt_id, &prompt, heard_under, events, tell);
    let entry = watched.instrument(info_span!("comfyui", %prompt_id)).await?;
    tell(phase(AttemptPhase::Collecting));
    let seconds = crate::comfy::verdict::seconds(&entry);
    let outputs = crate::comfy::verdict::verdict(&entry)?;
    let collected = collect::collect(bench, task, &plan, &prompt, &outputs, &place);
    let collected = tokio::time::timeout(bench.stall, collected.instrument(info_span!("collect"))).await;
    let passes = collected.unwrap_or_else(|_| Err(hangs("collected", bench.stall)))?;
    tell(phase(AttemptPhase::Publishing));
    let manifest = ChunkManifest {
        hearth_version: env!("CARGO_PKG_VERSION").to_owned(),
        attempt: task.attempt.clone(),
        node: bench.node.clone(),
        frames: task.frames.clone(),
        passes,
    };
    let published = tokio::time::timeout(bench.stall, place.publish(task, manifest)).await;
    let published = published.unwrap_or_else(|_| Err(hangs("published", bench.stall)))?;
    Ok((seconds, published))
}

/// Storage takes no end.
fn hangs(done: &str, stall: Duration) -> Failure {
    let message = format!(
        "frames were not {done} within {} s; look whether storage answers, or raise stall_seconds",
        stall.as_secs()
    );
    Failure::new(FailureKind::Storage, message)
}

/// Longest that an attempt's end waits until what it has left is removed. What hangs by then goes on by itself.
const SWEEP: Duration = Duration::from_secs(10);

/// Removes what the attempt has left beside its result.
async fn sweep(bench: &Workbench, task: &ChunkTask, done: bool) {
    let discard = async { collect::Place::of(bench, task).discard_part().await };
    let remove = async |folder: PathBuf| {
        // What was never made cannot be removed, and what cannot be removed harms nobody.
        if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
            debug!(folder = %folder.display(), %error, "not removed");
        }
    };
    let saved = async {
        if let Some(output) = &bench.output {
            remove(output.join("hearth").join(&task.attempt)).await;
        }
    };
    let forget = async {
        if done && let Err(error) = bench.client.forget(&task.prompt_id()).await {
            debug!(error = %hearth_telemetry::chain(&error), "the prompt stays in ComfyUI's history");
        }
    };
    // Side by side: they lie on several storages, one of which may hang.
    tokio::join!(
        discard,
        remove(bench.stage.join(&task.attempt)),
        saved,
        input::sweep(bench, &task.attempt),
        forget
    );
}

/// Letters, digits and dashes: nothing that could lead out of a folder.
pub(crate) fn is_plain(attempt: &str) -> bool {
    !attempt.is_empty() && attempt.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn phase(phase: AttemptPhase) -> Told {
    Told::Progress(v1::AttemptProgress { phase: phase.into(), ..v1::AttemptProgress::default() })
}
