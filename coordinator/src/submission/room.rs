//! Whether what a submission makes can be written, and whether there is room for it.

use std::{collections::BTreeMap, path::Path};

use hearth_proto::v1;
use hearth_storage::{Roots, manifest::SequenceManifest};
use hearth_workflows::FrameSet;
use rustix::fs::{Access, access, statvfs};

use super::SubmissionError;
use crate::farm::{JobSpec, Submission, Submitted, Task};

/// What a submission would make, and the room for it.
#[derive(Debug, Clone, Default)]
pub struct Room {
    pub jobs: Vec<v1::PlannedJob>,
    /// Bytes, about: before compression, and in the clip's size. 0: unknown.
    pub needed: u64,
    /// Bytes that are free where the first output goes; `None`: unknown.
    pub free: Option<u64>,
    /// By this host, that is; those who write are the agents.
    pub is_writable: bool,
    /// What of sequences at the outputs is replaced, and what stays; a line each.
    pub replaces: Vec<String>,
}

/// Looks at the storage that the outputs go to; `names_frames`: the others of a sequence stay. Blocks on storage.
pub fn room(submission: &Submission, names_frames: bool, roots: &Roots) -> Result<Room, SubmissionError> {
    let mut room = Room::default();
    for (index, job) in submission.jobs.iter().enumerate() {
        let spec = &job.spec;
        let place = roots.resolve(&spec.output).map_err(SubmissionError::Output)?;
        if index == 0 {
            let folder = place.ancestors().skip(1).find(|folder| folder.is_dir());
            room.free = free(folder);
            room.is_writable = folder.is_some_and(|folder| access(folder, Access::WRITE_OK).is_ok());
        }
        if spec.overwrite && room.replaces.len() < MOST_TOLD {
            room.replaces.extend(replaced(spec, names_frames, &place));
        }
        room.needed = room.needed.saturating_add(needed(job));
        room.jobs.push(v1::PlannedJob {
            name: spec.name.clone(),
            output: spec.output.to_string(),
            frames: spec.frames.to_string(),
            delivery: match &spec.task {
                Task::Render(_) => String::new(),
                Task::Deliver(deliver) => deliver.format.to_string(),
            },
        });
    }
    Ok(room)
}

/// Outputs of which is told what lies there.
const MOST_TOLD: usize = 16;

/// What becomes of the sequence that is there.
fn replaced(spec: &JobSpec, names_frames: bool, place: &Path) -> Option<String> {
    let manifest = SequenceManifest::read(place)?;
    let there: FrameSet = manifest.files.values().flat_map(BTreeMap::keys).copied().collect();
    if !names_frames {
        return Some(format!("the sequence at {}, frames {there}, is replaced", spec.output));
    }
    let mut kept = there.clone();
    kept.remove_all(&spec.frames);
    let replaced = there.intersection(&spec.frames);
    Some(match (replaced.is_empty(), kept.is_empty()) {
        (true, _) => format!("{} gets frames {} beside those that are there", spec.output, spec.frames),
        (false, true) => format!("all frames of {} are replaced ({replaced})", spec.output),
        (false, false) => format!("frames {replaced} of {} are replaced, {kept} stay", spec.output),
    })
}

/// Of the nearest folder that is there.
fn free(folder: Option<&Path>) -> Option<u64> {
    let found = statvfs(folder?).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Three channels of every frame of every pass; nothing for movies, which are small beside that.
fn needed(job: &Submitted) -> u64 {
    let (Some(render), Some(workflow)) = (job.spec.render(), &job.workflow) else { return 0 };
    let pixels = render.clip.as_ref().map_or(0, |clip| clip.pixels);
    let clip = render.clip.as_ref().map(|clip| clip.encoding);
    let manifest = workflow.manifest();
    let bytes = |pass| {
        use hearth_workflows::format::PictureFormat as Format;
        match manifest.result(pass, clip).format {
            Format::Png8 | Format::Tiff8 | Format::Jpeg => 1,
            Format::Png16 | Format::Tiff16 | Format::ExrHalf | Format::Dpx => 2,
            Format::ExrFloat | Format::TiffFloat => 4,
        }
    };
    let of_pass = |pass| pixels.saturating_mul(3 * bytes(pass)).saturating_mul(job.spec.frames.len());
    manifest.passes_made(&render.parameters).map(of_pass).fold(0, u64::saturating_add)
}
