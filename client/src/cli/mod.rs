//! The `hearth` command: tables for people, `--json` for programs.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the job failed, 4 the job was cancelled, 5 no
//! coordinator answers, 6 the job is done but for frames that failed.

mod batch;
mod chosen;
mod deadline;
mod deliver;
mod flags;
mod json;
mod media;
mod out;
mod preflight;
mod preset;
mod progress;
mod submit;
mod tables;
mod workflow;

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser as _};
use hearth_proto::v1::{
    self, JobState, control_job_request::Action, control_node_request::Action as NodeAction,
    watch_job_response::Update,
};
use hearth_telemetry::{Logs, LogsError, chain};
use tracing::Instrument as _;

use crate::{ClientError, FarmClient};
use chosen::Deed;
use flags::{Command, Flags, NodesCommand};
use out::{complain, say};
pub use progress::Progress;

/// Why the command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Workflow(#[from] hearth_workflows::WorkflowError),
    #[error("'{text}' is no deadline; write it as +8h, +90m, 18:00, 2026-11-23 or 2026-11-23 18:00")]
    Deadline { text: String },
    #[error("nothing to change is given; see hearth edit --help")]
    NothingToEdit,
    #[error("'{text}' is no job; write its number, and after a colon one of its passes: 12 or 12:depth")]
    ClipOf { text: String },
    #[error("'{text}' is no wedge; write it as name=value,value,value")]
    Wedge { text: String },
    #[error("'{text}' is no parameter; write it as name=value")]
    Parameter { text: String },
    #[error(
        "{path} lies in none of the storage roots ({roots}); name it by its root, e.g. plates/sh010/plate.%04d.png, or set HEARTH_ROOTS"
    )]
    NoRoot { path: String, roots: String },
    #[error("{path} has no manifest of Hearth's that says what made it")]
    NoManifest { path: std::path::PathBuf },
    #[error(transparent)]
    Roots(#[from] hearth_storage::RootsError),
    #[error(transparent)]
    Delivery(#[from] hearth_workflows::format::UnknownName),
    #[error(transparent)]
    Import(#[from] hearth_workflows::import::ImportError),
    #[error("{path}: {message}")]
    BatchFile { path: String, message: String },
    #[error("no preset {name}; `hearth preset list` lists yours, with --show those of a show")]
    NoPreset { name: String },
    #[error("'{text}' names no version of a preset; write it like soft@3")]
    PresetVersion { text: String },
    #[error("no clips in {folder} or below it{}", batch::left_out(.links))]
    NoClips { folder: String, links: Vec<String> },
    #[error("job {job} of the batch has no {what}; name one in it, among the defaults, or as a flag")]
    Incomplete { job: usize, what: &'static str },
    #[error("no workflow '{name}'; the farm has {known}")]
    NoWorkflow { name: String, known: String },
    #[error("job {job} delivers a sequence; name the job that makes it")]
    Delivers { job: u64 },
    #[error("{count} jobs are like that; {verb} them with --yes")]
    Unasked { count: usize, verb: &'static str },
    #[error("{count} jobs are like that, and {most} are changed at most; name fewer of them")]
    TooManyJobs { count: u64, most: u32 },
    #[error("cannot read {path}")]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error("{path} exists already; remove it, or name another folder with --output")]
    Exists { path: std::path::PathBuf },
    #[error("the ComfyUI at {url} does not say what its nodes take; look whether it runs")]
    ComfyUi { url: String, source: reqwest::Error },
    #[error("cannot keep {path}")]
    Keep { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Logs(#[from] LogsError),
    #[error("{program} cannot be run; install it beside hearth, or put it on the path")]
    Coordinator { program: std::path::PathBuf, source: std::io::Error },
}

/// How a command ended when nothing went wrong with the command itself.
enum Outcome {
    Fine,
    JobFailed,
    JobCancelled,
    /// Done but for some frames.
    JobPartial,
    /// Another program has said why, with this code.
    Told(u8),
}

/// How long a command waits for its coordinator: one that starts anew, or takes the lead, needs some seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command line.
pub async fn main() -> ExitCode {
    let flags = Flags::parse();
    let json = flags.json;
    match run(flags).await {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Told(code)) => ExitCode::from(code),
        Ok(Outcome::JobFailed) => ExitCode::from(3),
        Ok(Outcome::JobCancelled) => ExitCode::from(4),
        Ok(Outcome::JobPartial) => ExitCode::from(6),
        Err(error) => {
            let text = chain(&error);
            if json {
                complain!("{}", serde_json::json!({ "error": text }));
            } else {
                complain!("hearth: {text}");
            }
            match error {
                CliError::Client(ClientError::Unreachable { .. }) => ExitCode::from(5),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(flags: Flags) -> Result<Outcome, CliError> {
    let Flags { coordinator, json, otlp_endpoint, command } = flags;
    let _logs = Logs { service: "hearth", level: "warn", otlp_endpoint, ..Logs::default() }.install()?;
    let client = FarmClient::new(&coordinator)?.patient(PATIENCE, |url| {
        if std::io::stderr().is_terminal() {
            complain!("no coordinator answers at {url}; trying for {} s", PATIENCE.as_secs());
        }
    });
    match command {
        Command::Submit(submit) => {
            let watch = submit.watch;
            let span = tracing::info_span!("hearth submit", clip = submit.clip, "otel.kind" = "client");
            let dry_run = submit.dry_run;
            let request = submit::request(*submit)?;
            if dry_run {
                let response = client.check(request).instrument(span).await?;
                if json {
                    say!("{}", json::preflight(&response));
                } else {
                    say!("{}\nnothing was submitted", preflight::job(&response));
                }
                return Ok(Outcome::Fine);
            }
            let response = client.submit(request).instrument(span).await?;
            response.warnings.iter().for_each(|warning| complain!("warning: {warning}"));
            return submitted(&client, &response.jobs, watch, json).await;
        }
        Command::Preset { command } => return preset::run(&client, command, json).await,
        Command::Batch { command } => return batch::run(&client, command, json).await,
        Command::Jobs { all, show, user, state, text, limit } => {
            let active_only = !all && state.is_empty();
            let states = state.into_iter().map(Into::into).collect();
            let request = v1::ListJobsRequest { limit, show, user, active_only, states, text };
            let response = client.jobs(request).await?;
            if json {
                say!("{}", json::list(response.jobs.iter().map(json::job)));
            } else if response.jobs.is_empty() {
                say!("no {}jobs; submit one with: hearth submit", if all { "" } else { "active " });
            } else {
                say!("{}", tables::jobs(&response.jobs));
                let hidden = response.total.saturating_sub(response.jobs.len() as u64);
                if hidden > 0 {
                    say!("and {hidden} more; see them with --limit");
                }
            }
        }
        Command::Deliver(deliver) => {
            let watch = deliver.watch;
            let response = deliver::deliver(&client, *deliver).await?;
            return submitted(&client, &response.jobs, watch, json).await;
        }
        Command::Clips { folder } => media::clips(&client, &folder, json).await?,
        Command::Job { job, open: true } => media::open(&client, job).await?,
        Command::Job { job, open: false } => {
            let job = client.job(job).await?;
            show_job(&job, json, |job| say!("{}", tables::job(job)));
        }
        Command::Why { job } => {
            let sentence = client.explain(job).await?;
            if json {
                say!("{}", serde_json::json!({ "job": job, "why": sentence }));
            } else {
                say!("job {job}: {sentence}");
            }
        }
        Command::Watch { job } => return follow(&client, job, json).await,
        Command::Pause(jobs) => return chosen::run(&client, jobs, Deed::Pause, json).await,
        Command::Resume(jobs) => return chosen::run(&client, jobs, Deed::Resume, json).await,
        Command::Cancel { jobs, remove } => {
            let deed = if remove { Deed::Remove } else { Deed::Cancel };
            return chosen::run(&client, jobs, deed, json).await;
        }
        Command::Retry(jobs) => return chosen::run(&client, jobs, Deed::Retry, json).await,
        Command::Edit(edit) => {
            let deed = Deed::Edit(Box::new(submit::edit(edit.change)?));
            return chosen::run(&client, edit.jobs, deed, json).await;
        }
        Command::Redo(redo) => {
            let (watch, job) = (redo.watch, client.job(redo.job).await?);
            let response = client.submit(submit::redo(job, redo)?).await?;
            response.warnings.iter().for_each(|warning| complain!("warning: {warning}"));
            return submitted(&client, &response.jobs, watch, json).await;
        }
        Command::Priority { job, priority } => {
            control(&client, job, Action::SetPriority(v1::SetPriority { priority }), json).await?;
        }
        Command::Nodes { command: Some(NodesCommand::Refresh { node }) } => {
            client.refresh_nodes(node.as_deref()).await?;
        }
        Command::Nodes { command: None } => {
            let nodes = client.nodes().await?;
            if json {
                say!("{}", json::list(nodes.iter().map(json::node)));
            } else if nodes.is_empty() {
                say!("no nodes; start hearth-agent beside a ComfyUI");
            } else {
                say!("{}", tables::nodes(&nodes));
            }
        }
        Command::Drain { node } => {
            control_node(&client, &node, NodeAction::Drain(v1::Drain {}), json).await?;
        }
        Command::Undrain { node } => {
            control_node(&client, &node, NodeAction::Undrain(v1::Undrain {}), json).await?;
        }
        Command::Workflow { command } => return workflow::run(&client, command, json).await,
        Command::Farm { arguments } => return farm(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Flags::command(), "hearth", &mut std::io::stdout());
        }
    }
    Ok(Outcome::Fine)
}

/// Says which jobs there are now, or follows them.
async fn submitted(
    client: &FarmClient,
    jobs: &[v1::Job],
    watch: bool,
    json: bool,
) -> Result<Outcome, CliError> {
    let mut outcome = Outcome::Fine;
    // What works on their result would be watched for ever.
    let mut unfinished = Vec::new();
    for job in jobs {
        if let Some(awaited) = job.after_job_ids.iter().find(|awaited| unfinished.contains(*awaited)) {
            say!("job {} waits for job {awaited}", job.job_id);
            continue;
        }
        if watch {
            let ended = follow(client, job.job_id, json).await?;
            if !matches!(ended, Outcome::Fine) {
                unfinished.push(job.job_id);
            }
            outcome = if matches!(outcome, Outcome::Fine) { ended } else { outcome };
            continue;
        }
        show_job(job, json, |job| {
            say!("job {}: {} of {} frames, {}", job.job_id, job.name, total(job), tables::what(job));
        });
    }
    if let (Some(job), false, false) = (jobs.first(), watch, json) {
        say!("watch it with: hearth watch {}", job.job_id);
    }
    Ok(outcome)
}

/// The store is the coordinator's: its program, beside this one or on the path, does the work.
fn farm(arguments: &[std::ffi::OsString]) -> Result<Outcome, CliError> {
    const PROGRAM: &str = "hearth-coordinator";
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| PROGRAM.into());
    let status = std::process::Command::new(&program).arg("farm").args(arguments).status();
    let status = status.map_err(|source| CliError::Coordinator { program, source })?;
    Ok(if status.success() { Outcome::Fine } else { Outcome::Told(status.code().unwrap_or(1) as u8) })
}

/// Follows a job to its end: bars on a terminal, lines elsewhere, JSON lines for programs.
async fn follow(client: &FarmClient, job_id: u64, json: bool) -> Result<Outcome, CliError> {
    let mut watch = client.watch(job_id, false);
    let mut progress = (!json).then(|| Progress::new(std::io::stderr().is_terminal()));
    let mut last = v1::Job::default();
    while let Some(update) = watch.next().await? {
        match (&mut progress, &update) {
            (None, update) => say!("{}", json::update(update)),
            (Some(progress), Update::Job(job)) => progress.job(job),
            (Some(progress), Update::Failure(failure)) => progress.failure(failure),
            (Some(_), Update::ChunkFinished(_) | Update::Preview(_)) => {}
        }
        if let Update::Job(job) = update {
            last = job;
        }
    }
    if let Some(progress) = progress {
        progress.finish();
        say!("{}", tables::ending(&last));
    }
    Ok(match last.state() {
        JobState::Failed => Outcome::JobFailed,
        JobState::Partial => Outcome::JobPartial,
        JobState::Cancelled => Outcome::JobCancelled,
        _ => Outcome::Fine,
    })
}

async fn control(client: &FarmClient, job: u64, action: Action, json: bool) -> Result<(), CliError> {
    let job = client.control(job, action).await?;
    show_job(&job, json, |job| {
        say!("job {} ({}) is {}", job.job_id, job.name, tables::state_name(job.state()));
    });
    Ok(())
}

async fn control_node(
    client: &FarmClient,
    name: &str,
    action: NodeAction,
    json: bool,
) -> Result<(), CliError> {
    let node = client.control_node(name, action).await?;
    if json {
        say!("{}", json::node(&node));
    } else {
        say!("node {} is {}", node.name, tables::node_state_name(node.state()));
    }
    Ok(())
}

fn show_job(job: &v1::Job, json: bool, people: impl FnOnce(&v1::Job)) {
    if json {
        say!("{}", json::job(job));
    } else {
        people(job);
    }
}

fn total(job: &v1::Job) -> u64 {
    job.counts.unwrap_or_default().total
}
