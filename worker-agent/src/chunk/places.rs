//! Pictures and files that parameters name, where the chunk's ComfyUI can load them.

use std::path::PathBuf;

use hearth_pictures::{Converter, PictureError, inspect};
use hearth_proto::v1::FailureKind;
use hearth_workflows::{
    RootPath,
    bind::StagedFiles,
    format::{Encoding, PictureFormat},
    parameters::ParameterType,
};

use super::{ChunkTask, Failure, Workbench, convert, input};
/// What nodes that load one picture read right.
const STAGED: Encoding =
    Encoding { format: PictureFormat::Png8, colour: hearth_workflows::format::ColourSpace::Srgb };

/// Of each parameter that names something on storage, its kind and the place.
fn named(task: &ChunkTask) -> impl Iterator<Item = (&String, ParameterType, &str)> {
    let declared = task.workflow.manifest().parameters.iter();
    declared.filter(|(_, parameter)| parameter.kind.is_on_storage()).filter_map(|(name, parameter)| {
        let path = task.parameters.get(name)?.trim();
        (!path.is_empty()).then_some((name, parameter.kind, path))
    })
}

/// Below the attempt's input folder, not among the frames, which a node may load by their folder.
const FOLDER: &str = "pictures";

/// For a prompt that ComfyUI has already: what it loads was put there in its earlier life.
pub(super) fn names_only(task: &ChunkTask) -> StagedFiles {
    named(task).map(|(name, _, path)| (name.clone(), path.to_owned())).collect()
}

/// Converted where need be, and put into ComfyUI's input folder.
pub(super) async fn stage(bench: &Workbench, task: &ChunkTask) -> Result<StagedFiles, Failure> {
    let (mut staged, mut files) = (StagedFiles::new(), Vec::new());
    for (name, kind, path) in named(task) {
        let file = match kind {
            ParameterType::File => on_storage(bench, name, path)?,
            _ => readable(bench, task, name, path).await?,
        };
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or("png");
        let own = format!("{name}.{extension}");
        // Pictures are named relative to ComfyUI's input folder; whatever else a node reads, it opens by its path.
        let folder = match kind {
            ParameterType::File => input::path_of(bench, &task.attempt).await?,
            _ => input::folder(&task.attempt),
        };
        staged.insert(name.clone(), format!("{folder}/{FOLDER}/{own}"));
        files.push((file, own));
    }
    if !files.is_empty() {
        input::place(bench, &task.attempt, Some(FOLDER), &files).await?;
    }
    Ok(staged)
}

/// The file on this host.
fn on_storage(bench: &Workbench, name: &str, path: &str) -> Result<PathBuf, Failure> {
    let place: RootPath = path.parse().map_err(|error| unusable(name, path, &format!("{error}")))?;
    let file = bench.roots.resolve(&place)?;
    bench.roots.check_link(&file)?;
    Ok(file)
}

fn unusable(name: &str, path: &str, reason: &str) -> Failure {
    Failure::new(FailureKind::BadFrame, format!("parameter {name}: {path}: {reason}"))
}

/// The picture itself, or a copy of it that a node reads right.
async fn readable(bench: &Workbench, task: &ChunkTask, name: &str, path: &str) -> Result<PathBuf, Failure> {
    let file = on_storage(bench, name, path)?;
    let folder = bench.stage.join(&task.attempt).join("pictures");
    let copy = folder.join(format!("{name}.png"));
    let made = bench.darkroom.run(move || -> Result<PathBuf, PictureError> {
        let format = inspect(&file)?.format;
        if matches!(format, PictureFormat::Png8 | PictureFormat::Jpeg) {
            return Ok(file);
        }
        let Some(converter) = Converter::new(Encoding { format, colour: format.usual_colour() }, STAGED)
        else {
            return Ok(file);
        };
        let failed = |source| PictureError::Write { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        convert::stage(&converter, &file, &copy, STAGED)?;
        Ok(copy)
    });
    match made.await {
        Some(Ok(file)) => Ok(file),
        Some(Err(PictureError::Write { path, source })) => {
            Err(Failure::storage(format!("cannot stage {}", path.display()), &source))
        }
        Some(Err(error)) => Err(unusable(name, path, &hearth_telemetry::chain(&error))),
        None => Err(Failure::new(FailureKind::Internal, format!("picture {path} could not be converted"))),
    }
}
