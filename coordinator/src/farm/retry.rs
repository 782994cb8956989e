//! What a failure means: whose fault it is, what is tried again and what is given up.

use hearth_workflows::FrameSet;

use super::{
    Farm,
    attempt::Work,
    command::{JobEvent, Step},
    ids::{AttemptId, NodeName, Timestamp},
    job::{Ended, Failure, FailureKind, Phase},
    node::Lack,
    records::Key,
};

/// What is held against the frames of a failed chunk.
enum Blame {
    /// Every frame of it has failed once more.
    Chunk,
    /// Only these have; the others did nothing wrong.
    Frames(FrameSet),
    /// None: the node could not have done it.
    Node,
    /// None, but the next chunk for this node is half as long.
    Size,
}

fn blame(kind: FailureKind, chunk: &FrameSet, named: &FrameSet, can_shrink: bool) -> Blame {
    match kind {
        FailureKind::Missing => Blame::Node,
        FailureKind::OutOfMemory if chunk.len() > 1 && can_shrink => Blame::Size,
        FailureKind::BadFrame => {
            // A frame of the handles may be the bad one: then the chunk cannot be rendered as it is.
            let own = named.intersection(chunk);
            if own.is_empty() { Blame::Chunk } else { Blame::Frames(own) }
        }
        FailureKind::Refused
        | FailureKind::Execution
        | FailureKind::OutOfMemory
        | FailureKind::ComfyDied
        | FailureKind::Hung
        | FailureKind::Storage
        | FailureKind::BadOutput
        | FailureKind::Lost
        | FailureKind::Interrupted
        | FailureKind::Internal => Blame::Chunk,
    }
}

impl Farm {
    /// An attempt has failed. `named`: frames that the failure is about, where it says so.
    pub(super) fn fail(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        kind: FailureKind,
        message: String,
        named: &FrameSet,
        step: &mut Step,
    ) {
        let frames = self.attempts.get(&id).and_then(|attempt| attempt.work.rendered()).cloned();
        let Some(attempt) = self.release(now, id, step) else { return };
        let node = attempt.node;
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let failure = Failure {
            attempt: id.number,
            node: node.clone(),
            frames: frames.unwrap_or_default(),
            kind,
            message: message.clone(),
            at: now,
        };
        job.remember(failure.clone());
        match attempt.work {
            // The chunk itself may still come.
            Work::Spare { .. } => {}
            Work::Chunk(frames) => {
                self.fail_chunk(now, id, &node, &frames, (kind, message), named);
            }
            Work::Assembly => self.fail_assembly(now, id, &node, (kind, message), named, step),
            Work::Delivery => self.fail_delivery(now, id, &node, message, step),
            Work::CleanUp => self.fail_clean_up(now, id, &node, step),
        }
        step.event(id.job, JobEvent::ChunkFailed(failure));
        self.changed(id.job, step);
        self.settle(now, id.job, step);
        self.fill_chores(now, step);
        self.fill_open(now, step);
    }

    fn fail_chunk(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        name: &NodeName,
        frames: &FrameSet,
        (kind, message): (FailureKind, String),
        named: &FrameSet,
    ) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let limit = self.config.max_tries;
        let Some(render) = job.spec.render().cloned() else { return };
        let known = self.workflows.get(&render.workflow);
        let can_shrink = known.is_some_and(|known| !render.split(&known.workflow).is_whole());
        let blame = blame(kind, frames, named, can_shrink);
        let too_big = matches!(blame, Blame::Size);
        let given_up = match blame {
            Blame::Chunk => job.count_failure(frames, limit),
            Blame::Frames(bad) => job.count_failure(&bad, limit),
            Blame::Node => {
                let alike = self.classes.ids().filter(|(_, workflow)| **workflow == render.workflow);
                if let Some(node) = self.nodes.get_mut(name) {
                    node.fits.extend(alike.map(|(class, _)| (class, Err(Lack::Tried(message.clone())))));
                }
                FrameSet::new()
            }
            Blame::Size => {
                if let Some(known) = self.workflows.get_mut(&render.workflow) {
                    let kind = self.nodes.get(name).map_or("", |node| node.capabilities.device.as_str());
                    known.pace.too_much(kind, frames.len());
                }
                FrameSet::new()
            }
        };
        let mut again = frames.clone();
        again.remove_all(&given_up);
        let tries = again.first().map_or(0, |frame| job.tries_of(frame));
        job.waiting.insert_all(&again);
        job.failed.insert_all(&given_up);
        if let Some(node) = self.nodes.get_mut(name) {
            node.chunks_failed += 1;
        }
        if kind == FailureKind::Storage {
            // Storage is the same for every node: the next one would fail as fast.
            self.rest(now, id.job, tries as u32);
        }
        if !too_big {
            self.keep_apart(now, id.job, name, tries as u32);
        }
    }

    fn fail_assembly(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        name: &NodeName,
        (kind, message): (FailureKind, String),
        named: &FrameSet,
        step: &mut Step,
    ) {
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
            let given_up = job.count_failure(&broken, limit);
            job.waiting.insert_all(&broken);
            job.waiting.remove_all(&given_up);
            job.failed.insert_all(&given_up);
            job.phase = Phase::Rendering;
            return;
        }
        self.keep_apart(now, id.job, name, tries);
    }

    fn fail_delivery(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        name: &NodeName,
        message: String,
        step: &mut Step,
    ) {
        let limit = self.config.max_tries;
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        job.chore_tries += 1;
        let tries = job.chore_tries;
        if tries >= limit {
            job.failed = std::mem::take(&mut job.waiting);
            job.message = message;
            self.end(now, id.job, Ended::Failed, step);
            return;
        }
        self.keep_apart(now, id.job, name, tries);
    }

    fn fail_clean_up(&mut self, now: Timestamp, id: AttemptId, name: &NodeName, step: &mut Step) {
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
