//! From the chunks of a pass to one gap-free sequence in its final place, by one rename.
//!
//! Blocks on storage; callers run it where that is allowed. Every step can be repeated: a second assembly
//! of the same job finds the first one's result and is content.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hearth_proto::v1::{self, FailureKind};
use hearth_storage::{
    Picture, PictureError, Roots,
    manifest::{ChunkManifest, SEQUENCE_FILE, SegmentManifest, SequenceManifest, flush},
    picture,
};
use hearth_workflows::{Frame, FrameSet, RootPath, SequencePath};

use crate::chunk::Failure;

/// A frame's file in an attempt's folder.
pub(crate) fn frame_file(frame: Frame) -> String {
    format!("{frame}.png")
}

/// Puts a job's chunks together.
pub fn assemble(roots: &Roots, attempt: &str, assembly: &v1::Assembly) -> Result<(), Failure> {
    try_assemble(roots, attempt, assembly).or_else(|failure| {
        // Another agent may have put it there meanwhile, and cleaned up under our hands.
        let output = resolve(roots, &assembly.output)?;
        match SequenceManifest::read(&output) {
            Some(manifest) if manifest.job == assembly.work_dir => Ok(()),
            _ => Err(failure),
        }
    })
}

fn try_assemble(roots: &Roots, attempt: &str, assembly: &v1::Assembly) -> Result<(), Failure> {
    let work = resolve(roots, &assembly.work_dir)?;
    let output = resolve(roots, &assembly.output)?;
    if output.symlink_metadata().is_ok() {
        return match SequenceManifest::read(&output) {
            // An earlier try has got this far, and its report was lost.
            Some(manifest) if manifest.job == assembly.work_dir => clean_up(roots, &assembly.work_dir),
            _ => {
                let message =
                    format!("output {} exists already; move it away, then retry the job", assembly.output);
                Err(Failure::new(FailureKind::Storage, message))
            }
        };
    }
    let chunks = chunks(assembly)?;
    let part = work.join(format!("assembly-{attempt}"));
    match fs::remove_dir_all(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::storage(format!("cannot clear {}", part.display()), &error));
        }
        _ => {}
    }
    for (pass, pattern) in &assembly.passes {
        collect_pass(&work, &part, &chunks, pass, pattern)?;
    }
    let manifest = SequenceManifest {
        hearth_version: env!("CARGO_PKG_VERSION").to_owned(),
        job: assembly.work_dir.clone(),
        workflow: assembly.workflow.clone(),
        parameters: assembly.parameters.clone().into_iter().collect(),
        clip: assembly.clip.clone(),
        passes: assembly.passes.clone().into_iter().collect(),
        chunks,
    };
    let file = part.join(SEQUENCE_FILE);
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| {
        Failure::new(FailureKind::Internal, format!("the manifest cannot be written: {error}"))
    })?;
    fs::write(&file, text)
        .and_then(|()| flush(&file))
        .map_err(|error| Failure::storage(format!("cannot write {}", file.display()), &error))?;
    let show = |error: io::Error| {
        Failure::storage(format!("cannot put the sequence at {}", assembly.output), &error)
    };
    if let Some(parent) = output.parent() {
        fs::create_dir_all(parent).map_err(show)?;
    }
    fs::rename(&part, &output).map_err(show)?;
    // Only what is certain to stay there lets the chunks go.
    output.parent().map_or(Ok(()), flush).map_err(show)?;
    clean_up(roots, &assembly.work_dir)
}

/// Removes a job's unfinished work.
pub fn clean_up(roots: &Roots, work_dir: &str) -> Result<(), Failure> {
    let work = resolve(roots, work_dir)?;
    // Only ever a folder of ours.
    let ours = work.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".hearth-"));
    if !ours {
        let message = format!("{work_dir} is no work folder of Hearth's; it is left alone");
        return Err(Failure::new(FailureKind::Internal, message));
    }
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::storage(format!("cannot remove {}", work.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Links a file, or copies it where links cannot be had (another file system).
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).and_then(|_| flush(to)))
}

fn collect_pass(
    work: &Path,
    part: &Path,
    chunks: &[SegmentManifest],
    pass: &str,
    pattern: &str,
) -> Result<(), Failure> {
    let internal = |error: String| Failure::new(FailureKind::Internal, error);
    // The pattern is relative to the output folder; as a path below some root it can be read.
    let sequence: SequencePath =
        format!("output/{pattern}").parse().map_err(|error| internal(format!("pass {pass}: {error}")))?;
    let folder = part.join(sequence.folder_below_root());
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::storage(format!("cannot make {}", folder.display()), &error))?;
    let mut broken = FrameSet::new();
    let mut reason = String::new();
    let mut expected: Option<Picture> = None;
    for chunk in chunks {
        let made = ChunkManifest::read(&work.join(&chunk.attempt));
        let files = made.as_ref().and_then(|made| made.passes.get(pass));
        let from = work.join(&chunk.attempt).join(pass);
        for frame in chunk.frames.iter() {
            let changed = files.and_then(|files| files.get(&frame)).is_some_and(|file| !file.has_size(&from));
            let from = from.join(frame_file(frame));
            let found = match picture::inspect(&from) {
                Ok(_) if changed => Err(PictureError::Truncated { path: from.clone() }),
                found => found,
            };
            let good = matches!(&found, Ok(found) if *expected.get_or_insert(*found) == *found);
            if good {
                let to = folder.join(sequence.name().file(frame));
                link_or_copy(&from, &to)
                    .map_err(|error| Failure::storage(format!("cannot write {}", to.display()), &error))?;
                continue;
            }
            if let Err(PictureError::Read { source, .. }) = &found
                && source.kind() != io::ErrorKind::NotFound
            {
                // The storage's trouble, not the frame's: nothing is rendered again for that.
                return Err(Failure::storage(format!("cannot read {}", from.display()), source));
            }
            reason = match found {
                Ok(found) => {
                    format!("{} is {}x{}, unlike the others", from.display(), found.width, found.height)
                }
                Err(error) => hearth_telemetry::chain(&error),
            };
            broken.insert_all(&[frame].into_iter().collect());
        }
    }
    if broken.is_empty() {
        // The frames themselves were flushed when they were published.
        return flush(&folder)
            .map_err(|error| Failure::storage(format!("cannot write {}", folder.display()), &error));
    }
    let message = format!("pass {pass}: frames {broken} were rendered but cannot be used: {reason}");
    Err(Failure { frames: broken, ..Failure::new(FailureKind::BadOutput, message) })
}

fn chunks(assembly: &v1::Assembly) -> Result<Vec<SegmentManifest>, Failure> {
    assembly
        .segments
        .iter()
        .map(|segment| {
            let frames = segment.frames.parse().map_err(|error| {
                Failure::new(FailureKind::Internal, format!("the assembly's frames cannot be read: {error}"))
            })?;
            Ok(SegmentManifest { frames, attempt: segment.attempt_id.clone(), node: segment.node.clone() })
        })
        .collect()
}

fn resolve(roots: &Roots, path: &str) -> Result<PathBuf, Failure> {
    let path: RootPath = path.parse().map_err(|error| {
        Failure::new(FailureKind::Internal, format!("the assignment's path cannot be read: {error}"))
    })?;
    Ok(roots.resolve(&path)?)
}
