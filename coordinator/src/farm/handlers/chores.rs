//! Failed assemblies, deliveries and clean-ups.

use hearth_workflows::FrameSet;

use crate::farm::{
    handlers::failure::LONGEST_WAIT,
    model::{
        command::Step,
        ids::{AttemptId, NodeName, Timestamp},
        job::{Ended, FailureKind, Phase},
        key::Key,
    },
    state::Farm,
};

impl Farm {
    /// An assembly, a delivery or a clean-up was hindered by its surroundings: it is tried again, as often as needed.
    fn chore_hindered(&mut self, now: Timestamp, id: AttemptId, name: &NodeName, kind: FailureKind) -> bool {
        let hindered = match kind {
            FailureKind::Storage | FailureKind::Unavailable => true,
            FailureKind::Lost => self.others_are_gone(now, name),
            _ => false,
        };
        if !hindered {
            return false;
        }
        let Some(job) = self.jobs.get_mut(&id.job) else { return true };
        job.hindered += 1;
        let (hindered, limit) = (job.hindered, LONGEST_WAIT);
        self.keep_apart(now, id.job, name, hindered.min(limit));
        // Shorter than that: another node goes first.
        let until = self.after_failures(now, hindered.min(limit) - 1);
        if let Some(job) = self.jobs.get_mut(&id.job) {
            job.chore_not_before = until;
        }
        true
    }

    pub(in crate::farm) fn fail_assembly(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        name: &NodeName,
        (kind, message): (FailureKind, String),
        named: &FrameSet,
        step: &mut Step,
    ) {
        if self.chore_hindered(now, id, name, kind) {
            return;
        }
        let limit = self.config.max_tries;
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        job.chore_tries += 1;
        let tries = job.chore_tries;
        let broken = named.intersection(&job.done);
        if tries >= limit {
            job.message = format!("the sequence could not be put together: {message}");
            self.end(now, id.job, Ended::Failed, step);
            return;
        }
        if kind == FailureKind::BadOutput && !broken.is_empty() {
            // Finished frames have gone or gone bad since: they are rendered again.
            for (number, piece) in &mut job.pieces {
                if !piece.frames.intersection(&broken).is_empty() {
                    piece.frames.remove_all(&broken);
                    step.changes.push(Key::Piece(AttemptId { job: id.job, number: *number }));
                    // Whoever made them, not whoever found out.
                    if let Some(maker) = self.nodes.get_mut(&piece.node) {
                        maker.chunks_failed += 1;
                    }
                }
            }
            job.pieces.retain(|_, piece| !piece.frames.is_empty());
            job.done.remove_all(&broken);
            job.waiting.insert_all(&broken);
            let given_up = job.count_failure(&broken, limit);
            job.give_up(&given_up, kind, &message);
            job.phase = Phase::Rendering;
            return;
        }
        self.keep_apart(now, id.job, name, tries);
    }

    pub(in crate::farm) fn fail_delivery(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        name: &NodeName,
        (kind, message): (FailureKind, String),
        step: &mut Step,
    ) {
        if self.chore_hindered(now, id, name, kind) {
            return;
        }
        let limit = self.config.max_tries;
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        job.chore_tries += 1;
        let tries = job.chore_tries;
        if tries >= limit {
            let frames = job.waiting.clone();
            job.give_up(&frames, kind, &message);
            job.message = message;
            self.end(now, id.job, Ended::Failed, step);
            return;
        }
        self.keep_apart(now, id.job, name, tries);
    }

    pub(in crate::farm) fn fail_clean_up(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        name: &NodeName,
        kind: FailureKind,
        step: &mut Step,
    ) {
        if self.chore_hindered(now, id, name, kind) {
            return;
        }
        let limit = self.config.max_tries;
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        job.chore_tries += 1;
        let tries = job.chore_tries;
        if tries >= limit {
            let left = job.spec.work_dir(&self.tag.0, id.job.0);
            job.message = format!("could not be cleaned up; remove {left} by hand");
            self.end(now, id.job, Ended::Cancelled { cleaned: true }, step);
            return;
        }
        self.keep_apart(now, id.job, name, tries);
    }
}
