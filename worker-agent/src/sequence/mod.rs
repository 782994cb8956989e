//! From the chunks of a pass to one gap-free sequence in its final place, by one rename.
//!
//! Blocks on storage; callers run it where that is allowed. Every step can be repeated: a second assembly
//! of the same job finds the first one's result and is content.

mod fade;
mod keep;
mod pass;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hearth_proto::v1::{self, AttemptPhase, FailureKind};
use hearth_storage::{
    Held, Roots, RootsError,
    manifest::{
        ManifestDigest, SEQUENCE_FILE, SegmentManifest, SequenceManifest, SubmissionManifest,
        THUMBNAIL_FOLDER, TimesManifest, flush, write_whole,
    },
    marker::MARKER_FILE,
};
use hearth_workflows::{Frame, FrameSet, RootPath};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::chunk::{Failure, Tell, Told};

/// Chunks whose thumbnails stay with the sequence.
const KEPT_THUMBNAILS: usize = 24;

/// How those who wait are told, and how they say that they do not want it any more.
#[allow(missing_debug_implementations, reason = "a function has none")]
pub struct Watched<'a> {
    pub cancel: &'a CancellationToken,
    tell: Tell<'a>,
    all: u64,
    /// Files that are in their place; who waits for the assembly sees by it that storage still answers.
    done: Arc<AtomicU64>,
    reported: Mutex<Instant>,
}

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(250);

impl<'a> Watched<'a> {
    fn still_wanted(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(Failure::new(FailureKind::Interrupted, "the assembly was cancelled"));
        }
        Ok(())
    }

    pub fn new(cancel: &'a CancellationToken, tell: Tell<'a>, done: Arc<AtomicU64>) -> Self {
        Self { cancel, tell, all: 0, done, reported: Mutex::new(Instant::now()) }
    }

    /// One more file is in its place; an error when nobody wants the sequence any more.
    fn one_more(&self) -> Result<(), Failure> {
        self.still_wanted()?;
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.elapsed() >= REPORT {
            *reported = Instant::now();
            (self.tell)(Told::Progress(v1::AttemptProgress {
                phase: AttemptPhase::Assembling.into(),
                step: done as f64,
                steps: self.all as f64,
                fraction: done as f64 / self.all.max(1) as f64,
                ..v1::AttemptProgress::default()
            }));
        }
        Ok(())
    }
}

/// Puts a job's chunks together.
pub fn assemble(
    roots: &Roots,
    attempt: &str,
    assembly: &v1::Assembly,
    watched: Watched,
) -> Result<(), Failure> {
    try_assemble(roots, attempt, assembly, watched).or_else(|failure| {
        // Another agent may have put it there meanwhile, and cleaned up under our hands.
        let output = resolve(roots, &assembly.output)?;
        match SequenceManifest::read(&output) {
            Some(manifest) if is_result(&manifest, assembly) => Ok(()),
            _ => Err(failure),
        }
    })
}

fn try_assemble(
    roots: &Roots,
    attempt: &str,
    assembly: &v1::Assembly,
    mut watched: Watched,
) -> Result<(), Failure> {
    let output = resolve(roots, &assembly.output)?;
    if output.symlink_metadata().is_ok() {
        return match SequenceManifest::read(&output) {
            // An earlier try has got this far, and its report was lost.
            Some(manifest) if is_result(&manifest, assembly) => let_go(roots, assembly),
            Some(manifest) if is_later(&manifest, attempt, assembly) => Err(superseded(&manifest)),
            // Some frames were missing, and now there are more of them.
            Some(manifest) if manifest.job == assembly.work_dir || assembly.overwrite => {
                put_together(roots, attempt, assembly, true, &mut watched)
            }
            _ => {
                let message =
                    format!("output {} exists already; move it away, then retry the job", assembly.output);
                Err(Failure::new(FailureKind::OutputTaken, message))
            }
        };
    }
    put_together(roots, attempt, assembly, assembly.overwrite, &mut watched)
}

/// Whether this is what the assembly makes.
fn is_result(manifest: &SequenceManifest, assembly: &v1::Assembly) -> bool {
    let chunks = |chunks: &[SegmentManifest]| {
        let attempts: BTreeMap<String, FrameSet> =
            chunks.iter().map(|chunk| (chunk.attempt.clone(), chunk.frames.clone())).collect();
        attempts
    };
    let wanted = self::chunks(assembly).unwrap_or_default();
    manifest.job == assembly.work_dir && chunks(&manifest.chunks) == chunks(&wanted)
}

/// Whether a later attempt of the same job has put this together: whoever comes late with less leaves it alone.
fn is_later(manifest: &SequenceManifest, attempt: &str, assembly: &v1::Assembly) -> bool {
    let number = |attempt: &str| attempt.rsplit_once('-')?.1.parse::<u64>().ok();
    let (theirs, own) = (number(&manifest.assembly), number(attempt));
    manifest.job == assembly.work_dir && theirs.is_some() && theirs > own
}

fn superseded(manifest: &SequenceManifest) -> Failure {
    let message = format!("{} has put the sequence in its place meanwhile", manifest.assembly);
    Failure::new(FailureKind::Interrupted, message)
}

/// Lets the chunks go, unless frames are missing that a retry may still bring.
fn let_go(roots: &Roots, assembly: &v1::Assembly) -> Result<(), Failure> {
    if assembly.missing.is_empty() { clean_up(roots, &assembly.work_dir) } else { Ok(()) }
}

fn put_together(
    roots: &Roots,
    attempt: &str,
    assembly: &v1::Assembly,
    replace: bool,
    watched: &mut Watched,
) -> Result<(), Failure> {
    let work = match roots.hold(&path(&assembly.work_dir)?) {
        Err(RootsError::Open { source, .. })
            if source.kind() == io::ErrorKind::NotFound && is_marked(roots, &assembly.work_dir) =>
        {
            // The storage is there, and nothing on it was made for the job, whoever has said so.
            let message = format!("nothing lies at {}; its frames are rendered again", assembly.work_dir);
            let mut frames = FrameSet::new();
            chunks(assembly)?.iter().for_each(|chunk| frames.insert_all(&chunk.frames));
            return Err(Failure { frames, ..Failure::new(FailureKind::BadOutput, message) });
        }
        work => work?,
    };
    put_together_in(&work, roots, attempt, assembly, replace, watched)
        .map_err(|failure| failure.telling([&work]))
}

/// The same, with the job's work folder.
fn put_together_in(
    work: &Held,
    roots: &Roots,
    attempt: &str,
    assembly: &v1::Assembly,
    replace: bool,
    watched: &mut Watched,
) -> Result<(), Failure> {
    let output = path(&assembly.output)?;
    let chunks = chunks(assembly)?;
    let frames: u64 = chunks.iter().map(|chunk| chunk.frames.len()).sum();
    let missing = frames_of(&assembly.missing)?;
    let mut own = missing.clone();
    chunks.iter().for_each(|chunk| own.insert_all(&chunk.frames));
    // An earlier try may have made room at the output, and got no further.
    let earlier = match roots.hold(&output) {
        Err(RootsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            work.below(Path::new(REPLACED)).ok()
        }
        // What cannot be looked at must not be replaced.
        held => Some(held?),
    };
    let kept = earlier.as_ref().map(|earlier| keep::Kept::find(earlier, assembly, &own)).unwrap_or_default();
    watched.all = frames * assembly.passes.len() as u64 + kept.count();
    let part_name = format!("assembly-{attempt}");
    let failed = |what: &str| {
        let what = format!("cannot {what} {}", work.shown().join(&part_name).display());
        move |error: io::Error| Failure::storage(what, &error)
    };
    match fs::remove_dir_all(work.path().join(&part_name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("clear")(error)),
        _ => {}
    }
    let part = work.make_below(Path::new(&part_name)).map_err(failed("make"))?;
    let fade = fade::CrossFade::of(assembly)?;
    let mut files = BTreeMap::new();
    for pass in &assembly.passes {
        files.insert(pass.name.clone(), pass::assemble(work, &part, &chunks, pass, fade, watched)?);
    }
    let kept = match &earlier {
        Some(earlier) => kept.place(earlier, &part, &mut files, watched)?,
        None => Vec::new(),
    };
    keep_thumbnails(work, &part, &chunks);
    let manifest =
        SequenceManifest {
            hearth_version: env!("CARGO_PKG_VERSION").to_owned(),
            job: assembly.work_dir.clone(),
            workflow: assembly.workflow.clone(),
            parameters: assembly.parameters.clone().into_iter().collect(),
            clip: assembly.clip.clone(),
            passes: assembly.passes.iter().map(|pass| (pass.name.clone(), pass.pattern.clone())).collect(),
            submission: assembly.submission.clone().map(submission),
            times: assembly.interpolation.map(|v1::Interpolation { first, multiplier, step }| {
                TimesManifest { first: Frame(first), step, multiplier }
            }),
            missing,
            kept,
            chunks,
            assembly: attempt.to_owned(),
            files,
        };
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| {
        Failure::new(FailureKind::Internal, format!("the manifest cannot be written: {error}"))
    })?;
    write_whole(&part.path().join(SEQUENCE_FILE), text.as_bytes()).map_err(failed("write"))?;
    let show = |error: io::Error| {
        Failure::storage(format!("cannot put the sequence at {}", assembly.output), &error)
    };
    let parent = make_parent(roots, &output).map_err(show)?;
    let place = parent.path().join(output.file_name());
    watched.still_wanted()?;
    // It may have come since it was looked for, before or after what is there is moved away.
    if let Some(later) = SequenceManifest::read(&place).filter(|later| is_later(later, attempt, assembly)) {
        return Err(superseded(&later));
    }
    if replace {
        set_aside(&place, work)?;
        let replaced = work.path().join(REPLACED);
        if let Some(later) = SequenceManifest::read(&replaced)
            && is_later(&later, attempt, assembly)
        {
            fs::rename(replaced, &place).map_err(show)?;
            return Err(superseded(&later));
        }
    }
    fs::rename(work.path().join(&part_name), &place).map_err(show)?;
    // Only what is certain to stay there lets the chunks go.
    flush(&parent.path()).map_err(show)?;
    let_go(roots, assembly)
}

/// Whether the root of `path` has its marker: an empty mount point has none.
fn is_marked(roots: &Roots, path: &str) -> bool {
    let root = path.parse::<RootPath>().ok().and_then(|path| roots.root(path.root()).ok());
    root.is_some_and(|root| root.join(MARKER_FILE).is_file())
}

/// Where a sequence goes that is replaced, in the job's work folder.
const REPLACED: &str = "replaced";

/// The folder that an output appears in, made where it is missing.
pub(crate) fn make_parent(roots: &Roots, output: &RootPath) -> io::Result<Held> {
    let place = roots.resolve(output).map_err(io::Error::other)?;
    roots.make_folder(place.parent().unwrap_or(&place))
}

/// Makes room at `output`: what lies there goes with the job's work folder.
pub(crate) fn set_aside(output: &Path, work: &Held) -> Result<(), Failure> {
    if output.symlink_metadata().is_err() {
        // What an earlier try has set aside may be all that is left of it.
        return Ok(());
    }
    let replaced = work.path().join(REPLACED);
    let failed = |error: io::Error| Failure::storage("cannot move away what is replaced", &error);
    let removed = if replaced.is_dir() { fs::remove_dir_all(&replaced) } else { fs::remove_file(&replaced) };
    for done in [removed, fs::rename(output, &replaced)] {
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(())
}

/// A few of the chunks' thumbnails stay with the sequence. Nothing depends on them.
fn keep_thumbnails(work: &Held, part: &Held, chunks: &[SegmentManifest]) {
    let mut chunks: Vec<&SegmentManifest> = chunks.iter().collect();
    chunks.sort_by_key(|chunk| chunk.frames.first());
    let step = chunks.len().div_ceil(KEPT_THUMBNAILS).max(1);
    for chunk in chunks.iter().step_by(step) {
        let Ok(from) = work.below(&Path::new(&chunk.attempt).join(THUMBNAIL_FOLDER)) else { continue };
        for entry in fs::read_dir(from.path()).into_iter().flatten().flatten() {
            let copied = part.make_below(Path::new(THUMBNAIL_FOLDER)).and_then(|to| {
                let thumbnail = from.below(Path::new(&entry.file_name()))?;
                link_or_copy(&thumbnail, &to.path().join(entry.file_name()))
            });
            if let Err(error) = copied {
                debug!(%error, "a thumbnail is not kept");
            }
        }
    }
}

/// Removes a job's unfinished work.
pub fn clean_up(roots: &Roots, work_dir: &str) -> Result<(), Failure> {
    let work = path(work_dir)?;
    // Only ever a folder of ours.
    if !work.file_name().starts_with(".hearth-") {
        let message = format!("{work_dir} is no work folder of Hearth's; it is left alone");
        return Err(Failure::new(FailureKind::Internal, message));
    }
    let (parent, name) = match roots.hold_parent(&work) {
        Err(RootsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        held => held?,
    };
    match fs::remove_dir_all(parent.path().join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::storage(format!("cannot remove {work_dir}"), &error))
        }
        _ => Ok(()),
    }
}

/// Links a file, or copies it where links cannot be had: to another file system, or where `fs.protected_hardlinks`
/// refuses links to the files of another user.
pub(crate) fn link_or_copy(from: &Held, to: &Path) -> io::Result<()> {
    let copy = || from.copy(to).and_then(|()| flush(to));
    give_name(from.shown(), || from.link(to), || fs::remove_file(to), copy)
}

/// The same of a file in one folder that is held, to another one.
pub(crate) fn link_or_copy_in(from: &Held, name: &Path, to: &Held, to_name: &Path) -> io::Result<()> {
    let copy = || {
        let to = to.path().join(to_name);
        from.below(name)?.copy(&to).and_then(|()| flush(&to))
    };
    give_name(from.shown(), || to.link_from(from, name, to_name), || to.unlink(to_name), copy)
}

/// `file`: for people.
fn give_name(
    file: &Path,
    link: impl Fn() -> io::Result<()>,
    remove: impl FnOnce() -> io::Result<()>,
    copy: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let mut linked = link();
    if linked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
        remove()?;
        linked = link();
    }
    match linked {
        Ok(()) => {
            LINKED.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        // Whether the file can be read at all, the copy will say.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => REFUSED.call_once(|| {
            warn!(
                file = %file.display(),
                "hard links are refused, and files are copied instead, which costs time and disk space; run all agents as one user, or set fs.protected_hardlinks=0"
            );
        }),
        Err(_) => {}
    }
    COPIED.fetch_add(1, Ordering::Relaxed);
    copy()
}

/// Files that were linked, and those that had to be copied, since the agent began.
pub(crate) static LINKED: AtomicU64 = AtomicU64::new(0);
pub(crate) static COPIED: AtomicU64 = AtomicU64::new(0);

/// Said once: it is the same for every file.
static REFUSED: Once = Once::new();

fn submission(request: v1::SubmitJobRequest) -> SubmissionManifest {
    let (workflow_name, workflow_manifest, workflow_graph) = match request.workflow {
        Some(v1::submit_job_request::Workflow::WorkflowSource(source)) => {
            (source.name, source.manifest, source.graph)
        }
        Some(v1::submit_job_request::Workflow::WorkflowName(name)) => (name, String::new(), String::new()),
        None => Default::default(),
    };
    SubmissionManifest {
        name: request.name,
        show: request.show,
        user: request.user,
        pool: request.pool,
        workflow_name,
        workflow_manifest,
        workflow_graph,
        frames: request.frames,
        chunk_frames: request.chunk_frames,
        colour_space: request.colour_space,
        view: request.view,
        output: request.output,
    }
}

fn chunks(assembly: &v1::Assembly) -> Result<Vec<SegmentManifest>, Failure> {
    assembly
        .segments
        .iter()
        .map(|segment| {
            let frames = frames_of(&segment.frames)?;
            Ok(SegmentManifest {
                frames,
                attempt: segment.attempt_id.clone(),
                node: segment.node.clone(),
                published: ManifestDigest::from_bytes(&segment.manifest_blake3),
            })
        })
        .collect()
}

/// Empty text is no frames.
fn frames_of(text: &str) -> Result<FrameSet, Failure> {
    if text.is_empty() {
        return Ok(FrameSet::new());
    }
    text.parse().map_err(|error| {
        Failure::new(FailureKind::Internal, format!("the assembly's frames cannot be read: {error}"))
    })
}

fn path(text: &str) -> Result<RootPath, Failure> {
    text.parse().map_err(|error| {
        Failure::new(FailureKind::Internal, format!("the assignment's path cannot be read: {error}"))
    })
}

fn resolve(roots: &Roots, text: &str) -> Result<PathBuf, Failure> {
    Ok(roots.resolve(&path(text)?)?)
}
