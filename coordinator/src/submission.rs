//! From a request to a checked job: everything that can be known to be wrong is said now, before a GPU is
//! touched.

use std::{path::Path, sync::Arc};

use hearth_proto::v1;
use hearth_storage::{Clip, ClipError, Roots, RootsError};
use hearth_workflows::{
    FrameRange, FrameSet, RootPath, SequencePath, Split, Workflow, WorkflowError,
    format::{Encoding, UnknownName},
    frames::FramesError,
    library::Library,
    parameters,
    path::PathError,
};

use crate::farm::{JobSpec, Priority, Submission};

/// What is wrong with a submission.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    #[error("no workflow given; name one, `hearth workflows` lists them")]
    NoWorkflow,
    #[error(transparent)]
    Workflow(Box<WorkflowError>),
    #[error("the {what} is {length} bytes long; at most {limit} are taken")]
    TooLong { what: &'static str, length: usize, limit: usize },
    #[error("priority {0} is out of range; give 0 to 100")]
    Priority(u32),
    #[error("clip path")]
    ClipPath(#[source] PathError),
    #[error("output path")]
    OutputPath(#[source] PathError),
    #[error("frames")]
    Frames(#[source] FramesError),
    #[error(transparent)]
    Clip(Box<ClipError>),
    #[error("output")]
    Output(#[source] RootsError),
    #[error("output {output} exists already; give another folder, or remove it")]
    OutputExists { output: RootPath },
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

/// Checks `request` against library and storage. Blocks on storage.
pub fn check(
    request: v1::SubmitJobRequest,
    traceparent: String,
    folders: &[impl AsRef<Path>],
    roots: &Roots,
) -> Result<Submission, SubmissionError> {
    use v1::submit_job_request::Workflow as Named;
    check_sizes(&request)?;
    let workflow = match request.workflow.ok_or(SubmissionError::NoWorkflow)? {
        Named::WorkflowName(name) => Library::read(folders).get(&name)?.clone(),
        Named::WorkflowSource(source) => Workflow::parse(&source.name, &source.manifest, &source.graph)?,
    };
    let priority = match request.priority {
        Some(value) => Priority::new(value).ok_or(SubmissionError::Priority(value))?,
        None => Priority::DEFAULT,
    };
    let declared = &workflow.manifest().parameters;
    let given = request.parameters.into_iter().collect();
    parameters::resolve(workflow.name(), declared, &given)?;
    let in_force: parameters::ParameterTexts = declared
        .iter()
        .map(|(name, parameter)| {
            (name.clone(), given.get(name).cloned().unwrap_or_else(|| parameter.default_text()))
        })
        .collect();

    let sequence: SequencePath = request.clip.parse().map_err(SubmissionError::ClipPath)?;
    let output: RootPath = request.output.parse().map_err(SubmissionError::OutputPath)?;
    let place = roots.resolve(&output).map_err(SubmissionError::Output)?;
    if place.symlink_metadata().is_ok() {
        return Err(SubmissionError::OutputExists { output });
    }

    let clip = Clip::find(roots, &sequence)?;
    let range = clip.frames.first().zip(clip.frames.last());
    let clip_range =
        range.and_then(|(first, last)| FrameRange::new(first.0, last.0)).ok_or(SubmissionError::Aborted)?;
    let frames: FrameSet = match SequencePath::frames_named(&request.clip) {
        Some(named) if request.frames.trim().is_empty() => named.into(),
        // Every frame of the clip: a gap is a mistake until somebody says which frames are meant.
        None if request.frames.trim().is_empty() => clip_range.into(),
        _ => request.frames.parse().map_err(SubmissionError::Frames)?,
    };
    // Before the handles are counted: a stray file far away must not make a clip of millions of frames.
    clip.check_gap(&frames)?;
    let split = workflow
        .manifest()
        .split(&in_force)
        .map_err(|message| SubmissionError::Split { workflow: workflow.name().to_owned(), message })?;
    let (frames, clip_range) = worked_on(&workflow, split, frames, clip_range)?;
    let results = split.results(&frames);
    let picture = clip.check(&needed(&workflow, split, &results, clip_range))?;
    let format = picture.map(|picture| picture.format).ok_or(SubmissionError::Aborted)?;
    let colour = match request.colour_space.as_str() {
        "" => format.usual_colour(),
        given => given.parse().map_err(SubmissionError::ColourSpace)?,
    };
    let encoding = Encoding { format, colour };
    check_format(&workflow, &sequence, encoding)?;

    let name = if request.name.is_empty() { sequence.name().stem().to_owned() } else { request.name };
    let spec = JobSpec {
        name,
        show: request.show,
        user: request.user,
        pool: request.pool,
        workflow: workflow.id().clone(),
        workflow_name: workflow.name().to_owned(),
        parameters: in_force,
        clip: sequence,
        clip_range,
        encoding,
        frames: results,
        output,
        chunk_frames: (request.chunk_frames > 0).then(|| u64::from(request.chunk_frames)),
        traceparent,
        request_id: request.request_id,
    };
    Ok(Submission { spec, priority, workflow: Arc::new(workflow) })
}

/// What a job may weigh: it is kept in memory and in every answer about it.
fn check_sizes(request: &v1::SubmitJobRequest) -> Result<(), SubmissionError> {
    const NAME: usize = 256;
    const PATH: usize = 4_096;
    const PARAMETERS: usize = 64 * 1024;
    const SOURCE: usize = 4 * 1024 * 1024;
    let parameters = request.parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
    let source = match &request.workflow {
        Some(v1::submit_job_request::Workflow::WorkflowSource(source)) => {
            source.manifest.len() + source.graph.len()
        }
        _ => 0,
    };
    for (what, length, limit) in [
        ("name", request.name.len(), NAME),
        ("show", request.show.len(), NAME),
        ("user", request.user.len(), NAME),
        ("pool", request.pool.len(), NAME),
        ("request id", request.request_id.len(), NAME),
        ("clip path", request.clip.len(), PATH),
        ("output path", request.output.len(), PATH),
        ("parameter list", parameters, PARAMETERS),
        ("workflow", source, SOURCE),
    ] {
        if length > limit {
            return Err(SubmissionError::TooLong { what, length, limit });
        }
    }
    Ok(())
}

/// The frames that the job works on, and the range within which it may look for neighbours.
fn worked_on(
    workflow: &Workflow,
    split: Split,
    frames: FrameSet,
    clip: FrameRange,
) -> Result<(FrameSet, FrameRange), SubmissionError> {
    if !split.needs_contiguous() {
        return Ok((frames, clip));
    }
    let ends = frames.first().zip(frames.last());
    match ends.and_then(|(first, last)| FrameRange::new(first.0, last.0)) {
        Some(range) if frames.run_count() == 1 => Ok((frames, range)),
        _ => Err(SubmissionError::NotContiguous { workflow: workflow.name().to_owned(), frames }),
    }
}

/// The frames that must be on storage: those to make, and the handles around them.
fn needed(workflow: &Workflow, split: Split, results: &FrameSet, clip: FrameRange) -> FrameSet {
    let shape = workflow.manifest().shape();
    let runs = results.runs();
    runs.flat_map(|run| split.plan(&run.into(), clip, shape).loaded).collect()
}

fn check_format(workflow: &Workflow, clip: &SequencePath, found: Encoding) -> Result<(), SubmissionError> {
    let manifest = workflow.manifest();
    if manifest.staged(found).is_some() {
        return Ok(());
    }
    Err(SubmissionError::Format {
        clip: clip.to_string(),
        found: found.to_string(),
        workflow: workflow.name().to_owned(),
        reads: manifest.clip.formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", "),
    })
}
