//! Which jobs a command is for: their numbers, or what they have in common. What is done to many jobs, to other
//! people's, or to finished frames is said first, and on a terminal asked.

use std::io::{BufRead as _, IsTerminal as _};

use clap::Args;
use hearth_proto::v1::{self, JobState, control_job_request::Action};

use super::{
    CliError, Outcome,
    out::{complain, say},
    show_job, tables,
};
use crate::FarmClient;

/// Jobs that one command changes at most; no more are listed at a time.
const MOST: u32 = 1_000;

/// Jobs that a question names.
const NAMED: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// Numbers of jobs
    #[arg(required_unless_present_any = ["show", "of_user", "state", "text"], conflicts_with_all = ["show", "of_user", "state", "text"])]
    jobs: Vec<u64>,
    /// All jobs of this show
    #[arg(long)]
    show: Option<String>,
    /// All jobs of this user
    #[arg(long = "user", value_name = "USER")]
    of_user: Option<String>,
    /// All jobs in these states, e.g. waiting,paused
    #[arg(long, value_delimiter = ',', value_parser = state)]
    state: Vec<JobState>,
    /// All jobs in whose name, clip, output or workflow this stands
    #[arg(long)]
    text: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// A state by the name that tables give it.
pub(crate) fn state(text: &str) -> Result<JobState, String> {
    let states = (1..).map_while(|number| JobState::try_from(number).ok());
    let names = states.clone().map(tables::state_name);
    let known = names.collect::<Vec<_>>().join(", ");
    let mut states = states;
    states.find(|state| tables::state_name(*state) == text.trim()).ok_or_else(|| format!("there are {known}"))
}

/// What is done to jobs that were chosen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Deed {
    Pause,
    Resume,
    Cancel,
    /// Cancels, and keeps nothing.
    Remove,
    Retry,
    Edit(Box<v1::Edit>),
}

impl Deed {
    fn action(&self) -> Action {
        match self {
            Self::Pause => Action::Pause(v1::Pause {}),
            Self::Resume => Action::Resume(v1::Resume {}),
            Self::Cancel => Action::Cancel(v1::Cancel::default()),
            Self::Remove => Action::Cancel(v1::Cancel { remove: true }),
            Self::Retry => Action::Retry(v1::Retry {}),
            Self::Edit(edit) => Action::Edit(v1::Edit::clone(edit)),
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel | Self::Remove => "cancel",
            Self::Retry => "retry",
            Self::Edit(_) => "edit",
        }
    }
}

/// Does it to each of them; one that is refused keeps none of the others.
pub(super) async fn run(
    client: &FarmClient,
    chosen: Chosen,
    deed: Deed,
    json: bool,
) -> Result<Outcome, CliError> {
    let asks = !chosen.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let by_number = !chosen.jobs.is_empty();
    let jobs = if by_number {
        numbered(client, &chosen.jobs, asks && matches!(deed, Deed::Cancel | Deed::Remove)).await?
    } else {
        found(client, &chosen, &deed).await?
    };
    if jobs.is_empty() {
        say!("no job to {} is like that", deed.verb());
        return Ok(Outcome::Fine);
    }
    let reason = why_ask(&jobs, &deed, by_number);
    if !by_number && !asks && !chosen.yes {
        return Err(CliError::Unasked { count: jobs.len(), verb: deed.verb() });
    }
    if let Some(reason) = reason.filter(|_| asks)
        && !agreed(&jobs, &deed, &reason)
    {
        say!("nothing was changed");
        return Ok(Outcome::Fine);
    }
    let mut refused = 0;
    for job in &jobs {
        match client.control(job.job_id, deed.action()).await {
            Ok(job) => show_job(&job, json, |job| {
                say!("job {} ({}) is {}{}", job.job_id, job.name, tables::state_name(job.state()), kept(job));
            }),
            // Alone, it is the command's own error.
            Err(error) if jobs.len() == 1 => return Err(error.into()),
            Err(error) => {
                refused += 1;
                complain!("job {}: {}", job.job_id, hearth_telemetry::chain(&error));
            }
        }
    }
    Ok(if refused == 0 { Outcome::Fine } else { Outcome::Told(1) })
}

/// What is left of a cancelled job.
fn kept(job: &v1::Job) -> String {
    let (id, done) = (job.job_id, job.counts.unwrap_or_default().done);
    if job.state() != JobState::Cancelled || done == 0 {
        return String::new();
    }
    format!(
        "; {done} finished frames are kept for a while: hearth retry {id} goes on with it, hearth cancel --remove {id} removes them now"
    )
}

/// Those of the numbers; only looked up where that is needed for a question.
async fn numbered(client: &FarmClient, jobs: &[u64], look: bool) -> Result<Vec<v1::Job>, CliError> {
    let mut found = Vec::new();
    for job_id in jobs {
        found.push(if look {
            client.job(*job_id).await?
        } else {
            v1::Job { job_id: *job_id, ..v1::Job::default() }
        });
    }
    Ok(found)
}

async fn found(client: &FarmClient, chosen: &Chosen, deed: &Deed) -> Result<Vec<v1::Job>, CliError> {
    let states: &[JobState] = match (chosen.state.as_slice(), deed) {
        ([], Deed::Retry) => &[JobState::Failed, JobState::Partial],
        // What they have kept is removed.
        ([], Deed::Remove) => &[
            JobState::Waiting,
            JobState::Running,
            JobState::Paused,
            JobState::Assembling,
            JobState::Cancelled,
        ],
        (given, _) => given,
    };
    let request = v1::ListJobsRequest {
        limit: MOST,
        show: chosen.show.clone().unwrap_or_default(),
        user: chosen.of_user.clone().unwrap_or_default(),
        active_only: states.is_empty(),
        states: states.iter().map(|state| (*state).into()).collect(),
        text: chosen.text.clone().unwrap_or_default(),
    };
    let response = client.jobs(request).await?;
    if response.total > u64::from(MOST) {
        return Err(CliError::TooManyJobs { count: response.total, most: MOST });
    }
    let mut jobs = response.jobs;
    // An older coordinator does not know these filters, and would give every job.
    let text = chosen.text.as_deref().unwrap_or_default().to_lowercase();
    jobs.retain(|job| {
        let known = [&job.name, &job.clip, &job.output, &job.workflow];
        (states.is_empty() || states.contains(&job.state()))
            && (text.is_empty() || known.iter().any(|known| known.to_lowercase().contains(&text)))
    });
    jobs.sort_by_key(|job| job.job_id);
    Ok(jobs)
}

/// What somebody may not have thought of; `None`: nothing.
fn why_ask(jobs: &[v1::Job], deed: &Deed, by_number: bool) -> Option<String> {
    let own = std::env::var("USER").unwrap_or_default();
    let others = jobs.iter().filter(|job| !job.user.is_empty() && job.user != own).count();
    let frames: u64 = jobs.iter().map(|job| job.counts.unwrap_or_default().done).sum();
    let mut reasons = Vec::new();
    if others > 0 {
        reasons.push(format!("{others} of other people"));
    }
    if matches!(deed, Deed::Cancel | Deed::Remove) && frames > 0 {
        reasons.push(if *deed == Deed::Cancel {
            format!("{frames} finished frames; they are kept for a while, then removed")
        } else {
            format!("{frames} finished frames are removed now")
        });
    }
    (!by_number || !reasons.is_empty()).then(|| reasons.join(", "))
}

fn agreed(jobs: &[v1::Job], deed: &Deed, reason: &str) -> bool {
    for job in jobs.iter().take(NAMED) {
        complain!("  {} {} ({}, {})", job.job_id, job.name, tables::state_name(job.state()), job.user);
    }
    if jobs.len() > NAMED {
        complain!("  and {} more", jobs.len() - NAMED);
    }
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let plural = if jobs.len() == 1 { "job" } else { "jobs" };
    complain!("{} {} {plural}{reason}? [y/N]", deed.verb(), jobs.len());
    let mut answer = String::new();
    // Whoever cannot be read has not agreed.
    let _ = std::io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_of_the_tables() {
        assert_eq!(state("waiting"), Ok(JobState::Waiting));
        assert_eq!(state("cancelled"), Ok(JobState::Cancelled));
        assert!(state("wating").expect_err("unknown").contains("waiting, running"));
    }

    #[test]
    fn a_question_names_what_would_be_lost() {
        let job = |user: &str, done| v1::Job {
            user: user.to_owned(),
            counts: Some(v1::FrameCounts { done, ..v1::FrameCounts::default() }),
            ..v1::Job::default()
        };
        assert_eq!(why_ask(&[job("", 0)], &Deed::Cancel, true), None);
        let told = why_ask(&[job("somebody else", 3), job("", 4)], &Deed::Cancel, true).expect("a reason");
        assert_eq!(told, "1 of other people, 7 finished frames; they are kept for a while, then removed");
        assert_eq!(why_ask(&[job("", 4)], &Deed::Pause, true), None);
        assert_eq!(why_ask(&[job("", 4)], &Deed::Pause, false), Some(String::new()));
    }
}
