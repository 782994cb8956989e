//! Cancelling, and what becomes of what a cancelled job had rendered.

use std::time::Duration;

use hearth_workflows::FrameSet;

use crate::farm::{
    model::{
        command::{Answer, Refusal, Step},
        ids::{AttemptId, JobId, Timestamp},
        job::{Ended, Job, Phase},
        key::Key,
    },
    state::{Farm, jobs::PARTIAL},
};

impl Farm {
    pub(in crate::farm) fn cancel(
        &mut self,
        now: Timestamp,
        id: JobId,
        keep: Duration,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::NoSuchJob(id))?;
        match job.phase {
            Phase::Ended(Ended::Done) => {
                return Err(Refusal::AlreadyEnded { job: id, how: "finished" });
            }
            Phase::Ended(Ended::Partial) => {
                return Err(Refusal::AlreadyEnded { job: id, how: PARTIAL });
            }
            // Asking twice is no mistake.
            Phase::Ended(Ended::Cancelled { .. }) => {
                if keep.is_zero() {
                    self.let_go(id, step);
                }
                self.touched.chores();
                return Ok(Answer::Done);
            }
            Phase::Rendering | Phase::Assembling | Phase::Delivering | Phase::Ended(Ended::Failed) => {}
        }
        self.abandon(now, id, keep, step);
        self.touched.chores();
        self.touched.open_nodes();
        Ok(Answer::Done)
    }

    /// Stops the job's attempts and marks it cancelled; what it has rendered is kept for so long, and what it has left on
    /// storage is cleaned up then.
    pub(in crate::farm) fn abandon(&mut self, now: Timestamp, id: JobId, keep: Duration, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let running = job.running.clone();
        if !running.is_empty() {
            // What was running may still be writing: clean up once nobody can be.
            job.chore_not_before = now.after(self.config.lease);
        }
        for attempt in running {
            self.withdraw(now, attempt, "the job was cancelled", step);
        }
        let Some(job) = self.jobs.get(&id) else { return };
        // Before the first attempt there is nothing to clean up.
        let ended = Ended::Cancelled { cleaned: job.next_attempt == 1 };
        if keep.is_zero() || job.pieces.is_empty() {
            self.drop_frames(id, step);
        } else {
            self.kept.insert((now.after(keep), id));
        }
        self.end(now, id, ended, step);
    }

    /// Forgets what the job has rendered: nothing of it is wanted any more.
    fn drop_frames(&mut self, id: JobId, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let pieces = std::mem::take(&mut job.pieces);
        step.changes.extend(pieces.keys().map(|number| Key::Piece(AttemptId { job: id, number: *number })));
        job.waiting = job.spec.frames.clone();
        job.done = FrameSet::new();
        job.failed = FrameSet::new();
    }

    /// What a cancelled job has rendered is not kept any longer.
    pub(in crate::farm) fn let_go(&mut self, id: JobId, step: &mut Step) {
        self.unkeep(id);
        let is_kept = |job: &Job| {
            job.phase == Phase::Ended(Ended::Cancelled { cleaned: false }) && !job.pieces.is_empty()
        };
        if self.jobs.get(&id).is_some_and(is_kept) {
            self.drop_frames(id, step);
            self.changed(id, step);
        }
    }

    /// Lets go of what cancelled jobs have kept for long enough.
    pub(in crate::farm) fn end_keeping(&mut self, now: Timestamp, step: &mut Step) {
        while let Some((until, id)) = self.kept.first().copied().filter(|(until, _)| *until <= now) {
            self.kept.remove(&(until, id));
            self.let_go(id, step);
        }
    }

    /// Takes back an assembly that would be of other frames. Another one may begin once this one cannot be writing any
    /// more.
    pub(in crate::farm) fn stop_assembly(
        &mut self,
        now: Timestamp,
        id: JobId,
        reason: &'static str,
        step: &mut Step,
    ) {
        let assembly = self.jobs.get(&id).map(|job| job.running.clone()).unwrap_or_default();
        for attempt in &assembly {
            self.withdraw(now, *attempt, reason, step);
        }
        if let Some(job) = self.jobs.get_mut(&id).filter(|_| !assembly.is_empty()) {
            job.chore_not_before = now.after(self.config.lease);
            // What it reports all the same is of other frames.
            assembly.iter().for_each(|attempt| drop(job.handed.remove(&attempt.number)));
        }
    }
}
