//! What the farm is told, and what it answers.

use std::{collections::BTreeSet, sync::Arc};

use hearth_storage::manifest::ManifestDigest;
use hearth_workflows::{FrameSet, RootPath, Workflow};
use serde::{Deserialize, Serialize};

use crate::farm::model::{
    attempt::Progress,
    ids::{AttemptId, JobId, NodeName, Priority, Session, Timestamp},
    job::{Failure, FailureKind},
    key::Key,
    node::{Capabilities, NodeAbout},
    preset::{PresetChange, PresetId},
    spec::JobSpec,
};

/// Something that happened, or that somebody wants.
#[derive(Debug, Clone)]
pub enum Command {
    Submit(Box<Submission>),
    Pause(JobId),
    Resume(JobId),
    Cancel(JobId),
    /// The same, and nothing that it has rendered is kept.
    Remove(JobId),
    Retry(JobId),
    SetPriority(JobId, Priority),
    Edit(JobId, Box<Edit>),
    ChangePreset(PresetId, PresetChange),
    Drain(NodeName),
    Undrain(NodeName),
    /// A node's agent has connected.
    Hello {
        session: Session,
        about: Box<NodeAbout>,
        capabilities: Box<Capabilities>,
        slots: usize,
        reason: String,
        held: Vec<Held>,
    },
    /// Its ComfyUI came or went.
    Readiness {
        session: Session,
        node: NodeName,
        slots: usize,
        reason: String,
        capabilities: Option<Box<Capabilities>>,
    },
    Heartbeat {
        session: Session,
        node: NodeName,
        attempts: Vec<AttemptId>,
        /// What its agent's clock says.
        clock: Option<Timestamp>,
    },
    /// What was too much for a node's memory is tried again, on all of its kind; `None`: on every node.
    TryMemory(Option<NodeName>),
    /// Its agent's connection ended.
    Gone {
        session: Session,
        node: NodeName,
    },
    Progress {
        session: Session,
        node: NodeName,
        attempt: AttemptId,
        progress: Progress,
    },
    Result {
        session: Session,
        node: NodeName,
        attempt: AttemptId,
        /// The frames it was handed; empty for a chore.
        frames: FrameSet,
        outcome: Outcome,
    },
    Tick,
    /// The store was away, and every connection was cut meanwhile.
    Disconnected,
    /// The store may have lost its latest writes.
    Distrust,
    /// What lies on storage of a job that waits for its survey.
    Surveyed {
        job: JobId,
        found: Vec<Found>,
        /// The whole sequence lies in its place.
        assembled: bool,
    },
}

/// A whole piece on storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Number of the attempt that made it.
    pub number: u32,
    pub node: NodeName,
    pub frames: FrameSet,
    pub published: ManifestDigest,
}

/// A checked submission: the clips exist, the parameters fit. All of its jobs are taken, or none.
#[derive(Debug, Clone)]
pub struct Submission {
    pub jobs: Vec<Submitted>,
}

/// One job of a submission.
#[derive(Debug, Clone)]
pub struct Submitted {
    pub spec: JobSpec,
    pub priority: Priority,
    /// `None` for a delivery.
    pub workflow: Option<Arc<Workflow>>,
    /// The places in the submission of jobs that it waits for, in front of it.
    pub after: Vec<usize>,
    /// The preset that it was submitted with, where that is somebody's.
    pub preset: Option<PresetId>,
}

impl Submission {
    /// A single job.
    pub fn one(spec: JobSpec, priority: Priority, workflow: Arc<Workflow>) -> Self {
        Self {
            jobs: vec![Submitted {
                spec,
                priority,
                workflow: Some(workflow),
                after: Vec::new(),
                preset: None,
            }],
        }
    }

    /// Several as one.
    pub fn together(submissions: impl IntoIterator<Item = Self>) -> Self {
        let mut jobs = Vec::new();
        for submission in submissions {
            let place = jobs.len();
            let moved = |job: Submitted| {
                let after = job.after.iter().map(|after| after + place).collect();
                Submitted { after, ..job }
            };
            jobs.extend(submission.jobs.into_iter().map(moved));
        }
        Self { jobs }
    }
}

/// An attempt that a node says it holds.
#[derive(Debug, Clone)]
pub struct Held {
    pub attempt: AttemptId,
    /// Empty for a chore.
    pub frames: FrameSet,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    Succeeded {
        /// Seconds on the GPU.
        seconds: f64,
        /// What a chunk has published.
        published: Option<ManifestDigest>,
    },
    Failed {
        kind: FailureKind,
        message: String,
        /// For a bad frame: which.
        frames: FrameSet,
    },
}

/// What follows from a command.
#[derive(Debug)]
pub struct Step {
    /// Records to write; [`crate::farm::Farm::record`] tells their present value.
    pub changes: Vec<Key>,
    /// What may happen once they are durable.
    pub effects: Vec<Effect>,
    /// What the caller is told once they are durable.
    pub answer: Result<Answer, Refusal>,
}

impl Default for Step {
    fn default() -> Self {
        Self { changes: Vec::new(), effects: Vec::new(), answer: Ok(Answer::Done) }
    }
}

impl Step {
    pub(in crate::farm) fn event(&mut self, job: JobId, event: JobEvent) {
        self.effects.push(Effect::Job { job, event });
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The first job of the submission.
    Submitted {
        job: JobId,
        already: bool,
    },
}

/// Why a command was not carried out. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no job {0}; `hearth jobs` lists them")]
    NoSuchJob(JobId),
    #[error("no node {0}; `hearth nodes` lists them")]
    NoSuchNode(NodeName),
    #[error("job {job} was cancelled: nothing of it is there, and nothing will be")]
    NothingOfIt { job: JobId },
    #[error("job {job} has already {how}")]
    AlreadyEnded { job: JobId, how: &'static str },
    #[error(
        "the job would have at least {min} nodes and at most {max}; give it a minimum that is not above its maximum"
    )]
    Nodes { min: usize, max: usize },
    #[error(
        "job {job} waits for job {awaited}, which was cancelled; retry that one first, or submit this one anew"
    )]
    AwaitedCancelled { job: JobId, awaited: JobId },
    #[error("frames {first} are to go first, and the job does not make them; name some that it makes")]
    FirstNotMade { first: FrameSet },
    #[error("the frames of job {job} cannot be changed: {why}")]
    FramesFixed { job: JobId, why: &'static str },
    #[error("job {job} has nothing to retry: no frame of it has failed")]
    NothingToRetry { job: JobId },
    #[error("job {other} already writes to {output}; give another output folder")]
    OutputTaken { other: JobId, output: String },
    #[error("two jobs of one submission would write to {output}; give each its own output")]
    OutputTwice { output: String },
    #[error(
        "node {node} is connected already, by an agent on {host}; yours is on {own}: give each its own name, with --host"
    )]
    NodeTaken { node: NodeName, host: String, own: String },
    #[error(
        "the farm has {limit} nodes, its limit, each connected, drained or holding frames, and {node} would be one more; disconnect or undrain some"
    )]
    TooManyNodes { node: NodeName, limit: usize },
    #[error("no preset {0}; `hearth preset list` lists them")]
    NoSuchPreset(String),
    #[error("the farm has {limit} presets, its limit; delete some")]
    TooManyPresets { limit: usize },
    #[error("{limit} people have preset {preset} among their favourites, and no more can be kept")]
    TooManyFavourites { preset: String, limit: usize },
    #[error("the farm has {limit} jobs that have not ended, its limit; cancel some or wait")]
    TooManyJobs { limit: usize },
}

/// What may happen once the changes of its step are durable.
#[derive(Debug, Clone)]
pub enum Effect {
    Assign {
        session: Session,
        assignment: Box<Assignment>,
    },
    /// The node may stop: its work is not wanted any more.
    Cancel {
        session: Session,
        attempt: AttemptId,
        reason: &'static str,
    },
    /// The result is durable.
    Acknowledge {
        session: Session,
        attempt: AttemptId,
    },
    /// For those who watch.
    Job {
        job: JobId,
        event: JobEvent,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEvent {
    /// Look at it again.
    Changed,
    ChunkFinished {
        attempt: AttemptId,
        node: NodeName,
        frames: FrameSet,
        seconds: f64,
    },
    ChunkFailed(Failure),
}

/// Work for a node.
#[derive(Debug, Clone)]
pub struct Assignment {
    pub attempt: AttemptId,
    pub spec: Arc<JobSpec>,
    /// `None` for a delivery.
    pub workflow: Option<Arc<Workflow>>,
    pub work: AssignedWork,
    /// Of a chunk whose clip is still being made.
    pub source: Option<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignedWork {
    Chunk(FrameSet),
    Assembly(Vec<Segment>),
    Delivery,
    CleanUp,
}

/// Which attempt made which frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub attempt: AttemptId,
    pub node: NodeName,
    pub frames: FrameSet,
    /// `None`: its node has not told.
    pub published: Option<ManifestDigest>,
}

/// What is to be changed; `None` leaves it as it is. Chunks that run go on as they were handed out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edit {
    pub priority: Option<Priority>,
    pub pool: Option<String>,
    /// `Some(None)`: it has none any more.
    pub deadline: Option<Option<Timestamp>>,
    pub min_nodes: Option<usize>,
    /// 0: no limit.
    pub max_nodes: Option<usize>,
    /// Beside those that its workflow needs.
    pub limits: Option<BTreeSet<String>>,
    /// Frames that go first.
    pub first: Option<FrameSet>,
    /// The frames to make. Whoever asks has made sure that the clip has what they need.
    pub frames: Option<FrameSet>,
}

/// Where the frames of a clip lie that is still being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The job that makes it, and its pass.
    pub job: JobId,
    pub pass: String,
    /// That job's unfinished work, and where its sequence will be in the end.
    pub work_dir: RootPath,
    pub output: RootPath,
    /// Who made those of its frames that are wanted.
    pub pieces: Vec<Segment>,
}
