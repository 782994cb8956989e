//! Pictures that parameters name: a style reference, a background, the first frame of a shot.

use hearth_proto::v1;
use hearth_storage::Roots;
use hearth_workflows::{
    RootPath, Workflow,
    parameters::{ParameterTexts, ParameterType},
};

use super::SubmissionError;

/// The pictures that the parameters name. Each is there and can be read, unless a job that is waited for may still
/// make it. Blocks on storage.
pub(super) fn check(
    request: &v1::SubmitJobRequest,
    workflow: &Workflow,
    parameters: &ParameterTexts,
    roots: &Roots,
) -> Result<Vec<RootPath>, SubmissionError> {
    let declared = workflow.manifest().parameters.iter();
    let pictures = declared.filter(|(_, parameter)| parameter.kind == ParameterType::Picture);
    pictures
        .filter_map(|(name, _)| Some((name, parameters.get(name).filter(|path| !path.trim().is_empty())?)))
        .map(|(name, path)| {
            let refused = |reason: String| SubmissionError::Picture { parameter: name.clone(), reason };
            let path: RootPath = path.trim().parse().map_err(SubmissionError::OutputPath)?;
            let file = roots.resolve(&path).map_err(|error| refused(error.to_string()))?;
            if request.after_job_ids.is_empty() {
                roots.check_link(&file).map_err(|error| refused(error.to_string()))?;
                hearth_pictures::inspect(&file).map_err(|error| refused(hearth_telemetry::chain(&error)))?;
            }
            Ok(path)
        })
        .collect()
}
