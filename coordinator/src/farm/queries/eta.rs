//! When a job will be done.

use std::time::Duration;

use hearth_workflows::WorkflowId;

use crate::farm::{
    model::{
        ids::JobId,
        job::{Job, Phase},
    },
    state::Farm,
};

/// When a job may be done, from now on. A promise of nobody: what is submitted later may go before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eta {
    pub expected: Duration,
    /// If every node that can went to it at once.
    pub earliest: Duration,
    /// If it came last of all that waits now.
    pub latest: Duration,
}

/// Jobs of a chain that an estimate looks at.
const TOLD_CHAIN: usize = 32;

impl Farm {
    /// `None`: it has ended, is paused, waits for the whole of another job, or nothing of its kind was ever measured.
    pub fn eta(&self, id: JobId) -> Option<Eta> {
        let mut eta = self.eta_alone(id)?;
        // It cannot be done before what it follows.
        let chain = std::iter::successors(self.followed_by(id), |maker| self.followed_by(*maker));
        for maker in chain.take(TOLD_CHAIN) {
            let before = self.eta_alone(maker)?;
            eta.expected = eta.expected.max(before.expected);
            eta.earliest = eta.earliest.max(before.earliest);
            eta.latest = eta.latest.max(before.latest);
        }
        Some(eta)
    }

    /// The job that makes what this one works on, as long as it does.
    fn followed_by(&self, id: JobId) -> Option<JobId> {
        let maker = self.jobs.get(&id)?.spec.follows()?;
        let makes = self.jobs.get(&maker).is_some_and(|job| job.phase == Phase::Rendering);
        makes.then_some(maker)
    }

    fn eta_alone(&self, id: JobId) -> Option<Eta> {
        let job = self.jobs.get(&id)?;
        if job.phase != Phase::Rendering || job.paused || !self.may_begin(&job.spec) {
            return None;
        }
        let known = self.workflows.get(job.spec.workflow()?)?;
        let base = known.pace.base(job.variant)?;
        let kinds = self.ready_kinds.iter();
        let all: f64 = kinds.map(|(kind, count)| known.pace.kind_speed(kind) * *count as f64).sum();
        let capacity = all * self.usable_part(job);
        if capacity <= 0.0 {
            return None;
        }
        // The job's frames may take more or less than those before, all of them.
        let scatter = known.pace.scatter(job.variant);
        // What runs ends when its nodes are through with it; on average half of it is done.
        let running: u64 =
            job.running.iter().filter_map(|id| Some(self.attempts.get(id)?.work.frames()?.len())).sum();
        let own = base * (job.waiting.len() as f64 + running as f64 / 2.0);
        let longest = job.running.iter().map(|id| self.seconds_left(self.now, *id)).fold(0.0, f64::max);
        let earliest = (own / capacity).max(longest) / scatter;
        let latest = ((own + self.work_beside(job)) / capacity).max(longest) * scatter;
        let at_pace = job.frames_per_second().filter(|pace| *pace > 0.0);
        let expected = match at_pace.filter(|_| !job.running.is_empty()) {
            Some(pace) => (job.waiting.len() + running) as f64 / pace,
            None => (own + self.work_ahead(id, job)) / capacity,
        };
        // A weight may be as large as somebody likes: what is no number is as long as anything can be.
        let seconds =
            |seconds: f64| Duration::try_from_secs_f64(seconds.clamp(0.0, 1e9)).unwrap_or(Duration::MAX);
        Some(Eta {
            expected: seconds(expected.clamp(earliest, latest)),
            earliest: seconds(earliest),
            latest: seconds(latest),
        })
    }

    /// The part of the ready nodes that can run the job, as many as it may have.
    fn usable_part(&self, job: &Job) -> f64 {
        let ready: usize = self.ready_kinds.values().sum();
        let mut usable = self.classes.able(job.class).unwrap_or(ready).min(ready);
        for most in [job.spec.terms.max_nodes, self.policy(&job.spec.show).max_nodes] {
            usable = if most == 0 { usable } else { usable.min(most) };
        }
        if ready == 0 { 0.0 } else { usable as f64 / ready as f64 }
    }

    /// Seconds that everything else that waits would take a node of usual speed, as far as it was ever measured.
    fn work_beside(&self, job: &Job) -> f64 {
        self.classes
            .ids()
            .map(|(class, workflow)| {
                let own = if class == job.class { job.waiting.len() } else { 0 };
                self.usual_seconds(workflow) * self.classes.waiting(class).saturating_sub(own) as f64
            })
            .sum()
    }

    /// Seconds a frame in the mean over all jobs of the workflow; 0 when nothing of it was ever measured.
    pub(in crate::farm) fn usual_seconds(&self, workflow: &WorkflowId) -> f64 {
        self.workflows.get(workflow).and_then(|known| known.pace.likely_base(0)).unwrap_or(0.0)
    }

    /// The same of what goes before it.
    fn work_ahead(&self, id: JobId, job: &Job) -> f64 {
        let of_job = |other: JobId| {
            let other = self.jobs.get(&other)?;
            let known = self.workflows.get(other.spec.workflow()?)?;
            Some(known.pace.likely_base(other.variant)? * other.waiting.len() as f64)
        };
        let ahead: f64 = self.ahead_in_show(id, job).into_iter().filter_map(of_job).sum();
        // Other shows get their part meanwhile.
        let weight = self.policy(&job.spec.show).weight.max(1e-6);
        let weights: f64 = self.queue.shows().map(|(show, _)| self.policy(show).weight).sum();
        let own = of_job(id).unwrap_or(0.0);
        (ahead + own) * (weights / weight).max(1.0) - own
    }

    /// Jobs of its show that go before it: urgent ones, those of higher priority, and its own user's earlier ones.
    pub(in crate::farm) fn ahead_in_show(&self, id: JobId, job: &Job) -> Vec<JobId> {
        let before = |other: &JobId| {
            self.jobs.get(other).is_some_and(|before| {
                let rank = |job: &Job| (job.spec.urgent, job.priority);
                rank(before) > rank(job)
                    || rank(before) == rank(job) && before.spec.user == job.spec.user && *other < id
            })
        };
        let of_show = self.queue.shows().filter(|(show, _)| **show == job.spec.show);
        let jobs = of_show.flat_map(|(_, levels)| levels.values()).flat_map(|level| level.values()).flatten();
        jobs.copied().filter(before).collect()
    }
}
