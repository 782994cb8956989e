//! Connections of nodes: a node that comes back keeps what is still wanted, one that goes keeps it until its leases end.

use std::{collections::HashSet, time::Duration};

use hearth_workflows::FrameSet;

use crate::farm::{
    model::{
        attempt::{Attempt, Estimate, Work},
        command::{Effect, Held, Refusal, Step},
        ids::{AttemptId, NodeName, Session, Timestamp},
        job::Phase,
        key::Key,
        node::{Capabilities, Node, NodeAbout},
    },
    state::Farm,
};

/// Clocks that differ more are not of one mind about what is old.
pub(in crate::farm) const CLOCKS_DIFFER: Duration = Duration::from_secs(3_600);

impl Farm {
    /// A node's agent has connected, for the first time or again. It is refused while another agent works under the
    /// same name: of two GPUs that take turns, one idles.
    pub(in crate::farm) fn hello(
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

    /// Makes place for a new node. Drained nodes stay: an operator has said something about them. Quarantined ones go last.
    fn forget_longest_gone(&mut self, new: &NodeName, step: &mut Step) -> Result<(), Refusal> {
        let gone = self.nodes.values().filter(|node| node.is_forgettable());
        let gone = gone.min_by_key(|node| (node.quarantine.is_some(), node.last_seen, &node.about.name));
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
    pub(in crate::farm) fn readiness(
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
            self.rank(id.job);
        }
        if !waits.is_empty() {
            self.touched.open_nodes();
        }
    }

    /// The connection ended. The attempts live on until their leases run out: the agent may come back.
    pub(in crate::farm) fn gone(
        &mut self,
        now: Timestamp,
        session: Session,
        name: &NodeName,
        step: &mut Step,
    ) {
        let Some(node) = self.current(session, name) else { return };
        node.session = None;
        node.last_seen = now;
        step.changes.push(Key::Node(name.clone()));
        self.reopen(name);
    }
}
