//! Results of attempts.

use std::borrow::Cow;

use hearth_storage::manifest::ManifestDigest;
use hearth_workflows::FrameSet;

use crate::farm::{
    model::{
        attempt::{Estimate, Work},
        command::{Effect, JobEvent, Outcome, Step},
        ids::{AttemptId, JobId, NodeName, Session, Timestamp},
        job::{Ended, FailureKind, Phase, Piece},
        key::Key,
    },
    state::{Farm, pace::Runner},
};

/// Why a node is told to stop.
pub(in crate::farm) const FINISHED_ELSEWHERE: &str = "another attempt has finished its frames";

/// What a chunk has brought, as its node tells.
#[derive(Debug, Clone, Copy)]
struct Brought<'a> {
    frames: &'a FrameSet,
    seconds: f64,
    published: Option<ManifestDigest>,
}

impl Farm {
    /// An attempt has ended, well or not. The report may be late (its lease has run out) or come twice. It counts from
    /// the node that was handed the attempt, over that node's present connection, and for the frames that it was handed.
    pub(in crate::farm) fn result(
        &mut self,
        now: Timestamp,
        session: Session,
        name: &NodeName,
        id: AttemptId,
        frames: &FrameSet,
        outcome: Outcome,
        step: &mut Step,
    ) {
        // From an earlier connection: it comes again over the present one.
        if self.current(session, name).is_none() {
            return;
        }
        // Whatever it means, it must not be reported for ever.
        step.effects.push(Effect::Acknowledge { session, attempt: id });
        let ours = self.attempts.get(&id).filter(|attempt| attempt.node == *name);
        let handed = match ours {
            Some(attempt) => attempt.work.rendered(),
            None => match self.jobs.get(&id.job).and_then(|job| job.was_handed(id.number, name)) {
                Some(handed) => handed.frames.as_ref(),
                None => return,
            },
        };
        let ours = ours.is_some();
        let is_chore = handed.is_none();
        // A chore's success is looked at before it is told here, and known by having no frames: with some of them it has
        // not been.
        let outcome = match outcome {
            Outcome::Succeeded { .. } if is_chore && !frames.is_empty() => Outcome::Failed {
                kind: FailureKind::Internal,
                message: "its node tells of frames, and it has none; look which agent runs there".to_owned(),
                frames: FrameSet::new(),
            },
            outcome => outcome,
        };
        let frames = &match handed {
            Some(handed) if handed == frames => Cow::Borrowed(frames),
            handed => Cow::Owned(handed.map(|handed| handed.intersection(frames)).unwrap_or_default()),
        };
        match outcome {
            Outcome::Failed { kind, message, frames: named } => {
                if ours {
                    self.fail(now, id, kind, message, &named, step);
                }
            }
            Outcome::Succeeded { seconds, published } => {
                let brought = Brought { frames, seconds, published };
                // What has brought its result brings nothing later.
                let held = if ours { self.let_hold_go(now, id, step) } else { None };
                let measured = held.as_ref().map(|attempt| (attempt.estimate, attempt.spent(now)));
                match held.map(|attempt| attempt.work) {
                    Some(Work::Assembly | Work::Delivery | Work::CleanUp) => {
                        self.chore_done(now, id.job, step);
                    }
                    None if is_chore => {
                        // A late one has put its result in its place; a late clean-up is done again.
                        let wanted = self
                            .jobs
                            .get(&id.job)
                            .is_some_and(|job| matches!(job.phase, Phase::Assembling | Phase::Delivering));
                        if wanted {
                            self.chore_done(now, id.job, step);
                        }
                    }
                    Some(Work::Spare { .. }) => {
                        self.chunk_done(now, name, id, brought, &FrameSet::new(), step);
                        if let Some((estimate, spent)) = measured {
                            self.learn(now, name, id.job, (frames.len(), seconds), (estimate, spent), step);
                        }
                    }
                    Some(Work::Chunk(left)) => {
                        self.chunk_done(now, name, id, brought, &left, step);
                        if let Some((estimate, spent)) = measured {
                            self.learn(now, name, id.job, (frames.len(), seconds), (estimate, spent), step);
                        }
                        // What the node answered for but did not bring. Nothing, from an honest agent.
                        let Some(job) = self.jobs.get_mut(&id.job) else { return };
                        let mut missing = left;
                        missing.remove_all(&job.done);
                        missing.remove_all(&job.failed);
                        if !missing.is_empty() {
                            job.waiting.insert_all(&missing);
                            self.changed(id.job, step);
                        }
                    }
                    None => self.chunk_done(now, name, id, brought, &FrameSet::new(), step),
                }
                self.touched.job(id.job);
                self.touched.chores();
                self.touched.node(name);
            }
        }
    }

    /// Frames have been rendered. Used as far as they are still not done; never counted twice. `leased`: what
    /// the attempt had a lease on just now; nothing, for a late result.
    fn chunk_done(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        id: AttemptId,
        Brought { frames, seconds, published }: Brought,
        leased: &FrameSet,
        step: &mut Step,
    ) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let known_number = id.number < job.next_attempt && !job.pieces.contains_key(&id.number);
        let takes_more = matches!(job.phase, Phase::Rendering | Phase::Ended(Ended::Failed | Ended::Partial));
        if !takes_more || !known_number {
            return;
        }
        let mut fresh = frames.intersection(&job.spec.frames);
        fresh.remove_all(&job.done);
        if fresh.is_empty() {
            return;
        }
        job.finish(&fresh);
        job.note_speed(now, fresh.len());
        job.in_a_row = 0;
        job.hindered = 0;
        job.in_a_row_on.remove(name);
        job.pieces.insert(id.number, Piece { node: name.clone(), frames: fresh.clone(), published });
        step.changes.push(Key::Piece(id));
        let convicted = job.convicted(name);
        if let Some(node) = self.nodes.get_mut(name) {
            node.frames_done += fresh.len();
            node.chunks_done += 1;
            if node.has_record() {
                self.clear_record(name, step);
            }
        }
        for (node, message) in convicted {
            self.hold_against(now, &node, id.job, &message, step);
        }
        if !fresh.is_subset(leased) {
            self.shrink_others(now, id.job, &fresh, FINISHED_ELSEWHERE, step);
        }
        let node = name.clone();
        let event = JobEvent::ChunkFinished { attempt: id, node, frames: fresh, seconds };
        step.event(id.job, event);
        self.revive(id.job);
        self.changed(id.job, step);
    }

    /// What a chunk's time tells of job and node, and what it costs the show.
    pub(in crate::farm) fn learn(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        id: JobId,
        (frames, seconds): (u64, f64),
        (estimate, spent): (Estimate, f64),
        step: &mut Step,
    ) {
        let (Some(job), Some(node)) = (self.jobs.get(&id), self.nodes.get(name)) else { return };
        let spec = job.spec.clone();
        let runner = Runner { name, kind: &node.capabilities.device };
        let known = spec.workflow().and_then(|workflow| self.workflows.get_mut(workflow));
        if let Some(known) = known {
            let loading = (!estimate.loaded).then(|| known.load());
            known.pace.measure(job.variant, runner, estimate.rendered, seconds, loading);
            if known.pace.did_fit(runner.kind, frames)
                && let Some(workflow) = spec.workflow()
            {
                self.keep_pace(workflow, step);
            }
        }
        let who = (spec.show.as_str(), spec.user.as_str());
        self.shares.charge(now, self.config.half_life, who, seconds - spent);
    }

    /// A late result may bring what another node is rendering again by now: that node answers for less, or is
    /// told to stop.
    pub(in crate::farm) fn shrink_others(
        &mut self,
        now: Timestamp,
        id: JobId,
        fresh: &FrameSet,
        reason: &'static str,
        step: &mut Step,
    ) {
        let shares = |other: &&AttemptId| {
            let theirs = self.attempts.get(*other).and_then(|held| held.work.rendered());
            theirs.is_some_and(|theirs| !theirs.intersection(fresh).is_empty())
        };
        let running = self.jobs.get(&id).map(|job| &job.running);
        let others: Vec<AttemptId> = running.into_iter().flatten().filter(shares).copied().collect();
        for other in others {
            let held = self.attempts.get_mut(&other).map(|held| &mut held.work);
            let Some(Work::Chunk(theirs) | Work::Spare { frames: theirs, .. }) = held else { continue };
            theirs.remove_all(fresh);
            if theirs.is_empty() {
                self.withdraw(now, other, reason, step);
            } else {
                step.changes.push(Key::Attempt(other));
            }
        }
    }
}
