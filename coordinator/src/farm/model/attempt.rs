//! Attempts: what a node was handed, and until when it is believed.

use hearth_workflows::FrameSet;
use serde::{Deserialize, Serialize};

use crate::farm::model::ids::{NodeName, Timestamp};

/// What an attempt is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Render these frames. They shrink when a late result of another attempt brings some of them.
    Chunk(FrameSet),
    /// Render them as well as attempt number `of`, which is late; it does not answer for them.
    Spare { of: u32, frames: FrameSet },
    /// Put the finished frames together in the output place.
    Assembly,
    /// Encode a finished sequence.
    Delivery,
    /// Remove what a cancelled job has left.
    CleanUp,
}

impl Work {
    /// Whether it needs a GPU.
    pub fn is_chunk(&self) -> bool {
        matches!(self, Self::Chunk(_) | Self::Spare { .. })
    }

    /// The frames it answers for; none for a chore.
    pub fn frames(&self) -> Option<&FrameSet> {
        match self {
            Self::Chunk(frames) => Some(frames),
            Self::Spare { .. } | Self::Assembly | Self::Delivery | Self::CleanUp => None,
        }
    }

    /// The frames that the node renders.
    pub fn rendered(&self) -> Option<&FrameSet> {
        match self {
            Self::Chunk(frames) | Self::Spare { frames, .. } => Some(frames),
            Self::Assembly | Self::Delivery | Self::CleanUp => None,
        }
    }
}

/// One try of one chunk (or chore) on one node.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub node: NodeName,
    pub work: Work,
    pub assigned: Timestamp,
    /// When its frames go back to waiting unless something is heard.
    pub lease_until: Timestamp,
    pub progress: Option<Progress>,
    /// Not durable.
    pub estimate: Estimate,
    /// Number of the attempt that renders its frames, too.
    pub(in crate::farm) spare: Option<u32>,
    /// Since when nothing stands before it on its node; `None`: something does. Not durable.
    pub begun: Option<Timestamp>,
}

impl Attempt {
    /// Seconds of its estimate that are over, for all that is known before it has ended.
    pub(in crate::farm) fn spent(&self, now: Timestamp) -> f64 {
        now.since(self.assigned).as_secs_f64().min(self.estimate.seconds)
    }
}

/// What was thought of an attempt when it was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// How long the GPU will be at it, loading included.
    pub seconds: f64,
    /// Something of the kind was measured before.
    pub known: bool,
    /// The node has the models loaded.
    pub loaded: bool,
    /// Frames that are rendered, handles among them.
    pub rendered: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptPhase {
    Staging,
    Queued,
    Running,
    Collecting,
    Publishing,
    Assembling,
    Encoding,
}

/// How far an attempt is; told by the agent, kept in memory only.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub phase: AttemptPhase,
    /// Graph node at work and its title.
    pub graph_node: String,
    pub graph_node_title: String,
    /// Steps done and in all of that graph node.
    pub step: f64,
    pub steps: f64,
    /// Part of the graph that is done, 0 to 1.
    pub fraction: f64,
}
