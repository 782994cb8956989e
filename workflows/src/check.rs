//! A workflow with its parameters held against what a ComfyUI's node classes declare.

use crate::{
    bind,
    error::WorkflowError,
    frames::{Frame, FrameRange},
    parameters::ParameterTexts,
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
    let clip = FrameRange { first: Frame(1), last: Frame(SAMPLE) };
    let graph = bind::sample(workflow, given, &[clip.first].into_iter().collect(), clip, "frames")?;
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
