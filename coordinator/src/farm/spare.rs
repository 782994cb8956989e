//! A chunk that takes far longer than it should is given to an idle node as well. Who is first wins, the other is
//! told to stop.

use hearth_workflows::FrameSet;

use super::{
    Farm,
    attempt::Work,
    command::Step,
    ids::{AttemptId, NodeName, Timestamp},
    job::Phase,
    pace::Runner,
};

/// A chunk is late when it takes so many times what it should, and some seconds more.
const LATE: f64 = 1.8;
const LATE_SECONDS: f64 = 10.0;

impl Farm {
    /// Gives chunks that are late to nodes that have nothing to do, or else to whoever is free next: a job waits
    /// for its last chunk.
    pub(super) fn give_spares(&mut self, now: Timestamp, step: &mut Step) {
        let late = self.attempts.keys().copied().filter(|id| self.is_late(now, *id));
        self.late = late.collect();
        let idle: Vec<NodeName> =
            self.open.iter().take_while(|(held, _)| *held == 0).map(|(_, name)| name.clone()).collect();
        for name in idle.iter().take(self.late.len()) {
            self.assign_spare(now, name, step);
        }
    }

    /// Hands the node a chunk that is late elsewhere; false when there is none for it.
    pub(super) fn assign_spare(&mut self, now: Timestamp, name: &NodeName, step: &mut Step) -> bool {
        let late = self.late.iter().copied().find(|id| self.could_overtake(now, *id, name));
        let Some(id) = late else { return false };
        self.late.remove(&id);
        let frames = self.attempts.get(&id).and_then(|attempt| attempt.work.frames()).cloned();
        let Some(frames) = frames.filter(|frames| !frames.is_empty()) else { return false };
        let number = self.jobs.get(&id.job).map(|job| job.next_attempt);
        self.hand_out(now, name, id.job, Work::Spare { of: id.number, frames }, step);
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.spare = number;
        }
        true
    }

    fn is_late(&self, now: Timestamp, id: AttemptId) -> bool {
        let Some(attempt) = self.attempts.get(&id) else { return false };
        let Some(begun) = attempt.begun.filter(|_| attempt.work.is_chunk() && attempt.estimate.known) else {
            return false;
        };
        now.since(begun).as_secs_f64() > LATE * attempt.estimate.seconds + LATE_SECONDS
            && attempt.spare.is_none()
            && self.jobs.get(&id.job).is_some_and(|job| job.phase == Phase::Rendering && !job.paused)
    }

    /// Whether the node would be done with the chunk before as much time again has passed.
    fn could_overtake(&self, now: Timestamp, id: AttemptId, name: &NodeName) -> bool {
        let overtakes = || {
            let (job, attempt, node) =
                (self.jobs.get(&id.job)?, self.attempts.get(&id)?, self.nodes.get(name)?);
            let known = self.workflows.get(job.spec.workflow()?)?;
            let left_alone = job.avoid.get(name).is_some_and(|until| *until > now);
            if left_alone || node.fits.get(&job.class) != Some(&Ok(())) || *name == attempt.node {
                return None;
            }
            let runner = Runner { name, kind: &node.capabilities.device };
            let seconds =
                known.pace.seconds_per_frame(job.variant, runner)? * attempt.estimate.rendered as f64;
            let loading = if node.loaded.as_ref() == job.spec.workflow() { 0.0 } else { known.load() };
            Some(seconds + loading < now.since(attempt.begun?).as_secs_f64())
        };
        self.is_late(now, id) && overtakes().unwrap_or(false)
    }

    /// An attempt is over, and `frames` of it are not done: its spare answers for them from now on. What is left
    /// for others.
    pub(super) fn inherit(&mut self, spare: AttemptId, frames: FrameSet, step: &mut Step) -> FrameSet {
        match self.attempts.get_mut(&spare) {
            Some(heir) if !frames.is_empty() => {
                heir.work = Work::Chunk(frames);
                step.changes.push(super::records::Key::Attempt(spare));
                FrameSet::new()
            }
            _ => frames,
        }
    }
}
