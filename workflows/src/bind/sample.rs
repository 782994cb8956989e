//! A prompt that is only looked at: bound as for a chunk of a clip that need not be there.

use super::{StagedClip, StagedFiles, bind};
use crate::{
    error::WorkflowError,
    frames::{FrameRange, FrameSet},
    graph::Graph,
    manifest::Load,
    parameters::{ParameterTexts, ParameterType},
    workflow::Workflow,
};

/// Where the pictures of a sample lie that are loaded one by one, relative to ComfyUI's input folder.
pub const SAMPLE_INPUT: &str = "hearth/sample";

/// The prompt for the frames `own` of `clip`, all of them if the workflow is never split. Of `given`, what is missing
/// has its default. In `folder`, as the ComfyUI sees it, and in [`SAMPLE_INPUT`] of its input folder lie pictures called
/// `plate.0000.png` or `.exr` and so on; the first of them is every picture that a parameter names, too.
pub fn sample(
    workflow: &Workflow,
    given: &ParameterTexts,
    own: &FrameSet,
    clip: FrameRange,
    folder: &str,
) -> Result<Graph, WorkflowError> {
    let manifest = workflow.manifest();
    let file = format!("{}/{}", workflow.name(), crate::library::GRAPH_FILE);
    let wrong = |message| WorkflowError::Manifest { file: file.clone(), message };
    let split = manifest.split(given).map_err(wrong)?;
    let own = if split.is_whole() { &split.results(&clip.into()) } else { own };
    let plan = split.plan(own, clip, manifest.shape());
    let last = plan.loaded.len().saturating_sub(1) as u64;
    let picture = |at: u64| format!("{SAMPLE_INPUT}/plate.{at:04}.png");
    let staged = match manifest.clip.as_ref().map(|clip| clip.load) {
        None => StagedClip::Nothing,
        Some(Load::Image) => StagedClip::Files((0..=last).map(picture).collect()),
        Some(Load::Directory) => StagedClip::Directory(folder.to_owned()),
        Some(Load::Frames) => StagedClip::Frames { path: format!("{folder}/plate.%04d.exr"), last },
    };
    let named = given.iter().filter(|(_, text)| !text.trim().is_empty());
    let places: StagedFiles = named
        .filter_map(|(name, _)| match manifest.parameters.get(name)?.kind {
            ParameterType::Picture => Some((name.clone(), picture(0))),
            ParameterType::File => {
                let ending = manifest.parameters[name].extensions.first().map_or("txt", String::as_str);
                Some((name.clone(), format!("{folder}/{name}.{ending}")))
            }
            _ => None,
        })
        .collect();
    let out = format!("{folder}/saved");
    let prompt = bind(workflow, given, &plan, &staged, &places, &out, "sample")?;
    Graph::parse(&file, &prompt.graph.to_string())
}
