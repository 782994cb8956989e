//! The sequence that lies at an output already: whether it may be replaced, and whether anything would be lost that nobody named.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hearth_proto::v1;
use hearth_storage::{
    Roots,
    manifest::{SEQUENCE_FILE, SequenceManifest},
};
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
    if let Some(inner) = other_inside(&place) {
        let inner = inner.strip_prefix(&place).unwrap_or(&inner).display().to_string();
        return Err(SubmissionError::OutputHolds { output: output.clone(), inner });
    }
    Ok(())
}

/// Folders that are looked into. More are no sequence of Hearth's.
const MOST_FOLDERS: usize = 1_000;

/// Another sequence of Hearth's below this one, which would go with it.
fn other_inside(place: &Path) -> Option<PathBuf> {
    let mut folders = vec![place.to_owned()];
    for looked in 0.. {
        let folder = folders.pop()?;
        if looked >= MOST_FOLDERS {
            // Whatever is in there, nobody has looked.
            return Some(folder);
        }
        if folder != place && folder.join(SEQUENCE_FILE).is_file() {
            return Some(folder);
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        // A link is removed, and not what it leads to.
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(inner.map(|entry| entry.path()));
    }
    None
}

/// Whether the request is for certain frames, and not for all of a clip.
pub fn names_frames(request: &v1::SubmitJobRequest) -> bool {
    !request.frames.trim().is_empty() || SequencePath::frames_named(&request.clip).is_some()
}

/// Checks that the frames that stay have the format in which the job makes the others.
fn check_kept(
    spec: &JobSpec,
    workflow: &Workflow,
    old: &SequenceManifest,
    place: &Path,
) -> Result<(), SubmissionError> {
    for pass in spec.pass_files(workflow) {
        let frames = old.files.get(&pass.pass).into_iter().flat_map(BTreeMap::keys);
        let Some(kept) = frames.copied().find(|frame| !spec.frames.contains(*frame)) else { continue };
        let folder = pass.folder.as_ref().map_or_else(|| place.to_owned(), |folder| place.join(folder));
        // A frame that cannot be read is found when the sequence is put together.
        let Ok(found) = hearth_pictures::inspect(&folder.join(pass.name.file(kept))) else { continue };
        if found.format != pass.encoding.format {
            return Err(SubmissionError::OutputFormat {
                output: spec.output.clone(),
                found: found.format.name(),
                made: pass.encoding.format.name(),
            });
        }
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
    let named = names_frames(request);
    let place = roots.resolve(&spec.output).map_err(SubmissionError::Output)?;
    let Some(old) = SequenceManifest::read(&place).filter(|_| named && spec.overwrite) else { return Ok(()) };
    let patterns = spec.pass_files(workflow).into_iter().map(|pass| (pass.pass.clone(), pass.pattern()));
    if old.passes == patterns.collect::<BTreeMap<_, _>>() {
        return check_kept(spec, workflow, &old, &place);
    }
    let mut lost: FrameSet = old.files.values().flat_map(BTreeMap::keys).copied().collect();
    lost.remove_all(&spec.frames);
    if lost.is_empty() {
        return Ok(());
    }
    Err(SubmissionError::OutputOther { output: spec.output.clone(), frames: lost })
}
