//! `hearth batch`: several clips as one submission, watched and controlled as one.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::IsTerminal as _,
    path::Path,
    time::Duration,
};

use clap::{Args, Subcommand};
use hearth_proto::v1::{self, JobState, control_batch_request::Action, submit_job_request::Workflow};
use hearth_storage::Roots;
use hearth_workflows::SequencePath;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::out::{complain, say};
use super::{
    CliError, Outcome, deliver,
    flags::workflow_folder,
    json, preflight,
    submit::{below_root, parameters, source},
    tables,
};
use crate::FarmClient;

#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// Submit all jobs of a file, or every clip in a folder: all of them are taken, or none, unless --leave-out-wrong
    Submit(Box<BatchSubmit>),
    /// Show the jobs of a batch
    Show { batch: u64 },
    /// Follow all jobs of a batch to their end
    Watch { batch: u64 },
    /// Hand out no new chunk of any of its jobs; running ones go on
    Pause { batch: u64 },
    /// Go on with its paused jobs
    Resume { batch: u64 },
    /// Stop all of its jobs; what they have rendered is kept for a while, in which retry goes on with them
    Cancel { batch: u64 },
    /// Try the failed frames of all of its jobs again
    Retry { batch: u64 },
    /// Change the priority of all of its jobs
    Priority {
        batch: u64,
        /// 0 (whenever) to 100 (first)
        priority: u32,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hearth batch submit tonight.toml --watch
  hearth batch submit plates/dune -w film-look --preset vision3 -o 'comps/dune/{clip}_v###'

A batch file, in TOML or, with the same names, in JSON:
  [defaults]                      # holds for every job that does not say otherwise
  show = \"dune\"
  workflow = \"film-look\"

  [[job]]
  clip = \"plates/sh010/plate.%04d.exr\"
  output = \"comps/sh010/grade_v###\"

  [[job]]
  clip = \"plates/sh020/plate.%04d.exr\"
  output = \"comps/sh020/key_v###\"
  workflow = \"chroma-key\"
  preset = \"hair\"
  parameters = { screen = \"blue\" }
  deliver = [\"h264\"]

A job also takes frames, name, pool, user, priority, urgent, colour_space, view, allow_clipping, chunk_frames and takes; deliver = [] leaves out
what the workflow usually delivers. A batch is called by the number of its first job; the number of any of them will do.")]
pub(crate) struct BatchSubmit {
    /// A file that ends in .toml or .json, or a folder of the farm's storage, e.g. plates/dune: every clip in it and
    /// below, but for folders that are links
    pub(crate) from: String,
    /// Workflow of jobs that name none
    #[arg(long, short, default_value = "", hide_default_value = true)]
    pub(crate) workflow: String,
    /// Preset of jobs that name none
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) preset: String,
    /// A parameter of jobs that do not set it themselves, as name=value; can be given several times
    #[arg(long = "param", short)]
    pub(crate) parameters: Vec<String>,
    /// Output of jobs that name none; {clip} stands for the clip's name, {folder} for the folder it lies in
    #[arg(long, short, default_value = "", hide_default_value = true)]
    pub(crate) output: String,
    /// The show it is for
    #[arg(long, env = "HEARTH_SHOW", default_value = "", hide_default_value = true)]
    pub(crate) show: String,
    /// Who it is for
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// 0 (whenever) to 100 (first)
    #[arg(long)]
    pub(crate) priority: Option<u32>,
    /// This host's storage roots, to understand absolute paths
    #[arg(long, env = "HEARTH_ROOTS", default_value = "", hide_default_value = true)]
    pub(crate) roots: String,
    /// What clips hold below 0 and above 1 may be cut off, in jobs that do not say otherwise
    #[arg(long)]
    pub(crate) allow_clipping: bool,
    /// How light is brought between 0 and 1 and had back, as in `hearth submit`, in jobs that do not say otherwise
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) view: String,
    /// Pools may be ones that the farm does not have yet
    #[arg(long)]
    pub(crate) anyway: bool,
    /// Leave out jobs that are wrong, such as clips with gaps, and submit the others
    #[arg(long)]
    pub(crate) leave_out_wrong: bool,
    /// Say what would become of each job, and submit nothing
    #[arg(long, conflicts_with_all = ["watch", "leave_out_wrong"])]
    pub(crate) dry_run: bool,
    /// Follow the jobs to their end
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Clips of one folder and what lies below it.
const MOST_CLIPS: usize = 1_000;

/// Between two looks at a batch that is watched.
const LOOK: Duration = Duration::from_millis(500);

/// Looks between two lines where there is no terminal.
const LOOKS_A_LINE: u32 = 10;

/// A batch as a file says it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Entry,
    #[serde(default, rename = "job")]
    jobs: Vec<Entry>,
}

/// One job of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    clip: String,
    workflow: String,
    output: String,
    preset: String,
    parameters: BTreeMap<String, Scalar>,
    frames: String,
    name: String,
    show: String,
    user: String,
    pool: String,
    colour_space: String,
    view: String,
    priority: Option<u32>,
    urgent: Option<bool>,
    allow_clipping: Option<bool>,
    chunk_frames: Option<u32>,
    takes: Option<u32>,
    /// Empty: not even what the workflow usually delivers.
    deliver: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(on) => on.fmt(f),
        }
    }
}

impl Entry {
    /// What it does not say itself, `defaults` say.
    fn or(mut self, defaults: &Self) -> Self {
        let pairs = [
            (&mut self.workflow, &defaults.workflow),
            (&mut self.output, &defaults.output),
            (&mut self.preset, &defaults.preset),
            (&mut self.frames, &defaults.frames),
            (&mut self.show, &defaults.show),
            (&mut self.user, &defaults.user),
            (&mut self.pool, &defaults.pool),
            (&mut self.colour_space, &defaults.colour_space),
            (&mut self.view, &defaults.view),
        ];
        for (own, default) in pairs {
            if own.is_empty() {
                own.clone_from(default);
            }
        }
        for (name, value) in &defaults.parameters {
            self.parameters.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self.priority = self.priority.or(defaults.priority);
        self.urgent = self.urgent.or(defaults.urgent);
        self.allow_clipping = self.allow_clipping.or(defaults.allow_clipping);
        self.chunk_frames = self.chunk_frames.or(defaults.chunk_frames);
        self.takes = self.takes.or(defaults.takes);
        self.deliver = self.deliver.or_else(|| defaults.deliver.clone());
        self
    }

    /// Makes a workflow that is named by its folder absolute: folders in a file are beside it.
    fn beside(mut self, base: &Path) -> Self {
        if let Some(folder) = workflow_folder(&self.workflow, base) {
            let folder = std::path::absolute(&folder).unwrap_or(folder);
            self.workflow = folder.display().to_string();
        }
        self
    }

    /// `place`: the job's place in the batch, from 1, for messages.
    fn request(self, place: usize, roots: &Roots) -> Result<v1::SubmitJobRequest, CliError> {
        for (what, text) in [("workflow", &self.workflow), ("output", &self.output)] {
            if text.is_empty() {
                return Err(CliError::Incomplete { job: place, what });
            }
        }
        let clip = below_root(roots, &self.clip)?;
        let output = named(&below_root(roots, &self.output)?, &clip);
        // A folder is absolute by now; a name is one of the farm's library, whatever lies here.
        let workflow = match Path::new(&self.workflow) {
            folder if folder.is_absolute() => source(folder)?,
            _ => Workflow::WorkflowName(self.workflow),
        };
        let texts: Vec<String> =
            self.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let no_deliveries = self.deliver.as_ref().is_some_and(Vec::is_empty);
        let deliveries = self.deliver.iter().flatten().map(|text| deliver::read(text, roots));
        Ok(v1::SubmitJobRequest {
            workflow: Some(workflow),
            clip,
            output,
            preset: self.preset,
            parameters: parameters(&texts, roots)?.into_iter().collect::<HashMap<_, _>>(),
            frames: self.frames,
            name: self.name,
            show: self.show,
            user: self.user,
            pool: self.pool,
            priority: self.priority,
            urgent: self.urgent.unwrap_or(false),
            allow_clipping: self.allow_clipping.unwrap_or(false),
            colour_space: self.colour_space,
            view: self.view,
            chunk_frames: self.chunk_frames.unwrap_or(0),
            takes: self.takes.unwrap_or(1),
            deliveries: deliveries.collect::<Result<_, _>>()?,
            no_deliveries,
            ..v1::SubmitJobRequest::default()
        })
    }
}

/// `{clip}` and `{folder}` in an output: the clip's name, and the folder that it lies in.
fn named(output: &str, clip: &str) -> String {
    let Ok(sequence) = clip.parse::<SequencePath>() else { return output.to_owned() };
    let folder = sequence.folder_below_root().rsplit('/').next().unwrap_or_default().to_owned();
    output.replace("{clip}", sequence.name().stem()).replace("{folder}", &folder)
}

pub(super) async fn run(
    client: &FarmClient,
    command: BatchCommand,
    as_json: bool,
) -> Result<Outcome, CliError> {
    let (batch, action) = match command {
        BatchCommand::Submit(flags) => return submit(client, *flags, as_json).await,
        BatchCommand::Watch { batch } => return watch(client, batch, as_json).await,
        BatchCommand::Show { batch } => {
            show(&client.batch(batch).await?, as_json);
            return Ok(Outcome::Fine);
        }
        BatchCommand::Pause { batch } => (batch, Action::Pause(v1::Pause {})),
        BatchCommand::Resume { batch } => (batch, Action::Resume(v1::Resume {})),
        BatchCommand::Cancel { batch } => (batch, Action::Cancel(v1::Cancel::default())),
        BatchCommand::Retry { batch } => (batch, Action::Retry(v1::Retry {})),
        BatchCommand::Priority { batch, priority } => {
            (batch, Action::SetPriority(v1::SetPriority { priority }))
        }
    };
    show(&client.control_batch(batch, action).await?, as_json);
    Ok(Outcome::Fine)
}

fn show(jobs: &[v1::Job], as_json: bool) {
    if as_json {
        say!("{}", json::list(jobs.iter().map(json::job)));
    } else {
        say!("{}\n{}", tables::jobs(jobs), tables::batch(jobs));
    }
}

async fn submit(client: &FarmClient, flags: BatchSubmit, as_json: bool) -> Result<Outcome, CliError> {
    let roots: Roots = flags.roots.parse()?;
    let given = parameters(&flags.parameters, &roots)?;
    let flagged = Entry {
        workflow: flags.workflow,
        preset: flags.preset,
        output: flags.output,
        parameters: given.into_iter().map(|(name, value)| (name, Scalar::Text(value))).collect(),
        show: flags.show,
        user: flags.user,
        priority: flags.priority,
        allow_clipping: flags.allow_clipping.then_some(true),
        view: flags.view,
        ..Entry::default()
    };
    let flagged = flagged.beside(Path::new(""));
    let path = Path::new(&flags.from);
    let is_file = path.extension().is_some_and(|extension| extension == "toml" || extension == "json");
    let entries: Vec<Entry> = if is_file {
        let base = path.parent().unwrap_or(Path::new(""));
        let File { defaults, jobs } = read(path)?;
        let defaults = defaults.beside(base).or(&flagged);
        jobs.into_iter().map(|job| job.beside(base).or(&defaults)).collect()
    } else {
        let (clips, links) = clips(client, &below_root(&roots, &flags.from)?).await?;
        if !links.is_empty() {
            complain!("hearth: {} clips in {}{}", clips.len(), flags.from, left_out(&links));
        }
        clips.into_iter().map(|clip| Entry { clip, ..flagged.clone() }).collect()
    };
    let anyway = flags.anyway;
    let jobs = entries.into_iter().enumerate().map(|(index, entry)| {
        Ok::<_, CliError>(v1::SubmitJobRequest { anyway, ..entry.request(index + 1, &roots)? })
    });
    let jobs = jobs.collect::<Result<Vec<_>, _>>()?;
    if flags.dry_run {
        let responses = client.check_batch(jobs).await?;
        if as_json {
            say!("{}", json::list(responses.iter().map(json::preflight)));
        } else {
            say!("{}\nnothing was submitted", preflight::batch(&responses));
        }
        return Ok(Outcome::Fine);
    }
    let request =
        v1::SubmitBatchRequest { request_id: String::new(), jobs, leave_out_wrong: flags.leave_out_wrong };
    let response = client.submit_batch(request).await?;
    response.left_out.iter().for_each(|line| complain!("left out: {line}"));
    let batch = response.jobs.first().map_or(0, |job| job.job_id);
    if flags.watch {
        let ended = watch(client, batch, as_json).await?;
        let is_fine = matches!(ended, Outcome::Fine);
        return Ok(if is_fine && !response.left_out.is_empty() { Outcome::Told(1) } else { ended });
    }
    show(&response.jobs, as_json);
    if !as_json {
        say!("follow it with: hearth batch watch {batch}");
    }
    Ok(if response.left_out.is_empty() { Outcome::Fine } else { Outcome::Told(1) })
}

fn read(path: &Path) -> Result<File, CliError> {
    let text = fs::read_to_string(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let wrong = |message: String| CliError::BatchFile { path: path.display().to_string(), message };
    let file: File = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?
    } else {
        toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?
    };
    if file.jobs.is_empty() {
        return Err(wrong("no [[job]] in it".to_owned()));
    }
    Ok(file)
}

/// The clips in a folder of the farm's storage, and below it; and the folders that are links, which are left out.
async fn clips(client: &FarmClient, folder: &str) -> Result<(Vec<String>, Vec<String>), CliError> {
    let folder = folder.trim_end_matches('/');
    let mut open = vec![folder.to_owned()];
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    while let Some(inside) = open.pop() {
        let response = client.clips(&inside).await?;
        found.extend(response.clips.into_iter().map(|clip| clip.pattern));
        // "current" is a link to a version that is there as well.
        let links = response.linked_folders;
        left_out.extend(links.iter().map(|name| format!("{inside}/{name}")));
        let folders = response.folders.into_iter().filter(|name| !links.contains(name));
        open.extend(folders.map(|name| format!("{inside}/{name}")));
        if found.len() > MOST_CLIPS || open.len() > MOST_CLIPS {
            let message = format!("more than {MOST_CLIPS} clips or folders; submit it in parts");
            return Err(CliError::BatchFile { path: folder.to_owned(), message });
        }
    }
    if found.is_empty() {
        return Err(CliError::NoClips { folder: folder.to_owned(), links: left_out });
    }
    found.sort();
    Ok((found, left_out))
}

/// For people who look for a clip that is not there.
pub(super) fn left_out(links: &[String]) -> String {
    const TOLD: usize = 5;
    let more = links.len().saturating_sub(TOLD);
    match (links.len(), links[..links.len() - more].join(", ")) {
        (0, _) => String::new(),
        (_, told) if more == 0 => format!("; folders that are links are left out: {told}"),
        (_, told) => format!("; folders that are links are left out: {told} and {more} more"),
    }
}

/// All jobs on one bar, until the last has ended.
async fn watch(client: &FarmClient, batch: u64, as_json: bool) -> Result<Outcome, CliError> {
    let terminal = std::io::stderr().is_terminal() && !as_json;
    let bar = terminal.then(|| {
        let style = ProgressStyle::with_template("{prefix:20!} {bar:30.green} {msg}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let mut looks = 0;
    let jobs = loop {
        let jobs = client.batch(batch).await?;
        let ended = jobs.iter().all(has_ended);
        let line = tables::batch(&jobs);
        if let Some(bar) = &bar {
            let counts = jobs.iter().filter_map(|job| job.counts);
            let (done, total) =
                counts.fold((0, 0), |(done, total), counts| (done + counts.done, total + counts.total));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_prefix(format!("batch {batch}"));
            bar.set_message(line);
        } else if looks % LOOKS_A_LINE == 0 && !ended {
            if as_json {
                say!("{}", serde_json::json!({ "event": "batch", "batch": batch, "state": line }));
            } else {
                complain!("{line}");
            }
        }
        if ended {
            break jobs;
        }
        looks += 1;
        tokio::time::sleep(LOOK).await;
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    show(&jobs, as_json);
    let any = |state: JobState| jobs.iter().any(|job| job.state() == state);
    Ok(match () {
        () if any(JobState::Failed) => Outcome::JobFailed,
        () if any(JobState::Partial) => Outcome::JobPartial,
        () if any(JobState::Cancelled) => Outcome::JobCancelled,
        () => Outcome::Fine,
    })
}

fn has_ended(job: &v1::Job) -> bool {
    matches!(job.state(), JobState::Done | JobState::Failed | JobState::Partial | JobState::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_says_what_its_batch_does_not() {
        let text = r#"
            [defaults]
            workflow = "film-look"
            parameters = { grain = 0.3, look = "noir" }
            deliver = ["h264"]
            [[job]]
            clip = "plates/sh010/plate.%04d.exr"
            output = "comps/{folder}/{clip}_v###"
            [[job]]
            clip = "plates/sh020/plate.%04d.exr"
            output = "comps/x"
            workflow = "chroma-key"
            parameters = { grain = 1 }
            deliver = []
        "#;
        let File { defaults, jobs } = toml::from_str(text).expect("a batch");
        let roots = Roots::default();
        let requests: Vec<_> =
            jobs.into_iter().map(|job| job.or(&defaults).request(1, &roots).expect("a request")).collect();
        assert_eq!(requests[0].output, "comps/sh010/plate_v###");
        assert_eq!(requests[0].parameters["grain"], "0.3");
        assert_eq!(requests[0].deliveries[0].format, "h264");
        assert!(!requests[0].no_deliveries && requests[1].no_deliveries && requests[1].deliveries.is_empty());
        assert_eq!(requests[1].workflow, Some(Workflow::WorkflowName("chroma-key".to_owned())));
        assert_eq!(
            (requests[1].parameters["grain"].as_str(), requests[1].parameters["look"].as_str()),
            ("1", "noir")
        );
        assert!(
            toml::from_str::<File>("[[job]]\nclipp = \"x\"")
                .expect_err("a typo")
                .to_string()
                .contains("clipp")
        );
        let bare = Entry { clip: "plates/x.%04d.png".to_owned(), ..Entry::default() };
        let told = bare.request(3, &roots).expect_err("incomplete").to_string();
        assert_eq!(
            told,
            "job 3 of the batch has no workflow; name one in it, among the defaults, or as a flag"
        );
    }
}
