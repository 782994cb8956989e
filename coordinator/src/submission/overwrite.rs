//! The sequence that lies at an output already: whether it may be replaced, and whether anything would be lost that nobody named.

use std::collections::BTreeMap;

use hearth_proto::v1;
use hearth_storage::{Roots, manifest::SequenceManifest};
use hearth_workflows::{FrameSet, RootPath, SequencePath, Workflow};

use super::SubmissionError;
use crate::farm::JobSpec;

/// Nothing is there that must not be replaced.
pub(super) fn check(output: &RootPath, overwrite: bool, roots: &Roots) -> Result<(), SubmissionError> {
    let place = roots.resolve(output).map_err(SubmissionError::Output)?;
    let Ok(found) = place.symlink_metadata() else { return Ok(()) };
    if !overwrite {
        return Err(SubmissionError::OutputExists { output: output.clone() });
    }
    if found.is_dir() && SequenceManifest::read(&place).is_none() {
        return Err(SubmissionError::OutputForeign { output: output.clone() });
    }
    Ok(())
}

/// A job for certain frames leaves the others of the sequence as they are, if they are of the same passes and names.
pub(super) fn check_frames(
    request: &v1::SubmitJobRequest,
    spec: &JobSpec,
    workflow: &Workflow,
    roots: &Roots,
) -> Result<(), SubmissionError> {
    let named = !request.frames.trim().is_empty() || SequencePath::frames_named(&request.clip).is_some();
    let place = roots.resolve(&spec.output).map_err(SubmissionError::Output)?;
    let Some(old) = SequenceManifest::read(&place).filter(|_| named && spec.overwrite) else { return Ok(()) };
    let patterns = spec.pass_files(workflow).into_iter().map(|pass| (pass.pass.clone(), pass.pattern()));
    if old.passes == patterns.collect::<BTreeMap<_, _>>() {
        return Ok(());
    }
    let mut lost: FrameSet = old.files.values().flat_map(BTreeMap::keys).copied().collect();
    lost.remove_all(&spec.frames);
    if lost.is_empty() {
        return Ok(());
    }
    Err(SubmissionError::OutputOther { output: spec.output.clone(), frames: lost })
}
