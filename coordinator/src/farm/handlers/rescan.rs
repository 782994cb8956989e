//! What a connection or a store has lost, and how the farm finds it again.
//!
//! A store that may have lost its latest writes (see `docs/durability.md`) is some moments behind what nodes
//! and storage know. Until a job has been *surveyed* (its folders on storage read), nothing of it is handed
//! out: a frame that is finished there must not be rendered again.

use std::sync::Arc;

use hearth_workflows::{FrameSet, RootPath, Workflow};

use crate::farm::{
    handlers::result::FINISHED_ELSEWHERE,
    model::{
        attempt::Work,
        command::{Found, JobEvent, Step},
        ids::{AttemptId, JobId, Priority, Timestamp},
        job::{Ended, Phase, Piece},
        key::Key,
        spec::JobSpec,
    },
    state::Farm,
};

/// Numbers left out after a loss, so that none is given out twice: far more than can be given out in the two
/// seconds that a store can lose.
const LOST_ATTEMPTS: u32 = 1 << 16;

const LOST_JOBS: u64 = 1_000;

/// Where a job's work lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToSurvey {
    pub job: JobId,
    pub work_dir: RootPath,
    pub output: RootPath,
    /// Those that a whole sequence has.
    pub frames: FrameSet,
}

/// What a cancelled job has left is cleaned up without looking; what is done is done.
fn needs_survey(phase: Phase) -> bool {
    matches!(phase, Phase::Rendering | Phase::Assembling | Phase::Ended(Ended::Failed | Ended::Partial))
}

impl Farm {
    /// No node is connected any more. Every attempt gets a whole lease, in which its agent can come back.
    pub(in crate::farm) fn disconnect(&mut self, now: Timestamp, step: &mut Step) {
        let connected = self.nodes.values_mut().filter(|node| node.session.is_some());
        let names: Vec<_> = connected
            .map(|node| {
                node.session = None;
                node.last_seen = now;
                node.about.name.clone()
            })
            .collect();
        for name in names {
            self.reopen(&name);
            step.changes.push(Key::Node(name));
        }
        let attempts: Vec<AttemptId> = self.attempts.keys().copied().collect();
        attempts.into_iter().for_each(|id| self.renew(now, id));
    }

    /// The store may have lost its latest writes: no number is given out a second time, and every open job
    /// waits for its survey.
    pub(in crate::farm) fn distrust(&mut self, step: &mut Step) {
        self.next_job += LOST_JOBS;
        step.changes.push(Key::Meta);
        let is_over = |phase| matches!(phase, Phase::Ended(Ended::Done | Ended::Cancelled { cleaned: true }));
        let open: Vec<JobId> =
            self.jobs.iter().filter(|(_, job)| !is_over(job.phase)).map(|(id, _)| *id).collect();
        for id in open {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.next_attempt = job.next_attempt.saturating_add(LOST_ATTEMPTS);
                job.surveying = needs_survey(job.phase);
            }
            self.changed(id, step);
        }
    }

    /// Takes in a job that nothing but its folders on storage remembers, under the number it had.
    pub fn recover(&mut self, now: Timestamp, id: u64, spec: JobSpec, workflow: Workflow) {
        let id = JobId(id);
        self.next_job = self.next_job.max(id.0 + 1);
        self.take_in(now, id, spec, Priority::DEFAULT, Some(Arc::new(workflow)));
    }

    /// The jobs that wait for their survey.
    pub fn to_survey(&self) -> Vec<ToSurvey> {
        let waiting = self.jobs.iter().filter(|(_, job)| job.surveying);
        waiting
            .map(|(id, job)| ToSurvey {
                job: *id,
                work_dir: job.spec.work_dir(&self.tag.0, id.0),
                output: job.spec.output.clone(),
                frames: job.spec.frames.clone(),
            })
            .collect()
    }

    /// What lies on storage of a job: whole pieces, or the whole sequence in its place (`assembled`).
    pub(in crate::farm) fn surveyed(
        &mut self,
        now: Timestamp,
        id: JobId,
        found: Vec<Found>,
        assembled: bool,
        step: &mut Step,
    ) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.surveying) else { return };
        if needs_survey(job.phase) {
            if assembled {
                self.was_assembled(now, id, step);
            } else {
                found.into_iter().for_each(|piece| self.was_rendered(now, id, piece, step));
                self.revive(id);
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.surveying = false;
        }
        self.changed(id, step);
        self.touched.job(id);
        self.touched.chores();
        self.touched.open_nodes();
    }

    fn was_rendered(&mut self, now: Timestamp, id: JobId, piece: Found, step: &mut Step) {
        let Found { number, node, frames, published } = piece;
        let attempt = AttemptId { job: id, number };
        // Published, so it is over, whatever the store says.
        let held = self.release(now, attempt, step);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(Work::Chunk(held)) = held.map(|held| held.work) {
            job.waiting.insert_all(&held);
        }
        if number >= job.next_attempt {
            // Others that came after it may not be published yet.
            job.next_attempt = number.saturating_add(LOST_ATTEMPTS);
        }
        let mut fresh = frames.intersection(&job.spec.frames);
        fresh.remove_all(&job.done);
        if fresh.is_empty() {
            return;
        }
        job.finish(&fresh);
        let known = job.pieces.entry(number);
        let known = known.or_insert_with(|| Piece {
            node: node.clone(),
            frames: FrameSet::new(),
            published: Some(published),
        });
        known.frames.insert_all(&fresh);
        step.changes.push(Key::Piece(attempt));
        self.shrink_others(now, id, &fresh, FINISHED_ELSEWHERE, step);
        step.event(id, JobEvent::ChunkFinished { attempt, node, frames: fresh, seconds: 0.0 });
    }

    fn was_assembled(&mut self, now: Timestamp, id: JobId, step: &mut Step) {
        let running = self.jobs.get(&id).map(|job| job.running.clone()).unwrap_or_default();
        for attempt in running {
            self.withdraw(now, attempt, "the sequence is in its place already", step);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.phase = Phase::Assembling;
        job.waiting = FrameSet::new();
        job.suspects.clear();
        job.failed = FrameSet::new();
        job.done = job.spec.frames.clone();
        self.chore_done(now, id, step);
    }
}
