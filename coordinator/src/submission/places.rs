//! Pictures and files on storage that parameters name: a style reference, a background, the first frame of a shot, a show's own table.

use std::fs;

use hearth_proto::v1;
use hearth_storage::{Held, Roots};
use hearth_workflows::{
    RootPath, Workflow, luts,
    parameters::{ParameterTexts, ParameterType},
};

use super::SubmissionError;

/// The largest file that a parameter may name: every chunk hands it to a ComfyUI.
const MOST_BYTES: u64 = 64 << 20;

/// The pictures and files that the parameters name. Each is there and can be read, unless a job that is waited for may
/// still make it. Blocks on storage.
pub(super) fn check(
    request: &v1::SubmitJobRequest,
    workflow: &Workflow,
    parameters: &ParameterTexts,
    roots: &Roots,
) -> Result<Vec<RootPath>, SubmissionError> {
    let declared = workflow.manifest().parameters.iter();
    let places = declared.filter(|(_, parameter)| parameter.kind.is_on_storage());
    places
        .filter_map(|(name, parameter)| {
            Some((name, parameter.kind, parameters.get(name).filter(|path| !path.trim().is_empty())?))
        })
        .map(|(name, kind, path)| {
            let refused = |reason: String| SubmissionError::Place {
                parameter: name.clone(),
                kind: kind.name(),
                reason,
            };
            let path: RootPath = path
                .trim()
                .parse()
                .map_err(|source| SubmissionError::PlacePath { parameter: name.clone(), source })?;
            roots.resolve(&path).map_err(|error| refused(error.to_string()))?;
            if request.after_job_ids.is_empty() {
                let file = roots.hold(&path).map_err(|error| refused(hearth_telemetry::chain(&error)))?;
                match kind {
                    ParameterType::File => check_file(&file).map_err(refused)?,
                    _ => {
                        hearth_pictures::inspect(&file.path())
                            .map_err(|error| refused(hearth_telemetry::chain(&error.of(file.shown()))))?;
                    }
                }
            }
            Ok(path)
        })
        .collect()
}

/// That it is a file of a sensible size and, where its kind is known, whole.
fn check_file(held: &Held) -> Result<(), String> {
    let (file, path) = (held.shown(), held.path());
    let told = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    let metadata = fs::metadata(&path).map_err(told)?;
    if !metadata.is_file() {
        return Err(format!("{} is no file", file.display()));
    }
    if metadata.len() > MOST_BYTES {
        let (size, most) = (metadata.len() >> 20, MOST_BYTES >> 20);
        return Err(format!("{} has {size} MiB, and at most {most} are taken", file.display()));
    }
    if file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("cube")) {
        let text = fs::read(&path).map_err(told)?;
        luts::check(&String::from_utf8_lossy(&text)).map_err(|why| format!("{}: {why}", file.display()))?;
    }
    Ok(())
}
