//! Submitting a job, and forgetting it long after its end.

use std::{collections::HashSet, sync::Arc, time::Duration};

use hearth_workflows::{Workflow, WorkflowId};

use super::{
    Farm, KnownWorkflow,
    command::{Answer, JobEvent, Refusal, Step, Submission, Submitted},
    ids::{JobId, Priority, Timestamp},
    job::{Ended, Job, Phase},
    pace::Variant,
    queue::ClassId,
    records::Key,
    spec::JobSpec,
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
        let Submission { jobs } = submission;
        let known = jobs.iter().find_map(|submitted| self.requests.get(&submitted.spec.request_id));
        if let Some(&job) = known {
            return Ok(Answer::Submitted { job, already: true });
        }
        self.may_take(&jobs)?;
        let first = JobId(self.next_job);
        let together = jobs.len() > 1;
        for Submitted { mut spec, priority, workflow, after, preset } in jobs {
            let id = JobId(self.next_job);
            self.next_job += 1;
            // What comes in front of it was taken in just now.
            spec.after.extend(after.into_iter().map(|place| JobId(first.0 + place as u64)));
            spec.batch = together.then_some(first);
            if let Some(workflow) = spec.workflow().filter(|id| !self.workflows.contains_key(*id)) {
                step.changes.push(Key::Workflow(workflow.clone()));
            }
            if let Some(preset) = preset {
                self.preset_used(now, preset, &spec.user, step);
            }
            self.take_in(now, id, spec, priority, workflow);
            step.changes.extend([Key::Spec(id), Key::Job(id)]);
            step.event(id, JobEvent::Changed);
        }
        step.changes.push(Key::Meta);
        self.touched.open_nodes();
        self.touched.urgent();
        self.touched.chores();
        Ok(Answer::Submitted { job: first, already: false })
    }

    /// Refuses the whole of a submission that cannot be taken.
    pub fn may_take(&self, jobs: &[Submitted]) -> Result<(), Refusal> {
        let mut outputs = HashSet::new();
        for Submitted { spec, .. } in jobs {
            let output = spec.output.to_string();
            if let Some(&other) = self.outputs.get(&output) {
                return Err(Refusal::OutputTaken { other, output });
            }
            if !outputs.insert(spec.output.as_str()) {
                return Err(Refusal::OutputTwice { output });
            }
            for job in spec.awaits() {
                match self.jobs.get(&job).map(|awaited| awaited.phase) {
                    None => return Err(Refusal::NoSuchJob(job)),
                    Some(Phase::Ended(Ended::Cancelled { .. })) => {
                        return Err(Refusal::NothingOfIt { job });
                    }
                    Some(_) => {}
                }
            }
        }
        let limit = self.config.max_active;
        if self.jobs.len() - self.ended.len() + jobs.len() > limit {
            return Err(Refusal::TooManyJobs { limit });
        }
        Ok(())
    }

    /// Puts a new job into every index of the farm.
    pub(super) fn take_in(
        &mut self,
        now: Timestamp,
        id: JobId,
        spec: JobSpec,
        priority: Priority,
        workflow: Option<Arc<Workflow>>,
    ) {
        if let Some((name, workflow)) = spec.workflow().zip(workflow)
            && !self.workflows.contains_key(name)
        {
            self.know(name.clone(), workflow);
        }
        self.outputs.insert(spec.output.as_str().to_owned(), id);
        let (class, variant) = self.index(id, &spec);
        self.jobs.insert(id, Job { class, variant, ..Job::new(spec, priority, now) });
        self.follow(id);
        self.rank(id);
    }

    /// A workflow that no job has named before.
    pub(super) fn know(&mut self, name: WorkflowId, workflow: Arc<Workflow>) {
        let mut known = KnownWorkflow::new(workflow);
        // From jobs that are forgotten since.
        known.loaded_on = self.nodes.values().filter(|node| node.loaded.as_ref() == Some(&name)).count();
        self.workflows.insert(name, known);
    }

    /// Puts a job where it is found by anything but its number and its output; what it needs of a node, and what
    /// kind of work it is.
    pub(super) fn index(&mut self, id: JobId, spec: &JobSpec) -> (ClassId, Variant) {
        let known = spec.workflow().and_then(|workflow| self.workflows.get_mut(workflow));
        let kind = known.zip(spec.render()).map(|(known, render)| {
            known.jobs += 1;
            (render.variant(&known.workflow), known.workflow.requirements(&render.parameters))
        });
        let (variant, requirements) = kind.unwrap_or_default();
        if !spec.request_id.is_empty() {
            self.requests.insert(spec.request_id.clone(), id);
        }
        self.dependents.extend(spec.awaits().map(|awaited| (awaited, id)));
        self.batches.extend(spec.batch.map(|first| (first, id)));
        self.able_changed = true;
        self.deadlines.extend(spec.terms.deadline.map(|deadline| (deadline, id)));
        (self.classes.enter(spec, requirements).unwrap_or_default(), variant)
    }

    /// Undoes [`Farm::index`] for a job that is no more.
    pub(super) fn unindex(&mut self, id: JobId, job: &Job) {
        let spec = &job.spec;
        if let Some(known) = spec.workflow().and_then(|workflow| self.workflows.get_mut(workflow)) {
            known.jobs -= 1;
        }
        self.requests.remove(&spec.request_id);
        for awaited in spec.awaits() {
            self.dependents.remove(&(awaited, id));
        }
        spec.batch.map(|first| self.batches.remove(&(first, id)));
        spec.terms.deadline.map(|deadline| self.deadlines.remove(&(deadline, id)));
        if self.classes.leave(job.class) {
            for node in self.nodes.values_mut() {
                node.fits.remove(&job.class);
            }
        }
    }

    /// The jobs that wait for `id`, in whole or frame by frame.
    pub(super) fn dependents_of(&self, id: JobId) -> Vec<JobId> {
        self.dependents.range((id, JobId(0))..=(id, JobId(u64::MAX))).map(|(_, job)| *job).collect()
    }

    /// Forgets jobs that ended long ago, and nodes that went away long ago.
    pub(super) fn forget(&mut self, now: Timestamp, step: &mut Step) {
        // A clock that is days ahead would throw away what people have rendered: one other must say the same.
        let is_agreed = self.nodes.values().any(|node| node.session.is_some() && node.agrees);
        let surplus = self.ended.len().saturating_sub(self.config.max_ended);
        let is_due = |(index, (ended, _)): &(usize, (Timestamp, JobId))| {
            *index < surplus || is_agreed && now.since(*ended) > self.config.keep_ended
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
                Phase::Ended(Ended::Failed | Ended::Partial) => {
                    self.abandon(now, id, Duration::ZERO, step);
                    self.touched.chores();
                }
                // Cleaned up first.
                Phase::Ended(Ended::Cancelled { cleaned: false }) => self.let_go(id, step),
                _ => self.forget_job(ended, id, step),
            }
        }
        let deadline = self.config.forget_node;
        let is_due = |node: &&super::Node| node.is_forgettable() && now.since(node.last_seen) > deadline;
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
            self.workflows.values_mut().for_each(|known| known.pace.forget(name));
        }
    }

    fn forget_job(&mut self, ended: Timestamp, id: JobId, step: &mut Step) {
        self.ended.remove(&(ended, id));
        let Some(job) = self.jobs.remove(&id) else { return };
        self.unindex(id, &job);
        step.changes.extend([Key::Spec(id), Key::Job(id)]);
        step.changes.extend(job.pieces.keys().map(|number| Key::Piece(job_attempt(id, *number))));
        let Some(workflow) = job.spec.workflow() else { return };
        if self.workflows.get(workflow).is_some_and(|known| known.jobs == 0) {
            self.workflows.remove(workflow);
            step.changes.extend([Key::Workflow(workflow.clone()), Key::Pace(workflow.clone())]);
        }
    }
}

fn job_attempt(job: JobId, number: u32) -> super::ids::AttemptId {
    super::ids::AttemptId { job, number }
}
