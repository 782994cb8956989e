//! Pictures and files that parameters name, where the chunk's ComfyUI can load them.

use std::path::{Path, PathBuf};

use hearth_pictures::{Converter, PictureError, inspect};
use hearth_proto::v1::FailureKind;
use hearth_workflows::{
    RootPath,
    bind::StagedFiles,
    format::{Encoding, PictureFormat},
    parameters::ParameterType,
};

use super::{ChunkTask, Failure, Workbench, convert, input, stage::Handed};

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
        let place: RootPath = path.parse().map_err(|error| unusable(name, path, &format!("{error}")))?;
        let (file, extension) = match kind {
            ParameterType::File => (Handed::OnStorage(bench.roots.clone(), place.clone()), None),
            _ => readable(bench, task, name, &place).await?,
        };
        let own = Path::new(place.file_name()).extension().and_then(|extension| extension.to_str());
        let extension = extension.or(own).unwrap_or("png");
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

fn unusable(name: &str, path: &str, reason: &str) -> Failure {
    Failure::new(FailureKind::BadFrame, format!("parameter {name}: {path}: {reason}"))
}

/// The picture itself, or a copy of it that a node reads right, with the ending of that.
async fn readable(
    bench: &Workbench,
    task: &ChunkTask,
    name: &str,
    path: &RootPath,
) -> Result<(Handed, Option<&'static str>), Failure> {
    let itself = Handed::OnStorage(bench.roots.clone(), path.clone());
    let folder = bench.stage.join(&task.attempt).join("pictures");
    let copy = folder.join(format!("{name}.png"));
    let (roots, place) = (bench.roots.clone(), path.clone());
    let made = bench.darkroom.run(move || -> Result<Option<PathBuf>, Failure> {
        let file = roots.hold(&place)?;
        let wrong = |error: PictureError| match error {
            PictureError::Write { path, source } => {
                Failure::storage(format!("cannot stage {}", path.display()), &source)
            }
            error => Failure::new(FailureKind::BadFrame, hearth_telemetry::chain(&error.of(file.shown()))),
        };
        let format = inspect(&file.path()).map_err(wrong)?.format;
        if matches!(format, PictureFormat::Png8 | PictureFormat::Jpeg) {
            return Ok(None);
        }
        let Some(converter) = Converter::new(Encoding { format, colour: format.usual_colour() }, STAGED)
        else {
            return Ok(None);
        };
        let failed = |source| PictureError::Write { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed).map_err(wrong)?;
        convert::stage(&converter, &file.path(), &copy, STAGED).map_err(wrong)?;
        Ok(Some(copy))
    });
    match made.await {
        Some(Ok(None)) => Ok((itself, None)),
        Some(Ok(Some(copy))) => Ok((Handed::Own(copy), Some("png"))),
        Some(Err(failure)) if failure.kind == FailureKind::BadFrame => {
            Err(unusable(name, path.as_str(), &failure.message))
        }
        Some(Err(failure)) => Err(failure),
        None => Err(Failure::new(FailureKind::Internal, format!("picture {path} could not be converted"))),
    }
}
