//! What a failure means: whose fault it is, what is tried again and what is given up.
//!
//! Frames that fail together are halved until the bad ones stand alone (`suspects`); only those are given up, and the
//! job ends with all others. A job of which nothing succeeds anywhere is stopped.

use hearth_workflows::FrameSet;

use crate::farm::{
    handlers::blame::{Blame, Circumstances, blame, tells_of_job, tells_of_node},
    model::{
        attempt::Work,
        command::{JobEvent, Step},
        ids::{AttemptId, JobId, NodeName, Timestamp},
        job::{Failure, FailureKind},
        node::{Lack, Node},
    },
    state::Farm,
};

/// A job that has failed on so many nodes, and as often as a frame may, is stopped when nothing of it has succeeded;
/// on fewer nodes after twice as many failures.
const HOPELESS_NODES: usize = 3;

/// Waits for storage or a network that is away grow until this failure in a row: to half a minute, at the usual delay.
pub(in crate::farm) const LONGEST_WAIT: u32 = 4;

/// A job that has begun well is stopped when so many times as many chunks in a row have failed.
const HOPELESS_LATE: u32 = 10;

impl Farm {
    /// An attempt has failed. `named`: frames that the failure is about, where it says so.
    pub(in crate::farm) fn fail(
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
                self.fail_chunk(now, id, &node, &frames, (kind, message), named, step);
            }
            Work::Assembly => self.fail_assembly(now, id, &node, (kind, message), named, step),
            Work::Delivery => self.fail_delivery(now, id, &node, (kind, message), step),
            Work::CleanUp => self.fail_clean_up(now, id, &node, kind, step),
        }
        step.event(id.job, JobEvent::ChunkFailed(failure));
        self.changed(id.job, step);
        self.touched.job(id.job);
        self.touched.chores();
        self.touched.open_nodes();
    }

    fn fail_chunk(
        &mut self,
        now: Timestamp,
        id: AttemptId,
        name: &NodeName,
        frames: &FrameSet,
        (kind, message): (FailureKind, String),
        named: &FrameSet,
        step: &mut Step,
    ) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.chunks_failed += 1;
        }
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        if frames.is_empty() {
            // Another attempt answers for them by now.
            return;
        }
        let limit = self.config.max_tries;
        let Some(render) = job.spec.render().cloned() else { return };
        let known = self.workflows.get(&render.workflow);
        let may_shrink = known.is_some_and(|known| !render.split(&known.workflow).is_whole());
        let before = frames.first().map_or(0, |frame| job.tries_of(frame) as u32);
        let divisible = may_shrink && frames.len() > 1;
        let others_are_gone = self.others_are_gone(now, name);
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let last_try = before + 1 >= limit;
        let blame =
            blame(kind, &Circumstances { chunk: frames, named, divisible, last_try, others_are_gone });
        let hindered = matches!(blame, Blame::Surroundings);
        let too_big = matches!(blame, Blame::Size);
        let about_frames = tells_of_job(kind) && kind != FailureKind::Refused;
        job.waiting.insert_all(frames);
        let until = self.after_failures(now, before + 1);
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        match blame {
            Blame::Chunk => {
                let given_up = job.count_failure(frames, limit);
                job.give_up(&given_up, kind, &message);
                let mut again = frames.clone();
                again.remove_all(&given_up);
                if about_frames {
                    // Alone already: they stay so.
                    job.suspects.add(again, name.clone(), until);
                }
            }
            Blame::Some => {
                // Counted, so that what fails alone in the end is not tried as often again.
                job.count_failure(frames, limit);
                job.suspects.add(frames.clone(), name.clone(), until);
            }
            Blame::Frames(bad) => {
                let given_up = job.count_failure(&bad, limit);
                job.give_up(&given_up, kind, &message);
                let mut again = bad;
                again.remove_all(&given_up);
                job.suspects.add(again, name.clone(), until);
            }
            Blame::Surroundings => job.hindered += 1,
            Blame::Node => {
                let alike = self.classes.ids().filter(|(_, workflow)| **workflow == render.workflow);
                if let Some(node) = self.nodes.get_mut(name) {
                    node.fits.extend(alike.map(|(class, _)| (class, Err(Lack::Tried(message.clone())))));
                }
            }
            Blame::Size => {
                if let Some(known) = self.workflows.get_mut(&render.workflow) {
                    let kind = self.nodes.get(name).map_or("", |node| node.capabilities.device.as_str());
                    known.pace.too_much(kind, frames.len());
                }
                self.keep_pace(&render.workflow, step);
            }
        }
        self.wakeups.insert((until, id.job));
        if too_big {
            return;
        }
        if hindered {
            self.wait_for_surroundings(now, id.job, name, (kind, &message), step);
            return;
        }
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        if tells_of_node(kind) {
            job.accuse(name, frames, &message);
        }
        let row = job.in_a_row_on.entry(name.clone()).or_insert(0);
        *row += 1;
        // One bad frame is no reason to leave everything else alone.
        let row = *row;
        if row > 1 || !about_frames {
            self.keep_apart(now, id.job, name, row);
        }
        if tells_of_job(kind) {
            self.stop_if_hopeless(now, id.job, (kind, &message), step);
        }
    }

    /// True when every other node of the farm is away, too. False for the only one.
    pub(in crate::farm) fn others_are_gone(&self, now: Timestamp, name: &NodeName) -> bool {
        let mut others = self.nodes.values().filter(|node| node.about.name != *name).peekable();
        let works = |node: &Node| {
            node.session.is_some() && node.slots > 0 && now.since(node.last_seen) < self.config.lease
        };
        others.peek().is_some() && !others.any(works)
    }

    /// The job waits for what it has no part in, longer each time, and goes on by itself. Nothing is given up.
    fn wait_for_surroundings(
        &mut self,
        now: Timestamp,
        id: JobId,
        name: &NodeName,
        (kind, message): (FailureKind, &str),
        step: &mut Step,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let hindered = job.hindered.min(LONGEST_WAIT);
        let row = job.in_a_row_on.entry(name.clone()).or_insert(0);
        *row += 1;
        let row = (*row).min(LONGEST_WAIT);
        let nodes = job.in_a_row_on.len();
        self.keep_apart(now, id, name, row);
        match kind {
            FailureKind::Unavailable => self.set_aside(now, name, message, step),
            // One host may have lost its mount; when two have, the next one would fail as fast.
            FailureKind::Storage if nodes > 1 => self.rest(now, id, hindered),
            _ => {}
        }
    }

    /// One more chunk of the job has failed. Where nothing of it succeeds anywhere, it is not tried on every frame.
    fn stop_if_hopeless(
        &mut self,
        now: Timestamp,
        id: JobId,
        (kind, message): (FailureKind, &str),
        step: &mut Step,
    ) {
        let limit = self.config.max_tries;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.in_a_row += 1;
        let (row, nodes) = (job.in_a_row, job.in_a_row_on.len());
        let hopeless = if job.done.is_empty() {
            row >= limit && nodes >= HOPELESS_NODES || row >= limit.saturating_mul(2)
        } else {
            row >= limit.saturating_mul(HOPELESS_LATE)
        };
        if !hopeless || job.waiting.is_empty() {
            return;
        }
        let on = if nodes > 1 { format!("on {nodes} nodes") } else { "on one node".to_owned() };
        job.message = format!("stopped: {row} chunks in a row have failed {on}, the latest with: {message}");
        let running = job.running.clone();
        for attempt in running {
            self.withdraw(now, attempt, "the job was stopped: nothing of it succeeds", step);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let left = std::mem::take(&mut job.waiting);
        job.give_up(&left, kind, message);
    }

    /// No node gets the job for a while.
    pub(in crate::farm) fn rest(&mut self, now: Timestamp, id: JobId, failures: u32) {
        let until = self.after_failures(now, failures);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.rest_until = until;
            self.wakeups.insert((until, id));
        }
    }

    /// Longer with every failure.
    pub(in crate::farm) fn after_failures(&self, now: Timestamp, failures: u32) -> Timestamp {
        now.after(self.config.retry_delay.saturating_mul(2_u32.pow(failures.min(8))))
    }

    /// The job leaves the node alone for a while.
    pub(in crate::farm) fn keep_apart(&mut self, now: Timestamp, id: JobId, node: &NodeName, failures: u32) {
        let until = self.after_failures(now, failures);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.avoid.insert(node.clone(), until);
        job.chore_not_before = now.after(self.config.retry_delay);
        self.wakeups.insert((until, id));
    }
}
