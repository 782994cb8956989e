//! Figures of one run, and of many.

use crate::{engine::Run, workload::Workload};

/// What a run is judged by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Time to the last frame through the least that is possible.
    pub(crate) makespan: f64,
    /// Part of the GPUs' time in use while frames waited for one.
    pub(crate) utilisation: f64,
    /// Part of the GPUs' time in use that went into loading models, and into what was thrown away.
    pub(crate) loading: f64,
    pub(crate) wasted: f64,
    /// Part that went into handles, and part of all the time in which GPUs had nothing.
    pub(crate) handles: f64,
    pub(crate) idle: f64,
    /// Mean seconds of a chunk.
    pub(crate) chunk: f64,
    pub(crate) switches: f64,
    /// Seconds from a submission to its first frame: mean, 95th of 100, the worst urgent one.
    pub(crate) wait_mean: f64,
    pub(crate) wait_p95: f64,
    pub(crate) urgent_wait: f64,
    /// Seconds from the end of the last GPU that had enough to do to the last frame.
    pub(crate) tail: f64,
    /// The least part of its due that any show had in any hour in which it had work, and in how many of those hours
    /// it had less than nine tenths.
    pub(crate) least_share: f64,
    pub(crate) short_hours: f64,
}

const HOUR: u64 = 3_600_000;

impl Figures {
    pub(crate) fn of(workload: &Workload, run: &Run) -> Self {
        let seconds = |from: u64, to: u64| (to.saturating_sub(from)) as f64 / 1000.0;
        let busy: f64 = run.spells.iter().map(|spell| seconds(spell.from, spell.to)).sum();
        let loading: f64 = run.spells.iter().map(|spell| spell.loading).sum();
        let wasted: f64 =
            run.spells.iter().filter(|spell| !spell.useful).map(|spell| seconds(spell.from, spell.to)).sum();
        let mut waits: Vec<f64> = run.first_start.clone();
        let urgent = workload.jobs.iter().zip(&waits).filter(|(work, _)| work.urgent);
        let urgent_wait = urgent.map(|(_, wait)| *wait).fold(0.0, f64::max);
        waits.sort_by(f64::total_cmp);
        let last_busy = last_busy(run);
        let shares = shares(workload, run);
        let short = shares.iter().filter(|part| **part < 0.9).count();
        Self {
            makespan: run.makespan / workload.lower_bound(),
            utilisation: utilisation(run),
            loading: loading / busy,
            wasted: wasted / busy,
            handles: run
                .spells
                .iter()
                .map(|spell| spell.handles * (seconds(spell.from, spell.to) - spell.loading))
                .sum::<f64>()
                / busy,
            idle: 1.0 - busy / (run.makespan * workload.gpus.len() as f64),
            chunk: busy / run.spells.len() as f64,
            switches: run.switches as f64,
            wait_mean: waits.iter().sum::<f64>() / waits.len() as f64,
            wait_p95: waits[waits.len() * 95 / 100],
            urgent_wait,
            tail: run.makespan - last_busy,
            least_share: shares.iter().copied().fold(f64::INFINITY, f64::min),
            short_hours: short as f64 / shares.len().max(1) as f64,
        }
    }
}

/// When frames last waited for a GPU.
fn last_busy(run: &Run) -> f64 {
    let waited = run.waiting.windows(2).rev().find(|pair| pair[0].1.iter().any(|frames| *frames > 0));
    waited.map_or(0.0, |pair| pair[1].0 as f64 / 1000.0)
}

/// The stretches in which frames wait, from one change to the next.
fn stretches(run: &Run) -> impl Iterator<Item = (u64, u64, &Vec<u64>)> {
    run.waiting.windows(2).map(|pair| (pair[0].0, pair[1].0, &pair[0].1))
}

fn utilisation(run: &Run) -> f64 {
    // Sweeps over all changes: spells that begin and end, nodes that come and go, frames that wait or not.
    let mut changes: Vec<(u64, i64, i64, Option<bool>)> = Vec::new();
    for spell in &run.spells {
        changes.push((spell.from, 1, 0, None));
        changes.push((spell.to, -1, 0, None));
    }
    let mut before = 0;
    for (at, up) in &run.up {
        changes.push((*at, 0, *up as i64 - before, None));
        before = *up as i64;
    }
    for (at, waiting) in &run.waiting {
        changes.push((*at, 0, 0, Some(waiting.iter().any(|frames| *frames > 0))));
    }
    changes.sort_by_key(|change| change.0);
    let (mut busy, mut up, mut waits, mut last) = (0, 0, false, 0);
    let (mut used, mut all) = (0.0, 0.0);
    for (at, busier, more, now_waits) in changes {
        if waits {
            used += (at - last) as f64 * busy as f64;
            all += (at - last) as f64 * up as f64;
        }
        last = at;
        busy += busier;
        up += more;
        waits = now_waits.unwrap_or(waits);
    }
    if all > 0.0 { used / all } else { 1.0 }
}

/// For each show and each hour in which it had work, six of them begin in an hour, the part of its due that it had.
fn shares(workload: &Workload, run: &Run) -> Vec<f64> {
    let end = (run.makespan * 1000.0) as u64;
    let mut shares = Vec::new();
    for show in 0..workload.shows.len() {
        let mut from = 0;
        while from + HOUR <= end {
            if has_work(run, show, from, from + HOUR) {
                let due = due(workload, run, show, from, from + HOUR);
                shares.push(used(workload, run, show, from, from + HOUR) / due.max(1.0));
            }
            from += HOUR / 6;
        }
    }
    shares
}

/// Whether frames of the show wait all the time.
fn has_work(run: &Run, show: usize, from: u64, to: u64) -> bool {
    let inside = |(start, end, _): &(u64, u64, &Vec<u64>)| *start < to && *end > from;
    let mut any = false;
    for (start, end, waiting) in stretches(run).filter(inside) {
        // Between a chunk's end and the next there may be a moment.
        if waiting[show] == 0 && end.min(to) - start.max(from) > 1_000 {
            return false;
        }
        any = true;
    }
    any
}

/// GPU seconds that the show's weight is worth among all shows that have something waiting.
fn due(workload: &Workload, run: &Run, show: usize, from: u64, to: u64) -> f64 {
    let mut due = 0.0;
    for (start, end, waiting) in stretches(run).filter(|(start, end, _)| *start < to && *end > from) {
        let seconds = (end.min(to) - start.max(from)) as f64 / 1000.0;
        let wanting = waiting.iter().zip(&workload.shows).filter(|(frames, _)| **frames > 0);
        let weights: f64 = wanting.map(|(_, weight)| weight).sum();
        let up = run.up.iter().rev().find(|(at, _)| *at <= start).map_or(0, |(_, up)| *up);
        if waiting[show] > 0 {
            due += seconds * up as f64 * workload.shows[show] / weights;
        }
    }
    due
}

fn used(workload: &Workload, run: &Run, show: usize, from: u64, to: u64) -> f64 {
    let own = run.spells.iter().filter(|spell| workload.jobs[spell.job].show == show);
    let inside = own.filter(|spell| spell.from < to && spell.to > from);
    inside.map(|spell| (spell.to.min(to) - spell.from.max(from)) as f64 / 1000.0).sum()
}
