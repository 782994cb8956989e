//! Reading on storage what a store has forgotten: which frames of a job lie there, whole. Must never write.

use hearth_storage::{
    Roots,
    manifest::{FoundChunk, SequenceManifest, whole_chunks},
};
use hearth_telemetry::chain;
use tracing::{info, warn};

use crate::farm::{FarmTag, Found, ToSurvey};

/// Reads the folders of one job: the whole pieces, and whether the whole sequence is in its place. Blocks. What
/// cannot be read counts as not there: it is rendered again, which costs time and nothing else.
pub(crate) fn survey(roots: &Roots, tag: &FarmTag, job: &ToSurvey) -> (Vec<Found>, bool) {
    let (work_dir, output) = match (roots.resolve(&job.work_dir), roots.resolve(&job.output)) {
        (Ok(work_dir), Ok(output)) => (work_dir, output),
        (Err(error), _) | (_, Err(error)) => {
            warn!(job = job.job.0, error = %chain(&error), "cannot be looked up on storage from here");
            return (Vec::new(), false);
        }
    };
    // A sequence of other frames is from before the job was edited.
    let is_whole = |manifest: SequenceManifest| {
        manifest.job == job.work_dir.to_string()
            && manifest.missing.is_empty()
            && manifest.frames() == job.frames
    };
    let assembled = SequenceManifest::read(&output).is_some_and(is_whole);
    let chunks = whole_chunks(&work_dir).unwrap_or_else(|error| {
        warn!(job = job.job.0, %error, folder = %work_dir.display(), "cannot be read");
        Vec::new()
    });
    let found: Vec<Found> = chunks
        .into_iter()
        .filter_map(|FoundChunk { manifest, digest, whole: frames }| {
            let attempt = tag.attempt_of(&manifest.attempt).filter(|attempt| attempt.job == job.job)?;
            let broken = manifest.frames.len() - frames.len();
            if broken > 0 {
                warn!(attempt = manifest.attempt, broken, "frames on storage are not whole any more");
            }
            Some(Found { number: attempt.number, node: manifest.node.into(), frames, published: digest })
        })
        .collect();
    let frames: u64 = found.iter().map(|found| found.frames.len()).sum();
    info!(job = job.job.0, chunks = found.len(), frames, assembled, "looked up on storage");
    (found, assembled)
}
