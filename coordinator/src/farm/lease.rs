//! Who holds what, and until when. A node that is not heard of in time loses its attempts; a node that
//! comes back keeps what is still wanted.

use std::{collections::HashSet, time::Duration};

use hearth_workflows::FrameSet;

use super::{
    Farm,
    attempt::{Attempt, Estimate, Progress, Work},
    command::{Effect, Held, JobEvent, Refusal, Step},
    ids::{AttemptId, JobId, NodeName, Session, Timestamp},
    job::{FailureKind, Phase},
    node::{Capabilities, Node, NodeAbout},
    records::Key,
};

/// Clocks that differ more are not of one mind about what is old.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3_600);

impl Farm {
    /// A node's agent has connected, for the first time or again. It is refused while another agent works under the
    /// same name: of two GPUs that take turns, one idles.
    pub(super) fn hello(
        &mut self,
        now: Timestamp,
        session: Session,
        about: NodeAbout,
        capabilities: Capabilities,
        (slots, reason): (usize, String),
        held: Vec<Held>,
        step: &mut Step,
    ) -> Result<(), Refusal> {
        let name = about.name.clone();
        let lease = self.config.lease;
        if !self.nodes.contains_key(&name) && self.nodes.len() >= self.config.max_nodes {
            self.forget_longest_gone(&name, step)?;
        }
        let node = self.nodes.entry(name.clone()).or_insert_with(|| Node::new(about.clone(), now));
        if node.session.is_some_and(|newer| newer > session) {
            return Ok(());
        }
        // Who has not been heard of for so long may have lost its host, and somebody has replaced that.
        let is_heard = node.session.is_some() && now.since(node.last_seen) < lease;
        let is_other = node.about.instance != about.instance
            && !node.about.instance.is_empty()
            && !about.instance.is_empty();
        if is_heard && is_other {
            return Err(Refusal::NodeTaken { node: name, host: node.about.host.clone(), own: about.host });
        }
        node.about = about;
        node.capabilities = capabilities;
        node.fits.clear();
        node.session = Some(session);
        node.slots = slots;
        node.reason = reason;
        node.last_seen = now;
        step.changes.push(Key::Node(name.clone()));
        let ours: Vec<AttemptId> = node.chunks.iter().copied().chain(node.chore).collect();

        // What the node does not hold any more never arrived, or died with its agent: no failure of the
        // job's, so the frames wait again at once.
        let holds: HashSet<AttemptId> = held.iter().map(|held| held.attempt).collect();
        for attempt in ours {
            if holds.contains(&attempt) {
                self.renew(now, attempt);
            } else {
                self.put_back(now, attempt, step);
            }
        }
        for Held { attempt, frames } in held {
            self.adopt(now, session, &name, attempt, &frames, step);
        }
        // Only now is it known what the node has room for, and which frames nobody holds.
        self.reopen(&name);
        self.touched.chores();
        self.touched.open_nodes();
        Ok(())
    }

    /// Makes place for a new node. Drained nodes stay: an operator has said something about them.
    fn forget_longest_gone(&mut self, new: &NodeName, step: &mut Step) -> Result<(), Refusal> {
        let gone = self.nodes.values().filter(|node| node.is_forgettable());
        let gone = gone.min_by_key(|node| (node.last_seen, &node.about.name));
        let Some(name) = gone.map(|node| node.about.name.clone()) else {
            return Err(Refusal::TooManyNodes { node: new.clone(), limit: self.config.max_nodes });
        };
        self.drop_node(&name);
        step.changes.push(Key::Node(name));
        Ok(())
    }

    /// Keeps an attempt that the node goes on with, or tells it to stop. Only what it was handed is its to keep.
    fn adopt(
        &mut self,
        now: Timestamp,
        session: Session,
        name: &NodeName,
        id: AttemptId,
        frames: &FrameSet,
        step: &mut Step,
    ) {
        if self.attempts.get(&id).is_some_and(|attempt| attempt.node == *name) {
            return;
        }
        let wanted = !self.attempts.contains_key(&id)
            && self.jobs.get(&id.job).is_some_and(|job| {
                job.phase == Phase::Rendering
                    && job
                        .was_handed(id.number, name)
                        .and_then(|handed| handed.frames.as_ref())
                        .is_some_and(|handed| frames.is_subset(handed))
                    && !job.pieces.contains_key(&id.number)
                    && !frames.is_empty()
                    && frames.is_subset(&job.waiting)
            });
        if !wanted {
            let reason = "it is not wanted any more";
            step.effects.push(Effect::Cancel { session, attempt: id, reason });
            return;
        }
        // Its lease had run out, but nobody has taken the frames since.
        if let Some(job) = self.jobs.get_mut(&id.job) {
            job.waiting.remove_all(frames);
            job.suspects.remove(frames);
            job.running.insert(id);
        }
        if let Some(node) = self.nodes.get_mut(name) {
            node.chunks.insert(id);
        }
        self.chunk_begins(id.job, name);
        self.enter(
            id,
            Attempt {
                node: name.clone(),
                work: Work::Chunk(frames.clone()),
                assigned: now,
                lease_until: now.after(self.config.lease),
                progress: None,
                estimate: Estimate::default(),
                spare: None,
                begun: None,
            },
        );
        step.changes.push(Key::Attempt(id));
        self.changed(id.job, step);
    }

    /// The node's ComfyUI came or went.
    pub(super) fn readiness(
        &mut self,
        now: Timestamp,
        session: Session,
        name: &NodeName,
        (slots, reason): (usize, String),
        capabilities: Option<Box<Capabilities>>,
        step: &mut Step,
    ) {
        let Some(node) = self.current(session, name) else { return };
        node.slots = slots;
        node.reason = reason;
        node.last_seen = now;
        if let Some(capabilities) = capabilities {
            node.capabilities = *capabilities;
            node.fits.clear();
            node.quarantine.take_if(|quarantine| quarantine.unusable);
        }
        step.changes.push(Key::Node(name.clone()));
        self.reopen(name);
        if slots == 0 {
            self.take_back_what_waits(now, name, step);
        }
        self.touched.node(name);
    }

    /// The node takes no more work: others may have what has not begun there.
    fn take_back_what_waits(&mut self, now: Timestamp, name: &NodeName, step: &mut Step) {
        let Some(node) = self.nodes.get(name) else { return };
        let mut held: Vec<_> =
            node.chunks.iter().filter_map(|id| Some((self.attempts.get(id)?.assigned, *id))).collect();
        held.sort_unstable();
        // After a change of the leader nobody knows which has begun, but the first of them has.
        let waits = held.into_iter().skip(1).filter(|(_, id)| self.behind.all().contains(id));
        let waits: Vec<AttemptId> = waits.map(|(_, id)| id).collect();
        for id in &waits {
            self.withdraw(now, *id, "its node takes no more work", step);
        }
        if !waits.is_empty() {
            self.touched.open_nodes();
        }
    }

    pub(super) fn heartbeat(
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

    /// The connection ended. The attempts live on until their leases run out: the agent may come back.
    pub(super) fn gone(&mut self, now: Timestamp, session: Session, name: &NodeName, step: &mut Step) {
        let Some(node) = self.current(session, name) else { return };
        node.session = None;
        node.last_seen = now;
        step.changes.push(Key::Node(name.clone()));
        self.reopen(name);
    }

    pub(super) fn progress(
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

    pub(super) fn expire_leases(&mut self, now: Timestamp, step: &mut Step) {
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

    /// Forgets that nodes should leave jobs alone, where the time is over. True when any was.
    pub(super) fn wake(&mut self, now: Timestamp) -> bool {
        let mut woken = false;
        while let Some(&(at, id)) = self.wakeups.first() {
            if at > now {
                break;
            }
            self.wakeups.pop_first();
            woken = true;
            if let Some(job) = self.jobs.get_mut(&id) {
                job.avoid.retain(|_, until| *until > now);
            }
        }
        woken
    }

    /// The node, if this session of it is the present one.
    pub(super) fn current(&mut self, session: Session, name: &NodeName) -> Option<&mut Node> {
        self.nodes.get_mut(name).filter(|node| node.session == Some(session))
    }

    pub(super) fn enter(&mut self, id: AttemptId, attempt: Attempt) {
        if attempt.work.is_chunk() && attempt.begun.is_none() {
            let urgent = self.jobs.get(&id.job).is_some_and(|job| job.spec.urgent);
            self.behind.insert(id, urgent);
        }
        self.leases.insert((attempt.lease_until, id));
        self.attempts.insert(id, attempt);
    }

    pub(super) fn renew(&mut self, now: Timestamp, id: AttemptId) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        self.leases.remove(&(attempt.lease_until, id));
        attempt.lease_until = now.after(self.config.lease);
        self.leases.insert((attempt.lease_until, id));
    }

    /// Ends an attempt's hold on node and lease; its result may still come. What becomes of its frames is the caller's.
    /// Frames that a spare of it renders are that one's from now on.
    pub(super) fn release(&mut self, now: Timestamp, id: AttemptId, step: &mut Step) -> Option<Attempt> {
        if let (Some(attempt), Some(job)) = (self.attempts.get(&id), self.jobs.get_mut(&id.job)) {
            job.remember_handed(id.number, &attempt.node, attempt.work.rendered());
        }
        self.let_hold_go(now, id, step)
    }

    /// The same of an attempt whose result is here.
    pub(super) fn let_hold_go(&mut self, now: Timestamp, id: AttemptId, step: &mut Step) -> Option<Attempt> {
        let mut attempt = self.attempts.remove(&id)?;
        self.leases.remove(&(attempt.lease_until, id));
        self.behind.remove(&id);
        if let Some(job) = self.jobs.get_mut(&id.job) {
            job.running.remove(&id);
        }
        if let Some(node) = self.nodes.get_mut(&attempt.node) {
            node.chunks.remove(&id);
            let next = node.chunks.iter().filter_map(|id| Some((self.attempts.get(id)?.assigned, *id))).min();
            if let Some((_, next)) = next {
                self.behind.remove(&next);
                if let Some(attempt) = self.attempts.get_mut(&next) {
                    attempt.begun.get_or_insert(now);
                }
            }
            node.chore.take_if(|chore| *chore == id);
        }
        if let (true, Some(job)) = (attempt.work.is_chunk(), self.jobs.get(&id.job)) {
            let spec = job.spec.clone();
            self.chunk_ends(id.job, &attempt.node);
            // What it did not need of what it was charged.
            let who = (spec.show.as_str(), spec.user.as_str());
            let seconds = attempt.spent(now) - attempt.estimate.seconds;
            self.shares.charge(now, self.config.half_life, who, seconds);
        }
        self.reopen(&attempt.node);
        step.changes.push(Key::Attempt(id));
        match &mut attempt.work {
            Work::Chunk(frames) => {
                if let Some(number) = attempt.spare {
                    let spare = AttemptId { number, ..id };
                    *frames = self.inherit(spare, std::mem::take(frames), step);
                }
            }
            Work::Spare { of, .. } => {
                if let Some(late) = self.attempts.get_mut(&AttemptId { number: *of, ..id }) {
                    late.spare = None;
                }
            }
            Work::Assembly | Work::Delivery | Work::CleanUp => {}
        }
        Some(attempt)
    }

    /// Ends an attempt and lets its frames, or its chore, wait again.
    fn put_back(&mut self, now: Timestamp, id: AttemptId, step: &mut Step) {
        let Some(attempt) = self.release(now, id, step) else { return };
        if let (Work::Chunk(frames), Some(job)) = (&attempt.work, self.jobs.get_mut(&id.job)) {
            job.waiting.insert_all(frames);
        }
        self.changed(id.job, step);
        self.touched.job(id.job);
    }

    /// No node gets the job for a while.
    pub(super) fn rest(&mut self, now: Timestamp, id: JobId, failures: u32) {
        let until = self.after_failures(now, failures);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.rest_until = until;
            self.wakeups.insert((until, id));
        }
    }

    /// Longer with every failure.
    pub(super) fn after_failures(&self, now: Timestamp, failures: u32) -> Timestamp {
        now.after(self.config.retry_delay.saturating_mul(2_u32.pow(failures.min(8))))
    }

    /// The job leaves the node alone for a while.
    pub(super) fn keep_apart(&mut self, now: Timestamp, id: JobId, node: &NodeName, failures: u32) {
        let until = self.after_failures(now, failures);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.avoid.insert(node.clone(), until);
        job.chore_not_before = now.after(self.config.retry_delay);
        self.wakeups.insert((until, id));
    }
}
