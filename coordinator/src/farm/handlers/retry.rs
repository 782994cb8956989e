//! Taking up jobs that have failed or were cancelled.

use crate::farm::{
    model::{
        command::{Answer, Refusal, Step},
        ids::{JobId, Timestamp},
        job::{Ended, Phase},
    },
    state::Farm,
};

impl Farm {
    pub(in crate::farm) fn retry_failed(
        &mut self,
        now: Timestamp,
        id: JobId,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::NoSuchJob(id))?;
        match job.phase {
            Phase::Ended(Ended::Done) => {
                return Err(Refusal::AlreadyEnded { job: id, how: "finished" });
            }
            // What it had rendered is still there.
            Phase::Ended(Ended::Cancelled { cleaned: false }) if !job.pieces.is_empty() => {}
            Phase::Ended(Ended::Cancelled { .. }) => {
                return Err(Refusal::AlreadyEnded { job: id, how: "been cancelled; submit it again" });
            }
            Phase::Rendering | Phase::Assembling | Phase::Delivering if job.failed.is_empty() => {
                return Err(Refusal::NothingToRetry { job: id });
            }
            Phase::Rendering
            | Phase::Assembling
            | Phase::Delivering
            | Phase::Ended(Ended::Failed | Ended::Partial) => {}
        }
        let was_cancelled = matches!(job.phase, Phase::Ended(Ended::Cancelled { .. }));
        let (spec, before) = (job.spec.clone(), job.ended);
        let gone = spec.awaits().find(|awaited| {
            let phase = self.jobs.get(awaited).map(|job| job.phase);
            matches!(phase, None | Some(Phase::Ended(Ended::Cancelled { .. })))
        });
        if let Some(awaited) = gone.filter(|_| was_cancelled) {
            return Err(Refusal::AwaitedCancelled { job: id, awaited });
        }
        let output = spec.output.to_string();
        if let Some(&other) = self.outputs.get(&output).filter(|other| **other != id) {
            return Err(Refusal::OutputTaken { other, output });
        }
        if job.phase == Phase::Assembling {
            self.stop_assembly(now, id, "frames that it lacks are tried again", step);
        }
        self.unkeep(id);
        let Some(job) = self.jobs.get_mut(&id) else { return Err(Refusal::NoSuchJob(id)) };
        let frames = std::mem::take(&mut job.failed);
        let ended = job.ended.take();
        job.forgive(&frames);
        job.waiting.insert_all(&frames);
        job.chore_tries = 0;
        job.paused = false;
        job.message.clear();
        job.avoid.clear();
        job.suspects.clear();
        job.in_a_row = 0;
        job.in_a_row_on.clear();
        job.rest_until = Timestamp(0);
        // Somebody may still be putting together what was cancelled, or tried before.
        if job.phase != Phase::Assembling && !was_cancelled {
            job.chore_not_before = Timestamp(0);
        }
        job.phase = job.open_phase();
        if let Some(ended) = ended {
            self.ended.remove(&(ended, id));
        }
        self.outputs.insert(output, id);
        self.changed(id, step);
        if was_cancelled {
            // What went with it comes with it: its deliveries, and jobs that work on its frames.
            for dependent in self.dependents_of(id) {
                if self.jobs.get(&dependent).is_some_and(|other| other.ended == before) {
                    self.take_up(dependent, step);
                }
            }
        }
        self.touched.chores();
        self.touched.open_nodes();
        Ok(Answer::Done)
    }

    /// Takes up a job that was cancelled together with one that it waits for, as far as its place is free.
    fn take_up(&mut self, id: JobId, step: &mut Step) {
        let Some(job) = self.jobs.get(&id) else { return };
        let is_free = self.outputs.get(job.spec.output.as_str()).is_none_or(|other| *other == id);
        // What is being cleaned up is lost.
        let is_cleaned =
            job.phase == Phase::Ended(Ended::Cancelled { cleaned: false }) && job.pieces.is_empty();
        if !is_free || is_cleaned || !matches!(job.phase, Phase::Ended(Ended::Cancelled { .. })) {
            return;
        }
        self.unkeep(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let ended = job.ended.take();
        job.paused = false;
        job.message.clear();
        job.phase = job.open_phase();
        self.outputs.insert(job.spec.output.to_string(), id);
        if let Some(ended) = ended {
            self.ended.remove(&(ended, id));
        }
        self.follow(id);
        self.changed(id, step);
        for dependent in self.dependents_of(id) {
            if self.jobs.get(&dependent).is_some_and(|other| other.ended == ended) {
                self.take_up(dependent, step);
            }
        }
    }
}
