//! The mistakes of a submission, each with what to do about it.

use std::path::PathBuf;

use hearth_pictures::NoRate;
use hearth_storage::{CallError, ClipError, RootsError, marker::MARKER_FILE};
use hearth_workflows::{
    FrameSet, RootPath, WorkflowError, format::UnknownName, frames::FramesError, path::PathError,
    view::NoView,
};

use crate::farm::JobId;

/// What is wrong with a submission.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    #[error("no workflow given; name one, `hearth workflows` lists them")]
    NoWorkflow,
    #[error(transparent)]
    Workflow(Box<WorkflowError>),
    #[error("the {what} is {length} bytes long; at most {limit} are taken")]
    TooLong { what: &'static str, length: usize, limit: usize },
    #[error("the {what} has control characters; leave them out")]
    Control { what: &'static str },
    #[error("priority {0} is out of range; give 0 to 100")]
    Priority(u32),
    #[error("clip path")]
    ClipPath(#[source] PathError),
    #[error("output path")]
    OutputPath(#[source] PathError),
    #[error("path in parameter {parameter}")]
    PlacePath { parameter: String, source: PathError },
    #[error("frames")]
    Frames(#[source] FramesError),
    #[error(transparent)]
    Clip(Box<ClipError>),
    #[error("parameter {parameter}: {reason}; name a {kind} that is there, as root/folder/file")]
    Place { parameter: String, kind: &'static str, reason: String },
    #[error("output")]
    Output(#[source] RootsError),
    #[error("output {output} exists already; give another one, remove it, or ask for it to be overwritten")]
    OutputExists { output: RootPath },
    #[error("output {output} is a folder that Hearth has not made; it is not overwritten")]
    OutputForeign { output: RootPath },
    #[error(
        "output {output} has frames {frames} of another workflow, or under other names, which would be lost; give another output, or render all frames"
    )]
    OutputOther { output: RootPath, frames: FrameSet },
    #[error(
        "output {output} holds {found}, and the workflow makes {made} of this clip now: some frames would be unlike the others; render all frames, or give another output"
    )]
    OutputFormat { output: RootPath, found: &'static str, made: &'static str },
    #[error("workflow {workflow} makes its frames out of nothing; leave out the {what}")]
    NoClipWanted { workflow: String, what: &'static str },
    #[error("workflow {workflow} has no preset '{preset}'; it has {known}")]
    NoSuchPreset { workflow: String, preset: String, known: String },
    #[error("preset {preset} is of workflow {of}, not of {workflow}; leave one of them out")]
    OtherWorkflow { preset: String, of: String, workflow: String },
    #[error("workflow {workflow} cannot make takes: {why}")]
    NoTakes { workflow: String, why: &'static str },
    #[error("{count} {what} at once; at most {limit} are taken")]
    TooMany { what: &'static str, count: usize, limit: usize },
    #[error(transparent)]
    Delivery(UnknownName),
    #[error("nothing to deliver; name what, e.g. h264")]
    NothingToDeliver,
    #[error("no pass '{pass}'; the workflow has {known}")]
    NoSuchPass { pass: String, known: String },
    #[error(transparent)]
    FrameRate(NoRate),
    #[error("clip {clip} is {found}, which workflow {workflow} does not read right; it reads {reads}")]
    Format { clip: String, found: String, workflow: String, reads: String },
    #[error("colour space")]
    ColourSpace(#[source] UnknownName),
    #[error("workflow {workflow}: {message}")]
    Split { workflow: String, message: String },
    #[error(
        "workflow {workflow} looks at the frames in their order, but {frames} have a gap; name frames without one"
    )]
    NotContiguous { workflow: String, frames: FrameSet },
    #[error(
        "workflow {workflow} also looks at frames around those that it makes (handles), and not all of these are there"
    )]
    AroundMissing { workflow: String, source: Box<ClipError> },
    #[error(
        "output {output} holds another sequence, {inner}, which would go with it; move that away, or give another output"
    )]
    OutputHolds { output: RootPath, inner: String },
    #[error(
        "clip {clip} holds values below 0 and above 1 ({found}), and workflow {workflow} works on {staged}, which cuts them off; keep them by a view transform such as --view white=16, allow the loss with --allow-clipping, or choose a workflow that keeps floats"
    )]
    Clipping { clip: String, found: String, workflow: String, staged: String },
    #[error("view transform")]
    View(#[from] NoView),
    #[error(
        "a view transform is for light of a float clip in a workflow that works on values from 0 to 1, and {workflow} cuts off no light of this clip; leave it out (--view none)"
    )]
    NeedlessView { workflow: String },
    #[error("at least {min} nodes are more than the {max} that it may have at most")]
    Nodes { min: usize, max: usize },
    #[error("frames that go first")]
    FirstFrames(#[source] FramesError),
    #[error("frames {first} are to go first, but the job makes {frames}")]
    NotAmongFrames { first: FrameSet, frames: FrameSet },
    #[error("both a clip and a job that makes one are given; leave one of them out")]
    TwoClips,
    #[error("job {0} delivers a sequence; name the job that makes it")]
    MakesNoClip(JobId),
    #[error("job {job} does not make frames {missing}; name frames that it makes")]
    NotMade { job: JobId, missing: FrameSet },
    #[error(
        "storage root {root} ({path}) had a {MARKER_FILE} file for earlier jobs and has none now; look whether it is mounted. If it is new storage, put a file {MARKER_FILE} with a name of its own there"
    )]
    OtherStorage { root: String, path: PathBuf },
    #[error(transparent)]
    Storage(#[from] CallError),
    #[error("the clip could not be looked at")]
    Aborted,
}

impl From<WorkflowError> for SubmissionError {
    fn from(error: WorkflowError) -> Self {
        Self::Workflow(Box::new(error))
    }
}

impl From<ClipError> for SubmissionError {
    fn from(error: ClipError) -> Self {
        Self::Clip(Box::new(error))
    }
}
