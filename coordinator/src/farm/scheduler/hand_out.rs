//! From a decision to an attempt: chunks and chores get their node, their lease and their number.

use crate::farm::{
    model::{
        attempt::{Attempt, Estimate, Work},
        command::{AssignedWork, Assignment, Effect, JobEvent, Step},
        ids::{AttemptId, JobId, NodeName, Timestamp},
        job::{Ended, Phase},
        key::Key,
    },
    state::{Farm, pace::Runner},
};

impl Farm {
    /// Gives waiting assemblies, deliveries and clean-ups to nodes without one, the least busy first.
    pub(in crate::farm) fn fill_chores(&mut self, now: Timestamp, step: &mut Step) {
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
    pub(in crate::farm) fn hand_out(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        id: JobId,
        work: Work,
        step: &mut Step,
    ) {
        let estimate = self.estimate(id, name, &work);
        let source = work.rendered().zip(self.jobs.get(&id));
        let source = source.and_then(|(frames, job)| self.source(&job.spec, frames));
        let (Some(job), Some(node)) = (self.jobs.get_mut(&id), self.nodes.get_mut(name)) else { return };
        let Some(session) = node.session else { return };
        let begun = node.chunks.is_empty().then_some(now);
        let workflow = job.spec.workflow().and_then(|id| self.workflows.get(id));
        let workflow = workflow.map(|known| known.workflow.clone());
        let attempt = AttemptId { job: id, number: job.next_attempt };
        job.next_attempt += 1;
        job.started.get_or_insert(now);
        job.running.insert(attempt);
        match work {
            Work::Chunk(_) | Work::Spare { .. } => drop(node.chunks.insert(attempt)),
            Work::Assembly | Work::Delivery | Work::CleanUp => node.chore = Some(attempt),
        }
        let assigned = match &work {
            Work::Chunk(frames) | Work::Spare { frames, .. } => AssignedWork::Chunk(frames.clone()),
            Work::Assembly => AssignedWork::Assembly(job.segments(id).collect()),
            Work::Delivery => AssignedWork::Delivery,
            Work::CleanUp => AssignedWork::CleanUp,
        };
        let spec = job.spec.clone();
        let assignment = Assignment { attempt, spec: spec.clone(), workflow, work: assigned, source };
        step.effects.push(Effect::Assign { session, assignment: Box::new(assignment) });
        if work.is_chunk() {
            let who = (spec.show.as_str(), spec.user.as_str());
            self.shares.charge(now, self.config.half_life, who, estimate.seconds);
            self.chunk_begins(id, name);
            self.set_loaded(name, spec.workflow().cloned());
        }
        self.enter(
            attempt,
            Attempt {
                node: name.clone(),
                work,
                assigned: now,
                lease_until: now.after(self.config.lease),
                progress: None,
                estimate,
                spare: None,
                begun,
            },
        );
        step.changes.extend([Key::Attempt(attempt), Key::Job(id)]);
        step.event(id, JobEvent::Changed);
        self.rank(id);
        self.reopen(name);
    }

    /// How long the node will be at it, loading included.
    fn estimate(&self, id: JobId, name: &NodeName, work: &Work) -> Estimate {
        let unknown = Estimate { seconds: 0.0, known: false, loaded: true, rendered: 0 };
        let Some(frames) = work.rendered() else { return unknown };
        let (Some(job), Some(node)) = (self.jobs.get(&id), self.nodes.get(name)) else { return unknown };
        let Some(render) = job.spec.render() else { return unknown };
        let Some(known) = self.workflows.get(&render.workflow) else { return unknown };
        let (head, tail) = render.split(&known.workflow).handles();
        let rendered = frames.len() + u64::from(head) + u64::from(tail);
        let loaded = node.loaded.as_ref() == Some(&render.workflow);
        let runner = Runner { name, kind: &node.capabilities.device };
        let per_frame = known.pace.seconds_per_frame(job.variant, runner);
        let seconds = per_frame.map(|seconds| seconds * rendered as f64);
        Estimate {
            seconds: seconds.unwrap_or(self.config.target_chunk.as_secs_f64())
                + if loaded { 0.0 } else { known.load() },
            known: known.pace.is_sure(job.variant),
            loaded,
            rendered,
        }
    }
}
