//! What the prompt made: counted, fetched, decoded, and published by one rename.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use hearth_proto::v1::FailureKind;
use hearth_storage::{
    Picture, PictureError,
    manifest::{CHUNK_FILE, ChunkManifest, FileManifest, JOB_FILE, flush, write_whole},
    picture,
};
use hearth_workflows::{Frame, bind::Prompt, split::ChunkPlan};

use super::{ChunkTask, Failure, Workbench, away};
use crate::{
    comfy::{Client, ComfyError, ImageRef, verdict::Outputs},
    sequence::{frame_file, link_or_copy},
};

/// Pictures fetched and decoded at a time; bounds the agent's memory.
const PARALLEL: usize = 3;

/// Tries for each picture, and the pause between them.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// Where an attempt publishes: a folder of the job's work folder, named for the attempt.
#[derive(Debug, Clone)]
pub(super) struct Place {
    work: PathBuf,
    folder: PathBuf,
    part: PathBuf,
}

impl Place {
    pub(super) fn of(bench: &Workbench, task: &ChunkTask) -> Result<Self, Failure> {
        let work = bench.roots.resolve(&task.work_dir)?;
        let part = work.join(format!("{}.part", task.attempt));
        Ok(Self { folder: work.join(&task.attempt), part, work })
    }

    pub(super) fn is_published(&self) -> bool {
        self.folder.is_dir()
    }

    /// Makes the result visible, whole, and so that it stays: what is reported as done survives a power cut.
    pub(super) async fn publish(&self, task: &ChunkTask, manifest: ChunkManifest) -> Result<(), Failure> {
        let (place, job) = (self.clone(), task.job_manifest.clone());
        blocking(move || {
            let text = serde_json::to_vec(&manifest).map_err(std::io::Error::other)?;
            write_whole(&place.part.join(CHUNK_FILE), &text)?;
            let job_file = place.work.join(JOB_FILE);
            if !job.is_empty() && !job_file.exists() {
                write_whole(&job_file, job.as_bytes())?;
            }
            for pass in manifest.passes.keys() {
                flush(&place.part.join(pass))?;
            }
            std::fs::rename(&place.part, &place.folder)?;
            flush(&place.work)
        })
        .await
        .map_err(|error| Failure::storage(format!("cannot publish {}", self.folder.display()), &error))
    }

    pub(super) async fn discard_part(&self) {
        // It is not there after a success.
        let _ = tokio::fs::remove_dir_all(&self.part).await;
    }
}

/// Fetches every kept frame of every pass into the place's unpublished part; says what there is now.
pub(super) async fn collect(
    bench: &Workbench,
    task: &ChunkTask,
    plan: &ChunkPlan,
    prompt: &Prompt,
    outputs: &Outputs,
    place: &Place,
) -> Result<BTreeMap<String, BTreeMap<Frame, FileManifest>>, Failure> {
    let mut passes = BTreeMap::new();
    for (pass, saver) in &prompt.savers {
        let images = outputs.get(&saver.node).map_or(&[][..], Vec::as_slice);
        if images.len() != plan.loaded.len() {
            let message = format!(
                "pass {pass}: node {} saved {} pictures for {} loaded frames; the workflow drops or adds frames, or its manifest names the wrong node",
                saver.node,
                images.len(),
                plan.loaded.len()
            );
            return Err(Failure::new(FailureKind::BadOutput, message));
        }
        // History can name files of another attempt, when a saver came from the cache.
        if let Some(foreign) = images.iter().find(|image| !is_own(image, &saver.prefix)) {
            let message = format!(
                "pass {pass}: ComfyUI names the file {}/{}, which another prompt has written",
                foreign.subfolder, foreign.filename
            );
            return Err(Failure::new(FailureKind::BadOutput, message));
        }
        let folder = place.part.join(pass);
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|error| Failure::storage(format!("cannot make {}", folder.display()), &error))?;
        let fetches: Vec<_> = plan
            .kept
            .iter()
            .map(|(index, frame)| {
                let (image, file) = (&images[*index], folder.join(frame_file(*frame)));
                async move {
                    fetch(bench, image, &file).await?;
                    Ok::<_, Failure>((*frame, check(pass, *frame, file).await?))
                }
            })
            .collect();
        let checked: Vec<(Frame, (Picture, FileManifest))> =
            futures_util::stream::iter(fetches).buffered(PARALLEL).try_collect().await?;
        let pictures: Vec<_> = checked.iter().map(|(frame, (picture, _))| (*frame, *picture)).collect();
        same_size(task, pass, &pictures)?;
        let files = checked.into_iter().map(|(frame, (_, file))| (frame, file)).collect();
        passes.insert(pass.clone(), files);
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

async fn fetch(bench: &Workbench, image: &ImageRef, file: &Path) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::storage(format!("cannot write {}", file.display()), error);
    let local = bench.output.as_ref().and_then(|output| image.below(output)).filter(|path| path.is_file());
    match local {
        Some(source) => {
            let file = file.to_owned();
            blocking(move || link_or_copy(&source, &file)).await.map_err(|error| failed(&error))
        }
        None => {
            let bytes = view(&bench.client, image).await.map_err(|error| match error {
                ComfyError::Status { status: 404, .. } => {
                    let message = format!(
                        "ComfyUI's history names {}/{}, but the file is not there; is its disk full?",
                        image.subfolder, image.filename
                    );
                    Failure::new(FailureKind::BadOutput, message)
                }
                error => away(&error),
            })?;
            tokio::fs::write(file, &bytes).await.map_err(|error| failed(&error))
        }
    }
}

/// The bytes of a picture. A chunk that is rendered is not thrown away for one answer that did not come.
async fn view(client: &Client, image: &ImageRef) -> Result<Bytes, ComfyError> {
    for _ in 1..TRIES {
        match client.view(image).await {
            Err(ComfyError::Away { .. }) => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
    client.view(image).await
}

/// Decodes the picture, and flushes it to storage.
async fn check(pass: &str, frame: Frame, file: PathBuf) -> Result<(Picture, FileManifest), Failure> {
    let decoded = tokio::task::spawn_blocking(move || {
        let picture = picture::decode(&file)?;
        Ok((picture, flush(&file).and_then(|()| FileManifest::of(&file))))
    });
    match decoded.await {
        Ok(Ok((picture, Ok(manifest)))) => Ok((picture, manifest)),
        Ok(Ok((_, Err(error)))) => {
            Err(Failure::storage(format!("cannot keep pass {pass}, frame {frame}"), &error))
        }
        Ok(Err::<_, PictureError>(error)) => {
            let reason = hearth_telemetry::chain(&error);
            let message =
                format!("pass {pass}, frame {frame}: the rendered picture cannot be used: {reason}");
            Err(Failure::new(FailureKind::BadOutput, message))
        }
        Err(_) => Err(Failure::new(FailureKind::Internal, format!("frame {frame} could not be checked"))),
    }
}

fn same_size(task: &ChunkTask, pass: &str, pictures: &[(Frame, Picture)]) -> Result<(), Failure> {
    let Some((first, expected)) = pictures.first() else { return Ok(()) };
    match pictures.iter().find(|(_, picture)| picture != expected) {
        None => Ok(()),
        Some((frame, odd)) => {
            let message = format!(
                "workflow {}, pass {pass}: frame {frame} is {}x{}, frame {first} {}x{}",
                task.workflow.name(),
                odd.width,
                odd.height,
                expected.width,
                expected.height
            );
            Err(Failure::new(FailureKind::BadOutput, message))
        }
    }
}
