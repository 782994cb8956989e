//! `hearth workflow`: the farm's library, and workflows on the way into it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use hearth_proto::v1;
use hearth_telemetry::chain;
use hearth_workflows::{
    Workflow, check,
    import::{self, Draft},
    library::{self, GRAPH_FILE, MANIFEST_FILE},
    luts::LOOKS,
    parameters::ParameterTexts,
    signatures::Signatures,
};
use serde_json::Value;

use super::out::{complain, say};
use super::{CliError, Outcome, json, tables};
use crate::FarmClient;

#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// List the workflows of the farm's library
    List,
    /// Show a workflow with its parameters, presets and needs
    Show { name: String },
    /// Make a workflow of a graph that was exported from ComfyUI
    #[command(after_help = "Examples:
  hearth workflow import my_graph.json --node http://gpu-01:8188
  hearth workflow import my_graph.json --name film-grain -o /mnt/pipeline/workflows/film-grain

What loads the clip, what saves a pass, parameters and split are guessed, and said. The graph is one in API format
(in ComfyUI: Workflow > Export (API)); one as the editor saves it needs --node or --object-info.")]
    Import {
        /// The exported graph
        graph: PathBuf,
        /// What the workflow is called [default: the file's name]
        #[arg(long)]
        name: Option<String>,
        /// The folder to write [default: the workflow's name]
        #[arg(long, short)]
        output: Option<PathBuf>,
        #[command(flatten)]
        declared: Declared,
    },
    /// Say what is wrong with a workflow
    Check {
        /// Its folder, with hearth.toml and graph.json
        folder: PathBuf,
        #[command(flatten)]
        declared: Declared,
    },
    /// Write the lookup tables of film-look, for ComfyUI's models/luts
    Luts {
        /// Where to, e.g. /opt/ComfyUI/models/luts
        folder: PathBuf,
    },
}

/// Where it is known what node classes take and give.
#[derive(Debug, Args)]
pub(crate) struct Declared {
    /// A ComfyUI that runs, e.g. http://gpu-01:8188
    #[arg(long, value_name = "URL", conflicts_with = "object_info")]
    pub(crate) node: Option<String>,
    /// What a ComfyUI has answered to /object_info
    #[arg(long, value_name = "FILE")]
    pub(crate) object_info: Option<PathBuf>,
}

pub(super) async fn run(
    client: &FarmClient,
    command: Option<WorkflowCommand>,
    as_json: bool,
) -> Result<Outcome, CliError> {
    match command.unwrap_or(WorkflowCommand::List) {
        WorkflowCommand::List => {
            let response = client.workflows().await?;
            if as_json {
                say!("{}", json::list(response.workflows.iter().map(json::workflow)));
            } else {
                say!("{}", tables::workflows(&response.workflows));
            }
            for error in &response.errors {
                complain!("hearth: {error}");
            }
        }
        WorkflowCommand::Show { name } => show(client, &name, as_json).await?,
        WorkflowCommand::Check { folder, declared } => return checked(&folder, &declared, as_json).await,
        WorkflowCommand::Import { graph, name, output, declared } => {
            imported(&graph, name, output, &declared, as_json).await?;
        }
        WorkflowCommand::Luts { folder } => luts(&folder)?,
    }
    Ok(Outcome::Fine)
}

async fn show(client: &FarmClient, name: &str, as_json: bool) -> Result<(), CliError> {
    let response = client.workflows().await?;
    let known = || response.workflows.iter().map(|workflow| workflow.name.as_str()).collect::<Vec<_>>();
    let workflow: &v1::Workflow = response
        .workflows
        .iter()
        .find(|workflow| workflow.name == name)
        .ok_or_else(|| CliError::NoWorkflow { name: name.to_owned(), known: known().join(", ") })?;
    if as_json {
        say!("{}", json::workflow(workflow));
    } else {
        say!("{}", tables::workflow(workflow));
    }
    Ok(())
}

/// Says what is wrong with the workflow in `folder`.
async fn checked(folder: &Path, declared: &Declared, as_json: bool) -> Result<Outcome, CliError> {
    let workflow = library::read_folder(folder)?;
    let Some(signatures) = signatures(declared).await? else {
        let told = "graph and manifest fit; with --node it is held against a ComfyUI's nodes, too";
        report(&workflow, &[], told, as_json);
        return Ok(Outcome::Fine);
    };
    let mut wrong = found(&workflow, "", &ParameterTexts::new(), &signatures)?;
    for (name, preset) in &workflow.manifest().presets {
        wrong.extend(found(&workflow, &format!("preset {name}: "), &preset.parameters, &signatures)?);
    }
    wrong.sort();
    wrong.dedup();
    report(&workflow, &wrong, "that ComfyUI would take it", as_json);
    Ok(if wrong.is_empty() { Outcome::Fine } else { Outcome::Told(1) })
}

fn found(
    workflow: &Workflow,
    setting: &str,
    parameters: &ParameterTexts,
    signatures: &Signatures,
) -> Result<Vec<String>, CliError> {
    let mut parameters = parameters.clone();
    // Any will do where one must be given.
    for (name, parameter) in &workflow.manifest().parameters {
        if parameter.is_required_place() {
            let ending = parameter.extensions.first().map_or("png", String::as_str);
            parameters.entry(name.clone()).or_insert_with(|| format!("root/any.{ending}"));
        }
    }
    let mismatches = check::mismatches(workflow, &parameters, signatures)?;
    Ok(mismatches.iter().map(|mismatch| format!("{setting}{}", chain(mismatch))).collect())
}

fn report(workflow: &Workflow, wrong: &[String], fine: &str, as_json: bool) {
    let name = workflow.name();
    if as_json {
        say!("{}", serde_json::json!({ "workflow": name, "wrong": wrong }));
    } else if wrong.is_empty() {
        say!("{name}: {fine}");
    } else {
        say!("{name}:\n  {}", wrong.join("\n  "));
    }
}

async fn imported(
    graph: &Path,
    name: Option<String>,
    output: Option<PathBuf>,
    declared: &Declared,
    as_json: bool,
) -> Result<(), CliError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| CliError::Read { path: path.to_owned(), source })
    };
    let text = read(graph)?;
    let stem = || graph.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(stem);
    let signatures = signatures(declared).await?;
    let draft = import::import(&name, &graph.display().to_string(), &text, signatures.as_ref())?;
    let folder = output.unwrap_or_else(|| PathBuf::from(&name));
    write(&folder, &draft)?;
    if as_json {
        let told = serde_json::json!({ "folder": folder, "notes": draft.notes });
        say!("{told}");
        return Ok(());
    }
    say!("{} written; guessed:", folder.join(MANIFEST_FILE).display());
    for note in &draft.notes {
        say!("  {note}");
    }
    if signatures.is_none() {
        say!("  ranges, choices and packages are unknown: with --node they come from a ComfyUI");
    }
    say!("finish it by hand, then: hearth workflow check {}", folder.display());
    Ok(())
}

/// Never over a workflow that somebody has finished by hand.
fn write(folder: &Path, draft: &Draft) -> Result<(), CliError> {
    for file in [MANIFEST_FILE, GRAPH_FILE] {
        if folder.join(file).exists() {
            return Err(CliError::Exists { path: folder.join(file) });
        }
    }
    keep(folder, MANIFEST_FILE, draft.workflow.manifest_text())?;
    keep(folder, GRAPH_FILE, draft.workflow.graph_text())
}

fn keep(folder: &Path, file: &str, text: &str) -> Result<(), CliError> {
    let path = folder.join(file);
    let failed = |source| CliError::Keep { path: path.clone(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    fs::write(&path, text).map_err(failed)
}

/// What a ComfyUI declares: one that runs, or one whose answer was kept.
async fn signatures(declared: &Declared) -> Result<Option<Signatures>, CliError> {
    let object_info: Value = match (&declared.node, &declared.object_info) {
        (Some(url), _) => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let away = |source| CliError::ComfyUi { url: url.clone(), source };
            let place = format!("{}/object_info", url.trim_end_matches('/'));
            let answer = reqwest::get(place).await.and_then(reqwest::Response::error_for_status);
            answer.map_err(away)?.json().await.map_err(away)?
        }
        (None, Some(path)) => {
            let failed = |source| CliError::Read { path: path.clone(), source };
            let text = fs::read_to_string(path).map_err(failed)?;
            serde_json::from_str(&text).map_err(|error| failed(error.into()))?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Signatures::read(&object_info)))
}

fn luts(folder: &Path) -> Result<(), CliError> {
    for look in &LOOKS {
        keep(folder, look.file, &look.cube())?;
        say!("{}", folder.join(look.file).display());
    }
    Ok(())
}
