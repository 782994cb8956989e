//! Forgetting jobs that ended long ago, and nodes that went away long ago.

use std::time::Duration;

use crate::farm::{
    model::{
        command::Step,
        ids::{AttemptId, JobId, Timestamp},
        job::{Ended, Phase},
        key::Key,
        node::Node,
    },
    state::Farm,
};

/// Jobs looked at in one tick.
const FORGET_AT_ONCE: usize = 1_000;

fn job_attempt(job: JobId, number: u32) -> AttemptId {
    AttemptId { job, number }
}

impl Farm {
    /// Forgets jobs that ended long ago, and nodes that went away long ago.
    pub(in crate::farm) fn forget(&mut self, now: Timestamp, step: &mut Step) {
        // A clock that is days ahead would throw away what people have rendered: one other must say the same.
        let is_agreed = self.nodes.values().any(|node| node.session.is_some() && node.agrees);
        let surplus = self.ended.len().saturating_sub(self.config.max_ended);
        let is_due = |(index, (ended, _)): &(usize, (Timestamp, JobId))| {
            *index < surplus || is_agreed && now.since(*ended) > self.config.keep_ended
        };
        let due: Vec<_> =
            self.ended.iter().copied().enumerate().take_while(is_due).take(FORGET_AT_ONCE).collect();
        for (_, (ended, id)) in due {
            let Some(job) = self.jobs.get(&id) else {
                self.ended.remove(&(ended, id));
                continue;
            };
            match job.phase {
                // What a failed job rendered is still on storage: clean up first, forget later.
                Phase::Ended(Ended::Failed | Ended::Partial) => {
                    self.abandon(now, id, Duration::ZERO, step);
                    self.touched.chores();
                }
                // Cleaned up first.
                Phase::Ended(Ended::Cancelled { cleaned: false }) => self.let_go(id, step),
                _ => self.forget_job(ended, id, step),
            }
        }
        let deadline = self.config.forget_node;
        let is_due = |node: &&Node| node.is_forgettable() && now.since(node.last_seen) > deadline;
        let due: Vec<_> = self.nodes.values().filter(is_due).map(|node| node.about.name.clone()).collect();
        for name in due {
            self.drop_node(&name);
            step.changes.push(Key::Node(name));
        }
    }

    fn forget_job(&mut self, ended: Timestamp, id: JobId, step: &mut Step) {
        self.ended.remove(&(ended, id));
        let Some(job) = self.jobs.remove(&id) else { return };
        self.unindex(id, &job);
        step.changes.extend([Key::Spec(id), Key::Job(id)]);
        step.changes.extend(job.pieces.keys().map(|number| Key::Piece(job_attempt(id, *number))));
        let Some(workflow) = job.spec.workflow() else { return };
        if self.workflows.get(workflow).is_some_and(|known| known.jobs == 0) {
            self.workflows.remove(workflow);
            step.changes.extend([Key::Workflow(workflow.clone()), Key::Pace(workflow.clone())]);
        }
    }
}
