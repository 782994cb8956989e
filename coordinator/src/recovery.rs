//! What a job says about itself on storage, beside its results: enough to make the farm's records again when
//! every one of them is lost.

use std::{fs, io, path::PathBuf};

use hearth_storage::manifest::JOB_FILE;
use hearth_workflows::{Workflow, WorkflowError};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::farm::{FarmTag, JobId, JobSpec};

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
    pub(crate) fn of(farm: &FarmTag, job: JobId, spec: &JobSpec, workflow: &Workflow) -> Self {
        Self {
            hearth_version: env!("CARGO_PKG_VERSION").to_owned(),
            farm: farm.clone(),
            job: job.0,
            spec: spec.clone(),
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

impl WorkflowTexts {
    pub(crate) fn parse(&self) -> Result<Workflow, WorkflowError> {
        Workflow::parse(&self.name, &self.manifest, &self.graph)
    }
}

/// Every job whose unfinished work lies below `folders`. An error names the folder that cannot be read.
pub(crate) fn find(folders: &[PathBuf]) -> Result<Vec<(PathBuf, JobManifest)>, (PathBuf, io::Error)> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.to_vec();
    while let Some(folder) = waiting.pop() {
        let failed = |error| (folder.clone(), error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Links are not followed: they may lead in circles.
            if !entry.file_type().map_err(failed)?.is_dir() {
                continue;
            }
            let path = entry.path();
            if !entry.file_name().to_string_lossy().starts_with(".hearth-") {
                waiting.push(path);
                continue;
            }
            let manifest = fs::read(path.join(JOB_FILE)).ok();
            match manifest.and_then(|bytes| serde_json::from_slice::<JobManifest>(&bytes).ok()) {
                Some(job) => found.push((path, job)),
                None => warn!(folder = %path.display(), "has no readable {JOB_FILE}; it is left alone"),
            }
        }
    }
    found.sort_by_key(|(_, job)| job.job);
    Ok(found)
}
