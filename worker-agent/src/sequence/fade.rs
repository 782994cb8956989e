//! Who has how much part in a frame, where neighbouring chunks overlap.
//!
//! Around every cut lie the frames that both sides have rendered, half of them on each side. There the weight
//! of one side falls from 1 to 0 along a ramp while the other's rises. Every cut has its ramp, whatever carved
//! the chunks and however short they are; weights are taken relative to their sum.

use hearth_proto::v1::{self, FailureKind};
use hearth_storage::manifest::SegmentManifest;
use hearth_workflows::{Frame, FrameRange, FrameSet, Split, split::Ramp};

use crate::chunk::Failure;

/// How cuts are hidden; nothing is shared when `frames` is 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CrossFade {
    frames: u32,
    ramp: Ramp,
}

/// The chunks' own frames as runs, in their order, each with the index of its chunk.
pub(super) struct Runs {
    runs: Vec<(FrameRange, usize)>,
    /// The frames of the whole job.
    pub(super) all: FrameSet,
}

impl Runs {
    pub(super) fn of(chunks: &[SegmentManifest]) -> Self {
        let mut all = FrameSet::new();
        chunks.iter().for_each(|chunk| all.insert_all(&chunk.frames));
        let of_chunk = |(index, chunk): (usize, &SegmentManifest)| {
            chunk.frames.runs().map(|run| (run, index)).collect::<Vec<_>>()
        };
        let mut runs: Vec<_> = chunks.iter().enumerate().flat_map(of_chunk).collect();
        // They share no frame, so that their last frames are in order, too.
        runs.sort_by_key(|(run, _)| run.first);
        Self { runs, all }
    }
}

impl CrossFade {
    pub(super) fn of(assembly: &v1::Assembly) -> Result<Self, Failure> {
        let Some(v1::CrossFade { frames, ramp }) = &assembly.cross_fade else {
            return Ok(Self { frames: 0, ramp: Ramp::default() });
        };
        let ramp = ramp.parse().map_err(|error| {
            Failure::new(FailureKind::Internal, format!("the assembly's ramp cannot be read: {error}"))
        })?;
        Ok(Self { frames: *frames, ramp })
    }

    /// Frames before and after its own that a chunk shares.
    fn reach(self) -> (i64, i64) {
        let (head, tail) = Split::Overlap { frames: self.frames, handles: 0, ramp: self.ramp }.shared();
        (i64::from(head), i64::from(tail))
    }

    /// The chunks with a part in `frame`, by index, each with its weight.
    pub(super) fn parts(self, runs: &Runs, frame: Frame) -> Vec<(usize, f32)> {
        let (head, tail) = self.reach();
        let from = runs.runs.partition_point(|(run, _)| run.last.0 < frame.0 - tail);
        let reaching = runs.runs[from..].iter().take_while(|(run, _)| run.first.0 <= frame.0 + head);
        let mut parts: Vec<(usize, f32)> = Vec::new();
        for (run, chunk) in reaching {
            let weight = self.weight(*run, &runs.all, frame);
            if weight <= 0.0 {
                continue;
            }
            // A chunk with a hole in it can reach into the hole from both sides.
            match parts.iter_mut().find(|(other, _)| other == chunk) {
                Some((_, other)) => *other = other.max(weight),
                None => parts.push((*chunk, weight)),
            }
        }
        parts
    }

    /// The weight in `frame` of a chunk with the own frames `run`.
    fn weight(self, run: FrameRange, all: &FrameSet, frame: Frame) -> f32 {
        let (head, _) = self.reach();
        // How far the frame has come through the ramp of the cut before `first`, from 0 to 1.
        let risen = |first: i64| {
            let place = frame.0 - (first - head) + 1;
            self.ramp.at(place as f32 / (self.frames + 1) as f32)
        };
        let before = if all.contains(Frame(run.first.0 - 1)) { risen(run.first.0) } else { 1.0 };
        let after = if all.contains(Frame(run.last.0 + 1)) { 1.0 - risen(run.last.0 + 1) } else { 1.0 };
        before * after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(sets: &[&str]) -> Runs {
        let chunks = sets.iter().map(|text| {
            let frames: FrameSet = text.parse().expect("frames");
            SegmentManifest { frames, attempt: (*text).to_owned(), node: String::new(), published: None }
        });
        Runs::of(&chunks.collect::<Vec<_>>())
    }

    #[test]
    fn two_sides_of_a_cut_fade_into_each_other() {
        let runs = runs(&["1-10", "11-20"]);
        for ramp in Ramp::ALL {
            let fade = CrossFade { frames: 4, ramp: *ramp };
            let mut before = 0.0;
            for frame in 1..=20 {
                let parts = fade.parts(&runs, Frame(frame));
                let weight = |chunk: usize| {
                    parts.iter().find(|(index, _)| *index == chunk).map_or(0.0, |(_, weight)| *weight)
                };
                assert!((weight(0) + weight(1) - 1.0).abs() < 1e-6, "{ramp}: frame {frame}: {parts:?}");
                assert!(weight(1) >= before, "{ramp} falls at {frame}");
                before = weight(1);
                // The ramp is as long as what is shared, and no longer.
                assert_eq!(parts.len(), if (9..=12).contains(&frame) { 2 } else { 1 }, "{ramp}: {frame}");
            }
        }
        let none = CrossFade { frames: 0, ramp: Ramp::Linear };
        assert!((1..=20).all(|frame| none.parts(&runs, Frame(frame)).len() == 1));
    }

    #[test]
    fn short_chunks_and_holes_leave_no_frame_without_a_part() {
        let runs = runs(&["1-4,8-12", "5", "6-7", "13", "14-30"]);
        let fade = CrossFade { frames: 5, ramp: Ramp::RaisedCosine };
        for frame in 1..=30 {
            let parts = fade.parts(&runs, Frame(frame));
            let sum: f32 = parts.iter().map(|(_, weight)| weight).sum();
            assert!(sum > 0.2, "frame {frame}: {parts:?}");
        }
    }
}
