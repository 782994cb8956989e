//! How many frames a node gets at a time.
//!
//! As many as keep it busy for the target time; towards the end of a job no more than its share of what is
//! left (guided self-scheduling: Polychronopoulos and Kuck, 1987), so that fast and slow nodes finish
//! together. Nobody tunes a chunk size.

use hearth_workflows::Split;

use crate::farm::{
    model::{job::Job, node::Node},
    state::{
        Farm,
        pace::{Pace, Runner},
    },
};

/// A node gets at most its share of what is left divided by this, so that a wrong measurement can still
/// be made up for by later, smaller chunks.
const SHARE_DIVISOR: f64 = 2.0;

/// No node is so many times slower than the others in the mean.
const SLOWEST: f64 = 50.0;

/// A chunk with handles may take so many times the target, and one of the rest of its job.
const LONGER: f64 = 12.0;

const LONGER_REST: f64 = 3.0;

/// Whether a node that has a chunk should have another one prefetched: only while a fair share of all that waits is
/// left for it. Near the end a frame is better kept for whoever is free first.
pub(in crate::farm) fn may_prefetch(farm: &Farm, job: &Job, node: &Node) -> bool {
    if node.chunks.is_empty() || job.spec.urgent {
        return true;
    }
    let Some(render) = job.spec.render() else { return false };
    // Whatever its size, all of it is one chunk.
    let Some(known) = farm.workflows.get(&render.workflow) else { return false };
    if render.chunk_frames.is_some() || render.split(&known.workflow).is_whole() {
        return true;
    }
    let waiting = farm.classes.all_waiting() as f64;
    // Without a look at how fast it is, where there is enough for the slowest.
    waiting > SLOWEST * farm.ready as f64 || {
        let runner = Runner { name: &node.about.name, kind: &node.capabilities.device };
        waiting * share(farm, &known.pace, runner) >= 1.0
    }
}

/// Frames for the next chunk of the job on the node.
pub(in crate::farm) fn chunk_size(farm: &Farm, job: &Job, node: &Node) -> Option<u64> {
    let render = job.spec.render()?;
    let known = farm.workflows.get(&render.workflow)?;
    let runner = Runner { name: &node.about.name, kind: &node.capabilities.device };
    let (split, shape) = (render.split(&known.workflow), known.workflow.manifest().shape());
    let most = split.max_own(shape).min(known.pace.cap(runner.kind).unwrap_or(u64::MAX));
    if split.is_whole() {
        return Some(u64::MAX);
    }
    if let Some(fixed) = render.chunk_frames {
        return Some(fixed.clamp(1, most));
    }
    let waiting = job.waiting.len();
    let part = share(farm, &known.pace, runner);
    let share = waiting as f64 * part;
    let (head, tail) = split.handles();
    let handles = u64::from(head) + u64::from(tail);
    let per_frame = known.pace.seconds_per_frame(job.variant, runner).filter(|seconds| *seconds > 0.0);
    let frames_in = |times: f64| match per_frame {
        Some(seconds) => {
            let seconds = farm.config.target_chunk.as_secs_f64() * times / seconds;
            (seconds.clamp(1.0, 1e9) as u64).saturating_sub(handles)
        }
        None => farm.config.first_chunk_frames,
    };
    // With enough else to do nobody has to end together with the others: nodes go on to another job.
    let others = farm.classes.all_waiting().saturating_sub(waiting) as f64 * part;
    let by_share = if others >= 1.0 {
        let at_it = (known.loaded_on.max(1) as f64).min(farm.ready.max(1) as f64);
        (share * farm.ready.max(1) as f64 / at_it).ceil() as u64
    } else {
        (share / SHARE_DIVISOR).ceil() as u64
    };
    // Of long jobs no more than a fiftieth of what a chunk renders should be thrown away, and of none more than a
    // third; but nobody waits for a chunk much longer than usual for that. A job's rest is not crumbled either while
    // there is something else to do.
    let spared = (48 * handles).min(frames_in(LONGER));
    let rest = if others >= 1.0 { (12 * handles).min(frames_in(LONGER_REST)) } else { 0 };
    let count = frames_in(1.0).max(spared).min(by_share).max(rest).max(2 * handles).clamp(1, most);
    // As many as the model takes without any that are thrown away.
    Some(match split {
        Split::Interpolate { .. } | Split::Whole | Split::Generate { .. } => count,
        Split::PerFrame | Split::Handles { .. } | Split::Overlap { .. } => {
            shape.at_most(count + handles).map_or(count, |loaded| loaded.saturating_sub(handles).max(1))
        }
    })
}

/// The part of the farm's speed that this node is, 0 to 1.
fn share(farm: &Farm, pace: &Pace, runner: Runner) -> f64 {
    let ready = farm.ready.max(1) as f64;
    // A kind of GPU goes for all its nodes.
    let speed_of = |kind: &String| pace.kind_speed(kind);
    let all: f64 = farm.ready_kinds.iter().map(|(kind, count)| speed_of(kind) * *count as f64).sum();
    let mean = if all > 0.0 { all / ready } else { 1.0 };
    (pace.speed(runner) / (mean * ready)).clamp(0.0, 1.0)
}
