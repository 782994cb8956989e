//! What the prompt made: counted, fetched, decoded, and published by one rename.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use hearth_pictures::{Picture, PictureError, verify};
use hearth_proto::v1::FailureKind;
use hearth_storage::{
    Held, Roots,
    manifest::{ChunkManifest, FileManifest, JOB_FILE, ManifestDigest, flush, write_whole},
};
use hearth_workflows::{Frame, RootPath, bind::Prompt, manifest::Save, split::ChunkPlan};

use super::{ChunkTask, Failure, Workbench, convert::Finish, source};
use crate::{
    comfy::{ComfyError, ImageRef, verdict::Outputs},
    config::Transfer,
    sequence::link_or_copy,
};

/// Pictures fetched and decoded at a time; bounds the agent's memory.
const PARALLEL: usize = 3;

/// Tries for each picture, and the pause between them.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// Where an attempt publishes: a folder of the job's work folder, named for the attempt.
#[derive(Debug, Clone)]
pub(super) struct Place {
    roots: Arc<Roots>,
    work_dir: RootPath,
    attempt: String,
}

impl Place {
    pub(super) fn of(bench: &Workbench, task: &ChunkTask) -> Self {
        Self { roots: bench.roots.clone(), work_dir: task.work_dir.clone(), attempt: task.attempt.clone() }
    }

    fn part(&self) -> String {
        format!("{}.part", self.attempt)
    }

    /// Makes the unpublished part, or a folder in it.
    fn make(&self, below: &str) -> io::Result<Held> {
        let work = self.roots.resolve(&self.work_dir).map_err(io::Error::other)?;
        self.roots.make_folder(&work.join(self.part()).join(below))
    }

    /// What an earlier life of the agent has published already.
    pub(super) async fn published(&self) -> Option<ManifestDigest> {
        let place = self.clone();
        let read = blocking(move || {
            let folder = place.roots.hold(&place.work_dir).ok()?.below(Path::new(&place.attempt)).ok()?;
            ChunkManifest::read(&folder.path())
        });
        read.await.map(|(_, digest)| digest)
    }

    /// Makes the result visible, whole, and so that it stays: what is reported as done survives a power cut.
    pub(super) async fn publish(
        &self,
        task: &ChunkTask,
        manifest: ChunkManifest,
    ) -> Result<ManifestDigest, Failure> {
        let (place, job) = (self.clone(), task.job_manifest.clone());
        blocking(move || {
            let work = place.roots.hold(&place.work_dir).map_err(io::Error::other)?;
            let part = work.below(Path::new(&place.part()))?;
            let digest = manifest.write(&part.path())?;
            let job_file = work.path().join(JOB_FILE);
            if !job.is_empty() && !job_file.exists() {
                write_whole(&job_file, job.as_bytes())?;
            }
            for pass in manifest.passes.keys() {
                flush(&part.below(Path::new(pass))?.path())?;
            }
            std::fs::rename(work.path().join(place.part()), work.path().join(&place.attempt))?;
            flush(&work.path())?;
            Ok(digest)
        })
        .await
        .map_err(|error: io::Error| {
            Failure::storage(format!("cannot publish {}/{}", self.work_dir, self.attempt), &error)
        })
    }

    pub(super) async fn discard_part(&self) {
        let place = self.clone();
        // It is not there after a success.
        let _ = blocking(move || {
            let work = place.roots.hold(&place.work_dir).map_err(io::Error::other)?;
            std::fs::remove_dir_all(work.path().join(place.part()))
        })
        .await;
    }
}

/// Fetches every kept frame of every pass into the place's unpublished part; says what there is now.
pub(super) async fn collect(
    bench: &Workbench,
    task: &Arc<ChunkTask>,
    plan: &ChunkPlan,
    prompt: &Prompt,
    outputs: &Outputs,
    place: &Place,
) -> Result<BTreeMap<String, BTreeMap<Frame, FileManifest>>, Failure> {
    let mut passes = BTreeMap::new();
    // Only what the results say of themselves is read there: without it they say less.
    let clip = task.clip.as_ref().and_then(|clip| source::folder(bench, task, clip).ok());
    for declared in task.workflow.manifest().passes_made(&task.parameters) {
        let pass = &declared.name;
        let Some(saver) = prompt.savers.get(pass) else { continue };
        let finish = Finish::new(task, declared, clip.clone())?;
        let attempt = &task.attempt;
        let sources: Vec<Source> = match (saver.save, bench.transfer) {
            (Save::Images, _) => {
                let images = outputs.get(&saver.node).cloned().unwrap_or_default();
                images.into_iter().map(Source::Image).collect()
            }
            (Save::Frames, Transfer::Shared) => numbered(&saver.prefix, plan.made).await,
            (Save::Frames, Transfer::Http) => {
                remotely_numbered(bench, attempt, pass, &saver.prefix, plan.made).await?
            }
        };
        if sources.len() != plan.made {
            let or = if saver.save == Save::Frames && bench.transfer == Transfer::Http {
                ", or ComfyUI's output folder is another than its command line says"
            } else {
                ""
            };
            let message = format!(
                "pass {pass}: node {} saved {} pictures where {} were due for {} loaded frames; the workflow drops or adds frames, or its manifest names the wrong node{or}",
                saver.node,
                sources.len(),
                plan.made,
                plan.loaded.len()
            );
            return Err(Failure::new(FailureKind::BadOutput, message));
        }
        // History can name files of another attempt, when a saver came from the cache.
        let foreign = |source: &&Source| match source {
            Source::Image(image) => saver.save == Save::Images && !is_own(image, &saver.prefix),
            Source::Path(_) => false,
        };
        if let Some(Source::Image(foreign)) = sources.iter().find(foreign) {
            let message = format!(
                "pass {pass}: ComfyUI names the file {}/{}, which another prompt has written",
                foreign.subfolder, foreign.filename
            );
            return Err(Failure::new(FailureKind::BadOutput, message));
        }
        // Rendering took its time: the mount may have dropped meanwhile, and its empty folder would take everything.
        let (making, below) = (place.clone(), pass.clone());
        let held = blocking(move || making.make(&below)).await.map_err(|error| {
            Failure::storage(format!("cannot make {}/{}/{pass}", place.work_dir, place.part()), &error)
        })?;
        let folder = held.path();
        let fetches: Vec<_> = plan
            .kept
            .iter()
            .map(|(index, frame)| {
                let source = &sources[*index];
                // Under another name until it is what it will be.
                let saved = folder.join(format!("{frame}.saved"));
                let (file, finish) = (folder.join(finish.file(*frame)), finish.clone());
                async move {
                    fetch(bench, source, &saved).await?;
                    Ok::<_, Failure>((*frame, check(bench, pass, *frame, finish, saved, file).await?))
                }
            })
            .collect();
        let checked: Vec<(Frame, (Picture, FileManifest))> = futures_util::stream::iter(fetches)
            .buffered(PARALLEL)
            .try_collect()
            .await
            .map_err(|failure: Failure| failure.telling([&held]))?;
        let pictures: Vec<_> = checked.iter().map(|(frame, (picture, _))| (*frame, *picture)).collect();
        same_size(task, pass, &pictures)?;
        let files = checked.into_iter().map(|(frame, (_, file))| (frame, file)).collect();
        passes.insert(pass.clone(), files);
        if let Some(frame) = task.frames.first() {
            let (file, making, pass) = (folder.join(finish.file(frame)), place.clone(), pass.clone());
            let kept = bench.darkroom.run(move || {
                let Ok(chunk) = making.make("") else { return };
                finish.keep_thumbnail(&file, &chunk, &pass, frame);
            });
            // A picture that cannot be made small is still a picture.
            let _ = kept.await;
        }
    }
    Ok(passes)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn is_own(image: &ImageRef, prefix: &str) -> bool {
    let (folder, stem) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    image.subfolder.replace('\\', "/") == folder && image.filename.starts_with(stem)
}

/// Where a rendered picture is.
enum Source {
    Image(ImageRef),
    Path(PathBuf),
}

/// The files that a saver has numbered from 0, as far as they are there: up to the first that is missing, and
/// one more than expected if there is one.
async fn numbered(pattern: &str, expected: usize) -> Vec<Source> {
    let pattern = pattern.to_owned();
    blocking(move || {
        (0..=expected)
            .map(|number| PathBuf::from(pattern.replace("%04d", &format!("{number:04}"))))
            .take_while(|path| path.is_file())
            .map(Source::Path)
            .collect()
    })
    .await
}

/// The folder of what an attempt saves to paths, below ComfyUI's output folder, with a folder for each pass.
pub(super) fn saved_folder(attempt: &str) -> String {
    format!("hearth/{attempt}")
}

/// The same of files that only ComfyUI sees. It lists none: the last that is due is there, and none after it.
async fn remotely_numbered(
    bench: &Workbench,
    attempt: &str,
    pass: &str,
    pattern: &str,
    expected: usize,
) -> Result<Vec<Source>, Failure> {
    let name = pattern.rsplit('/').next().unwrap_or(pattern);
    let file = |number: usize| ImageRef {
        filename: name.replace("%04d", &format!("{number:04}")),
        subfolder: format!("{}/{pass}", saved_folder(attempt)),
        kind: "output".to_owned(),
    };
    let mut found = expected;
    while found > 0 && !is_there(bench, &file(found - 1)).await? {
        found -= 1;
    }
    if found == expected && is_there(bench, &file(expected)).await? {
        found += 1;
    }
    Ok((0..found).map(file).map(Source::Image).collect())
}

async fn fetch(bench: &Workbench, source: &Source, file: &Path) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::storage(format!("cannot write {}", file.display()), error);
    let image = match source {
        Source::Image(image) => image,
        Source::Path(path) => {
            let (path, file) = (path.clone(), file.to_owned());
            let linked = blocking(move || link_or_copy(&Held::open(&path)?, &file));
            return linked.await.map_err(|error| failed(&error));
        }
    };
    let local = bench.output.as_ref().and_then(|output| image.below(output)).filter(|path| path.is_file());
    match local {
        Some(source) => {
            let file = file.to_owned();
            let linked = blocking(move || link_or_copy(&Held::open(&source)?, &file));
            linked.await.map_err(|error| failed(&error))
        }
        None => {
            let saved = patiently(|| bench.client.save(image, file)).await;
            saved.map_err(|error| match error {
                ComfyError::Status { status: 404, .. } => {
                    let message = format!(
                        "ComfyUI should have saved {}/{}, but the file is not there; is its disk full?",
                        image.subfolder, image.filename
                    );
                    Failure::new(FailureKind::BadOutput, message)
                }
                ComfyError::Save { source, .. } => failed(&source),
                ComfyError::TooLong { .. } => {
                    Failure::new(FailureKind::BadOutput, hearth_telemetry::chain(&error))
                }
                error => Failure::died(&error),
            })
        }
    }
}

async fn is_there(bench: &Workbench, image: &ImageRef) -> Result<bool, Failure> {
    patiently(|| bench.client.has(image)).await.map_err(|error| Failure::died(&error))
}

/// A chunk that is rendered is not thrown away for one answer that did not come.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, ComfyError>
where
    F: Future<Output = Result<T, ComfyError>>,
{
    for _ in 1..TRIES {
        match ask().await {
            Err(ComfyError::Away { .. }) => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
    ask().await
}

/// Decodes the picture, makes it the result, and flushes that to storage.
async fn check(
    bench: &Workbench,
    pass: &str,
    frame: Frame,
    finish: Finish,
    saved: PathBuf,
    file: PathBuf,
) -> Result<(Picture, FileManifest), Failure> {
    let looked_at = bench.darkroom.run(move || {
        let picture = verify(&saved)?;
        finish.finish(&saved, &file, frame)?;
        Ok((picture, flush(&file).and_then(|()| FileManifest::of(&file))))
    });
    let looked_at = looked_at.await.ok_or_else(|| {
        Failure::new(FailureKind::Internal, format!("pass {pass}, frame {frame} could not be checked"))
    })?;
    match looked_at {
        Ok((picture, Ok(manifest))) => Ok((picture, manifest)),
        Ok((_, Err(error))) => {
            Err(Failure::storage(format!("cannot keep pass {pass}, frame {frame}"), &error))
        }
        Err::<_, PictureError>(PictureError::Write { path, source }) => {
            Err(Failure::storage(format!("cannot write {}", path.display()), &source))
        }
        Err(error) => {
            let reason = hearth_telemetry::chain(&error);
            let message =
                format!("pass {pass}, frame {frame}: the rendered picture cannot be used: {reason}");
            Err(Failure::new(FailureKind::BadOutput, message))
        }
    }
}

fn same_size(task: &ChunkTask, pass: &str, pictures: &[(Frame, Picture)]) -> Result<(), Failure> {
    let Some((first, expected)) = pictures.first() else { return Ok(()) };
    match pictures.iter().find(|(_, picture)| picture != expected) {
        None => Ok(()),
        Some((frame, odd)) => {
            let message = format!(
                "workflow {}, pass {pass}: frame {frame} is {odd}, but frame {first} is {expected}",
                task.workflow.name()
            );
            Err(Failure::new(FailureKind::BadOutput, message))
        }
    }
}
