//! Exactly the frames that the chunk needs, where its ComfyUI can load them.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use hearth_pictures::{Alpha, Converter, OnTheWay, Picture, PictureError, ViewStep, inspect};
use hearth_proto::v1::FailureKind;
use hearth_storage::{Held, Roots, RootsError, SequenceFolder};
use hearth_workflows::{Frame, RootPath, Split, bind::StagedClip, manifest::Load, split::ChunkPlan};

use super::{ChunkTask, Failure, TaskClip, Workbench, convert, input, source};
use crate::config::Transfer;

/// Frames uploaded at a time.
const UPLOADS: usize = 4;

/// Frames of one chunk that wait for their conversion or are in it.
const CONVERSIONS: usize = 4;

/// Stages the plan's frames, after a look at each: a broken one is told by its number.
pub(super) async fn stage(
    bench: &Workbench,
    task: &ChunkTask,
    plan: &ChunkPlan,
) -> Result<StagedClip, Failure> {
    let Some(clip) = &task.clip else { return Ok(StagedClip::Nothing) };
    source::fetch(bench, task, clip, plan).await?;
    let folder = source::folder(bench, task, clip)?;
    look_at(task, clip, plan, folder.clone()).await?;
    let on_the_way = OnTheWay {
        view: clip.view.map(ViewStep::To),
        cut: task.workflow.manifest().cuts(),
        // Image models know nothing of alpha.
        alpha: if task.workflow.manifest().cuts() { Alpha::Straight } else { Alpha::Usual },
    };
    let files = match Converter::with(clip.encoding, clip.staged, on_the_way) {
        Some(converter) => convert_all(bench, task, clip, plan, &folder, converter).await?,
        None => plan.loaded.iter().map(|frame| Handed::Frame(folder.clone(), *frame)).collect(),
    };
    match (bench.transfer, clip.load) {
        (Transfer::Shared, Load::Directory | Load::Frames) => link_all(bench, task, clip, &files).await?,
        (Transfer::Shared, Load::Image) | (Transfer::Http, _) => {
            let named = files.into_iter().enumerate().map(|(index, file)| (file, name(clip, index)));
            input::place(bench, &task.attempt, None, &named.collect::<Vec<_>>()).await?;
        }
    }
    names_only(bench, task, plan).await
}

/// Writes every loaded frame as the node reads it, a fixed number at a time.
async fn convert_all(
    bench: &Workbench,
    task: &ChunkTask,
    clip: &TaskClip,
    plan: &ChunkPlan,
    frames: &SequenceFolder,
    converter: Converter,
) -> Result<Vec<Handed>, Failure> {
    let folder = bench.stage.join(&task.attempt);
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::storage(format!("cannot stage {}", path.display()), error)
    };
    tokio::fs::create_dir_all(&folder).await.map_err(|error| failed(&folder, &error))?;
    let (converter, encoding) = (Arc::new(converter), clip.staged);
    let conversions: Vec<_> = plan
        .loaded
        .iter()
        .enumerate()
        .filter(|(index, _)| written(plan, *index) == *index)
        .map(|(index, frame)| {
            let (frames, number, to) = (frames.clone(), *frame, folder.join(name(clip, index)));
            let converter = converter.clone();
            async move {
                let done = bench.darkroom.run(move || {
                    let from = hold(&frames, number)?;
                    let staged = convert::stage(&converter, &from.path(), &to, encoding);
                    staged.map_err(|error| match error {
                        PictureError::Write { .. } => error,
                        error => error.of(from.shown()),
                    })
                });
                let done = done.await.ok_or_else(|| {
                    Failure::new(FailureKind::Internal, format!("frame {frame} could not be converted"))
                })?;
                done.map_err(|error| match error {
                    PictureError::Write { path, source } => failed(&path, &source),
                    error => bad(
                        task,
                        clip,
                        *frame,
                        &format!("{}; {}", hearth_telemetry::chain(&error), error.advice()),
                        [*frame].into_iter().collect(),
                    ),
                })
            }
        })
        .collect();
    let () = futures_util::stream::iter(conversions).buffer_unordered(CONVERSIONS).try_collect().await?;
    let written = |index| Handed::Own(folder.join(name(clip, written(plan, index))));
    Ok((0..plan.loaded.len()).map(written).collect())
}

/// Where a loaded frame is written: the last one may stand there several times, and is written once.
fn written(plan: &ChunkPlan, index: usize) -> usize {
    plan.loaded.partition_point(|frame| *frame < plan.loaded[index])
}

fn bad(
    task: &ChunkTask,
    clip: &TaskClip,
    frame: Frame,
    reason: &str,
    frames: hearth_workflows::FrameSet,
) -> Failure {
    let message = format!("clip {}, frame {frame}: {reason}", clip.path);
    // Frames between frames have numbers of their own: then the whole chunk is to blame.
    let own = !matches!(task.split(), Ok(Split::Interpolate { .. }));
    let frames = if own { frames } else { hearth_workflows::FrameSet::new() };
    Failure { frames, ..Failure::new(FailureKind::BadFrame, message) }
}

/// What the staged frames are called, without staging them.
pub(super) async fn names_only(
    bench: &Workbench,
    task: &ChunkTask,
    plan: &ChunkPlan,
) -> Result<StagedClip, Failure> {
    let Some(clip) = &task.clip else { return Ok(StagedClip::Nothing) };
    let staged = match (bench.transfer, clip.load) {
        (_, Load::Image) => {
            let folder = input::folder(&task.attempt);
            let names = (0..plan.loaded.len()).map(|index| format!("{folder}/{}", name(clip, index)));
            return Ok(StagedClip::Files(names.collect()));
        }
        (Transfer::Shared, Load::Directory | Load::Frames) => {
            bench.stage.join(&task.attempt).display().to_string()
        }
        (Transfer::Http, Load::Directory | Load::Frames) => input::path_of(bench, &task.attempt).await?,
    };
    Ok(match clip.load {
        Load::Image | Load::Directory => StagedClip::Directory(staged),
        Load::Frames => {
            let path = format!("{staged}/frame.%04d.{}", extension(clip));
            StagedClip::Frames { path, last: plan.loaded.len().saturating_sub(1) as u64 }
        }
    })
}

/// A file that an attempt hands to its ComfyUI. Opened when it is used, since a chunk may have more than the system lets
/// a process have open.
#[derive(Debug, Clone)]
pub(super) enum Handed {
    /// In the attempt's own folder.
    Own(PathBuf),
    Frame(SequenceFolder, Frame),
    OnStorage(Arc<Roots>, RootPath),
}

impl Handed {
    pub(super) fn hold(&self) -> Result<Held, RootsError> {
        match self {
            Self::Own(path) => {
                Held::open(path).map_err(|source| RootsError::Open { path: path.clone(), source })
            }
            Self::Frame(folder, frame) => folder.frame(*frame),
            Self::OnStorage(roots, path) => roots.hold(path),
        }
    }
}

/// The file of a frame, as one that can be read or not.
fn hold(folder: &SequenceFolder, frame: Frame) -> Result<Held, PictureError> {
    folder.frame(frame).map_err(|error| match error {
        RootsError::Open { path, source } => PictureError::Read { path, source },
        error => PictureError::Read { path: folder.shown(frame), source: std::io::Error::other(error) },
    })
}

/// A staged frame's name: its place in the chunk, so that text order is frame order.
fn name(clip: &TaskClip, index: usize) -> String {
    let extension = extension(clip);
    match clip.load {
        Load::Image | Load::Directory => format!("{index:06}.{extension}"),
        Load::Frames => format!("frame.{index:04}.{extension}"),
    }
}

fn extension(clip: &TaskClip) -> String {
    let unchanged = clip.staged == clip.encoding;
    if unchanged { clip.path.name().extension() } else { clip.staged.format.extension().to_owned() }
}

/// Where nodes save that write to a path of their own: a folder that ComfyUI sees under the same name.
pub(super) fn saved(bench: &Workbench, task: &ChunkTask) -> PathBuf {
    bench.stage.join(&task.attempt).join("saved")
}

/// Finds frames that are gone, cut off or of another size by now.
async fn look_at(
    task: &ChunkTask,
    clip: &TaskClip,
    plan: &ChunkPlan,
    folder: SequenceFolder,
) -> Result<(), Failure> {
    let frames = plan.loaded.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut bad: Vec<(Frame, String)> = Vec::new();
        let mut first: Option<Picture> = None;
        for frame in &frames {
            let file = match folder.frame(*frame) {
                Err(RootsError::Open { path, source }) => Err(PictureError::Read { path, source }),
                held => Ok(held?),
            };
            match file.and_then(|file| inspect(&file.path()).map_err(|error| error.of(file.shown()))) {
                // A mount that has dropped takes the folder with it.
                Err(PictureError::Read { source, .. }) if is_folder_gone(&folder, &source) => {
                    let folder = folder.folder().shown().display();
                    return Err(Failure::storage(format!("cannot read {folder}"), &source));
                }
                Err(PictureError::Read { path, source }) if source.kind() != ErrorKind::NotFound => {
                    return Err(Failure::storage(format!("cannot read {}", path.display()), &source));
                }
                Ok(picture) if first.get_or_insert(picture).is_like(&picture) => {}
                Ok(picture) => {
                    bad.push((
                        *frame,
                        format!("it is {picture}, unlike the others; render or copy it again"),
                    ));
                }
                Err(error) => {
                    bad.push((*frame, format!("{}; {}", hearth_telemetry::chain(&error), error.advice())));
                }
            }
        }
        Ok(bad)
    });
    let bad = looked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let Some((frame, reason)) = bad.first() else { return Ok(()) };
    Err(self::bad(task, clip, *frame, reason, bad.iter().map(|(frame, _)| *frame).collect()))
}

/// Whether not just the frame is missing.
fn is_folder_gone(folder: &SequenceFolder, error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound && !folder.folder().shown().is_dir()
}

async fn link_all(
    bench: &Workbench,
    task: &ChunkTask,
    clip: &TaskClip,
    files: &[Handed],
) -> Result<(), Failure> {
    let folder = bench.stage.join(&task.attempt);
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::storage(format!("cannot stage {}", path.display()), error)
    };
    tokio::fs::create_dir_all(&folder).await.map_err(|error| failed(&folder, &error))?;
    let links = files.iter().enumerate().map(|(index, file)| (file.clone(), folder.join(name(clip, index))));
    let links: Vec<(Handed, PathBuf)> = links.collect();
    let linked = tokio::task::spawn_blocking(move || {
        for (file, link) in links {
            // A converted frame lies there already.
            if matches!(&file, Handed::Own(own) if *own == link) {
                continue;
            }
            let file = file.hold()?;
            // The file itself, where that can be had: a link that names it leads wherever the name leads by then.
            let linked = file.link(&link).or_else(|error| match error.kind() {
                ErrorKind::AlreadyExists => Err(error),
                // By the path that a ComfyUI in a container sees, too.
                _ => std::os::unix::fs::symlink(file.shown(), &link),
            });
            match linked {
                // Left by an earlier life of this attempt: the same link.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                linked => linked.map_err(|error| failed(&link, &error))?,
            }
        }
        Ok(())
    });
    linked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Uploads files into `folder` of ComfyUI's input folder, a few at a time.
pub(super) async fn upload_all(
    bench: &Workbench,
    folder: &str,
    files: &[(Handed, String)],
) -> Result<(), Failure> {
    let uploads: Vec<_> = files
        .iter()
        .map(|(file, name)| async move {
            let file = file.clone();
            let held = tokio::task::spawn_blocking(move || file.hold()).await;
            let held = held.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            let bytes = tokio::fs::read(held.path()).await.map_err(|error| {
                Failure::storage(format!("cannot read {}", held.shown().display()), &error)
            })?;
            let given = bench.client.upload(folder, name, bytes).await;
            let given = given.map_err(|error| Failure::unavailable(&error))?;
            let wanted = format!("{folder}/{name}");
            if given == wanted { Ok(()) } else { Err(input::renamed(&wanted, &given)) }
        })
        .collect();
    futures_util::stream::iter(uploads).buffer_unordered(UPLOADS).try_collect().await
}
