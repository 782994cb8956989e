//! How many frames a node gets at a time.
//!
//! As many as keep it busy for the target time; towards the end of a job no more than its share of what is
//! left (guided self-scheduling: Polychronopoulos and Kuck, 1987), so that fast and slow nodes finish
//! together. Nobody tunes a chunk size.

use hearth_workflows::{Split, Workflow};

use super::{FarmConfig, ids::NodeName, job::Job, pace::Pace, spec::Render};

/// A node gets at most its share of what is left divided by this, so that a wrong measurement can still
/// be made up for by later, smaller chunks.
const SHARE_DIVISOR: f64 = 2.0;

/// Frames for the next chunk; 0 when the node should rather not prefetch any.
pub(super) fn chunk_size(
    config: &FarmConfig,
    job: &Job,
    (render, workflow): (&Render, &Workflow),
    pace: &Pace,
    node: &NodeName,
    ready_nodes: usize,
    busy: bool,
) -> u64 {
    let (split, shape) = (render.split(workflow), workflow.manifest().shape());
    let most = split.max_own(shape).min(pace.cap(node).unwrap_or(u64::MAX));
    if split.is_whole() {
        return u64::MAX;
    }
    if let Some(fixed) = render.chunk_frames {
        return fixed.clamp(1, most);
    }
    let waiting = job.waiting.len();
    let share = waiting as f64 * pace.share(node, ready_nodes);
    // A second chunk only while a fair share of the rest is left for it: near the end a frame is better
    // kept for whoever is free first.
    if busy && share < 1.0 {
        return 0;
    }
    let by_time = match pace.seconds_per_frame(node) {
        Some(seconds) if seconds > 0.0 => {
            (config.target_chunk.as_secs_f64() / seconds).clamp(1.0, 1e9) as u64
        }
        Some(_) => u64::MAX,
        None => config.first_chunk_frames,
    };
    let by_share = (share / SHARE_DIVISOR).ceil() as u64;
    // No more than a third of what a chunk renders should be thrown away.
    let (head, tail) = split.handles();
    let handles = u64::from(head) + u64::from(tail);
    let count = by_time.min(by_share).max(2 * handles).clamp(1, most);
    // As many as the model takes without any that are thrown away.
    match split {
        Split::Interpolate { .. } | Split::Whole | Split::Generate { .. } => count,
        Split::PerFrame | Split::Handles { .. } | Split::Overlap { .. } => {
            shape.at_most(count + handles).map_or(count, |loaded| loaded.saturating_sub(handles).max(1))
        }
    }
}
