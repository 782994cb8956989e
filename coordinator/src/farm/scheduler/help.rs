//! What an idle node does for others: a chunk that takes far longer than it should is given to it as well, and a chunk
//! that waits behind another is given to it instead. Who is first wins, the other is told to stop.

use crate::farm::{
    model::{
        attempt::{Attempt, Work},
        command::{Effect, Step},
        ids::{AttemptId, NodeName, Timestamp},
        job::Phase,
    },
    state::{Farm, pace::Runner},
};

/// A chunk is late when it takes so many times what it should, and some seconds more (`FarmConfig::late`).
const LATE: f64 = 1.8;

/// A chunk that has not begun moves to another node when it ends so many seconds earlier there.
const SOONER: f64 = 1.0;

/// Chunks looked at for one idle node.
const LOOKED_AT: usize = 256;

impl Farm {
    /// Gives idle nodes what is late elsewhere, or else to whoever is free next (a job waits for its last chunk), and
    /// what waits behind another chunk.
    pub(in crate::farm) fn help_out(&mut self, now: Timestamp, step: &mut Step) {
        let late = self.attempts.keys().copied().filter(|id| self.is_late(now, *id));
        self.late = late.collect();
        if self.late.is_empty() && self.behind.all().is_empty() {
            return;
        }
        let idle: Vec<NodeName> =
            self.open.iter().take_while(|(held, _)| *held == 0).map(|(_, name)| name.clone()).collect();
        for name in idle.iter().take(self.late.len() + self.behind.all().len()) {
            if !self.assign_spare(now, name, step) {
                self.take_over(now, name, false, step);
            }
        }
    }

    /// Hands the node a chunk that is late elsewhere; false when there is none for it.
    pub(in crate::farm) fn assign_spare(&mut self, now: Timestamp, name: &NodeName, step: &mut Step) -> bool {
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

    /// Hands the idle node a chunk that waits behind another one elsewhere, if it ends sooner here; false when there
    /// is none. `urgent`: only one of an urgent job, which goes before whatever the node could have.
    pub(in crate::farm) fn take_over(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        urgent: bool,
        step: &mut Step,
    ) -> bool {
        if self.nodes.get(name).is_none_or(|node| !node.is_open() || !node.chunks.is_empty()) {
            return false;
        }
        let gain = |id: &AttemptId| Some((self.gain(now, *id, name)?, *id));
        let behind = if urgent { self.behind.urgent() } else { self.behind.all() };
        let best = behind.iter().take(LOOKED_AT).filter_map(gain).max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((gain, id)) = best else { return false };
        if gain < SOONER {
            return false;
        }
        let holder = self.attempts.get(&id).and_then(|held| self.nodes.get(&held.node)?.session);
        let Some(Attempt { work: Work::Chunk(frames), .. }) = self.release(now, id, step) else {
            return false;
        };
        if let Some(session) = holder {
            let reason = "an idle node begins it sooner";
            step.effects.push(Effect::Cancel { session, attempt: id, reason });
        }
        self.hand_out(now, name, id.job, Work::Chunk(frames), step);
        true
    }

    /// Seconds by which a chunk that has not begun would end sooner on the idle node `name`.
    fn gain(&self, now: Timestamp, id: AttemptId, name: &NodeName) -> Option<f64> {
        let attempt = self.attempts.get(&id)?;
        let holder = self.nodes.get(&attempt.node)?;
        if !matches!(attempt.work, Work::Chunk(_)) || attempt.spare.is_some() || !self.may_have(now, id, name)
        {
            return None;
        }
        let here = self.seconds_on(id, name)?;
        let before = holder.chunks.iter().filter(|other| **other != id);
        let is_before = |other: &&AttemptId| {
            self.attempts.get(*other).is_some_and(|other| other.assigned <= attempt.assigned)
        };
        let left: f64 = before.filter(is_before).map(|other| self.seconds_left(now, *other)).sum();
        Some(left + self.seconds_on(id, &attempt.node)? - here)
    }

    /// Until a chunk is over, as far as anybody can tell; what is late may take as long again.
    pub(in crate::farm) fn seconds_left(&self, now: Timestamp, id: AttemptId) -> f64 {
        let Some(attempt) = self.attempts.get(&id) else { return 0.0 };
        let expected = self.surely_seconds(id, attempt).unwrap_or(attempt.estimate.seconds);
        let spent = attempt.begun.map_or(0.0, |begun| now.since(begun).as_secs_f64());
        if spent > expected { spent } else { expected - spent }
    }

    fn is_late(&self, now: Timestamp, id: AttemptId) -> bool {
        let Some(attempt) = self.attempts.get(&id) else { return false };
        let Some(begun) = attempt.begun.filter(|_| attempt.work.is_chunk() && attempt.spare.is_none()) else {
            return false;
        };
        let spent = now.since(begun).as_secs_f64();
        // Little is known when a job begins, and more by the time that something of it is late.
        let expected =
            || self.surely_seconds(id, attempt).map(|seconds| seconds.max(attempt.estimate.seconds));
        spent > self.config.late.as_secs_f64()
            && expected().is_some_and(|seconds| spent > LATE * seconds + self.config.late.as_secs_f64())
            && self.jobs.get(&id.job).is_some_and(|job| job.phase == Phase::Rendering && !job.paused)
    }

    /// What the chunk should take where it is, as far as that can be said for sure.
    fn surely_seconds(&self, id: AttemptId, attempt: &Attempt) -> Option<f64> {
        let job = self.jobs.get(&id.job)?;
        let known = self.workflows.get(job.spec.workflow()?)?;
        if !known.pace.is_sure(job.variant) {
            return None;
        }
        let node = self.nodes.get(&attempt.node)?;
        let runner = Runner { name: &attempt.node, kind: &node.capabilities.device };
        let seconds = known.pace.seconds_per_frame(job.variant, runner)? * attempt.estimate.rendered as f64;
        Some(seconds + if attempt.estimate.loaded { 0.0 } else { known.load() })
    }

    /// Whether the node would be done with the chunk before as much time again has passed.
    fn could_overtake(&self, now: Timestamp, id: AttemptId, name: &NodeName) -> bool {
        let overtakes = || {
            let attempt = self.attempts.get(&id)?;
            Some(self.seconds_on(id, name)? < now.since(attempt.begun?).as_secs_f64())
        };
        self.is_late(now, id) && self.may_have(now, id, name) && overtakes().unwrap_or(false)
    }

    /// Whether the node may have a chunk that another one holds.
    fn may_have(&self, now: Timestamp, id: AttemptId, name: &NodeName) -> bool {
        let (Some(job), Some(attempt), Some(node)) =
            (self.jobs.get(&id.job), self.attempts.get(&id), self.nodes.get(name))
        else {
            return false;
        };
        let left_alone = job.avoid.get(name).is_some_and(|until| *until > now);
        !left_alone
            && !job.paused
            && job.phase == Phase::Rendering
            && *name != attempt.node
            && node.fits.get(&job.class) == Some(&Ok(()))
            && self.has_room(job, node).is_ok()
    }

    /// What the chunk would take there, loading included, as far as is known.
    fn seconds_on(&self, id: AttemptId, name: &NodeName) -> Option<f64> {
        let (job, attempt, node) = (self.jobs.get(&id.job)?, self.attempts.get(&id)?, self.nodes.get(name)?);
        let known = self.workflows.get(job.spec.workflow()?)?;
        let runner = Runner { name, kind: &node.capabilities.device };
        // Of those that another coordinator handed out it is not known.
        let rendered = Some(attempt.estimate.rendered).filter(|rendered| *rendered > 0)?;
        let seconds = known.pace.seconds_per_frame(job.variant, runner)? * rendered as f64;
        let loading = if node.loaded.as_ref() == job.spec.workflow() { 0.0 } else { known.load() };
        Some(seconds + loading)
    }
}
