//! A clip that another job makes: nothing of it need be there yet.

use std::sync::Arc;

use hearth_proto::v1;
use hearth_storage::Roots;
use hearth_workflows::{FrameRange, FrameSet, Split, Workflow, format::Encoding};

use super::{Input, SubmissionError, check_format, colour_of, delivery::Source, needed, worked_on};
use crate::farm::{JobClip, JobId, JobSpec, JobState, JobView, MadeBy};

/// The job that makes the clip of another one.
#[derive(Debug)]
pub struct Maker {
    id: JobId,
    spec: Arc<JobSpec>,
    workflow: Arc<Workflow>,
    is_done: bool,
}

impl Maker {
    /// Refuses a delivery, which makes no clip.
    pub fn of(view: JobView) -> Result<Self, SubmissionError> {
        let JobView { id, spec, workflow, state, .. } = view;
        let workflow = workflow.ok_or(SubmissionError::MakesNoClip(id))?;
        Ok(Self { id, spec, workflow, is_done: state == JobState::Done })
    }
}

fn makes(maker: &Maker, mut frames: FrameSet) -> Result<(), SubmissionError> {
    frames.remove_all(&maker.spec.frames);
    if frames.is_empty() {
        return Ok(());
    }
    Err(SubmissionError::NotMade { job: maker.id, missing: frames })
}

/// What the job works on, and what it makes of it. Blocks on storage where the clip lies there already.
pub(super) fn input(
    request: &v1::SubmitJobRequest,
    workflow: &Workflow,
    split: Split,
    maker: &Maker,
    roots: &Roots,
) -> Result<Input, SubmissionError> {
    if !request.clip.is_empty() {
        return Err(SubmissionError::TwoClips);
    }
    let named = request.clip_of.as_ref().map_or("", |clip| clip.pass.as_str());
    let source = Source { spec: &maker.spec, workflow: &maker.workflow };
    let (pass, path) = source.pass(named)?;
    let colour = match request.colour_space.as_str() {
        "" => pass.encoding.colour,
        given => colour_of(given, pass.encoding.format)?,
    };
    if maker.is_done {
        let request = v1::SubmitJobRequest { colour_space: colour.to_string(), ..request.clone() };
        return super::input(&request, &path.to_string(), workflow, split, roots);
    }
    let made = &maker.spec.frames;
    let range = made.first().zip(made.last());
    let range = range.and_then(|(first, last)| FrameRange::new(first.0, last.0));
    let frames: FrameSet = if request.frames.trim().is_empty() {
        made.clone()
    } else {
        request.frames.parse().map_err(SubmissionError::Frames)?
    };
    let (frames, range) = worked_on(workflow, split, frames, range.ok_or(SubmissionError::Aborted)?)?;
    let results = split.results(&frames);
    // Before the handles are counted: a frame far away must not make a clip of millions.
    makes(maker, frames)?;
    makes(maker, needed(workflow, split, &results, range))?;
    let encoding = Encoding { colour, ..pass.encoding };
    check_format(workflow, &path, encoding)?;
    let clip = maker.spec.render().and_then(|render| render.clip.as_ref());
    let clip = JobClip {
        path,
        encoding,
        pixels: clip.map_or(0, |clip| clip.pixels),
        view: None,
        made_by: Some(MadeBy { job: maker.id, pass: pass.pass }),
    };
    Ok(Input { clip: Some(clip), range, results })
}
