//! One pass: every frame looked at, linked where one chunk made it, blended where several did.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use hearth_pictures::{Effort, Picture, PictureError, blend, look_at, read, write};
use hearth_proto::v1::{self, FailureKind};
use hearth_storage::{
    Held,
    manifest::{ChunkManifest, FileManifest, SegmentManifest, flush},
};
use hearth_workflows::{Frame, FrameSet, SequencePath, format::Encoding};

use super::{
    Watched,
    fade::{CrossFade, Runs},
    link_or_copy_in,
};
use crate::chunk::Failure;

/// Frames that are blended at a time: each has two pictures in memory, or more.
const BLENDS: usize = 2;

/// The files of one pass that the chunks have published.
struct Published<'a> {
    /// The job's work folder.
    work: &'a Held,
    /// For each chunk, its folder below that, and its files by frame.
    chunks: Vec<(PathBuf, BTreeMap<Frame, FileManifest>)>,
}

/// One frame and what it is made of: files of chunks, each with its weight.
struct Task {
    frame: Frame,
    /// In the pass's folder.
    name: String,
    parts: Vec<(usize, f32)>,
}

/// Puts a pass together below `part`; its files by frame.
pub(super) fn assemble(
    work: &Held,
    part: &Held,
    chunks: &[SegmentManifest],
    pass: &v1::PassFiles,
    fade: CrossFade,
    watched: &Watched,
) -> Result<BTreeMap<Frame, FileManifest>, Failure> {
    let internal = |error: String| Failure::new(FailureKind::Internal, error);
    let name = &pass.name;
    // The pattern is relative to the output folder; as a path below some root it can be read.
    let sequence: SequencePath = format!("output/{}", pass.pattern)
        .parse()
        .map_err(|error| internal(format!("pass {name}: {error}")))?;
    let unreadable = |error| internal(format!("pass {name}: {error}"));
    let encoding = Encoding {
        format: pass.format.parse().map_err(unreadable)?,
        colour: pass.colour_space.parse().map_err(unreadable)?,
    };
    let below = Path::new(sequence.folder_below_root());
    let folder = part.make_below(below).map_err(|error| {
        Failure::storage(format!("cannot make {}", part.shown().join(below).display()), &error)
    })?;
    assemble_in(&folder, &sequence, work, chunks, (name, encoding), fade, watched)
        .map_err(|failure| failure.telling([&folder]))
}

/// The same, with the pass's folder.
fn assemble_in(
    folder: &Held,
    sequence: &SequencePath,
    work: &Held,
    chunks: &[SegmentManifest],
    (name, encoding): (&str, Encoding),
    fade: CrossFade,
    watched: &Watched,
) -> Result<BTreeMap<Frame, FileManifest>, Failure> {
    let internal = |error: String| Failure::new(FailureKind::Internal, error);
    let published = Published::find(work, chunks, name)?;
    let runs = Runs::of(chunks);
    let tasks: Vec<Task> = runs
        .all
        .iter()
        .map(|frame| Task { frame, name: sequence.name().file(frame), parts: fade.parts(&runs, frame) })
        .collect();
    published.check(chunks, name, &tasks)?;
    let (linked, blended): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(|task| task.parts.len() == 1);
    let mut files = BTreeMap::new();
    let mut folders = Folders { work, last: None };
    for task in linked {
        watched.one_more()?;
        let chunk = task.parts[0].0;
        let (below, manifest) = published
            .file(chunk, task.frame)
            .ok_or_else(|| internal(format!("pass {name}, frame {}: no chunk has it", task.frame)))?;
        folders
            .of(chunk, below)
            .and_then(|from| link_or_copy_in(from, Path::new(&manifest.name), folder, Path::new(&task.name)))
            .map_err(|error| {
                let to = folder.shown().join(&task.name);
                Failure::storage(format!("cannot write {}", to.display()), &error)
            })?;
        files.insert(task.frame, FileManifest { name: task.name, ..manifest.clone() });
    }
    files.extend(published.blend_all(folder, &blended, encoding, name, watched)?);
    // The frames themselves were flushed when they were published, or blended.
    flush(&folder.path())
        .map_err(|error| Failure::storage(format!("cannot write {}", folder.shown().display()), &error))?;
    Ok(files)
}

/// The folders of chunks, of which the last is held: frames of one chunk come one after the other, and there may be more
/// chunks than a process can have folders open.
struct Folders<'a> {
    work: &'a Held,
    last: Option<(usize, Held)>,
}

impl Folders<'_> {
    fn of(&mut self, chunk: usize, below: &Path) -> io::Result<&Held> {
        let held = match self.last.take() {
            Some((last, held)) if last == chunk => held,
            _ => self.work.below(below)?,
        };
        Ok(&self.last.insert((chunk, held)).1)
    }
}

impl<'a> Published<'a> {
    /// Reads what the chunks say of themselves. One that says something else than its node has told is rendered again:
    /// somebody else has been at its folder.
    fn find(work: &'a Held, chunks: &[SegmentManifest], pass: &str) -> Result<Self, Failure> {
        let mut foreign = FrameSet::new();
        let mut found = Vec::new();
        for chunk in chunks {
            let folder = PathBuf::from(&chunk.attempt);
            let read = work.below(&folder).ok().and_then(|folder| ChunkManifest::read(&folder.path()));
            if let (Some((_, digest)), Some(published)) = (&read, chunk.published)
                && *digest != published
            {
                foreign.insert_all(&chunk.frames);
            }
            let files = read.and_then(|(mut read, _)| read.passes.remove(pass)).unwrap_or_default();
            found.push((folder.join(pass), files));
        }
        if foreign.is_empty() {
            return Ok(Self { work, chunks: found });
        }
        let message = format!(
            "what lies in {} of frames {foreign} is not what their nodes have published; they are rendered again",
            work.shown().display()
        );
        Err(Failure { frames: foreign, ..Failure::new(FailureKind::BadOutput, message) })
    }

    /// The folder below the work folder that it lies in, and what it is.
    fn file(&self, chunk: usize, frame: Frame) -> Option<(&Path, &FileManifest)> {
        let (folder, files) = self.chunks.get(chunk)?;
        Some((folder, files.get(&frame)?))
    }

    fn look(&self, folders: &mut Folders, chunk: usize, frame: Frame) -> Result<Picture, PictureError> {
        let shown = || self.work.shown().join(&self.chunks[chunk].0);
        let Some((below, file)) = self.file(chunk, frame) else {
            let path = shown().join(frame.to_string());
            return Err(PictureError::Read { path, source: io::ErrorKind::NotFound.into() });
        };
        let path = shown().join(&file.name);
        let failed = |source| PictureError::Read { path: path.clone(), source };
        let opened = folders.of(chunk, below).and_then(|folder| folder.read(Path::new(&file.name)));
        // A link is nobody's frame: it is rendered again.
        let opened = opened.map_err(|error| {
            failed(if Held::is_link(&error) { io::ErrorKind::NotFound.into() } else { error })
        })?;
        let bytes = opened.metadata().map_err(failed)?.len();
        let (picture, _) = look_at(opened, &path)?;
        if bytes == file.bytes { Ok(picture) } else { Err(PictureError::Truncated { path }) }
    }

    /// Every file that will be used is there, as it was published, and like the others of its pass. What is not
    /// is rendered again; where chunks are blended, with all of its chunk.
    fn check(&self, chunks: &[SegmentManifest], pass: &str, tasks: &[Task]) -> Result<(), Failure> {
        let mut looked: Vec<(Frame, usize, Result<Picture, PictureError>)> = Vec::new();
        let mut counts: HashMap<(u32, u32, u8, String), (usize, Picture)> = HashMap::new();
        let mut folders = Folders { work: self.work, last: None };
        for task in tasks {
            for (chunk, _) in &task.parts {
                let found = self.look(&mut folders, *chunk, task.frame);
                if let Err(PictureError::Read { path, source }) = &found
                    && source.kind() != io::ErrorKind::NotFound
                {
                    // The storage's trouble, not the frame's: nothing is rendered again for that.
                    return Err(Failure::storage(format!("cannot read {}", path.display()), source));
                }
                if let Ok(picture) = &found {
                    let kind = (picture.width, picture.height, picture.channels, picture.format.to_string());
                    counts.entry(kind).or_insert((0, *picture)).0 += 1;
                }
                looked.push((task.frame, *chunk, found));
            }
        }
        // One chunk may be the odd one, and it may be the first: the most have it right.
        let expected = counts.into_values().max_by_key(|(count, _)| *count).map(|(_, picture)| picture);
        let alone = tasks.iter().all(|task| task.parts.len() == 1);
        let mut broken = FrameSet::new();
        let mut reason = String::new();
        for (frame, chunk, found) in looked {
            reason = match found {
                Ok(found) if Some(found) == expected => continue,
                Ok(found) => format!("frame {frame} is {found}, unlike the others"),
                Err(error) => hearth_telemetry::chain(&error),
            };
            if alone {
                broken.insert_all(&[frame].into_iter().collect());
            } else {
                broken.insert_all(&chunks[chunk].frames);
            }
        }
        if broken.is_empty() {
            return Ok(());
        }
        let message = format!("pass {pass}: frames {broken} were rendered but cannot be used: {reason}");
        Err(Failure { frames: broken, ..Failure::new(FailureKind::BadOutput, message) })
    }

    fn blend_all(
        &self,
        folder: &Held,
        tasks: &[Task],
        encoding: Encoding,
        pass: &str,
        watched: &Watched,
    ) -> Result<BTreeMap<Frame, FileManifest>, Failure> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Ok(BTreeMap::new()));
        let work = || {
            while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let blended = watched.one_more().and_then(|()| self.blend_one(folder, task, encoding, pass));
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *done, blended) {
                    (Ok(files), Ok(file)) => drop(files.insert(task.frame, file)),
                    (Ok(_), Err(failure)) => *done = Err(failure),
                    // Another frame has failed already.
                    (Err(_), _) => return,
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..BLENDS.min(tasks.len()) {
                scope.spawn(work);
            }
        });
        let files = done.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        // By now the system has written most of it: waiting for each alone would leave a core idle.
        for task in tasks {
            let to = folder.path().join(&task.name);
            flush(&to).map_err(|error| Failure::storage(format!("cannot write {}", to.display()), &error))?;
        }
        Ok(files)
    }

    fn blend_one(
        &self,
        folder: &Held,
        task: &Task,
        encoding: Encoding,
        pass: &str,
    ) -> Result<FileManifest, Failure> {
        let to = folder.path().join(&task.name);
        let wrong = |error: PictureError| match error {
            PictureError::Write { path, source } => {
                Failure::storage(format!("cannot write {}", path.display()), &source)
            }
            error => {
                let frames = [task.frame].into_iter().collect();
                let message = format!("pass {pass}: {}", hearth_telemetry::chain(&error));
                Failure { frames, ..Failure::new(FailureKind::BadOutput, message) }
            }
        };
        let mut pictures = Vec::new();
        for (chunk, weight) in &task.parts {
            if let Some((below, file)) = self.file(*chunk, task.frame) {
                let below = below.join(&file.name);
                let failed = |source| PictureError::Read { path: self.work.shown().join(&below), source };
                let held = self.work.below(&below).map_err(failed).map_err(wrong)?;
                pictures.push((*weight, read(&held.path()).map_err(|error| wrong(error.of(held.shown())))?));
            }
        }
        let mean = blend(&pictures, encoding).ok_or_else(|| {
            let message = format!(
                "pass {pass}, frame {}: the chunks to blend are of different windows or channels",
                task.frame
            );
            Failure {
                frames: [task.frame].into_iter().collect(),
                ..Failure::new(FailureKind::BadOutput, message)
            }
        })?;
        // Few frames, for which the whole job waits.
        write(&to, &mean, encoding.format, Effort::Fast).map_err(wrong)?;
        FileManifest::of(&to)
            .map_err(|error| Failure::storage(format!("cannot read {}", to.display()), &error))
    }
}
