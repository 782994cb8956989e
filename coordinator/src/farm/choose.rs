//! Which job a node gets next: the best-ranked one that it can run and need not leave alone.

use std::cmp::Reverse;

use super::{
    Farm,
    attempt::{Attempt, Work},
    command::{AssignedWork, Assignment, Effect, JobEvent, Step},
    ids::{AttemptId, JobId, NodeName, Priority, Timestamp},
    job::{Ended, Phase},
    records::Key,
    spec::JobSpec,
};

/// A job's place in the queue: higher priority first, then first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    priority: Reverse<Priority>,
    pub(super) job: JobId,
}

impl Farm {
    /// Puts the job into the queues it belongs in, and takes it out of the others. Must be called after
    /// every change of its phase, its pause or its frames; [`Farm::unrank`] before its priority changes.
    pub(super) fn rank(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let rank = Rank { priority: Reverse(job.priority), job: id };
        if job.wants_chunk() {
            self.queue.insert(rank);
        } else {
            self.queue.remove(&rank);
        }
        if job.wants_chore() && self.may_begin(&job.spec) {
            self.chores.insert(rank);
        } else {
            self.chores.remove(&rank);
        }
    }

    /// Whether what the job works on is there. A job that is not remembered any more was done.
    pub(super) fn may_begin(&self, spec: &JobSpec) -> bool {
        let awaited = spec.after.and_then(|after| self.jobs.get(&after));
        awaited.is_none_or(|job| job.phase == Phase::Ended(Ended::Done))
    }

    pub(super) fn unrank(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let rank = Rank { priority: Reverse(job.priority), job: id };
        self.queue.remove(&rank);
        self.chores.remove(&rank);
    }

    /// Puts the node into the set of open nodes, or takes it out, and counts it as ready or not. Must be
    /// called after every change of its session, slots, drain or chunks.
    pub(super) fn reopen(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let ready = node.is_ready();
        if ready != std::mem::replace(&mut node.counted_ready, ready) {
            self.ready = if ready { self.ready + 1 } else { self.ready - 1 };
            for known in self.workflows.values_mut() {
                known.pace.set_ready(name, ready);
            }
        }
        let at = node.is_open().then_some(node.chunks.len());
        if at == node.open_at {
            return;
        }
        if let Some(before) = std::mem::replace(&mut node.open_at, at) {
            self.open.remove(&(before, name.clone()));
        }
        if let Some(at) = at {
            self.open.insert((at, name.clone()));
        }
    }

    /// Gives work to every open node, the least busy first, so that a small job spreads out before any
    /// node gets a second chunk.
    pub(super) fn fill_open(&mut self, now: Timestamp, step: &mut Step) {
        let mut from: Option<(usize, NodeName)> = None;
        while !self.queue.is_empty() {
            let next = match &from {
                None => self.open.first(),
                Some(from) => {
                    self.open.range((std::ops::Bound::Excluded(from), std::ops::Bound::Unbounded)).next()
                }
            };
            let Some(place) = next.cloned() else { break };
            // A node that got a chunk and is still open stands further back now, and is met again.
            self.assign_one(now, &place.1, step);
            from = Some(place);
        }
    }

    /// Gives one node what it has room for.
    pub(super) fn fill_node(&mut self, now: Timestamp, name: &NodeName, step: &mut Step) {
        while self.nodes.get(name).is_some_and(super::Node::is_open) && self.assign_one(now, name, step) {}
    }

    /// Hands one chunk to the node; false when there is none for it.
    fn assign_one(&mut self, now: Timestamp, name: &NodeName, step: &mut Step) -> bool {
        let Some((job, frames)) = self.choose(now, name) else { return false };
        self.hand_out(now, name, job, Work::Chunk(frames), step);
        true
    }

    /// The job and its chunk for this node. The frames are taken out of waiting.
    fn choose(&mut self, now: Timestamp, name: &NodeName) -> Option<(JobId, hearth_workflows::FrameSet)> {
        let busy = !self.nodes.get(name)?.chunks.is_empty();
        let ready_nodes = self.ready.max(1);
        for rank in &self.queue {
            let job = self.jobs.get_mut(&rank.job)?;
            if job.rest_until > now || job.avoid.get(name).is_some_and(|until| *until > now) {
                continue;
            }
            let Some(render) = job.spec.render() else { continue };
            let known = self.workflows.get(&render.workflow)?;
            let node = self.nodes.get_mut(name)?;
            if node.fit(&known.workflow, &job.spec).is_err() {
                continue;
            }
            let count = super::carve::chunk_size(
                &self.config,
                job,
                (render, &known.workflow),
                &known.pace,
                name,
                ready_nodes,
                busy,
            );
            if count == 0 {
                continue;
            }
            let split = render.split(&known.workflow);
            let frames = split.carve(&mut job.waiting, count, known.workflow.manifest().shape());
            return Some((rank.job, frames));
        }
        None
    }

    /// Gives waiting assemblies, deliveries and clean-ups to nodes without one, the least busy first.
    pub(super) fn fill_chores(&mut self, now: Timestamp, step: &mut Step) {
        let waiting: Vec<JobId> = self.chores.iter().map(|rank| rank.job).collect();
        for id in waiting {
            let Some(job) = self.jobs.get(&id) else { continue };
            if job.chore_not_before > now {
                continue;
            }
            let spec = job.spec.clone();
            let work = match job.phase {
                Phase::Assembling => Work::Assembly,
                Phase::Delivering => Work::Delivery,
                Phase::Ended(Ended::Cancelled { cleaned: false }) => Work::CleanUp,
                Phase::Rendering | Phase::Ended(_) => continue,
            };
            let free = self.nodes.values().filter(|node| {
                node.session.is_some()
                    && node.chore.is_none()
                    && !node.drained
                    && spec.roots().all(|root| node.capabilities.roots.contains(root))
            });
            let best = free.min_by_key(|node| {
                let left_alone = job.avoid.get(&node.about.name).is_some_and(|until| *until > now);
                // One that has none will say so, when no other is there to try.
                let cannot = work == Work::Delivery && !node.capabilities.ffmpeg;
                (cannot, left_alone, node.chunks.len(), node.about.name.clone())
            });
            let Some(name) = best.map(|node| node.about.name.clone()) else { continue };
            self.hand_out(now, &name, id, work, step);
        }
    }

    /// Makes the attempt: job, node, lease, records, and the effect that will tell the node.
    fn hand_out(&mut self, now: Timestamp, name: &NodeName, id: JobId, work: Work, step: &mut Step) {
        let (Some(job), Some(node)) = (self.jobs.get_mut(&id), self.nodes.get_mut(name)) else { return };
        let Some(session) = node.session else { return };
        let workflow = job.spec.workflow().and_then(|id| self.workflows.get(id));
        let workflow = workflow.map(|known| known.workflow.clone());
        let attempt = AttemptId { job: id, number: job.next_attempt };
        job.next_attempt += 1;
        job.started.get_or_insert(now);
        job.running.insert(attempt);
        match work {
            Work::Chunk(_) => drop(node.chunks.insert(attempt)),
            Work::Assembly | Work::Delivery | Work::CleanUp => node.chore = Some(attempt),
        }
        let assigned = match &work {
            Work::Chunk(frames) => AssignedWork::Chunk(frames.clone()),
            Work::Assembly => AssignedWork::Assembly(job.segments(id).collect()),
            Work::Delivery => AssignedWork::Delivery,
            Work::CleanUp => AssignedWork::CleanUp,
        };
        let assignment = Assignment { attempt, spec: job.spec.clone(), workflow, work: assigned };
        step.effects.push(Effect::Assign { session, assignment: Box::new(assignment) });
        self.enter(
            attempt,
            Attempt {
                node: name.clone(),
                work,
                assigned: now,
                lease_until: now.after(self.config.lease),
                progress: None,
            },
        );
        step.changes.extend([Key::Attempt(attempt), Key::Job(id)]);
        step.event(id, JobEvent::Changed);
        self.rank(id);
        self.reopen(name);
    }
}
