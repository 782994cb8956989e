//! Jobs and where they stand. Frames are in exactly one of waiting, running, done, failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hearth_storage::manifest::ManifestDigest;
use hearth_workflows::{Frame, FrameSet};
use serde::{Deserialize, Serialize};

use crate::farm::model::{
    command::Segment,
    ids::{AttemptId, ClassId, JobId, NodeName, Priority, Timestamp, Variant},
    spec::{JobSpec, Task},
    suspects::Suspects,
};

/// Failures that a job remembers.
pub(in crate::farm) const KEPT_FAILURES: usize = 20;

/// Different reasons for lost frames that a job remembers.
const KEPT_REASONS: usize = 32;

/// Failed chunks of which it is not known yet whose fault that was.
const KEPT_ACCUSED: usize = 64;

/// Finished chunks by which the job's present speed is told.
const KEPT_RECENT: usize = 64;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Frames wait or run.
    Rendering,
    /// No frame waits or runs any more; the sequence is being put together of those that are done.
    Assembling,
    /// A finished sequence is encoded, or waits for that.
    Delivering,
    Ended(Ended),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Done,
    /// The sequence is there but for frames that failed for good. What was rendered is kept for a retry.
    Partial,
    /// Every frame, or the assembly, failed for good. What was rendered is kept for a retry.
    Failed,
    /// `cleaned`: nothing of it is left on storage.
    Cancelled {
        cleaned: bool,
    },
}

/// Why an attempt failed; see the contract for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    Refused,
    Missing,
    Execution,
    OutOfMemory,
    BadFrame,
    ComfyDied,
    Hung,
    Storage,
    BadOutput,
    Lost,
    Interrupted,
    Internal,
    Unavailable,
    OutputTaken,
}

/// A failed attempt, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Number of the attempt in its job.
    pub attempt: u32,
    pub node: NodeName,
    pub frames: FrameSet,
    pub kind: FailureKind,
    pub message: String,
    pub at: Timestamp,
}

/// Frames that were given up for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostFrames {
    pub frames: FrameSet,
    pub kind: FailureKind,
    pub message: String,
}

/// Frames that one attempt has finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    pub node: NodeName,
    pub frames: FrameSet,
    /// What lies on storage of it; `None`: its node has not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<ManifestDigest>,
}

/// A job, as it stands.
#[derive(Debug, Clone)]
pub struct Job {
    pub spec: std::sync::Arc<JobSpec>,
    pub priority: Priority,
    pub phase: Phase,
    pub paused: bool,
    /// Until its folders on storage have been read, nothing of it is handed out. Not durable.
    pub surveying: bool,
    pub waiting: FrameSet,
    pub done: FrameSet,
    pub failed: FrameSet,
    /// `tries[n]`: frames that have failed more than `n` times.
    pub tries: Vec<FrameSet>,
    /// Failures of the assembly or clean-up in a row.
    pub chore_tries: u32,
    /// Who made what, by number of the attempt; together they are `done`.
    pub pieces: BTreeMap<u32, Piece>,
    /// Of a finished job, the nodes that have made it, 64 of them at most.
    pub makers: Vec<NodeName>,
    pub running: BTreeSet<AttemptId>,
    pub next_attempt: u32,
    /// Latest last.
    pub failures: VecDeque<Failure>,
    /// Why frames were given up; together they are `failed`, as far as the job remembers.
    pub lost: Vec<LostFrames>,
    /// Why it failed for good, for people.
    pub message: String,
    pub submitted: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// When the latest frames were finished, and how many. Not durable.
    pub recent: VecDeque<(Timestamp, u64)>,
    /// Nodes that failed it, and until when they leave it alone. Not durable.
    pub avoid: BTreeMap<NodeName, Timestamp>,
    /// Waiting frames that are tried apart from the others. Not durable.
    pub(in crate::farm) suspects: Suspects,
    /// Chunks of it that have failed since one was finished; and of each node that has failed it since it finished
    /// one, how many. Not durable.
    pub(in crate::farm) in_a_row: u32,
    pub(in crate::farm) in_a_row_on: BTreeMap<NodeName, u32>,
    /// Failures in a row for which its surroundings are to blame: storage, the network. Not durable.
    pub(in crate::farm) hindered: u32,
    /// Who has failed which frames, and why, that nobody has done since. Not durable.
    pub(in crate::farm) accused: VecDeque<(NodeName, FrameSet, String)>,
    /// No node gets a chunk of it before this time. Not durable.
    pub rest_until: Timestamp,
    /// The chore is not tried before this time. Not durable.
    pub chore_not_before: Timestamp,
    /// It will be done after its deadline. Not durable.
    pub late: bool,
    /// What it needs of a node, and what makes its frames cost more or less. Not durable.
    pub(in crate::farm) class: ClassId,
    pub(in crate::farm) variant: Variant,
    /// Frames whose input is still being made, and how many beside them are too few for a chunk. Not durable.
    pub(in crate::farm) blocked: FrameSet,
    pub(in crate::farm) shortest: u64,
    /// How many of its frames are done, and whether it has ended, as far as those that follow it know. Not durable.
    pub(in crate::farm) led: (u64, bool),
    /// Its frames among those of its class that wait. Not durable.
    pub(in crate::farm) counted_waiting: u64,
    /// Attempts that nobody holds any more: who was handed what. Their results may still come. Not durable.
    pub(in crate::farm) handed: BTreeMap<u32, Handed>,
}

/// Nodes that are kept in mind of a finished job.
pub(in crate::farm) const MOST_MAKERS: usize = 64;

/// An attempt that is over, for results that come late.
#[derive(Debug, Clone)]
pub(in crate::farm) struct Handed {
    node: NodeName,
    /// `None` for a chore; none of them, where others have done all of them since.
    pub(in crate::farm) frames: Option<FrameSet>,
}

/// Attempts of a job whose results may come late. What comes even later is rendered again.
const MOST_HANDED: usize = 256;

impl Job {
    pub(in crate::farm) fn new(spec: JobSpec, priority: Priority, now: Timestamp) -> Self {
        Self {
            waiting: spec.frames.clone(),
            phase: first_phase(&spec),
            spec: spec.into(),
            priority,
            paused: false,
            surveying: false,
            done: FrameSet::new(),
            failed: FrameSet::new(),
            tries: Vec::new(),
            chore_tries: 0,
            pieces: BTreeMap::new(),
            makers: Vec::new(),
            running: BTreeSet::new(),
            next_attempt: 1,
            failures: VecDeque::new(),
            lost: Vec::new(),
            message: String::new(),
            submitted: now,
            started: None,
            ended: None,
            recent: VecDeque::new(),
            avoid: BTreeMap::new(),
            suspects: Suspects::default(),
            in_a_row: 0,
            in_a_row_on: BTreeMap::new(),
            hindered: 0,
            accused: VecDeque::new(),
            rest_until: Timestamp(0),
            chore_not_before: Timestamp(0),
            late: false,
            class: 0,
            variant: 0,
            blocked: FrameSet::new(),
            shortest: 0,
            led: (0, false),
            counted_waiting: 0,
            handed: BTreeMap::new(),
        }
    }

    /// Keeps in mind who had an attempt that is over.
    pub(in crate::farm) fn remember_handed(
        &mut self,
        number: u32,
        node: &NodeName,
        frames: Option<&FrameSet>,
    ) {
        self.handed.insert(number, Handed { node: node.clone(), frames: frames.cloned() });
        while self.handed.len() > MOST_HANDED {
            self.handed.pop_first();
        }
    }

    /// The attempt that is over, if this node had it.
    pub(in crate::farm) fn was_handed(&self, number: u32, node: &NodeName) -> Option<&Handed> {
        self.handed.get(&number).filter(|handed| handed.node == *node)
    }

    /// Whether chunks may be carved from it.
    pub fn wants_chunk(&self) -> bool {
        self.phase == Phase::Rendering && !self.paused && !self.surveying && !self.waiting.is_empty()
    }

    /// Whether it waits for an assembly, a delivery or a clean-up that no node has yet.
    pub fn wants_chore(&self) -> bool {
        let wanted = match self.phase {
            Phase::Assembling => true,
            // What it has rendered is kept for a while.
            Phase::Ended(Ended::Cancelled { cleaned: false }) => self.pieces.is_empty(),
            Phase::Delivering => !self.paused,
            Phase::Rendering | Phase::Ended(_) => false,
        };
        wanted && self.running.is_empty() && !self.surveying
    }

    /// Where it goes on when frames of it wait again, or none does any more.
    pub(in crate::farm) fn open_phase(&self) -> Phase {
        match first_phase(&self.spec) {
            Phase::Rendering if self.waiting.is_empty() && self.running.is_empty() => Phase::Assembling,
            phase => phase,
        }
    }

    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Which attempt has made what.
    pub(in crate::farm) fn segments(&self, id: JobId) -> impl Iterator<Item = Segment> {
        self.pieces.iter().map(move |(number, piece)| Segment {
            attempt: AttemptId { job: id, number: *number },
            node: piece.node.clone(),
            frames: piece.frames.clone(),
            published: piece.published,
        })
    }

    /// One more failure for `frames`. Returns those that have failed `limit` times now.
    pub(in crate::farm) fn count_failure(&mut self, frames: &FrameSet, limit: u32) -> FrameSet {
        let mut given_up = FrameSet::new();
        let mut risen = frames.clone();
        // A frame that is in tries[n] rises to tries[n + 1]; what rises past the last is given up.
        for level in 0..limit.max(1) as usize {
            if level + 1 == limit.max(1) as usize {
                given_up = risen;
                break;
            }
            if self.tries.len() <= level {
                self.tries.push(FrameSet::new());
            }
            let next = risen.intersection(&self.tries[level]);
            self.tries[level].insert_all(&risen);
            risen = next;
            if risen.is_empty() {
                break;
            }
        }
        given_up
    }

    /// These frames are done, wherever they were before.
    pub(in crate::farm) fn finish(&mut self, frames: &FrameSet) {
        self.done.insert_all(frames);
        self.waiting.remove_all(frames);
        self.suspects.remove(frames);
        self.failed.remove_all(frames);
        self.forgive(frames);
    }

    /// The node has failed these frames. Whose fault that is will be known when another one has done them.
    pub(in crate::farm) fn accuse(&mut self, node: &NodeName, frames: &FrameSet, message: &str) {
        self.accused.push_back((node.clone(), frames.clone(), message.to_owned()));
        while self.accused.len() > KEPT_ACCUSED {
            self.accused.pop_front();
        }
    }

    /// `by` has done something: the nodes that had failed what is all done now, and why.
    pub(in crate::farm) fn convicted(&mut self, by: &NodeName) -> Vec<(NodeName, String)> {
        if self.accused.is_empty() {
            return Vec::new();
        }
        let (proven, open): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.accused)
            .into_iter()
            .partition(|(_, failed, _)| failed.is_subset(&self.done));
        self.accused = open;
        proven.into_iter().filter(|(node, ..)| node != by).map(|(node, _, message)| (node, message)).collect()
    }

    /// These frames have failed for good, and this is why.
    pub(in crate::farm) fn give_up(&mut self, frames: &FrameSet, kind: FailureKind, message: &str) {
        if frames.is_empty() {
            return;
        }
        self.waiting.remove_all(frames);
        self.suspects.remove(frames);
        self.failed.insert_all(frames);
        let alike = self.lost.iter().position(|lost| lost.kind == kind && lost.message == message);
        if alike.is_none() && self.lost.len() < KEPT_REASONS {
            self.lost.push(LostFrames { frames: frames.clone(), kind, message: message.to_owned() });
        } else if let Some(lost) = self.lost.get_mut(alike.unwrap_or(KEPT_REASONS - 1)) {
            lost.frames.insert_all(frames);
            if alike.is_none() {
                "one of many reasons; the latest failures stand with the job".clone_into(&mut lost.message);
            }
        }
    }

    /// Forgets earlier failures of `frames`.
    pub(in crate::farm) fn forgive(&mut self, frames: &FrameSet) {
        self.lost.iter_mut().for_each(|lost| lost.frames.remove_all(frames));
        self.lost.retain(|lost| !lost.frames.is_empty());
        for level in &mut self.tries {
            level.remove_all(frames);
        }
        while self.tries.last().is_some_and(FrameSet::is_empty) {
            self.tries.pop();
        }
    }

    /// How often the frame has failed.
    pub fn tries_of(&self, frame: Frame) -> usize {
        self.tries.iter().take_while(|level| level.contains(frame)).count()
    }

    pub(in crate::farm) fn note_speed(&mut self, now: Timestamp, frames: u64) {
        self.recent.push_back((now, frames));
        while self.recent.len() > KEPT_RECENT {
            self.recent.pop_front();
        }
    }

    /// Finished frames a second, over the latest chunks; `None` before anything can be told.
    pub fn frames_per_second(&self) -> Option<f64> {
        let (from, skipped) = match self.recent.len() {
            0 => return None,
            // The window opens with the start of the job, or with the end of its oldest chunk.
            len if len < KEPT_RECENT => (self.started?, 0),
            _ => (self.recent.front()?.0, 1),
        };
        let seconds = self.recent.back()?.0.since(from).as_secs_f64();
        let frames: u64 = self.recent.iter().skip(skipped).map(|(_, frames)| frames).sum();
        (seconds > 0.0).then(|| frames as f64 / seconds)
    }

    pub(in crate::farm) fn remember(&mut self, failure: Failure) {
        self.failures.push_back(failure);
        while self.failures.len() > KEPT_FAILURES {
            self.failures.pop_front();
        }
    }
}

fn first_phase(spec: &JobSpec) -> Phase {
    match spec.task {
        Task::Render(_) => Phase::Rendering,
        Task::Deliver(_) => Phase::Delivering,
    }
}
