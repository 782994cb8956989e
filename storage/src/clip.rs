//! A clip on storage: which frames are there, and whether they belong together.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use hearth_pictures::{Picture, PictureError, inspect};
use hearth_workflows::{Frame, FrameRange, FrameSet, RootPath, SequencePath, path::PathError, sequences};

use crate::{
    held::Held,
    roots::{Roots, RootsError},
};

/// Pictures that are looked at side by side. Storage answers slowly, but it answers many.
const PARALLEL: usize = 8;

/// Runs of missing frames that a message lists.
const TOLD_GAPS: usize = 20;

/// A sequence that lies on storage.
#[derive(Debug, Clone)]
pub struct Clip {
    pub sequence: SequencePath,
    folder: SequenceFolder,
    /// The frames found.
    pub frames: FrameSet,
}

/// The folder of a sequence on this host, held open, so that every frame comes from there. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SequenceFolder(Arc<(Held, SequencePath, Roots)>);

impl SequenceFolder {
    /// Where the sequence says.
    ///
    /// # Errors
    /// When it is not there, or outside its root.
    pub fn open(roots: &Roots, sequence: &SequencePath) -> Result<Self, RootsError> {
        Ok(Self::of(roots.hold_folder(sequence)?, sequence, roots))
    }

    /// The sequence's files in another folder.
    pub fn of(folder: Held, sequence: &SequencePath, roots: &Roots) -> Self {
        Self(Arc::new((folder, sequence.clone(), roots.clone())))
    }

    /// The file of a frame.
    ///
    /// # Errors
    /// When it is not there, or a link that leads out of every root.
    pub fn frame(&self, frame: Frame) -> Result<Held, RootsError> {
        let (folder, sequence, roots) = &*self.0;
        roots.hold_file(folder, &sequence.name().file(frame))
    }

    /// The path of a frame, for people.
    pub fn shown(&self, frame: Frame) -> PathBuf {
        let (folder, sequence, _) = &*self.0;
        file_of(folder.shown(), sequence, frame)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Held {
        &self.0.0
    }
}

/// Why a clip cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    #[error("folder")]
    Path(#[source] PathError),
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("clip {clip}: cannot list its folder {folder}")]
    Folder { clip: String, folder: PathBuf, source: io::Error },
    #[error("clip {clip}: no frame there; {found}")]
    NoFrames { clip: String, found: String },
    #[error("clip {clip}: frames {missing} are missing; render or copy them, or name other frames")]
    Gap { clip: String, missing: String },
    #[error(
        "clip {clip}, frame {frame}: {found}, but frame {first} is {expected}; a clip must be of one size and kind"
    )]
    Mixed { clip: String, frame: Frame, found: Picture, first: Frame, expected: Picture },
    #[error("clip {clip}, frame {frame} cannot be used; {}", source.advice())]
    Frame { clip: String, frame: Frame, source: PictureError },
}

/// What is in a folder of storage, by name.
#[derive(Debug, Clone)]
pub struct Listing {
    pub clips: Vec<Clip>,
    pub folders: Vec<String>,
    /// Those of the folders that are links: what is in them is also elsewhere, or leads around in a circle.
    pub links: Vec<String>,
}

impl Clip {
    /// Finds the frames of `sequence`.
    pub fn find(roots: &Roots, sequence: &SequencePath) -> Result<Self, ClipError> {
        let failed =
            |folder: PathBuf, source| ClipError::Folder { clip: sequence.to_string(), folder, source };
        let held = roots.hold_folder(sequence).map_err(|error| match error {
            RootsError::Open { path, source } => failed(path, source),
            error => error.into(),
        })?;
        let failed = |source| failed(held.shown().to_owned(), source);
        let mut frames = Vec::new();
        let mut other: Option<String> = None;
        for entry in fs::read_dir(held.path()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            match sequence.name().frame_of(name) {
                Some(frame) => frames.push(frame),
                None => other = other.or_else(|| Some(name.to_owned())),
            }
        }
        if frames.is_empty() {
            let found = match other {
                Some(name) => format!("the folder has other files, e.g. {name}: does the pattern fit?"),
                None => "the folder is empty".to_owned(),
            };
            return Err(ClipError::NoFrames { clip: sequence.to_string(), found });
        }
        frames.sort_unstable();
        Ok(Self {
            sequence: sequence.clone(),
            frames: frames.into_iter().collect(),
            folder: SequenceFolder::of(held, sequence, roots),
        })
    }

    /// What is in `folder`, which is a path below a root, or a root.
    pub fn list(roots: &Roots, folder: &str) -> Result<Listing, ClipError> {
        let failed =
            |place: PathBuf, source| ClipError::Folder { clip: folder.to_owned(), folder: place, source };
        let place = match folder.parse::<RootPath>() {
            Ok(path) => roots.hold(&path),
            Err(PathError::OnlyRoot { .. }) => roots.hold_root(folder.trim_end_matches('/')),
            Err(error) => return Err(ClipError::Path(error)),
        };
        let place = place.map_err(|error| match error {
            RootsError::Open { path, source } => failed(path, source),
            error => error.into(),
        })?;
        let failed = |source| failed(place.shown().to_owned(), source);
        let (mut names, mut folders, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for entry in fs::read_dir(place.path()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            // What it links to counts.
            let is_folder = entry.path().is_dir();
            if is_folder && entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                links.push(name.to_owned());
            }
            let list = if is_folder { &mut folders } else { &mut names };
            list.push(name.to_owned());
        }
        folders.sort();
        links.sort();
        let clips = sequences::group(&names).into_iter().filter_map(|(name, frames)| {
            let sequence = format!("{}/{name}", folder.trim_end_matches('/')).parse().ok()?;
            let folder = SequenceFolder::of(place.clone(), &sequence, roots);
            Some(Self { sequence, folder, frames })
        });
        Ok(Listing { clips: clips.collect(), folders, links })
    }

    /// The frames between the first and the last that are not there.
    pub fn missing(&self) -> FrameSet {
        let range = self.frames.first().zip(self.frames.last());
        let range = range.and_then(|(first, last)| FrameRange::new(first.0, last.0));
        let mut missing = range.map_or_else(FrameSet::new, FrameSet::from);
        missing.remove_all(&self.frames);
        missing
    }

    /// Makes sure that all of `frames` are there. Costs the gaps, not the frames.
    pub fn check_gap(&self, frames: &FrameSet) -> Result<(), ClipError> {
        let mut missing = frames.clone();
        missing.remove_all(&self.frames);
        if missing.is_empty() {
            return Ok(());
        }
        let runs = missing.run_count();
        let mut told = missing.take_first(u64::MAX, 0);
        for _ in 1..runs.min(TOLD_GAPS) {
            told.insert_all(&missing.take_first(u64::MAX, 0));
        }
        let more =
            if runs > TOLD_GAPS { format!(" and {} more runs", runs - TOLD_GAPS) } else { String::new() };
        Err(ClipError::Gap { clip: self.sequence.to_string(), missing: format!("{told}{more}") })
    }

    /// Makes sure that all of `frames` are there, whole, and alike ([`Picture::is_like`]); their size and kind.
    pub fn check(&self, frames: &FrameSet) -> Result<Option<Picture>, ClipError> {
        self.check_gap(frames)?;
        let frames: Vec<Frame> = frames.iter().collect();
        let share = frames.len().div_ceil(PARALLEL).max(1);
        let pictures: Vec<Picture> = thread::scope(|scope| {
            let parts: Vec<_> = frames
                .chunks(share)
                .map(|part| scope.spawn(move || part.iter().map(|frame| self.look_at(*frame)).collect()))
                .collect();
            parts
                .into_iter()
                .map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<Vec<Picture>>, ClipError>>()
        })?
        .concat();
        let Some(first) = pictures.first() else { return Ok(None) };
        let odd = frames.iter().zip(&pictures).find(|(_, picture)| !picture.is_like(first));
        if let Some((frame, picture)) = odd {
            return Err(ClipError::Mixed {
                clip: self.sequence.to_string(),
                frame: *frame,
                found: *picture,
                first: frames[0],
                expected: *first,
            });
        }
        // One frame in colour makes a colour clip.
        Ok(pictures.into_iter().max_by_key(|picture| picture.channels))
    }

    /// Size and kind of one frame.
    pub fn look_at(&self, frame: Frame) -> Result<Picture, ClipError> {
        let failed = |source| ClipError::Frame { clip: self.sequence.to_string(), frame, source };
        let file = match self.folder.frame(frame) {
            Err(RootsError::Open { path, source }) => {
                return Err(failed(PictureError::Read { path, source }));
            }
            held => held?,
        };
        inspect(&file.path()).map_err(|error| failed(error.of(file.shown())))
    }
}

/// The file of a frame of `sequence` in `folder`.
pub fn file_of(folder: &Path, sequence: &SequencePath, frame: Frame) -> PathBuf {
    folder.join(sequence.name().file(frame))
}
