//! Attempts, their leases, and what waits behind another chunk on its node.

use std::collections::BTreeSet;

use hearth_workflows::FrameSet;

use crate::farm::{
    model::{
        attempt::{Attempt, Work},
        command::{Effect, Step},
        ids::{AttemptId, Timestamp},
        key::Key,
    },
    state::Farm,
};

/// Chunks that wait behind another one on their node.
#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct Behind {
    all: BTreeSet<AttemptId>,
    /// Those of urgent jobs.
    urgent: BTreeSet<AttemptId>,
}

impl Behind {
    pub(in crate::farm) fn insert(&mut self, id: AttemptId, urgent: bool) {
        self.all.insert(id);
        if urgent {
            self.urgent.insert(id);
        }
    }

    pub(in crate::farm) fn remove(&mut self, id: &AttemptId) {
        self.all.remove(id);
        self.urgent.remove(id);
    }

    pub(in crate::farm) fn all(&self) -> &BTreeSet<AttemptId> {
        &self.all
    }

    pub(in crate::farm) fn urgent(&self) -> &BTreeSet<AttemptId> {
        &self.urgent
    }
}

impl Farm {
    /// An attempt is over, and `frames` of it are not done: its spare answers for them from now on. What is left
    /// for others.
    pub(in crate::farm) fn inherit(
        &mut self,
        spare: AttemptId,
        frames: FrameSet,
        step: &mut Step,
    ) -> FrameSet {
        match self.attempts.get_mut(&spare) {
            Some(heir) if !frames.is_empty() => {
                heir.work = Work::Chunk(frames);
                step.changes.push(Key::Attempt(spare));
                FrameSet::new()
            }
            _ => frames,
        }
    }

    /// Takes an attempt back from its node and tells the node; its frames go back to waiting. The job is ranked by the
    /// caller, once it is what it will be.
    pub(in crate::farm) fn withdraw(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        reason: &'static str,
        step: &mut Step,
    ) {
        let session = self
            .attempts
            .get(&id)
            .and_then(|attempt| self.nodes.get(&attempt.node))
            .and_then(|node| node.session);
        let Some(attempt) = self.release(now, id, step) else { return };
        if let (Work::Chunk(frames), Some(job)) = (&attempt.work, self.jobs.get_mut(&id.job)) {
            job.waiting.insert_all(frames);
        }
        step.changes.push(Key::Job(id.job));
        if let Some(session) = session {
            step.effects.push(Effect::Cancel { session, attempt: id, reason });
        }
        self.touched.node(&attempt.node);
    }

    pub(in crate::farm) fn enter(&mut self, id: AttemptId, attempt: Attempt) {
        if attempt.work.is_chunk() && attempt.begun.is_none() {
            let urgent = self.jobs.get(&id.job).is_some_and(|job| job.spec.urgent);
            self.behind.insert(id, urgent);
        }
        self.leases.insert((attempt.lease_until, id));
        let before = self.attempts.insert(id, attempt);
        debug_assert!(before.is_none(), "attempt {id} is handed out twice");
    }

    pub(in crate::farm) fn renew(&mut self, now: Timestamp, id: AttemptId) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        let was_leased = self.leases.remove(&(attempt.lease_until, id));
        debug_assert!(was_leased, "attempt {id} has no lease");
        attempt.lease_until = now.after(self.config.lease);
        self.leases.insert((attempt.lease_until, id));
    }

    /// Ends an attempt's hold on node and lease; its result may still come. What becomes of its frames is the caller's.
    /// Frames that a spare of it renders are that one's from now on.
    pub(in crate::farm) fn release(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        step: &mut Step,
    ) -> Option<Attempt> {
        if let (Some(attempt), Some(job)) = (self.attempts.get(&id), self.jobs.get_mut(&id.job)) {
            job.remember_handed(id.number, &attempt.node, attempt.work.rendered());
        }
        self.let_hold_go(now, id, step)
    }

    /// The same of an attempt whose result is here.
    pub(in crate::farm) fn let_hold_go(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        step: &mut Step,
    ) -> Option<Attempt> {
        let mut attempt = self.attempts.remove(&id)?;
        let was_leased = self.leases.remove(&(attempt.lease_until, id));
        debug_assert!(was_leased, "attempt {id} has no lease");
        self.behind.remove(&id);
        if let Some(job) = self.jobs.get_mut(&id.job) {
            let was_running = job.running.remove(&id);
            debug_assert!(was_running, "attempt {id} is not among its job's");
        }
        if let Some(node) = self.nodes.get_mut(&attempt.node) {
            let was_held = node.chunks.remove(&id);
            // A follower may hear of the node's next chore first.
            debug_assert!(was_held == attempt.work.is_chunk(), "{} and attempt {id}", attempt.node);
            let next = node.chunks.iter().filter_map(|id| Some((self.attempts.get(id)?.assigned, *id))).min();
            if let Some((_, next)) = next {
                self.behind.remove(&next);
                if let Some(attempt) = self.attempts.get_mut(&next) {
                    attempt.begun.get_or_insert(now);
                }
            }
            node.chore.take_if(|chore| *chore == id);
        }
        if let (true, Some(job)) = (attempt.work.is_chunk(), self.jobs.get(&id.job)) {
            let spec = job.spec.clone();
            self.chunk_ends(id.job, &attempt.node);
            // What it did not need of what it was charged.
            let who = (spec.show.as_str(), spec.user.as_str());
            let seconds = attempt.spent(now) - attempt.estimate.seconds;
            self.shares.charge(now, self.config.half_life, who, seconds);
        }
        self.reopen(&attempt.node);
        step.changes.push(Key::Attempt(id));
        match &mut attempt.work {
            Work::Chunk(frames) => {
                if let Some(number) = attempt.spare {
                    let spare = AttemptId { number, ..id };
                    *frames = self.inherit(spare, std::mem::take(frames), step);
                }
            }
            Work::Spare { of, .. } => {
                if let Some(late) = self.attempts.get_mut(&AttemptId { number: *of, ..id }) {
                    late.spare = None;
                }
            }
            Work::Assembly | Work::Delivery | Work::CleanUp => {}
        }
        Some(attempt)
    }

    /// Ends an attempt and lets its frames, or its chore, wait again.
    pub(in crate::farm) fn put_back(&mut self, now: Timestamp, id: AttemptId, step: &mut Step) {
        let Some(attempt) = self.release(now, id, step) else { return };
        if let (Work::Chunk(frames), Some(job)) = (&attempt.work, self.jobs.get_mut(&id.job)) {
            job.waiting.insert_all(frames);
        }
        self.changed(id.job, step);
        self.touched.job(id.job);
    }
}
