//! From what is asked to be delivered to checked jobs.

use std::collections::{BTreeMap, BTreeSet};

use hearth_pictures::Rate;
use hearth_proto::v1;
use hearth_storage::{Clip, Roots};
use hearth_workflows::{
    Frame, FrameRange, FrameSet, RootPath, SequencePath, Workflow, delivery::DeliveryFormat,
    format::ColourSpace,
};

use super::{SubmissionError, check_text, overwrite as replace};
use crate::farm::{Deliver, JobId, JobSpec, PassFiles, Priority, Submission, Submitted, Task, Terms, Tile};

/// Deliveries in one request.
const MOST: usize = 32;

/// The passes of a job, whose sequences are there when it is done.
pub(super) struct Source<'a> {
    pub(super) spec: &'a JobSpec,
    pub(super) workflow: &'a Workflow,
}

impl Source<'_> {
    /// A pass and its sequence; of no name, the first.
    pub(super) fn pass(&self, name: &str) -> Result<(PassFiles, SequencePath), SubmissionError> {
        let passes = self.spec.pass_files(self.workflow);
        let found = passes.iter().find(|pass| name.is_empty() || pass.pass == name).cloned();
        let pass = found.ok_or_else(|| SubmissionError::NoSuchPass {
            pass: name.to_owned(),
            known: passes.iter().map(|pass| pass.pass.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let sequence = format!("{}/{}", self.spec.output, pass.pattern());
        Ok((pass, sequence.parse().map_err(SubmissionError::OutputPath)?))
    }
}

/// What the request asks for, or what the workflow usually delivers.
pub(super) fn ordered(request: &v1::SubmitJobRequest, workflow: &Workflow) -> Vec<v1::Delivery> {
    if !request.deliveries.is_empty() || request.no_deliveries {
        return request.deliveries.clone();
    }
    let usual = |delivery: &hearth_workflows::manifest::Delivery| v1::Delivery {
        format: delivery.format.to_string(),
        pass: delivery.pass.clone(),
        curve: delivery.curve.map(|curve| curve.to_string()).unwrap_or_default(),
        ..v1::Delivery::default()
    };
    workflow.manifest().deliveries.iter().map(usual).collect()
}

/// A job for each of `deliveries` of a job's sequence.
pub(super) fn of_job(
    deliveries: &[v1::Delivery],
    source: &Source,
    overwrite: bool,
    roots: &Roots,
) -> Result<Vec<JobSpec>, SubmissionError> {
    check_count(deliveries)?;
    let spec = source.spec;
    deliveries
        .iter()
        .map(|delivery| {
            let (pass, sequence) = source.pass(&delivery.pass)?;
            let base = match delivery.pass.as_str() {
                "" => spec.output.clone(),
                pass => format!("{}_{pass}", spec.output).parse().map_err(SubmissionError::OutputPath)?,
            };
            let text = if spec.show.is_empty() {
                format!("{}  {}", spec.name, spec.output.file_name())
            } else {
                format!("{}  {}  {}", spec.show, spec.name, spec.output.file_name())
            };
            let ordered = Ordered { sequence, base, colour: pass.encoding.colour, text };
            let deliver = one(delivery, ordered, overwrite, roots)?;
            Ok(JobSpec { frames: spec.frames.clone(), ..inherit(spec, deliver) })
        })
        .collect()
}

/// A contact sheet of all takes, labelled: of each, the frame in the middle of the workflow's first pass.
pub(super) fn sheet(
    name: &str,
    takes: &[(&JobSpec, &str)],
    workflow: &Workflow,
    output: &RootPath,
    overwrite: bool,
    roots: &Roots,
) -> Result<JobSpec, SubmissionError> {
    let mut tiles = Vec::with_capacity(takes.len());
    let mut first = None;
    for (spec, label) in takes {
        let (pass, sequence) = Source { spec, workflow }.pass("")?;
        let frame = spec.frames.iter().nth((spec.frames.len() / 2) as usize).unwrap_or(Frame(1));
        first.get_or_insert((*spec, pass.encoding.colour, sequence.clone()));
        tiles.push(Tile { sequence, frame, label: (*label).to_owned() });
    }
    let (spec, colour, sequence) = first.ok_or(SubmissionError::Aborted)?;
    let places = FrameRange::new(1, tiles.len() as i64).ok_or(SubmissionError::Aborted)?;
    let delivery = v1::Delivery {
        format: DeliveryFormat::ContactSheet.to_string(),
        output: format!("{output}_wedge.png"),
        ..v1::Delivery::default()
    };
    let ordered = Ordered { sequence, base: output.clone(), colour, text: String::new() };
    let (deliver, output, overwrite) = one(&delivery, ordered, overwrite, roots)?;
    let made = inherit(spec, (Deliver { tiles, ..deliver }, output, overwrite));
    Ok(JobSpec { name: format!("{name} wedge"), frames: places.into(), ..made })
}

/// What goes on from the job that made a sequence to the job that delivers it.
fn inherit(spec: &JobSpec, (deliver, output, overwrite): (Deliver, RootPath, bool)) -> JobSpec {
    JobSpec {
        name: format!("{} {}", spec.name, deliver.format),
        task: Task::Deliver(deliver),
        output,
        overwrite,
        // Any node can encode.
        pool: String::new(),
        request_id: String::new(),
        after: BTreeSet::new(),
        terms: Terms { deadline: spec.terms.deadline, ..Terms::default() },
        batch: None,
        ..spec.clone()
    }
}

/// Checks a request to deliver what a job makes. Blocks on storage.
pub fn check_job(
    request: &v1::DeliverRequest,
    job: JobId,
    (spec, workflow): (&JobSpec, &Workflow),
    priority: Priority,
    roots: &Roots,
) -> Result<Submission, SubmissionError> {
    let specs = of_job(&request.deliveries, &Source { spec, workflow }, request.overwrite, roots)?;
    let specs = specs.into_iter().map(|spec| JobSpec { after: [job].into(), ..spec }).collect();
    submission(request, specs, priority)
}

/// Checks a request to deliver a sequence that is there. Blocks on storage.
pub fn check_clip(
    request: &v1::DeliverRequest,
    clip: &str,
    traceparent: String,
    roots: &Roots,
) -> Result<Submission, SubmissionError> {
    check_count(&request.deliveries)?;
    for (what, text) in [("show", &request.show), ("user", &request.user)] {
        check_text(what, text)?;
    }
    let priority = super::priority(request.priority)?;
    let sequence: SequencePath = clip.parse().map_err(SubmissionError::ClipPath)?;
    let found = Clip::find(roots, &sequence)?;
    let frames: FrameSet = match SequencePath::frames_named(clip) {
        Some(named) if request.frames.trim().is_empty() => named.into(),
        None if request.frames.trim().is_empty() => found.frames.clone(),
        _ => request.frames.parse().map_err(SubmissionError::Frames)?,
    };
    let picture = found.check(&frames)?.ok_or(SubmissionError::Aborted)?;
    let colour = super::colour_of(&request.colour_space, picture.format)?;
    let stem = sequence.name().stem().to_owned();
    let base: RootPath = match sequence.folder_below_root() {
        "" => format!("{}/{stem}", sequence.root()),
        folder => format!("{}/{folder}/{stem}", sequence.root()),
    }
    .parse()
    .map_err(SubmissionError::OutputPath)?;
    let specs = request
        .deliveries
        .iter()
        .map(|delivery| {
            let ordered =
                Ordered { sequence: sequence.clone(), base: base.clone(), colour, text: stem.clone() };
            let (deliver, output, overwrite) = one(delivery, ordered, request.overwrite, roots)?;
            Ok(JobSpec {
                name: format!("{stem} {}", deliver.format),
                show: request.show.clone(),
                user: request.user.clone(),
                pool: String::new(),
                task: Task::Deliver(deliver),
                frames: frames.clone(),
                output,
                urgent: false,
                overwrite,
                after: BTreeSet::new(),
                terms: Terms::default(),
                batch: None,
                storage: BTreeMap::new(),
                traceparent: traceparent.clone(),
                request_id: String::new(),
            })
        })
        .collect::<Result<Vec<_>, SubmissionError>>()?;
    submission(request, specs, priority)
}

fn submission(
    request: &v1::DeliverRequest,
    mut specs: Vec<JobSpec>,
    priority: Priority,
) -> Result<Submission, SubmissionError> {
    check_text("request id", &request.request_id)?;
    match specs.first_mut() {
        Some(first) => first.request_id.clone_from(&request.request_id),
        None => return Err(SubmissionError::NothingToDeliver),
    }
    let alone = |spec| Submitted { spec, priority, workflow: None, after: Vec::new(), preset: None };
    Ok(Submission { jobs: specs.into_iter().map(alone).collect() })
}

fn check_count(deliveries: &[v1::Delivery]) -> Result<(), SubmissionError> {
    if deliveries.len() > MOST {
        return Err(SubmissionError::TooMany { what: "deliveries", count: deliveries.len(), limit: MOST });
    }
    Ok(())
}

/// The sequence that a delivery is made of, and what holds for it when nothing else is said.
struct Ordered {
    sequence: SequencePath,
    /// What its default output is named after.
    base: RootPath,
    colour: ColourSpace,
    text: String,
}

fn one(
    delivery: &v1::Delivery,
    ordered: Ordered,
    overwrite: bool,
    roots: &Roots,
) -> Result<(Deliver, RootPath, bool), SubmissionError> {
    check_text("slate text", &delivery.text)?;
    let format: DeliveryFormat = delivery.format.parse().map_err(SubmissionError::Delivery)?;
    let output = match delivery.output.as_str() {
        "" => format.beside(&ordered.base),
        given => given.parse(),
    }
    .map_err(SubmissionError::OutputPath)?;
    let output = roots.one_name(&output);
    replace::check(&output, overwrite, roots)?;
    if !delivery.frame_rate.is_empty() {
        delivery.frame_rate.parse::<Rate>().map_err(SubmissionError::FrameRate)?;
    }
    let curve = match delivery.curve.as_str() {
        "" => None,
        curve => Some(curve.parse().map_err(SubmissionError::Delivery)?),
    };
    let deliver = Deliver {
        sequence: ordered.sequence,
        colour: ordered.colour,
        format,
        text: if delivery.text.is_empty() { ordered.text } else { delivery.text.clone() },
        rate: delivery.frame_rate.clone(),
        tiles: Vec::new(),
        curve,
    };
    Ok((deliver, output, overwrite))
}
