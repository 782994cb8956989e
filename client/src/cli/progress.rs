//! A job as it goes: a bar for the job and one for each node on a terminal, a line now and then elsewhere.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hearth_proto::v1::{self, JobState};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::out::{clean, complain};
use super::tables;

/// Between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(5);

/// Shows a watched job on standard error.
#[derive(Debug)]
pub struct Progress {
    bars: Option<Bars>,
    line_at: Option<Instant>,
    state: JobState,
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    job: ProgressBar,
    nodes: BTreeMap<String, ProgressBar>,
}

impl Progress {
    pub fn new(terminal: bool) -> Self {
        let bars = terminal.then(|| {
            let all = MultiProgress::new();
            let job = all.add(ProgressBar::new(0).with_style(style("{prefix:20!} {bar:30.green} {msg}")));
            Bars { all, job, nodes: BTreeMap::new() }
        });
        Self { bars, line_at: None, state: JobState::Unspecified }
    }

    /// Shows the job as it stands.
    pub fn job(&mut self, job: &v1::Job) {
        let changed = std::mem::replace(&mut self.state, job.state()) != job.state();
        match &mut self.bars {
            Some(bars) => bars.show(job),
            None => {
                let due = self.line_at.is_none_or(|at| at.elapsed() >= LINE);
                if changed || due {
                    self.line_at = Some(Instant::now());
                    complain!("job {} {}: {}", job.job_id, tables::state_name(job.state()), numbers(job));
                }
            }
        }
    }

    /// Tells a failed chunk.
    pub fn failure(&self, failure: &v1::Failure) {
        let line = format!("{} on {}: {}", tables::failure_of(failure), failure.node, failure.message);
        match &self.bars {
            // A terminal that is gone is no reason to stop watching.
            Some(bars) => drop(bars.all.println(clean(&line))),
            None => complain!("{line}"),
        }
    }

    pub fn finish(self) {
        if let Some(bars) = self.bars {
            for bar in bars.nodes.values() {
                bar.finish_and_clear();
            }
            bars.job.finish();
        }
    }
}

impl Bars {
    fn show(&mut self, job: &v1::Job) {
        let counts = job.counts.unwrap_or_default();
        self.job.set_prefix(clean(&job.name).into_owned());
        self.job.set_length(counts.total.max(1));
        self.job.set_position(counts.done);
        self.job.set_message(numbers(job));
        let mut busy: BTreeMap<&str, &v1::Attempt> = BTreeMap::new();
        for attempt in &job.attempts {
            // Of a running and a prefetched chunk the one that is further.
            let fraction = |attempt: &v1::Attempt| attempt.progress.as_ref().map_or(0.0, |p| p.fraction);
            let shown = busy.entry(&attempt.node).or_insert(attempt);
            if fraction(attempt) > fraction(shown) {
                *shown = attempt;
            }
        }
        for (node, attempt) in &busy {
            let bar = self.nodes.entry((*node).to_owned()).or_insert_with(|| {
                let style = style("  {prefix:18!} {bar:30.cyan} {msg}");
                self.all.add(ProgressBar::new(100).with_style(style).with_prefix(clean(node).into_owned()))
            });
            let fraction = attempt.progress.as_ref().map_or(0.0, |progress| progress.fraction);
            bar.set_position((fraction * 100.0) as u64);
            let frames =
                if attempt.frames.is_empty() { String::new() } else { format!("{}: ", attempt.frames) };
            bar.set_message(clean(&format!("{frames}{}", tables::progress(attempt))).into_owned());
        }
        for (node, bar) in &self.nodes {
            if !busy.contains_key(node.as_str()) {
                bar.set_position(0);
                bar.set_message("");
            }
        }
    }
}

fn numbers(job: &v1::Job) -> String {
    let counts = job.counts.unwrap_or_default();
    let mut text = format!("{}/{} frames", counts.done, counts.total);
    if job.frames_per_second > 0.0 {
        text.push_str(&format!(", {:.1} frames/s", job.frames_per_second));
    }
    if let (JobState::Running, Some(eta)) = (job.state(), job.eta_seconds) {
        text.push_str(&format!(", {} left", tables::duration(eta)));
    }
    if counts.failed > 0 {
        text.push_str(&format!(", {} failed", counts.failed));
    }
    if job.state() == JobState::Waiting && !job.message.is_empty() {
        text.push_str(&format!("; {}", job.message));
    }
    text
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
