//! How a clip may be cut for a workflow, and which frames a chunk must load.
//!
//! The law: with enough handles, any split of a clip gives the same pixels as no split.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::frames::{Frame, FrameRange, FrameSet};

/// How a workflow may be split over frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Split {
    /// Any frames, alone.
    PerFrame,
    /// `head` frames before and `tail` after a chunk are rendered too and thrown away.
    Handles { head: u32, tail: u32 },
    /// Never split: one chunk has every frame.
    Whole,
}

/// What a chunk loads and which of that it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlan {
    /// Frames to load, in order.
    pub loaded: Vec<Frame>,
    /// For each frame to keep, its place in `loaded`.
    pub kept: Vec<(usize, Frame)>,
}

impl ChunkPlan {
    /// Frames loaded before the first kept one.
    pub fn head(&self) -> usize {
        self.kept.first().map_or(0, |(place, _)| *place)
    }
}

impl Split {
    /// Takes up to `count` frames out of `waiting` for one chunk. Handles bridge a gap only when rendering
    /// the frames of the gap again costs no more than another pair of handles would.
    /// `max_loaded`: most frames that one chunk may load, handles included.
    pub fn carve(self, waiting: &mut FrameSet, count: u64, max_loaded: u64) -> FrameSet {
        match self {
            Self::PerFrame => waiting.take_first(count, u64::MAX),
            Self::Handles { head, tail } => {
                let handles = u64::from(head) + u64::from(tail);
                let mut taken = waiting.take_first(count, handles);
                // Bridged gaps are loaded too: what lies too far behind the first frame waits on.
                let span = max_loaded.saturating_sub(handles).max(1);
                if let (Some(first), Some(last)) = (taken.first(), taken.last())
                    && let Some(too_far) = first.0.checked_add_unsigned(span)
                    && let Some(beyond) = FrameRange::new(too_far, last.0)
                {
                    waiting.insert_all(&taken.intersection(&beyond.into()));
                    taken.remove(beyond);
                }
                taken
            }

            Self::Whole => std::mem::take(waiting),
        }
    }

    /// The frames to load for a chunk that answers for `own`, in a clip that has the frames `clip`.
    pub fn plan(self, own: &FrameSet, clip: FrameRange) -> ChunkPlan {
        if let (Self::Handles { head, tail }, Some(first), Some(last)) = (self, own.first(), own.last()) {
            let from = first.0.saturating_sub(i64::from(head)).max(clip.first.0);
            let to = last.0.saturating_add(i64::from(tail)).min(clip.last.0);
            let loaded: Vec<Frame> = (from..=to).map(Frame).collect();
            let kept = loaded
                .iter()
                .enumerate()
                .filter(|(_, frame)| own.contains(**frame))
                .map(|(place, frame)| (place, *frame))
                .collect();
            ChunkPlan { loaded, kept }
        } else {
            let loaded: Vec<Frame> = own.iter().collect();
            let kept = loaded.iter().copied().enumerate().collect();
            ChunkPlan { loaded, kept }
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerFrame => f.write_str("per-frame"),
            Self::Handles { head, tail } => write!(f, "handles {head},{tail}"),
            Self::Whole => f.write_str("whole"),
        }
    }
}
