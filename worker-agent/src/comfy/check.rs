//! Would this ComfyUI take a workflow?

use hearth_proto::v1;
use hearth_telemetry::chain;
use hearth_workflows::{Workflow, check, signatures::Signatures};

use super::client::Client;

/// What the ComfyUI would not take, a line each; or why that cannot be said.
pub async fn mismatches(client: &Client, asked: &v1::CheckWorkflow) -> Vec<String> {
    let Some(source) = &asked.source else { return vec!["no workflow was given".to_owned()] };
    let workflow = match Workflow::parse(&source.name, &source.manifest, &source.graph) {
        Ok(workflow) => workflow,
        Err(error) => return vec![chain(&error)],
    };
    let signatures = match client.object_info().await {
        Ok(object_info) => Signatures::read(&object_info),
        Err(error) => return vec![chain(&error)],
    };
    let mut wrong = Vec::new();
    for settings in &asked.settings {
        let parameters = settings.parameters.clone().into_iter().collect();
        let told = match check::mismatches(&workflow, &parameters, &signatures) {
            Ok(mismatches) => mismatches.iter().map(|mismatch| chain(mismatch)).collect(),
            Err(error) => vec![chain(&error)],
        };
        // Takes differ in little: most of what is wrong is wrong with all of them.
        let new: Vec<String> = told.into_iter().filter(|line| !wrong.contains(line)).collect();
        wrong.extend(new);
    }
    wrong
}
