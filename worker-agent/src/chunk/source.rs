//! A clip that another job is still making: its frames are linked into the attempt's own folder under the names that
//! they will have. Nothing may read them where they were: that place goes when the other job's sequence is put
//! together, and the sequence appears in another.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use hearth_proto::v1::{self, FailureKind};
use hearth_storage::{
    Held, RootsError, SequenceFolder,
    clip::file_of,
    manifest::{ChunkManifest, FileManifest, ManifestDigest, SequenceManifest},
};
use hearth_workflows::{Frame, FrameSet, RootPath, split::ChunkPlan};

use super::{ChunkTask, Failure, TaskClip, Workbench, is_plain};
use crate::sequence::link_or_copy;

/// Where the frames of such a clip lie.
#[derive(Debug, Clone)]
pub struct Source {
    work_dir: RootPath,
    output: RootPath,
    pass: String,
    pieces: Vec<Piece>,
}

/// Frames that one attempt has made.
#[derive(Debug, Clone)]
struct Piece {
    attempt: String,
    frames: FrameSet,
    published: Option<ManifestDigest>,
}

impl Source {
    /// Reads its part of an assignment; an error says what of it cannot be understood.
    pub(super) fn read(source: &v1::ClipSource) -> Result<Self, String> {
        let path = |text: &str| text.parse::<RootPath>().map_err(|error| error.to_string());
        let piece = |segment: &v1::Segment| {
            let frames = segment.frames.parse().map_err(|_| format!("frames {}", segment.frames))?;
            // It names a folder.
            if !is_plain(&segment.attempt_id) {
                return Err(format!("attempt {}", segment.attempt_id));
            }
            let published = ManifestDigest::from_bytes(&segment.manifest_blake3);
            Ok(Piece { attempt: segment.attempt_id.clone(), frames, published })
        };
        Ok(Self {
            work_dir: path(&source.work_dir)?,
            output: path(&source.output)?,
            pass: source.pass.clone(),
            pieces: source.segments.iter().map(piece).collect::<Result<_, String>>()?,
        })
    }
}

/// Where the frames of a clip are linked to that is still being made.
fn linked(bench: &Workbench, task: &ChunkTask) -> PathBuf {
    bench.stage.join(&task.attempt).join("source")
}

/// Where the clip's files lie for this attempt.
pub(super) fn folder(
    bench: &Workbench,
    task: &ChunkTask,
    clip: &TaskClip,
) -> Result<SequenceFolder, RootsError> {
    if clip.source.is_none() {
        return SequenceFolder::open(&bench.roots, &clip.path);
    }
    let path = linked(bench, task);
    let folder = Held::open(&path).map_err(|source| RootsError::Open { path, source })?;
    Ok(SequenceFolder::of(folder, &clip.path, &bench.roots))
}

/// Links what the plan loads of a clip that is still being made. Blocks on storage in a thread of its own.
pub(super) async fn fetch(
    bench: &Workbench,
    task: &ChunkTask,
    clip: &TaskClip,
    plan: &ChunkPlan,
) -> Result<(), Failure> {
    let Some(source) = clip.source.clone() else { return Ok(()) };
    let (roots, to) = (bench.roots.clone(), linked(bench, task));
    let (path, frames) = (clip.path.clone(), plan.loaded.clone());
    let linked = tokio::task::spawn_blocking(move || {
        let failed = |place: &Path, error: &io::Error| {
            Failure::storage(format!("cannot stage {}", place.display()), error)
        };
        std::fs::create_dir_all(&to).map_err(|error| failed(&to, &error))?;
        // It goes with its job's last chunk.
        let work = match roots.hold(&source.work_dir) {
            Err(RootsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            work => Some(work?),
        };
        let mut chunks = Chunks::new(work, &source);
        let mut is_its: Option<bool> = None;
        for frame in frames {
            let place = file_of(&to, &path, frame);
            match chunks.link(frame, &place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                linked => {
                    linked.map_err(|error| failed(&place, &error))?;
                    continue;
                }
            }
            // Put together meanwhile: only then do chunks go. What an older job has left there is another clip.
            let is_its = *is_its.get_or_insert_with(|| {
                let manifest =
                    roots.hold(&source.output).ok().and_then(|it| SequenceManifest::read(&it.path()));
                manifest.is_some_and(|manifest| manifest.job == source.work_dir.to_string())
            });
            if !is_its {
                let message = format!(
                    "frame {frame} of {path} is neither among its job's chunks nor in its sequence; look whether somebody has removed {}",
                    source.work_dir
                );
                return Err(Failure::new(FailureKind::BadFrame, message));
            }
            let from = SequenceFolder::open(&roots, &path)?.frame(frame)?;
            link_or_copy(&from, &place).map_err(|error| failed(from.shown(), &error))?;
        }
        Ok(())
    });
    linked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// What the attempts have published, each read once.
struct Chunks<'a> {
    /// `None`: it is not there any more.
    work: Option<Held>,
    source: &'a Source,
    files: BTreeMap<&'a str, BTreeMap<Frame, FileManifest>>,
}

impl<'a> Chunks<'a> {
    fn new(work: Option<Held>, source: &'a Source) -> Self {
        Self { work, source, files: BTreeMap::new() }
    }

    /// An error of the kind `NotFound` when no chunk has the frame, any more.
    fn link(&mut self, frame: Frame, to: &Path) -> io::Result<()> {
        let made = self.source.pieces.iter().find(|piece| piece.frames.contains(frame));
        let Piece { attempt, published, .. } = made.ok_or(io::ErrorKind::NotFound)?;
        let work = self.work.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let folder = Path::new(attempt);
        let files = self.files.entry(attempt).or_insert_with(|| {
            // Something else than its node has published is nobody's.
            let its = |digest| published.is_none_or(|published| published == digest);
            let read = work.below(folder).ok().and_then(|folder| ChunkManifest::read(&folder.path()));
            let read = read.filter(|(_, digest)| its(*digest));
            read.and_then(|(mut read, _)| read.passes.remove(&self.source.pass)).unwrap_or_default()
        });
        let file = files.get(&frame).ok_or(io::ErrorKind::NotFound)?;
        link_or_copy(&work.below(&folder.join(&self.source.pass).join(&file.name))?, to)
    }
}
