//! Frames of an earlier sequence that stay when a job replaces some of them: who names the frames to be made anew means
//! these and no others.

use std::{collections::BTreeMap, path::PathBuf};

use hearth_proto::v1;
use hearth_storage::{
    Held,
    manifest::{FileManifest, KeptManifest, SequenceManifest},
};
use hearth_workflows::{Frame, FrameSet, SequencePath};

use super::{Watched, link_or_copy};
use crate::chunk::Failure;

/// The part that stays of the sequence at an assembly's output.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Its makers.
    pub(super) manifests: Vec<KeptManifest>,
    /// By pass and frame: the file as it lies, the folder of the pass below the output, and what it is.
    files: BTreeMap<String, Vec<(Frame, PathBuf, FileManifest)>>,
}

/// Whether the job was asked for certain frames, and not for the whole clip.
fn names_frames(assembly: &v1::Assembly) -> bool {
    assembly.submission.as_ref().is_some_and(|asked| {
        !asked.frames.trim().is_empty() || SequencePath::frames_named(&asked.clip).is_some()
    })
}

impl Kept {
    /// Finds, of the sequence at `place`, the frames that are not among `own`. Nothing, if the whole sequence is to be
    /// replaced, or if its files are named otherwise: the coordinator has refused that where frames would be lost.
    pub(super) fn find(place: &Held, assembly: &v1::Assembly, own: &FrameSet) -> Self {
        let Some(old) = SequenceManifest::read(&place.path()) else { return Self::default() };
        let patterns: BTreeMap<String, String> =
            assembly.passes.iter().map(|pass| (pass.name.clone(), pass.pattern.clone())).collect();
        // What the job itself has put there, before some of its failed frames came after all.
        let is_own = old.job == assembly.work_dir;
        let keeps = is_own || assembly.overwrite && names_frames(assembly);
        if !keeps || old.passes != patterns {
            return Self::default();
        }
        let mut kept_before = FrameSet::new();
        old.kept.iter().for_each(|kept| kept_before.insert_all(&kept.frames));
        let stays = |frame: Frame| !own.contains(frame) && (!is_own || kept_before.contains(frame));
        let mut all = FrameSet::new();
        let mut files = BTreeMap::new();
        for (pass, of_pass) in &old.files {
            let Some(folder) =
                patterns.get(pass).map(|pattern| pattern.rsplit_once('/').map_or("", |(folder, _)| folder))
            else {
                continue;
            };
            let kept: Vec<_> = of_pass
                .iter()
                .filter(|(frame, _)| stays(**frame))
                .map(|(frame, file)| (*frame, PathBuf::from(folder), file.clone()))
                .collect();
            all.insert_all(&kept.iter().map(|(frame, ..)| *frame).collect());
            files.insert(pass.clone(), kept);
        }
        if all.is_empty() {
            return Self::default();
        }
        let mut manifests: Vec<KeptManifest> = old.kept;
        let mut theirs = all.clone();
        for earlier in &mut manifests {
            earlier.frames = earlier.frames.intersection(&all);
            theirs.remove_all(&earlier.frames);
        }
        // Nothing is left of it where that is the job itself.
        manifests.push(KeptManifest {
            job: old.job,
            workflow: old.workflow,
            parameters: old.parameters,
            frames: theirs,
        });
        manifests.retain(|kept| !kept.frames.is_empty());
        Self { manifests, files }
    }

    pub(super) fn count(&self) -> u64 {
        self.files.values().map(|files| files.len() as u64).sum()
    }

    /// Links or copies the files from `from` to `part`, and adds them to `made`.
    pub(super) fn place(
        self,
        from: &Held,
        part: &Held,
        made: &mut BTreeMap<String, BTreeMap<Frame, FileManifest>>,
        watched: &Watched,
    ) -> Result<Vec<KeptManifest>, Failure> {
        for (pass, files) in self.files {
            for (frame, folder, file) in files {
                watched.one_more()?;
                let below = folder.join(&file.name);
                let to = part.path().join(&below);
                from.below(&below).and_then(|file| link_or_copy(&file, &to)).map_err(|error| {
                    let file = from.shown().join(&below);
                    Failure::storage(
                        format!("cannot keep {} of the earlier sequence", file.display()),
                        &error,
                    )
                })?;
                made.entry(pass.clone()).or_default().insert(frame, file);
            }
        }
        Ok(self.manifests)
    }
}
