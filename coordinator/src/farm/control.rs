//! What people may do to jobs and nodes.

use std::time::Duration;

use hearth_workflows::FrameSet;

use super::{
    Farm,
    attempt::Work,
    command::{Answer, JobEvent, Refusal, Step},
    ids::{AttemptId, JobId, NodeName, Priority, Timestamp},
    job::{Ended, Job, Phase},
    records::Key,
};

const PARTIAL: &str = "finished, but for some frames; `hearth retry` tries those again";

impl Farm {
    pub(super) fn pause(&mut self, id: JobId, step: &mut Step) -> Result<Answer, Refusal> {
        self.active(id)?.paused = true;
        self.changed(id, step);
        Ok(Answer::Done)
    }

    pub(super) fn resume(&mut self, id: JobId, step: &mut Step) -> Result<Answer, Refusal> {
        self.active(id)?.paused = false;
        self.changed(id, step);
        self.touched.chores();
        self.touched.open_nodes();
        Ok(Answer::Done)
    }

    pub(super) fn set_priority(
        &mut self,
        id: JobId,
        priority: Priority,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        self.unrank(id);
        match self.active(id) {
            Ok(job) => job.priority = priority,
            Err(refusal) => {
                self.rank(id);
                return Err(refusal);
            }
        }
        self.changed(id, step);
        self.touched.open_nodes();
        Ok(Answer::Done)
    }

    pub(super) fn cancel(
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
    pub(super) fn abandon(&mut self, now: Timestamp, id: JobId, keep: Duration, step: &mut Step) {
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
    pub(super) fn let_go(&mut self, id: JobId, step: &mut Step) {
        self.unkeep(id);
        let is_kept = |job: &Job| {
            job.phase == Phase::Ended(Ended::Cancelled { cleaned: false }) && !job.pieces.is_empty()
        };
        if self.jobs.get(&id).is_some_and(is_kept) {
            self.drop_frames(id, step);
            self.changed(id, step);
        }
    }

    /// Takes the job from those whose frames are kept after they were cancelled.
    pub(super) fn unkeep(&mut self, id: JobId) {
        if let Some(ended) = self.jobs.get(&id).and_then(|job| job.ended) {
            self.kept.remove(&(ended.after(self.config.keep_cancelled), id));
        }
    }

    /// Lets go of what cancelled jobs have kept for long enough.
    pub(super) fn end_keeping(&mut self, now: Timestamp, step: &mut Step) {
        while let Some((until, id)) = self.kept.first().copied().filter(|(until, _)| *until <= now) {
            self.kept.remove(&(until, id));
            self.let_go(id, step);
        }
    }

    /// Takes back an assembly that would be of other frames. Another one may begin once this one cannot be writing any
    /// more.
    pub(super) fn stop_assembly(&mut self, now: Timestamp, id: JobId, reason: &'static str, step: &mut Step) {
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

    pub(super) fn retry_failed(
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

    pub(super) fn set_drained(
        &mut self,
        name: &NodeName,
        drained: bool,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        let node = self.nodes.get_mut(name).ok_or_else(|| Refusal::NoSuchNode(name.clone()))?;
        node.drained = drained;
        if !drained {
            // Somebody has looked at it.
            (node.quarantine, node.record) = (None, super::quarantine::Record::default());
        }
        step.changes.push(Key::Node(name.clone()));
        self.reopen(name);
        if !drained {
            self.touched.chores();
            self.touched.node(name);
        }
        Ok(Answer::Done)
    }

    /// Marks the job changed and puts it where it belongs in the queue.
    pub(super) fn changed(&mut self, id: JobId, step: &mut Step) {
        step.changes.push(Key::Job(id));
        step.event(id, JobEvent::Changed);
        self.rank(id);
    }

    /// The job's end, whatever it is.
    pub(super) fn end(&mut self, now: Timestamp, id: JobId, ended: Ended, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(before) = job.ended.replace(now) {
            self.ended.remove(&(before, id));
        }
        job.phase = Phase::Ended(ended);
        job.avoid.clear();
        job.suspects.clear();
        self.ended.insert((now, id));
        let output = job.spec.output.as_str();
        // Another job may have the place by now.
        if self.outputs.get(output) == Some(&id) {
            self.outputs.remove(output);
        }
        if let Some(workflow) = job.spec.workflow().cloned() {
            self.keep_pace(&workflow, step);
        }
        self.changed(id, step);
        for dependent in self.dependents_of(id) {
            let open = self.jobs.get(&dependent).is_some_and(|job| !job.is_ended());
            match ended {
                Ended::Done => {
                    self.rank(dependent);
                    self.room_made = true;
                }
                Ended::Cancelled { .. } if open => {
                    self.abandon(now, dependent, self.config.keep_cancelled, step);
                }
                Ended::Partial | Ended::Failed | Ended::Cancelled { .. } => {}
            }
            step.event(dependent, JobEvent::Changed);
        }
    }

    /// Takes an attempt back from its node and tells the node; its frames go back to waiting.
    pub(super) fn withdraw(&mut self, now: Timestamp, id: AttemptId, reason: &'static str, step: &mut Step) {
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
        self.rank(id.job);
        if let Some(session) = session {
            step.effects.push(super::Effect::Cancel { session, attempt: id, reason });
        }
        self.touched.node(&attempt.node);
    }

    pub(super) fn active(&mut self, id: JobId) -> Result<&mut Job, Refusal> {
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
}
