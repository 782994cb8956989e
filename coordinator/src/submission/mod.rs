//! From a request to a checked job: everything that can be known to be wrong is said now, before a GPU is
//! touched.

mod chain;
mod delivery;
mod error;
mod overwrite;
mod places;
mod room;
mod storage;
mod takes;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use hearth_pictures::Picture;
use hearth_proto::v1;
use hearth_storage::{Clip, Roots};
use hearth_workflows::{
    FrameRange, FrameSet, RootPath, SequencePath, Split, View, Workflow,
    format::{ColourSpace, Encoding, PictureFormat},
    library::Library,
    parameters::{self, ParameterTexts},
};

pub use chain::Maker;
pub use error::SubmissionError;
pub use overwrite::names_frames;
pub use room::{Room, room};
pub use storage::{ids, make_ids, note_ids};

pub use delivery::{check_clip as check_delivery_of_clip, check_job as check_delivery_of_job};

use takes::Take;

use crate::farm::{JobClip, JobId, JobSpec, Priority, Render, Submission, Submitted, Task, Terms, Timestamp};

/// Jobs that one job may wait for.
const MOST_AWAITED: usize = 1_000;

/// Bytes of a name, and of all parameters.
pub(crate) const NAME: usize = 256;
pub(crate) const PARAMETERS: usize = 64 * 1024;

/// Checks `request` against library and storage. Blocks on storage.
pub fn check(
    request: v1::SubmitJobRequest,
    traceparent: String,
    folders: &[impl AsRef<Path>],
    roots: &Roots,
    maker: Option<&Maker>,
) -> Result<Submission, SubmissionError> {
    use v1::submit_job_request::Workflow as Named;
    check_sizes(&request)?;
    let awaited = request.after_job_ids.len();
    if awaited > MOST_AWAITED {
        return Err(SubmissionError::TooMany {
            what: "jobs to wait for",
            count: awaited,
            limit: MOST_AWAITED,
        });
    }
    let workflow = Arc::new(match request.workflow.clone().ok_or(SubmissionError::NoWorkflow)? {
        Named::WorkflowName(name) => Library::read(folders).get(&name)?.clone(),
        Named::WorkflowSource(source) => Workflow::parse(&source.name, &source.manifest, &source.graph)?,
    });
    let priority = priority(request.priority)?;
    let mut given = preset(&workflow, &request.preset)?;
    given.extend(request.parameters.clone());
    takes::complete(&mut given, &request.wedges, &workflow)?;
    let parameters = in_force(&workflow, given)?;
    let takes = takes::of(&request, &workflow, &parameters)?;

    let output: RootPath = request.output.parse().map_err(SubmissionError::OutputPath)?;
    let output = roots.one_name(&output);
    let split = split(&workflow, &parameters)?;
    let input = match workflow.manifest().clip {
        Some(_) => match maker {
            Some(maker) => chain::input(&request, &workflow, split, maker, roots)?,
            None => input(&request, &request.clip, &workflow, split, roots)?,
        },
        None => no_input(&request, &workflow, split)?,
    };
    let view = view(&request, &workflow, input.clip.as_ref())?;
    let input = Input { clip: input.clip.map(|clip| JobClip { view, ..clip }), ..input };
    let name = match (&input.clip, request.name.as_str()) {
        (Some(clip), "") => name_of(&clip.path),
        (None, "") => workflow.name().to_owned(),
        (_, name) => name.to_owned(),
    };
    let mut jobs: Vec<Submitted> = Vec::new();
    let mut rendered: Vec<usize> = Vec::new();
    for (index, Take { label, folder, parameters }) in takes.iter().enumerate() {
        let (name, output) = if folder.is_empty() {
            (name.clone(), output.clone())
        } else {
            let output = format!("{output}/{folder}");
            (format!("{name} {label}"), output.parse().map_err(SubmissionError::OutputPath)?)
        };
        overwrite::check(&output, request.overwrite, roots)?;
        let pictures = places::check(&request, &workflow, parameters, roots)?;
        let render = Render {
            workflow: workflow.id().clone(),
            workflow_name: workflow.name().to_owned(),
            parameters: parameters.clone(),
            clip: input.clip.clone(),
            clip_range: input.range,
            chunk_frames: (request.chunk_frames > 0).then(|| u64::from(request.chunk_frames)),
            pictures,
        };
        let spec = JobSpec {
            name,
            show: request.show.clone(),
            user: request.user.clone(),
            pool: request.pool.clone(),
            task: Task::Render(render),
            frames: input.results.clone(),
            output,
            urgent: request.urgent,
            overwrite: request.overwrite,
            after: request.after_job_ids.iter().copied().map(JobId).collect(),
            terms: terms(&request, &workflow, &input.results)?,
            batch: None,
            storage: BTreeMap::new(),
            traceparent: traceparent.clone(),
            request_id: if index == 0 { request.request_id.clone() } else { String::new() },
        };
        overwrite::check_frames(&request, &spec, &workflow, roots)?;
        let source = delivery::Source { spec: &spec, workflow: &workflow };
        let ordered = delivery::ordered(&request, &workflow);
        let deliveries = delivery::of_job(&ordered, &source, request.overwrite, roots)?;
        let place = jobs.len();
        let of = Some(workflow.clone());
        jobs.push(Submitted { spec, priority, workflow: of, after: Vec::new(), preset: None });
        let waits = |spec| Submitted { spec, priority, workflow: None, after: vec![place], preset: None };
        jobs.extend(deliveries.into_iter().map(waits));
        rendered.push(place);
    }
    if !request.wedges.is_empty() {
        let specs: Vec<&JobSpec> = rendered.iter().map(|place| &jobs[*place].spec).collect();
        let labels = takes.iter().map(|take| take.label.as_str());
        let takes: Vec<_> = specs.into_iter().zip(labels).collect();
        let sheet = delivery::sheet(&name, &takes, &workflow, &output, request.overwrite, roots)?;
        jobs.push(Submitted { spec: sheet, priority, workflow: None, after: rendered, preset: None });
    }
    Ok(Submission { jobs })
}

/// How the job wants to be scheduled.
fn terms(
    request: &v1::SubmitJobRequest,
    workflow: &Workflow,
    frames: &FrameSet,
) -> Result<Terms, SubmissionError> {
    let (min_nodes, max_nodes) = (request.min_nodes as usize, request.max_nodes as usize);
    if max_nodes > 0 && min_nodes > max_nodes {
        return Err(SubmissionError::Nodes { min: min_nodes, max: max_nodes });
    }
    let mut first = if request.first_frames.trim().is_empty() {
        FrameSet::new()
    } else {
        request.first_frames.parse().map_err(SubmissionError::FirstFrames)?
    };
    if !first.is_subset(frames) {
        first.remove_all(frames);
        return Err(SubmissionError::NotAmongFrames { first, frames: frames.clone() });
    }
    if request.early_look {
        let middle = frames.iter().nth((frames.len() / 2) as usize);
        first.insert_all(&frames.first().into_iter().chain(middle).chain(frames.last()).collect());
    }
    let needed = workflow.manifest().needs.limits.iter();
    Ok(Terms {
        deadline: (request.deadline_unix_ms > 0).then_some(Timestamp(request.deadline_unix_ms as u64)),
        max_nodes,
        min_nodes,
        limits: needed.chain(&request.limits).cloned().collect(),
        first,
    })
}

/// What a job works on, and what it makes of it.
struct Input {
    clip: Option<JobClip>,
    range: FrameRange,
    results: FrameSet,
}

/// Of the clip at `path`, which lies on storage.
fn input(
    request: &v1::SubmitJobRequest,
    path: &str,
    workflow: &Workflow,
    split: Split,
    roots: &Roots,
) -> Result<Input, SubmissionError> {
    let sequence: SequencePath = path.parse().map_err(SubmissionError::ClipPath)?;
    let clip = Clip::find(roots, &sequence)?;
    let range = clip.frames.first().zip(clip.frames.last());
    let clip_range =
        range.and_then(|(first, last)| FrameRange::new(first.0, last.0)).ok_or(SubmissionError::Aborted)?;
    let frames: FrameSet = match SequencePath::frames_named(path) {
        Some(named) if request.frames.trim().is_empty() => named.into(),
        // Every frame of the clip: a gap is a mistake until somebody says which frames are meant.
        None if request.frames.trim().is_empty() => clip_range.into(),
        _ => request.frames.parse().map_err(SubmissionError::Frames)?,
    };
    // Before the handles are counted: a stray file far away must not make a clip of millions of frames.
    clip.check_gap(&frames)?;
    let (frames, range) = worked_on(workflow, split, frames, clip_range)?;
    let results = split.results(&frames);
    let needed = needed(workflow, split, &results, range);
    clip.check_gap(&needed).map_err(|source| SubmissionError::AroundMissing {
        workflow: workflow.name().to_owned(),
        source: Box::new(source),
    })?;
    let picture = clip.check(&needed)?;
    let Picture { format, width, height, .. } = picture.ok_or(SubmissionError::Aborted)?;
    let pixels = u64::from(width) * u64::from(height);
    let encoding = Encoding { format, colour: colour_of(&request.colour_space, format)? };
    check_format(workflow, &sequence, encoding)?;
    let clip = JobClip { path: sequence, encoding, pixels, view: None, made_by: None };
    Ok(Input { clip: Some(clip), range, results })
}

fn no_input(
    request: &v1::SubmitJobRequest,
    workflow: &Workflow,
    split: Split,
) -> Result<Input, SubmissionError> {
    let clip = request.clip_of.is_some() || !request.clip.trim().is_empty();
    for (what, is_given) in [("clip", clip), ("frames", !request.frames.trim().is_empty())] {
        if is_given {
            return Err(SubmissionError::NoClipWanted { workflow: workflow.name().to_owned(), what });
        }
    }
    let results = split.results(&FrameSet::new());
    let range = results.first().zip(results.last());
    let range = range.and_then(|(first, last)| FrameRange::new(first.0, last.0));
    Ok(Input { clip: None, range: range.ok_or(SubmissionError::Aborted)?, results })
}

/// What the preset sets; nothing for none.
fn preset(workflow: &Workflow, name: &str) -> Result<ParameterTexts, SubmissionError> {
    if name.is_empty() {
        return Ok(ParameterTexts::new());
    }
    let presets = &workflow.manifest().presets;
    let known = || match presets.keys().map(String::as_str).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "none".to_owned(),
        known => known,
    };
    let preset = presets.get(name).ok_or_else(|| SubmissionError::NoSuchPreset {
        workflow: workflow.name().to_owned(),
        preset: name.to_owned(),
        known: known(),
    })?;
    Ok(preset.parameters.clone())
}

/// Every parameter's value, as text.
fn in_force(workflow: &Workflow, given: ParameterTexts) -> Result<ParameterTexts, SubmissionError> {
    let declared = &workflow.manifest().parameters;
    parameters::resolve(workflow.name(), declared, &given)?;
    let value = |(name, parameter): (&String, &parameters::Parameter)| {
        (name.clone(), given.get(name).cloned().unwrap_or_else(|| parameter.default_text()))
    };
    Ok(declared.iter().map(value).collect())
}

fn split(workflow: &Workflow, parameters: &ParameterTexts) -> Result<Split, SubmissionError> {
    let split = workflow.manifest().split(parameters);
    split.map_err(|message| SubmissionError::Split { workflow: workflow.name().to_owned(), message })
}

fn priority(given: Option<u32>) -> Result<Priority, SubmissionError> {
    match given {
        Some(value) => Priority::new(value).ok_or(SubmissionError::Priority(value)),
        None => Ok(Priority::DEFAULT),
    }
}

fn colour_of(given: &str, format: PictureFormat) -> Result<ColourSpace, SubmissionError> {
    match given {
        "" => Ok(format.usual_colour()),
        given => given.parse().map_err(SubmissionError::ColourSpace),
    }
}

/// A text that stands in tables and in names of files.
pub(crate) fn check_text(what: &'static str, text: &str) -> Result<(), SubmissionError> {
    if text.chars().any(char::is_control) {
        return Err(SubmissionError::Control { what });
    }
    check_length(what, text.len(), NAME)
}

/// Bytes, at most.
pub(crate) fn check_length(what: &'static str, length: usize, limit: usize) -> Result<(), SubmissionError> {
    if length > limit { Err(SubmissionError::TooLong { what, length, limit }) } else { Ok(()) }
}

/// What a job may weigh: it is kept in memory and in every answer about it.
fn check_sizes(request: &v1::SubmitJobRequest) -> Result<(), SubmissionError> {
    const PATH: usize = 4_096;
    const SOURCE: usize = 4 * 1024 * 1024;
    let parameters = request.parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
    let wedge =
        |wedge: &v1::Wedge| wedge.parameter.len() + wedge.values.iter().map(String::len).sum::<usize>();
    let wedges = request.wedges.iter().map(wedge).sum();
    let (workflow, source) = match &request.workflow {
        Some(v1::submit_job_request::Workflow::WorkflowSource(source)) => {
            (source.name.as_str(), source.manifest.len() + source.graph.len())
        }
        Some(v1::submit_job_request::Workflow::WorkflowName(name)) => (name.as_str(), 0),
        None => ("", 0),
    };
    for (what, text) in [
        ("name", request.name.as_str()),
        ("show", &request.show),
        ("user", &request.user),
        ("pool", &request.pool),
        ("request id", &request.request_id),
        ("preset", &request.preset),
        ("workflow's name", workflow),
    ] {
        check_text(what, text)?;
    }
    for (what, length, limit) in [
        ("clip path", request.clip.len(), PATH),
        ("output path", request.output.len(), PATH),
        ("parameter list", parameters, PARAMETERS),
        ("list of wedges", wedges, PARAMETERS),
        ("workflow", source, SOURCE),
    ] {
        check_length(what, length, limit)?;
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

/// By shot and file: every shot has a "plate".
fn name_of(clip: &SequencePath) -> String {
    let stem = clip.name().stem();
    match clip.folder_below_root().rsplit('/').next() {
        None | Some("") => stem.to_owned(),
        Some(folder) => format!("{folder}/{stem}"),
    }
}

/// How the clip's light is shown to the workflow. Light that is lost in silence is found at the delivery: whoever submits
/// says that it may be, or how it is kept.
fn view(
    request: &v1::SubmitJobRequest,
    workflow: &Workflow,
    clip: Option<&JobClip>,
) -> Result<Option<View>, SubmissionError> {
    let manifest = workflow.manifest();
    if !matches!(request.view.as_str(), "" | "none") {
        let view = request.view.parse()?;
        let is_needed = clip.is_some_and(|clip| manifest.takes_view(clip.encoding));
        let needless = || SubmissionError::NeedlessView { workflow: workflow.name().to_owned() };
        return if is_needed { Ok(Some(view)) } else { Err(needless()) };
    }
    match clip.filter(|clip| !request.allow_clipping && manifest.clips(clip.encoding)) {
        Some(clip) => Err(SubmissionError::Clipping {
            clip: clip.path.to_string(),
            found: clip.encoding.format.name().to_owned(),
            workflow: workflow.name().to_owned(),
            staged: manifest.clipped_by(clip.encoding).to_owned(),
        }),
        None => Ok(None),
    }
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
        reads: manifest
            .clip
            .iter()
            .flat_map(|clip| &clip.formats)
            .map(|format| format.name())
            .collect::<Vec<_>>()
            .join(", "),
    })
}
