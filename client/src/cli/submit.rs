//! `hearth submit`: from flags to a request.

use std::{collections::HashMap, path::Path};

use hearth_proto::v1::{self, submit_job_request::Workflow};
use hearth_storage::Roots;
use hearth_workflows::library;

use super::{CliError, flags::Submit};
use crate::FarmClient;

pub(super) async fn submit(client: &FarmClient, flags: Submit) -> Result<v1::SubmitJobResponse, CliError> {
    let roots: Roots = flags.roots.parse()?;
    let workflow = match flags.workflow_folder() {
        Some(folder) => {
            // Read here, so that a mistake in it is told before anything is sent.
            let workflow = library::read_folder(&folder)?;
            Workflow::WorkflowSource(v1::WorkflowSource {
                name: workflow.name().to_owned(),
                manifest: workflow.manifest_text().to_owned(),
                graph: workflow.graph_text().to_owned(),
            })
        }
        None => Workflow::WorkflowName(flags.workflow),
    };
    let request = v1::SubmitJobRequest {
        request_id: flags.request_id,
        name: flags.name,
        show: flags.show,
        user: flags.user,
        priority: flags.priority,
        pool: flags.pool,
        workflow: Some(workflow),
        parameters: parameters(&flags.parameters)?,
        clip: below_root(&roots, &flags.clip)?,
        frames: flags.frames,
        output: below_root(&roots, &flags.output)?,
        chunk_frames: flags.chunk_frames,
        colour_space: flags.colour_space,
    };
    Ok(client.submit(request).await?)
}

fn parameters(texts: &[String]) -> Result<HashMap<String, String>, CliError> {
    let parse = |text: &String| {
        let (name, value) = text.split_once('=').ok_or_else(|| CliError::Parameter { text: text.clone() })?;
        Ok((name.trim().to_owned(), value.to_owned()))
    };
    texts.iter().map(parse).collect()
}

/// An absolute path by the root that it lies in; anything else as it is.
fn below_root(roots: &Roots, path: &str) -> Result<String, CliError> {
    if !path.starts_with('/') {
        return Ok(path.to_owned());
    }
    roots.name_of(Path::new(path)).ok_or_else(|| CliError::NoRoot {
        path: path.to_owned(),
        roots: if roots.is_empty() {
            "none set".to_owned()
        } else {
            roots.names().collect::<Vec<_>>().join(", ")
        },
    })
}
