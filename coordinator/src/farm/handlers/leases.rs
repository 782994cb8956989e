//! Leases: who is heard of keeps what it holds, and who is not loses it.

use hearth_workflows::FrameSet;

use crate::farm::{
    handlers::sessions::CLOCKS_DIFFER,
    model::{
        attempt::Progress,
        command::{JobEvent, Step},
        ids::{AttemptId, NodeName, Session, Timestamp},
        job::FailureKind,
    },
    state::Farm,
};

impl Farm {
    pub(in crate::farm) fn heartbeat(
        &mut self,
        now: Timestamp,
        session: Session,
        name: &NodeName,
        attempts: &[AttemptId],
        clock: Option<Timestamp>,
    ) {
        let Some(node) = self.current(session, name) else { return };
        node.last_seen = now;
        node.agrees = clock.is_some_and(|clock| clock.since(now).max(now.since(clock)) <= CLOCKS_DIFFER);
        for attempt in attempts {
            if self.attempts.get(attempt).is_some_and(|held| held.node == *name) {
                self.renew(now, *attempt);
            }
        }
    }

    pub(in crate::farm) fn progress(
        &mut self,
        now: Timestamp,
        session: Session,
        name: &NodeName,
        id: AttemptId,
        progress: Progress,
        step: &mut Step,
    ) {
        if self.current(session, name).is_none() {
            return;
        }
        if self.attempts.get(&id).is_none_or(|attempt| attempt.node != *name) {
            return;
        }
        self.renew(now, id);
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.progress = Some(progress);
        }
        step.event(id.job, JobEvent::Changed);
    }

    pub(in crate::farm) fn expire_leases(&mut self, now: Timestamp, step: &mut Step) {
        while let Some(&(until, id)) = self.leases.first() {
            if until > now {
                break;
            }
            let message = match self.attempts.get(&id) {
                Some(attempt) => format!(
                    "nothing was heard of it from {} for {} s; look whether the host and its agent run",
                    attempt.node,
                    self.config.lease.as_secs()
                ),
                None => String::new(),
            };
            self.fail(now, id, FailureKind::Lost, message, &FrameSet::new(), step);
        }
    }

    /// Forgets that nodes should leave jobs alone, where the time is over.
    pub(in crate::farm) fn wake(&mut self, now: Timestamp) {
        while let Some(&(at, id)) = self.wakeups.first() {
            if at > now {
                break;
            }
            self.wakeups.pop_first();
            if let Some(job) = self.jobs.get_mut(&id) {
                job.avoid.retain(|_, until| *until > now);
            }
        }
    }
}
