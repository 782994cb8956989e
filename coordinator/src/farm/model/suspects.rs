//! Frames that have failed in one chunk are tried again in halves and apart from all others, until those that fail
//! stand alone and everything else is done.
//!
//! In memory only: after a restart the same frames fail together once more, and are halved again.

use hearth_workflows::FrameSet;

use crate::farm::model::ids::{NodeName, Timestamp};

/// What of a job is tried apart.
#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct Suspects(Vec<Group>);

/// Frames that failed together.
#[derive(Debug, Clone)]
struct Group {
    frames: FrameSet,
    /// The next chunk has no more of them.
    at_most: u64,
    failed_on: NodeName,
    /// Until then somebody else is to try them.
    until: Timestamp,
}

impl Suspects {
    pub(in crate::farm) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::farm) fn frames(&self) -> FrameSet {
        let mut all = FrameSet::new();
        self.0.iter().for_each(|group| all.insert_all(&group.frames));
        all
    }

    /// These frames have failed on a node, and are not given to it again before `until`.
    pub(in crate::farm) fn add(&mut self, frames: FrameSet, failed_on: NodeName, until: Timestamp) {
        if !frames.is_empty() {
            let at_most = frames.len().div_ceil(2);
            self.0.push(Group { frames, at_most, failed_on, until });
        }
    }

    /// What the node is to try next, and how many of it at most.
    pub(in crate::farm) fn next_for(&self, now: Timestamp, node: &NodeName) -> Option<(&FrameSet, u64)> {
        let free = |group: &&Group| group.failed_on != *node || group.until <= now;
        self.0.iter().find(free).map(|group| (&group.frames, group.at_most))
    }

    /// When the first of them may be tried again by whoever failed it.
    pub(in crate::farm) fn until(&self) -> Option<Timestamp> {
        self.0.iter().map(|group| group.until).min()
    }

    /// These frames are on their way, or done, or given up.
    pub(in crate::farm) fn remove(&mut self, frames: &FrameSet) {
        self.0.iter_mut().for_each(|group| group.frames.remove_all(frames));
        self.0.retain(|group| !group.frames.is_empty());
    }

    pub(in crate::farm) fn clear(&mut self) {
        self.0.clear();
    }
}
