//! Submitting a job, and forgetting it long after its end.

use std::sync::Arc;

use hearth_workflows::Workflow;

use super::{
    Farm, KnownWorkflow,
    command::{Answer, JobEvent, Refusal, Step, Submission},
    ids::{JobId, Priority, Timestamp},
    job::{Ended, Job, JobSpec, Phase},
    pace::Pace,
    records::Key,
};

/// Jobs looked at in one tick.
const FORGET_AT_ONCE: usize = 1_000;

impl Farm {
    pub(super) fn submit(
        &mut self,
        now: Timestamp,
        submission: Submission,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        let Submission { spec, priority, workflow } = submission;
        if let Some(&job) = self.requests.get(&spec.request_id) {
            return Ok(Answer::Submitted { job, already: true });
        }
        if let Some(&other) = self.outputs.get(spec.output.as_str()) {
            return Err(Refusal::OutputTaken { other, output: spec.output.to_string() });
        }
        let limit = self.config.max_active;
        if self.jobs.len() - self.ended.len() >= limit {
            return Err(Refusal::TooManyJobs { limit });
        }
        let id = JobId(self.next_job);
        self.next_job += 1;
        if !self.workflows.contains_key(&spec.workflow) {
            step.changes.push(Key::Workflow(spec.workflow.clone()));
        }
        self.take_in(now, id, spec, priority, workflow);
        step.changes.extend([Key::Meta, Key::Spec(id), Key::Job(id)]);
        step.event(id, JobEvent::Changed);
        self.fill_open(now, step);
        Ok(Answer::Submitted { job: id, already: false })
    }

    /// Puts a new job into every index of the farm.
    pub(super) fn take_in(
        &mut self,
        now: Timestamp,
        id: JobId,
        spec: JobSpec,
        priority: Priority,
        workflow: Arc<Workflow>,
    ) {
        let known = self.workflows.entry(spec.workflow.clone()).or_insert_with(|| KnownWorkflow {
            workflow,
            jobs: 0,
            pace: Pace::default(),
        });
        known.jobs += 1;
        if !spec.request_id.is_empty() {
            self.requests.insert(spec.request_id.clone(), id);
        }
        self.outputs.insert(spec.output.as_str().to_owned(), id);
        self.jobs.insert(id, Job::new(spec, priority, now));
        self.rank(id);
    }

    /// Forgets jobs that ended long ago, and nodes that went away long ago.
    pub(super) fn forget(&mut self, now: Timestamp, step: &mut Step) {
        let surplus = self.ended.len().saturating_sub(self.config.max_ended);
        let is_due = |(index, (ended, _)): &(usize, (Timestamp, JobId))| {
            *index < surplus || now.since(*ended) > self.config.keep_ended
        };
        let due: Vec<_> =
            self.ended.iter().copied().enumerate().take_while(is_due).take(FORGET_AT_ONCE).collect();
        for (_, (ended, id)) in due {
            let Some(job) = self.jobs.get(&id) else {
                self.ended.remove(&(ended, id));
                continue;
            };
            match job.phase {
                // What a failed job rendered is still on storage: clean up first, forget later.
                Phase::Ended(Ended::Failed) => {
                    self.abandon(now, id, step);
                    self.fill_chores(now, step);
                }
                Phase::Ended(Ended::Cancelled { cleaned: false }) => {}
                _ => self.forget_job(ended, id, step),
            }
        }
        let deadline = self.config.forget_node;
        let is_due = |node: &&super::Node| {
            node.session.is_none()
                && !node.drained
                && node.chunks.is_empty()
                && node.chore.is_none()
                && now.since(node.last_seen) > deadline
        };
        let due: Vec<_> = self.nodes.values().filter(is_due).map(|node| node.about.name.clone()).collect();
        for name in due {
            self.drop_node(&name);
            step.changes.push(Key::Node(name));
        }
    }

    pub(super) fn drop_node(&mut self, name: &super::NodeName) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.session = None;
            self.reopen(name);
            self.nodes.remove(name);
        }
    }

    fn forget_job(&mut self, ended: Timestamp, id: JobId, step: &mut Step) {
        self.ended.remove(&(ended, id));
        let Some(job) = self.jobs.remove(&id) else { return };
        self.requests.remove(&job.spec.request_id);
        step.changes.extend([Key::Spec(id), Key::Job(id)]);
        step.changes.extend(job.pieces.keys().map(|number| Key::Piece(job_attempt(id, *number))));
        if let Some(known) = self.workflows.get_mut(&job.spec.workflow) {
            known.jobs -= 1;
            if known.jobs == 0 {
                self.workflows.remove(&job.spec.workflow);
                for node in self.nodes.values_mut() {
                    node.fits.remove(&job.spec.workflow);
                }
                step.changes.push(Key::Workflow(job.spec.workflow.clone()));
            }
        }
    }
}

fn job_attempt(job: JobId, number: u32) -> super::ids::AttemptId {
    super::ids::AttemptId { job, number }
}
