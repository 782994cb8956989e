//! How a clip may be cut for a workflow: which frames a chunk answers for, and which it must load.
//!
//! The law: with enough handles, any split of a clip gives the same pixels as no split.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::frames::{Frame, FrameRange, FrameSet};

/// How a workflow may be split over frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Any frames, alone.
    PerFrame,
    /// `head` frames before and `tail` after a chunk are rendered too and thrown away.
    Handles { head: u32, tail: u32 },
    /// Neighbours share `frames` frames, which are cross-faded when the sequence is assembled. `handles` more on
    /// either side are rendered too and thrown away: at its edges a model has seen too little.
    Overlap { frames: u32, handles: u32, ramp: Ramp },
    /// The model puts `multiplier - 1` pictures between every two frames, and every `step`th of all is kept:
    /// 5 and 2 make 60 frames of 24. A picture needs the frame before and the frame after it.
    Interpolate { multiplier: u32, step: u32 },
    /// Never split: one chunk has every frame.
    Whole,
    /// No clip comes in: the frames 1 to `frames` are made in one go.
    Generate { frames: u32 },
}

/// How a cross-fade goes from one chunk to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ramp {
    Linear,
    /// `3x² - 2x³`.
    SmoothStep,
    /// Half a cosine.
    #[default]
    RaisedCosine,
}

/// How many frames one prompt may load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub min: u64,
    pub max: u64,
    /// The model takes `multiple * n + plus` frames.
    pub multiple: u64,
    pub plus: u64,
}

/// What a chunk loads and which of its pictures are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlan {
    /// Frames of the clip to load, in order. The last stands several times where the model insists on more
    /// frames than the clip has.
    pub loaded: Vec<Frame>,
    /// Pictures that the workflow makes of them.
    pub made: usize,
    /// For each frame to keep, its place among the pictures made. The chunk's own frames, and those it shares
    /// with its neighbours for a cross-fade.
    pub kept: Vec<(usize, Frame)>,
    /// Frames that stand before the first kept one.
    pub head: usize,
}

crate::format::named!(
    Ramp,
    "ramp",
    Linear = "linear",
    SmoothStep = "smooth-step",
    RaisedCosine = "raised-cosine",
);

impl Ramp {
    /// The part of the second chunk at `x`, from 0 (all of it the first) to 1.
    pub fn at(self, x: f32) -> f32 {
        let x = x.clamp(0.0, 1.0);
        match self {
            Self::Linear => x,
            Self::SmoothStep => x * x * (3.0 - 2.0 * x),
            Self::RaisedCosine => 0.5 - 0.5 * (std::f32::consts::PI * x).cos(),
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self { min: 1, max: u64::MAX, multiple: 1, plus: 0 }
    }
}

impl Shape {
    /// The least number of frames, `count` or more, that the model takes.
    pub fn at_least(self, count: u64) -> u64 {
        let count = count.max(self.min).max(1);
        let over = count.saturating_sub(self.plus).next_multiple_of(self.multiple.max(1));
        over + self.plus
    }

    /// The greatest number of frames, `count` or fewer, that the model takes; `None` when there is none.
    pub fn at_most(self, count: u64) -> Option<u64> {
        let beyond = count.min(self.max).checked_sub(self.plus)?;
        let fits = beyond / self.multiple.max(1) * self.multiple.max(1) + self.plus;
        (fits >= self.min.max(1)).then_some(fits)
    }
}

impl Split {
    /// Frames loaded before and after a chunk's own.
    pub fn handles(self) -> (u32, u32) {
        match self {
            Self::Handles { head, tail } => (head, tail),
            Self::Overlap { handles, .. } => {
                let (head, tail) = self.shared();
                (head.saturating_add(handles), tail.saturating_add(handles))
            }
            // The frames around a picture between frames.
            Self::PerFrame | Self::Interpolate { .. } | Self::Whole | Self::Generate { .. } => (0, 0),
        }
    }

    /// Frames before and after a chunk's own that it shares with its neighbours: a cut lies in the middle of what its
    /// two sides share.
    pub fn shared(self) -> (u32, u32) {
        match self {
            Self::Overlap { frames, .. } => (frames.div_ceil(2), frames / 2),
            _ => (0, 0),
        }
    }

    /// Frames of the result for the frames `input` of a clip, which are without a gap for all splits that look
    /// at neighbours only through their order.
    pub fn results(self, input: &FrameSet) -> FrameSet {
        match (self, input.first(), input.last()) {
            (Self::Interpolate { multiplier, step }, Some(first), Some(last)) => {
                let pictures = u128::from(last.0.abs_diff(first.0)) * u128::from(multiplier);
                let further = i64::try_from(pictures / u128::from(step.max(1))).unwrap_or(i64::MAX);
                FrameRange::new(first.0, first.0.saturating_add(further))
                    .map_or_else(FrameSet::new, Into::into)
            }
            (Self::Generate { frames }, ..) => {
                FrameRange::new(1, frames.into()).map_or_else(FrameSet::new, Into::into)
            }
            _ => input.clone(),
        }
    }

    /// Whether one chunk has every frame.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Whole | Self::Generate { .. })
    }

    /// Whether its frames must follow one another without a gap.
    pub fn needs_contiguous(self) -> bool {
        matches!(self, Self::Interpolate { .. } | Self::Whole)
    }

    /// Takes up to `count` frames out of `waiting` for one chunk. Handles bridge a gap only when rendering
    /// the frames of the gap again costs no more than another pair of handles would.
    pub fn carve(self, waiting: &mut FrameSet, count: u64, shape: Shape) -> FrameSet {
        match self {
            Self::PerFrame => waiting.take_first(count, u64::MAX),
            Self::Handles { .. } | Self::Overlap { .. } => {
                let (head, tail) = self.handles();
                let handles = u64::from(head) + u64::from(tail);
                let mut taken = waiting.take_first(count, handles);
                // Bridged gaps are loaded too: what lies too far behind the first frame waits on.
                let span = shape.max.saturating_sub(handles).max(1);
                if let (Some(first), Some(last)) = (taken.first(), taken.last())
                    && let Some(too_far) = first.0.checked_add_unsigned(span)
                    && let Some(beyond) = FrameRange::new(too_far, last.0)
                {
                    waiting.insert_all(&taken.intersection(&beyond.into()));
                    taken.remove(beyond);
                }
                taken
            }
            Self::Interpolate { multiplier, .. } => {
                // Cuts lie on frames of the clip as long as whole groups are taken: nothing is loaded twice
                // but the frame at the cut.
                let group = u64::from(multiplier.max(1));
                let whole = if count > group { count - count % group } else { count };
                waiting.take_first(whole, 0)
            }
            Self::Whole | Self::Generate { .. } => std::mem::take(waiting),
        }
    }

    /// The results that cannot be made while frames of the clip are `missing`, in whatever chunk they come. A few
    /// more where the model insists on more frames than asked for; none once nothing is missing.
    pub fn blocked(self, missing: &FrameSet, results: &FrameSet, clip: FrameRange, shape: Shape) -> FrameSet {
        let missing = missing.intersection(&clip.into());
        let (Some(first), Some(last)) = (results.first(), results.last()) else { return FrameSet::new() };
        // Neighbours that are loaded so that there are enough: at most so many, on either side.
        let more = (shape.at_least(1) - 1).max(shape.multiple.saturating_sub(1)).saturating_add(shape.plus);
        let more = i64::try_from(more).unwrap_or(i64::MAX);
        let (head, tail) = self.handles();
        let around = |run: FrameRange| match self {
            Self::Generate { .. } => None,
            Self::Whole => Some((i64::MIN, i64::MAX)),
            Self::PerFrame | Self::Handles { .. } | Self::Overlap { .. } => {
                let before = more.saturating_add(i64::from(tail));
                let behind = more.saturating_add(i64::from(head));
                Some((run.first.0.saturating_sub(before), run.last.0.saturating_add(behind)))
            }
            Self::Interpolate { multiplier, step } => {
                let (multiplier, step) = (i128::from(multiplier.max(1)), i128::from(step.max(1)));
                // A picture is made of the frames beside it, and a chunk has every frame between two pictures.
                let beside = i128::from(more) + 1 + (step + multiplier - 1) / multiplier;
                let index = |frame: i64| i128::from(frame) - i128::from(clip.first.0);
                let picture = |index: i128| i128::from(clip.first.0) + (index * multiplier).div_euclid(step);
                let within = |frame: i128| frame.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                let from = picture(index(run.first.0) - beside);
                Some((within(from), within(picture(index(run.last.0) + beside) + 1)))
            }
        };
        let mut blocked = FrameSet::new();
        for (from, to) in missing.runs().filter_map(around) {
            if let Some(range) = FrameRange::new(from.max(first.0), to.min(last.0)) {
                blocked.insert(range);
            }
        }
        blocked.intersection(results)
    }

    /// The most frames a chunk may answer for.
    pub fn max_own(self, shape: Shape) -> u64 {
        let (head, tail) = self.handles();
        let most = shape.at_most(shape.max).unwrap_or(shape.max);
        match self {
            Self::Whole | Self::Generate { .. } => u64::MAX,
            // Between the first and the last frame loaded, wherever the cuts lie.
            Self::Interpolate { multiplier, step } => {
                let between = most.saturating_sub(2).max(1);
                between.saturating_mul(u64::from(multiplier)) / u64::from(step.max(1))
            }
            Self::PerFrame | Self::Handles { .. } | Self::Overlap { .. } => {
                most.saturating_sub(u64::from(head) + u64::from(tail))
            }
        }
        .max(1)
    }

    /// The frames to load for a chunk that answers for `own`, of a clip with the frames `clip`. For
    /// [`Split::Interpolate`] and [`Split::Whole`], `clip` is exactly what the job works on; [`Split::Generate`]
    /// loads nothing, whatever `clip` is.
    pub fn plan(self, own: &FrameSet, clip: FrameRange, shape: Shape) -> ChunkPlan {
        let (Some(first), Some(last)) = (own.first(), own.last()) else {
            return ChunkPlan { loaded: Vec::new(), made: 0, kept: Vec::new(), head: 0 };
        };
        let (head, tail) = self.handles();
        match self {
            Self::PerFrame => {
                let mut loaded: Vec<Frame> = own.iter().collect();
                let kept = loaded.iter().copied().enumerate().collect();
                let wanted = shape.at_least(loaded.len() as u64) as usize;
                let neighbours = (last.0.saturating_add(1)..=clip.last.0).map(Frame);
                let missing = wanted - loaded.len();
                loaded.extend(neighbours.take(missing));
                loaded.resize(wanted, *loaded.last().unwrap_or(&last));
                ChunkPlan { made: loaded.len(), loaded, kept, head: 0 }
            }
            Self::Handles { .. } | Self::Overlap { .. } => {
                let from = first.0.saturating_sub(i64::from(head)).max(clip.first.0);
                let to = last.0.saturating_add(i64::from(tail)).min(clip.last.0);
                let loaded = fitted(from, to, clip, shape);
                let (before, behind) = self.shared();
                let keeps = |frame: Frame| match self {
                    // What a run shares with its neighbours, too.
                    Self::Overlap { .. } => near(own, frame, i64::from(before), i64::from(behind)),
                    _ => own.contains(frame),
                };
                let start = loaded.first().map_or(from, |frame| frame.0);
                let places = (start..=to).enumerate().map(|(place, frame)| (place, Frame(frame)));
                let kept: Vec<_> = places.filter(|(_, frame)| keeps(*frame)).collect();
                let head = kept.first().map_or(0, |(place, _)| *place);
                ChunkPlan { made: loaded.len(), loaded, kept, head }
            }
            Self::Whole => {
                let loaded = fitted(clip.first.0, clip.last.0, clip, shape);
                let place = |frame: Frame| (frame.0.abs_diff(clip.first.0) as usize, frame);
                let kept: Vec<_> = own.iter().map(place).collect();
                let head = kept.first().map_or(0, |(place, _)| *place);
                ChunkPlan { made: loaded.len(), loaded, kept, head }
            }
            Self::Generate { frames } => {
                let kept: Vec<_> = own.iter().map(|frame| (frame.0.abs_diff(1) as usize, frame)).collect();
                let head = kept.first().map_or(0, |(place, _)| *place);
                ChunkPlan { loaded: Vec::new(), made: shape.at_least(frames.into()) as usize, kept, head }
            }
            Self::Interpolate { multiplier, step } => {
                let (multiplier, step) = (i128::from(multiplier.max(1)), i128::from(step.max(1)));
                // In pictures of the model, counted from the clip's first frame.
                let picture = |frame: Frame| i128::from(frame.0 - clip.first.0) * step;
                let end = i128::from(clip.last.0 - clip.first.0);
                let mut from = (picture(first) / multiplier).min(end);
                let mut to = (picture(last) + multiplier - 1).div_euclid(multiplier).min(end);
                // Models that interpolate need two frames, even where the picture is one of the clip's own.
                if from == to {
                    if to < end { to += 1 } else { from = (from - 1).max(0) }
                }
                let frame = |index: i128| clip.first.0 + index as i64;
                let loaded = fitted(frame(from), frame(to), clip, shape);
                let start = loaded.first().map_or(0, |first| i128::from(first.0 - clip.first.0));
                let made = (loaded.len() - 1) * multiplier as usize + 1;
                let place = |frame: Frame| ((picture(frame) - start * multiplier) as usize, frame);
                let kept: Vec<_> = own.iter().map(place).collect();
                let head = kept.first().map_or(0, |(place, _)| *place);
                ChunkPlan { loaded, made, kept, head }
            }
        }
    }
}

/// `from` to `to`, made longer until the model takes it: by real neighbours behind, then before, and at last by
/// the last frame again.
fn fitted(from: i64, to: i64, clip: FrameRange, shape: Shape) -> Vec<Frame> {
    let len = to.abs_diff(from) + 1;
    let mut missing = shape.at_least(len) - len;
    let behind = missing.min(clip.last.0.abs_diff(to.min(clip.last.0)));
    missing -= behind;
    let before = missing.min(from.max(clip.first.0).abs_diff(clip.first.0));
    missing -= before;
    let (from, to) = (from - before as i64, to + behind as i64);
    (from..=to).chain(std::iter::repeat_n(to, missing as usize)).map(Frame).collect()
}

/// Whether a frame of `own` lies at most `behind` frames after or `before` frames before `frame`.
fn near(own: &FrameSet, frame: Frame, behind: i64, before: i64) -> bool {
    let from = frame.0.saturating_sub(before);
    FrameRange::new(from, frame.0.saturating_add(behind))
        .is_some_and(|around| !own.intersection(&around.into()).is_empty())
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerFrame => f.write_str("per-frame"),
            Self::Handles { head, tail } => write!(f, "handles {head},{tail}"),
            Self::Overlap { frames, handles: 0, .. } => write!(f, "overlap {frames}"),
            Self::Overlap { frames, handles, .. } => write!(f, "overlap {frames}, handles {handles}"),
            Self::Interpolate { multiplier, step: 1 } => write!(f, "interpolate {multiplier}"),
            Self::Interpolate { multiplier, step } => write!(f, "interpolate {multiplier}/{step}"),
            Self::Whole => f.write_str("whole"),
            Self::Generate { frames } => write!(f, "generate {frames}"),
        }
    }
}
