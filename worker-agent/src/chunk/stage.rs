//! Exactly the frames that the chunk needs, where its ComfyUI can load them.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use hearth_proto::v1::FailureKind;
use hearth_storage::{PictureError, clip, picture};
use hearth_workflows::{Frame, bind::StagedClip, manifest::Load, split::ChunkPlan};

use super::{ChunkTask, Failure, Workbench, away};
use crate::config::Transfer;

/// Frames uploaded at a time.
const UPLOADS: usize = 4;

/// Stages the plan's frames, after a look at each: a broken one is told by its number.
pub(super) async fn stage(
    bench: &Workbench,
    task: &ChunkTask,
    plan: &ChunkPlan,
) -> Result<StagedClip, Failure> {
    let files = files(bench, task, plan)?;
    look_at(bench, task, plan, files.clone()).await?;
    match (bench.transfer, task.workflow.manifest().clip.load) {
        (Transfer::Shared, Load::Image) => {}
        (Transfer::Shared, Load::Directory) => link_all(bench, task, &files).await?,
        (Transfer::Http, _) => upload_all(bench, task, &files).await?,
    }
    names_only(bench, task, plan)
}

/// What the staged frames are called, without staging them.
pub(super) fn names_only(
    bench: &Workbench,
    task: &ChunkTask,
    plan: &ChunkPlan,
) -> Result<StagedClip, Failure> {
    let folder = format!("hearth/{}", task.attempt);
    Ok(match (bench.transfer, task.workflow.manifest().clip.load) {
        // ComfyUI loads a picture by its absolute path.
        (Transfer::Shared, Load::Image) => {
            let files = files(bench, task, plan)?;
            StagedClip::Files(files.iter().map(|file| file.display().to_string()).collect())
        }
        (Transfer::Shared, Load::Directory) => {
            StagedClip::Directory(bench.stage.join(&task.attempt).display().to_string())
        }
        (Transfer::Http, Load::Image) => {
            let names = (0..plan.loaded.len()).map(|index| format!("{folder}/{}", name(task, index)));
            StagedClip::Files(names.collect())
        }
        // Relative to the server's folder, which holds the input folder.
        (Transfer::Http, Load::Directory) => StagedClip::Directory(format!("input/{folder}")),
    })
}

fn files(bench: &Workbench, task: &ChunkTask, plan: &ChunkPlan) -> Result<Vec<PathBuf>, Failure> {
    let folder = bench.roots.folder(&task.clip)?;
    Ok(plan.loaded.iter().map(|frame| clip::file_of(&folder, &task.clip, *frame)).collect())
}

/// A staged frame's name: its place in the chunk, so that text order is frame order.
fn name(task: &ChunkTask, index: usize) -> String {
    format!("{index:06}.{}", task.clip.name().extension())
}

/// Finds frames that are gone, cut off or of another size by now.
async fn look_at(
    bench: &Workbench,
    task: &ChunkTask,
    plan: &ChunkPlan,
    files: Vec<PathBuf>,
) -> Result<(), Failure> {
    let frames = plan.loaded.clone();
    let roots = bench.roots.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut bad: Vec<(Frame, String)> = Vec::new();
        let mut size = None;
        for (frame, file) in frames.iter().zip(&files) {
            roots.check_link(file)?;
            match picture::inspect(file) {
                Err(PictureError::Read { source, .. }) if source.kind() != ErrorKind::NotFound => {
                    return Err(Failure::storage(format!("cannot read {}", file.display()), &source));
                }
                Ok(picture) if *size.get_or_insert(picture) == picture => {}
                Ok(picture) => bad
                    .push((*frame, format!("it is {}x{}, unlike the others", picture.width, picture.height))),
                Err(error) => bad.push((*frame, hearth_telemetry::chain(&error))),
            }
        }
        Ok(bad)
    });
    let bad = looked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let Some((frame, reason)) = bad.first() else { return Ok(()) };
    let message = format!("clip {}, frame {frame}: {reason}; render or copy it again", task.clip);
    let frames = bad.iter().map(|(frame, _)| *frame).collect();
    Err(Failure { frames, ..Failure::new(FailureKind::BadFrame, message) })
}

async fn link_all(bench: &Workbench, task: &ChunkTask, files: &[PathBuf]) -> Result<(), Failure> {
    let folder = bench.stage.join(&task.attempt);
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::storage(format!("cannot stage {}", path.display()), error)
    };
    tokio::fs::create_dir_all(&folder).await.map_err(|error| failed(&folder, &error))?;
    for (index, file) in files.iter().enumerate() {
        let link = folder.join(name(task, index));
        match tokio::fs::symlink(file, &link).await {
            // Left by an earlier life of this attempt: the same link.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            linked => linked.map_err(|error| failed(&link, &error))?,
        }
    }
    Ok(())
}

async fn upload_all(bench: &Workbench, task: &ChunkTask, files: &[PathBuf]) -> Result<(), Failure> {
    let folder = format!("hearth/{}", task.attempt);
    let uploads: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(index, file)| {
            let (folder, name) = (folder.clone(), name(task, index));
            async move {
                let bytes = tokio::fs::read(file)
                    .await
                    .map_err(|error| Failure::storage(format!("cannot read {}", file.display()), &error))?;
                let wanted = format!("{folder}/{name}");
                let given = bench.client.upload(&folder, &name, bytes).await.map_err(|error| away(&error))?;
                if given == wanted {
                    return Ok(());
                }
                let message =
                    format!("ComfyUI saved the upload {wanted} as {given}; remove input/{folder} there");
                Err(Failure::new(FailureKind::Storage, message))
            }
        })
        .collect();
    futures_util::stream::iter(uploads).buffer_unordered(UPLOADS).try_collect().await
}
