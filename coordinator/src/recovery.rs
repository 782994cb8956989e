//! What a job says about itself on storage, beside its results: enough to make the farm's records again when
//! every one of them is lost.

use serde::{Deserialize, Serialize};

use crate::farm::{Assignment, FarmTag, JobSpec};

/// Written by agents as `job.json` into the folder of a job's work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobManifest {
    pub hearth_version: String,
    pub farm: FarmTag,
    pub job: u64,
    pub spec: JobSpec,
    pub workflow: WorkflowTexts,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkflowTexts {
    pub name: String,
    pub manifest: String,
    pub graph: String,
}

impl JobManifest {
    pub(crate) fn of(farm: &FarmTag, assignment: &Assignment) -> Self {
        let workflow = &assignment.workflow;
        Self {
            hearth_version: env!("CARGO_PKG_VERSION").to_owned(),
            farm: farm.clone(),
            job: assignment.attempt.job.0,
            spec: JobSpec::clone(&assignment.spec),
            workflow: WorkflowTexts {
                name: workflow.name().to_owned(),
                manifest: workflow.manifest_text().to_owned(),
                graph: workflow.graph_text().to_owned(),
            },
        }
    }

    pub(crate) fn to_json(&self) -> String {
        // Plain structs with string keys: they always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}
