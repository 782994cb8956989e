//! Jobs and the indexes that lead to them: queue, chores, minima, outputs, dependents, batches, deadlines.

use std::{cmp::Reverse, sync::Arc};

use hearth_workflows::{Workflow, WorkflowId};

use crate::farm::{
    model::{
        command::{JobEvent, Refusal, Step},
        ids::{ClassId, JobId, NodeName, Priority, Timestamp, Variant},
        job::{Ended, Job, Phase},
        key::Key,
        spec::JobSpec,
    },
    state::{
        Farm, KnownWorkflow,
        queue::{Level, Place},
    },
};

/// A chore's place: higher priority first, then first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::farm) struct Rank {
    priority: Reverse<Priority>,
    pub(in crate::farm) job: JobId,
}

fn place(job: &Job) -> Place {
    Place {
        show: job.spec.show.clone(),
        level: Level::new(job.spec.urgent, job.priority),
        class: job.class,
        user: job.spec.user.clone(),
    }
}

pub(in crate::farm) const PARTIAL: &str = "finished, but for some frames; `hearth retry` tries those again";

impl Farm {
    /// Gives the job, which must not be ranked, another spec, in every index of the farm.
    pub(in crate::farm) fn replace_spec(&mut self, id: JobId, spec: JobSpec) {
        let chunks = |farm: &Self, job: &Job| -> Vec<NodeName> {
            let held = job.running.iter().filter_map(|attempt| farm.attempts.get(attempt));
            held.filter(|held| held.work.is_chunk()).map(|held| held.node.clone()).collect()
        };
        let Some(nodes) = self.jobs.get(&id).map(|job| chunks(self, job)) else { return };
        nodes.iter().for_each(|node| self.chunk_ends(id, node));
        if let Some(mut job) = self.jobs.remove(&id) {
            self.unindex(id, &job);
            (job.class, job.variant) = self.index(id, &spec);
            job.spec = Arc::new(spec);
            self.jobs.insert(id, job);
        }
        nodes.iter().for_each(|node| self.chunk_begins(id, node));
    }

    /// Puts the job into the queues it belongs in, and takes it out of the others. Must be called after
    /// every change of its phase, its pause or its frames; [`Farm::unrank`] before its priority changes.
    pub(in crate::farm) fn rank(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (place, rank) = (place(job), Rank { priority: Reverse(job.priority), job: id });
        let may_begin = self.may_begin(&job.spec);
        let waiting = if job.wants_chunk() && may_begin { job.open().len() } else { 0 };
        let wants_chore = job.wants_chore() && may_begin;
        let has_minimum = job.spec.terms.min_nodes > 0;
        if waiting > 0 {
            if !self.queue.has_show(&place.show) {
                self.wakes(&place.show);
            }
            self.queue.insert(&place, id);
        } else {
            self.queue.remove(&place, id);
        }
        if waiting > 0 && has_minimum {
            self.minima.entry(place.show.clone()).or_default().insert(id);
        } else {
            self.forget_minimum(&place.show, id);
        }
        if wants_chore {
            self.chores.insert(rank);
        } else {
            self.chores.remove(&rank);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            let before = std::mem::replace(&mut job.counted_waiting, waiting);
            self.classes.wait(place.class, before, waiting);
        }
        self.lead(id);
    }

    /// Returns whether the queue, the chores and the counts say of the job what its frames say. For assertions.
    fn is_ranked(&self, id: JobId, job: &Job) -> bool {
        let may_begin = self.may_begin(&job.spec);
        let waiting = if job.wants_chunk() && may_begin { job.open().len() } else { 0 };
        let rank = Rank { priority: Reverse(job.priority), job: id };
        job.counted_waiting == waiting
            && self.queue.contains(&place(job), id) == (waiting > 0)
            && self.chores.contains(&rank) == (job.wants_chore() && may_begin)
    }

    /// Returns whether the indexes over what a key names say what it says. For assertions.
    pub(in crate::farm) fn is_indexed(&self, key: &Key) -> bool {
        match key {
            Key::Job(id) => self.jobs.get(id).is_none_or(|job| self.is_ranked(*id, job)),
            Key::Node(name) => self.nodes.get(name).is_none_or(|node| {
                let at = node.is_open().then_some(node.chunks.len());
                node.open_at == at
                    && node.counted_ready == node.is_ready()
                    && at.is_none_or(|at| self.open.contains(&(at, name.clone())))
            }),
            _ => true,
        }
    }

    /// A show has something to do again.
    fn wakes(&mut self, show: &str) {
        let (now, half_life) = (self.now, self.config.half_life);
        let used = |show: &String| self.shares.of_show(now, half_life, show, self.policy(show).weight);
        let least = self.queue.shows().map(|(show, _)| used(show)).fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            let weights = self.queue.shows().map(|(show, _)| self.policy(show).weight).sum::<f64>();
            let weight = self.policy(show).weight;
            let ahead = self.slack(weights + weight);
            self.shares.wakes(now, half_life, show, weight, (least, ahead));
        }
    }

    /// Whether all that must be done before it is. A job that is not remembered any more was done.
    pub(in crate::farm) fn may_begin(&self, spec: &JobSpec) -> bool {
        let mut awaited = spec.after.iter().filter_map(|after| self.jobs.get(after));
        awaited.all(|job| job.phase == Phase::Ended(Ended::Done))
    }

    pub(in crate::farm) fn unrank(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (place, rank) = (place(job), Rank { priority: Reverse(job.priority), job: id });
        let before = std::mem::take(&mut job.counted_waiting);
        self.classes.wait(place.class, before, 0);
        self.queue.remove(&place, id);
        self.forget_minimum(&place.show, id);
        self.chores.remove(&rank);
    }

    fn forget_minimum(&mut self, show: &str, id: JobId) {
        let Some(jobs) = self.minima.get_mut(show) else { return };
        jobs.remove(&id);
        if jobs.is_empty() {
            self.minima.remove(show);
        }
    }

    /// Takes the job from those whose frames are kept after they were cancelled.
    pub(in crate::farm) fn unkeep(&mut self, id: JobId) {
        if let Some(ended) = self.jobs.get(&id).and_then(|job| job.ended) {
            self.kept.remove(&(ended.after(self.config.keep_cancelled), id));
        }
    }

    /// Marks the job changed and puts it where it belongs in the queue.
    pub(in crate::farm) fn changed(&mut self, id: JobId, step: &mut Step) {
        step.changes.push(Key::Job(id));
        step.event(id, JobEvent::Changed);
        self.rank(id);
    }

    pub(in crate::farm) fn active(&mut self, id: JobId) -> Result<&mut Job, Refusal> {
        let job = self.jobs.get_mut(&id).ok_or(Refusal::NoSuchJob(id))?;
        match job.phase {
            Phase::Rendering | Phase::Assembling | Phase::Delivering => Ok(job),
            Phase::Ended(Ended::Done) => Err(Refusal::AlreadyEnded { job: id, how: "finished" }),
            Phase::Ended(Ended::Partial) => Err(Refusal::AlreadyEnded { job: id, how: PARTIAL }),
            Phase::Ended(Ended::Failed) => Err(Refusal::AlreadyEnded {
                job: id,
                how: "failed; `hearth retry` makes its failed frames wait again",
            }),
            Phase::Ended(Ended::Cancelled { .. }) => Err(Refusal::AlreadyEnded {
                job: id,
                how: "been cancelled; `hearth retry` goes on with it while what it had finished is kept",
            }),
        }
    }

    /// Puts a new job into every index of the farm.
    pub(in crate::farm) fn take_in(
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
    pub(in crate::farm) fn know(&mut self, name: WorkflowId, workflow: Arc<Workflow>) {
        let mut known = KnownWorkflow::new(workflow);
        // From jobs that are forgotten since.
        known.loaded_on = self.nodes.values().filter(|node| node.loaded.as_ref() == Some(&name)).count();
        self.workflows.insert(name, known);
    }

    /// Puts a job where it is found by anything but its number and its output; what it needs of a node, and what
    /// kind of work it is.
    pub(in crate::farm) fn index(&mut self, id: JobId, spec: &JobSpec) -> (ClassId, Variant) {
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
    pub(in crate::farm) fn unindex(&mut self, id: JobId, job: &Job) {
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
    pub(in crate::farm) fn dependents_of(&self, id: JobId) -> Vec<JobId> {
        self.dependents.range((id, JobId(0))..=(id, JobId(u64::MAX))).map(|(_, job)| *job).collect()
    }
}
