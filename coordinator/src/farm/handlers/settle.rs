//! Where a job goes on once its frames have changed, and how it ends.

use std::collections::BTreeSet;

use crate::farm::{
    model::{
        command::{JobEvent, Step},
        ids::{AttemptId, JobId, NodeName, Timestamp},
        job::{Ended, Job, MOST_MAKERS, Phase},
        key::Key,
    },
    state::Farm,
};

/// Different reasons that a job's message names.
const TOLD_REASONS: usize = 3;

/// What people are told of a sequence that is there but for some frames.
fn partial(job: &Job) -> String {
    let stopped = if job.message.is_empty() { String::new() } else { format!("{}; ", job.message) };
    format!("{stopped}done with failed frames {}: {}", job.failed, reasons(job))
}

/// Why frames have failed for good.
fn reasons(job: &Job) -> String {
    let told = match &job.lost[..] {
        [only] => only.message.clone(),
        several => {
            let few = several.iter().take(TOLD_REASONS);
            let few: Vec<String> = few.map(|lost| format!("{}: {}", lost.frames, lost.message)).collect();
            few.join("; ")
        }
    };
    let more = job.lost.len().saturating_sub(TOLD_REASONS);
    if more > 0 { format!("{told}; and {more} more reasons") } else { told }
}

impl Farm {
    /// A failed job whose last missing frames came late after all is not failed any more; a sequence that is there
    /// but for some frames is put together again with one of them.
    pub(in crate::farm) fn revive(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let place_is_free = self.outputs.get(job.spec.output.as_str()).is_none_or(|other| *other == id);
        let goes_on = match job.phase {
            Phase::Ended(Ended::Failed) => job.failed.is_empty() && job.spec.render().is_some(),
            Phase::Ended(Ended::Partial) => true,
            _ => false,
        };
        if goes_on && place_is_free {
            job.phase = Phase::Rendering;
            job.message.clear();
            if let Some(ended) = job.ended.take() {
                self.ended.remove(&(ended, id));
            }
            self.outputs.insert(job.spec.output.to_string(), id);
        }
    }

    pub(in crate::farm) fn chore_done(&mut self, now: Timestamp, id: JobId, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match job.phase {
            Phase::Assembling if !job.failed.is_empty() => {
                // What was rendered is kept: a retry puts the sequence together anew.
                job.message = partial(job);
                self.end(now, id, Ended::Partial, step);
            }
            Phase::Assembling => {
                // The sequence's own manifest tells who made what from now on.
                let pieces = std::mem::take(&mut job.pieces);
                let makers: BTreeSet<&NodeName> = pieces.values().map(|piece| &piece.node).collect();
                job.makers = makers.into_iter().take(MOST_MAKERS).cloned().collect();
                let keys = pieces.keys().map(|number| Key::Piece(AttemptId { job: id, number: *number }));
                step.changes.extend(keys);
                job.tries.clear();
                self.end(now, id, Ended::Done, step);
            }
            Phase::Delivering => {
                job.done = std::mem::take(&mut job.waiting);
                self.end(now, id, Ended::Done, step);
            }
            Phase::Ended(Ended::Cancelled { cleaned: false }) => {
                self.end(now, id, Ended::Cancelled { cleaned: true }, step);
            }
            Phase::Rendering | Phase::Ended(_) => return,
        }
        // A late report has ended the job while another node was at the same chore.
        let others = self.jobs.get(&id).map(|job| job.running.clone());
        for other in others.into_iter().flatten() {
            self.withdraw(now, other, "another node has done it", step);
        }
    }

    /// Moves a job on when no frame of it waits or runs any more.
    pub(in crate::farm) fn settle(&mut self, now: Timestamp, id: JobId, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let rendered = job.phase == Phase::Rendering && job.waiting.is_empty() && job.running.is_empty();
        if !rendered {
            return;
        }
        if !job.done.is_empty() {
            job.phase = Phase::Assembling;
            self.changed(id, step);
            return;
        }
        if job.message.is_empty() {
            job.message = format!("every frame has failed: {}", reasons(job));
        }
        self.end(now, id, Ended::Failed, step);
    }

    /// The job's end, whatever it is.
    pub(in crate::farm) fn end(&mut self, now: Timestamp, id: JobId, ended: Ended, step: &mut Step) {
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
                }
                Ended::Cancelled { .. } if open => {
                    self.abandon(now, dependent, self.config.keep_cancelled, step);
                }
                Ended::Partial | Ended::Failed | Ended::Cancelled { .. } => {}
            }
            step.event(dependent, JobEvent::Changed);
        }
    }

    /// Moves touched jobs to the phase that their frames ask for.
    pub(in crate::farm) fn settle_touched(&mut self, now: Timestamp, step: &mut Step) {
        while let Some(id) = self.touched.jobs.pop() {
            self.settle(now, id, step);
        }
    }
}
