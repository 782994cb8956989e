//! What is to blame for a failed chunk.

use hearth_workflows::FrameSet;

use crate::farm::model::job::FailureKind;

/// What is held against the frames of a failed chunk.
pub(in crate::farm) enum Blame {
    /// Every frame of it has failed once more, and would fail alone, too.
    Chunk,
    /// Some frame of it, which nobody can tell from the others yet.
    Some,
    /// Only these have; the others did nothing wrong.
    Frames(FrameSet),
    /// None: the node could not have done it.
    Node,
    /// None: no node could have done it, or this one could do nothing at all, for reasons outside the job.
    Surroundings,
    /// None, but the next chunk for this node is half as long.
    Size,
}

/// The circumstances under which a chunk has failed.
pub(in crate::farm) struct Circumstances<'a> {
    pub(super) chunk: &'a FrameSet,
    /// Frames that the failure is about, where it says so.
    pub(super) named: &'a FrameSet,
    /// It has more than one frame, and may have fewer.
    pub(super) divisible: bool,
    /// One more failure is the last.
    pub(super) last_try: bool,
    /// Not one of the other nodes works either.
    pub(super) others_are_gone: bool,
}

pub(in crate::farm) fn blame(kind: FailureKind, about: &Circumstances<'_>) -> Blame {
    let Circumstances { chunk, named, divisible, last_try, others_are_gone } = *about;
    let own = named.intersection(chunk);
    match kind {
        FailureKind::Missing => Blame::Node,
        FailureKind::Storage | FailureKind::Unavailable => Blame::Surroundings,
        // A switch that fails, or a new ComfyUI that is rolled out everywhere.
        FailureKind::Lost | FailureKind::ComfyDied if others_are_gone => Blame::Surroundings,
        FailureKind::OutOfMemory if divisible => Blame::Size,
        FailureKind::BadFrame | FailureKind::BadOutput if !own.is_empty() && own != *chunk => {
            Blame::Frames(own)
        }
        FailureKind::BadFrame
        | FailureKind::BadOutput
        | FailureKind::Execution
        | FailureKind::ComfyDied
        | FailureKind::Hung
        | FailureKind::Internal
            if divisible =>
        {
            Blame::Some
        }
        // Hosts go down for many reasons. Frames that were lost again and again may be one of them.
        FailureKind::Lost if divisible && last_try => Blame::Some,
        FailureKind::Refused
        | FailureKind::BadFrame
        | FailureKind::BadOutput
        | FailureKind::Execution
        | FailureKind::OutOfMemory
        | FailureKind::ComfyDied
        | FailureKind::Hung
        | FailureKind::Lost
        | FailureKind::Interrupted
        | FailureKind::OutputTaken
        | FailureKind::Internal => Blame::Chunk,
    }
}

/// Whether it tells something about the job: another node might well fail it, too.
pub(in crate::farm) fn tells_of_job(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Refused
        | FailureKind::Execution
        | FailureKind::OutOfMemory
        | FailureKind::ComfyDied
        | FailureKind::Hung
        | FailureKind::BadOutput
        | FailureKind::BadFrame => true,
        FailureKind::Missing
        | FailureKind::Storage
        | FailureKind::Lost
        | FailureKind::Interrupted
        | FailureKind::Unavailable
        | FailureKind::OutputTaken
        | FailureKind::Internal => false,
    }
}

/// Whether it is held against the node, once another has done what it failed. Storage that was away for everybody
/// would be held against all but the first who finds it back.
pub(in crate::farm) fn tells_of_node(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Missing
        | FailureKind::Storage
        | FailureKind::Lost
        | FailureKind::Interrupted
        | FailureKind::Unavailable
        | FailureKind::OutputTaken => false,
        FailureKind::Refused
        | FailureKind::Execution
        | FailureKind::OutOfMemory
        | FailureKind::BadFrame
        | FailureKind::ComfyDied
        | FailureKind::Hung
        | FailureKind::BadOutput
        | FailureKind::Internal => true,
    }
}
