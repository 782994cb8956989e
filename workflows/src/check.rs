//! A workflow with its parameters held against what a ComfyUI's node classes declare.

use crate::{
    bind::{self, StagedClip, StagedPictures},
    error::WorkflowError,
    frames::{Frame, FrameRange, FrameSet},
    graph::Graph,
    manifest::Load,
    parameters::{ParameterTexts, ParameterType},
    signatures::{Mismatch, Signatures},
    workflow::Workflow,
};

/// Frames of the clip that a prompt is bound for to be looked at.
const SAMPLE: i64 = 100;

/// Everything of the workflow with these parameters, of which those not given have their defaults, that the ComfyUI
/// would not take, or would not heed: a prompt for the clip's first frame is bound and looked at node by node. What is
/// wrong with a node that is repeated for every frame is told once.
pub fn mismatches(
    workflow: &Workflow,
    given: &ParameterTexts,
    signatures: &Signatures,
) -> Result<Vec<Mismatch>, WorkflowError> {
    let graph = sample(workflow, given)?;
    let mut found: Vec<Mismatch> = Vec::new();
    for mismatch in signatures.check(&graph) {
        let same = |other: &Mismatch| {
            (&other.class, &other.input, &other.what) == (&mismatch.class, &mismatch.input, &mismatch.what)
        };
        if !found.iter().any(same) {
            found.push(mismatch);
        }
    }
    Ok(found)
}

/// The prompt for the first frame of some clip.
fn sample(workflow: &Workflow, given: &ParameterTexts) -> Result<Graph, WorkflowError> {
    let manifest = workflow.manifest();
    let file = format!("{}/{}", workflow.name(), crate::library::GRAPH_FILE);
    let wrong = |message| WorkflowError::Manifest { file: file.clone(), message };
    let split = manifest.split(given).map_err(wrong)?;
    let clip = FrameRange { first: Frame(1), last: Frame(SAMPLE) };
    let results = split.results(&clip.into());
    let own: FrameSet = if split.is_whole() { results } else { results.iter().take(1).collect() };
    let plan = split.plan(&own, clip, manifest.shape());
    let last = plan.loaded.len().saturating_sub(1) as u64;
    let staged = match manifest.clip.as_ref().map(|clip| clip.load) {
        None => StagedClip::Nothing,
        Some(Load::Image) => StagedClip::Files((0..=last).map(|at| format!("{at}.png")).collect()),
        Some(Load::Directory) => StagedClip::Directory("frames".to_owned()),
        Some(Load::Frames) => StagedClip::Frames { path: "frames/frame.%04d.exr".to_owned(), last },
    };
    let is_picture = |name: &String| {
        manifest.parameters.get(name).is_some_and(|parameter| parameter.kind == ParameterType::Picture)
    };
    let pictures: StagedPictures = given
        .iter()
        .filter(|(name, _)| is_picture(name))
        .map(|(name, path)| (name.clone(), path.clone()))
        .collect();
    let prompt = bind::bind(workflow, given, &plan, &staged, &pictures, "/saved", "sample")?;
    Graph::parse(&file, &prompt.graph.to_string())
}
