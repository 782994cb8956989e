//! `hearth submit`: from flags to a request.

use std::{collections::HashMap, path::Path};

use hearth_proto::v1::{self, submit_job_request::Workflow};
use hearth_storage::{
    Roots,
    manifest::{SEQUENCE_FILE, SequenceManifest},
};
use hearth_workflows::library;

use super::{
    CliError, deliver,
    flags::{EditFlags, Redo, Submit},
};

/// What the flags ask for.
pub(super) fn request(flags: Submit) -> Result<v1::SubmitJobRequest, CliError> {
    let roots: Roots = flags.roots.parse()?;
    let again = flags.again.as_deref().map(again).transpose()?;
    let workflow = match flags.workflow_folder() {
        Some(folder) => source(&folder)?,
        None if flags.workflow.is_empty() => match again.as_ref().and_then(|again| again.workflow.clone()) {
            Some(workflow) => workflow,
            // The flags are required where there is nothing to do again.
            None => Workflow::WorkflowName(flags.workflow),
        },
        None => Workflow::WorkflowName(flags.workflow),
    };
    let again = again.unwrap_or_default();
    let or = |given: String, before: String| if given.is_empty() { before } else { given };
    let mut all = again.parameters;
    all.extend(parameters(&flags.parameters, &roots)?);
    let deliveries =
        flags.deliveries.iter().map(|text| deliver::read(text, &roots)).collect::<Result<_, _>>()?;
    Ok(v1::SubmitJobRequest {
        request_id: flags.request_id,
        name: or(flags.name, again.name),
        show: or(flags.show, again.show),
        user: flags.user,
        priority: flags.priority,
        pool: or(flags.pool, again.pool),
        workflow: Some(workflow),
        parameters: all,
        clip: or(below_root(&roots, &flags.clip)?, again.clip),
        frames: or(flags.frames, again.frames),
        output: below_root(&roots, &flags.output)?,
        chunk_frames: if flags.chunk_frames == 0 { again.chunk_frames } else { flags.chunk_frames },
        colour_space: or(flags.colour_space, again.colour_space),
        takes: flags.takes,
        deliveries,
        overwrite: flags.overwrite,
        allow_clipping: flags.allow_clipping || again.allow_clipping,
        view: or(flags.view, again.view),
        anyway: flags.anyway,
        urgent: flags.urgent,
        deadline_unix_ms: deadline(&flags.deadline)?,
        min_nodes: flags.min_nodes,
        max_nodes: flags.max_nodes,
        limits: flags.limits,
        first_frames: flags.first_frames,
        early_look: flags.early_look,
        clip_of: flags.clip_of.as_deref().map(clip_of).transpose()?,
        after_job_ids: flags.after,
        no_deliveries: flags.no_deliver,
        preset: flags.preset,
        wedges: flags.wedges.iter().map(|text| wedge(text, &roots)).collect::<Result<_, _>>()?,
    })
}

/// The workflow in a folder. Read here, so that a mistake in it is told before anything is sent.
pub(super) fn source(folder: &Path) -> Result<Workflow, CliError> {
    let workflow = library::read_folder(folder)?;
    Ok(Workflow::WorkflowSource(v1::WorkflowSource {
        name: workflow.name().to_owned(),
        manifest: workflow.manifest_text().to_owned(),
        graph: workflow.graph_text().to_owned(),
    }))
}

/// A parameter and the values that are tried of it.
fn wedge(text: &str, roots: &Roots) -> Result<v1::Wedge, CliError> {
    let wrong = || CliError::Wedge { text: text.to_owned() };
    let (parameter, values) = text.split_once('=').ok_or_else(wrong)?;
    let values: Vec<String> = values.split(',').map(|value| below_a_root(value.trim(), roots)).collect();
    if values.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(v1::Wedge { parameter: parameter.trim().to_owned(), values })
}

/// A job, and after a colon one of its passes.
fn clip_of(text: &str) -> Result<v1::ClipOf, CliError> {
    let (job, pass) = text.split_once(':').unwrap_or((text, ""));
    let job_id = job.parse().map_err(|_| CliError::ClipOf { text: text.to_owned() })?;
    Ok(v1::ClipOf { job_id, pass: pass.to_owned() })
}

/// Unix time in milliseconds; 0 for none.
fn deadline(text: &str) -> Result<i64, CliError> {
    if text.is_empty() { Ok(0) } else { super::deadline::parse(text, &jiff::Zoned::now()) }
}

/// What is changed of jobs.
pub(super) fn edit(flags: EditFlags) -> Result<v1::Edit, CliError> {
    let deadline = flags.deadline.as_deref();
    let edit = v1::Edit {
        priority: flags.priority,
        pool: flags.pool,
        deadline_unix_ms: deadline
            .map(|text| self::deadline(if text == NONE { "" } else { text }))
            .transpose()?,
        min_nodes: flags.min_nodes,
        max_nodes: flags.max_nodes,
        limits: (!flags.limits.is_empty()).then(|| v1::LimitNames {
            names: flags.limits.into_iter().filter(|name| name != NONE).collect(),
        }),
        first_frames: flags.first_frames,
        frames: flags.frames,
        anyway: flags.anyway,
    };
    if edit == (v1::Edit { anyway: edit.anyway, ..v1::Edit::default() }) {
        return Err(CliError::NothingToEdit);
    }
    Ok(edit)
}

/// Takes a deadline or limits away.
const NONE: &str = "none";

/// Some frames of a finished job again, in its own place.
pub(super) fn redo(job: v1::Job, flags: Redo) -> Result<v1::SubmitJobRequest, CliError> {
    if !job.delivery.is_empty() {
        return Err(CliError::Delivers { job: job.job_id });
    }
    let mut all = job.parameters;
    all.extend(parameters(&flags.parameters, &Roots::default())?);
    Ok(v1::SubmitJobRequest {
        name: job.name,
        show: job.show,
        user: flags.user,
        priority: Some(flags.priority.unwrap_or(job.priority)),
        pool: job.pool,
        workflow: Some(Workflow::WorkflowName(job.workflow)),
        parameters: all,
        clip: job.clip,
        frames: flags.frames,
        output: job.output,
        colour_space: job.colour_space,
        view: job.view,
        overwrite: true,
        no_deliveries: true,
        // As it was before.
        allow_clipping: true,
        anyway: true,
        ..v1::SubmitJobRequest::default()
    })
}

/// What made the sequence at `path`.
fn again(path: &Path) -> Result<v1::SubmitJobRequest, CliError> {
    let folder = if path.ends_with(SEQUENCE_FILE) { path.parent().unwrap_or(path) } else { path };
    let manifest = SequenceManifest::read(folder);
    let Some((before, manifest)) =
        manifest.and_then(|mut manifest| Some((manifest.submission.take()?, manifest)))
    else {
        return Err(CliError::NoManifest { path: path.to_owned() });
    };
    Ok(v1::SubmitJobRequest {
        name: before.name,
        show: before.show,
        pool: before.pool,
        workflow: Some(Workflow::WorkflowSource(v1::WorkflowSource {
            name: before.workflow_name,
            manifest: before.workflow_manifest,
            graph: before.workflow_graph,
        })),
        parameters: manifest.parameters.into_iter().collect(),
        clip: manifest.clip,
        frames: before.frames,
        chunk_frames: before.chunk_frames,
        colour_space: before.colour_space,
        view: before.view,
        // As it was before.
        allow_clipping: true,
        ..v1::SubmitJobRequest::default()
    })
}

/// A value may be a picture, named by its path on this host.
pub(super) fn parameters(texts: &[String], roots: &Roots) -> Result<HashMap<String, String>, CliError> {
    let parse = |text: &String| {
        let (name, value) = text.split_once('=').ok_or_else(|| CliError::Parameter { text: text.clone() })?;
        Ok((name.trim().to_owned(), below_a_root(value, roots)))
    };
    texts.iter().map(parse).collect()
}

/// An absolute path that lies in a root by that root; anything else as it is: a value need not be a path.
fn below_a_root(value: &str, roots: &Roots) -> String {
    let named = roots.name_of(Path::new(value)).filter(|_| value.starts_with('/'));
    named.unwrap_or_else(|| value.to_owned())
}

/// An absolute path by the root that it lies in; anything else as it is.
pub(super) fn below_root(roots: &Roots, path: &str) -> Result<String, CliError> {
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
