//! What others do, each at its best: no time is lost between chunks, nothing is said twice.

use std::collections::VecDeque;

use hearth_workflows::{Frame, FrameRange, FrameSet};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    engine::{Chunk, Order, Scheduler},
    workload::Workload,
};

/// Frames of a task where somebody has to choose a number.
const FIXED: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By priority, then first come, first served, in tasks of a fixed number of frames: Deadline, OpenCue, Flamenco.
    Fixed,
    /// By priority, then first come; every job in as many equal parts as there are nodes: ComfyUI-Distributed.
    Even,
    /// Any task of any job.
    Random,
}

pub(crate) struct Baseline<'a> {
    kind: Kind,
    workload: &'a Workload,
    rng: SmallRng,
    ids: u64,
    up: Vec<bool>,
    held: Vec<Option<Chunk>>,
    /// Tasks of each job that wait.
    waiting: Vec<VecDeque<FrameSet>>,
    /// Jobs in their order.
    queue: Vec<usize>,
}

impl<'a> Baseline<'a> {
    pub(crate) fn new(kind: Kind, workload: &'a Workload, seed: u64) -> Self {
        Self {
            kind,
            workload,
            rng: SmallRng::seed_from_u64(seed),
            ids: 0,
            up: vec![false; workload.gpus.len()],
            held: vec![None; workload.gpus.len()],
            waiting: vec![VecDeque::new(); workload.jobs.len()],
            queue: Vec::new(),
        }
    }

    fn give(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        for node in 0..self.up.len() {
            if !self.up[node] || self.held[node].is_some() {
                continue;
            }
            let Some(job) = self.next() else { break };
            let Some(frames) = self.waiting[job].pop_front() else { break };
            self.ids += 1;
            let handles = u64::from(self.workload.models[self.workload.jobs[job].model].handles);
            let rendered = frames.len() + 2 * handles;
            let chunk = Chunk { id: self.ids, job, frames, rendered };
            self.held[node] = Some(chunk.clone());
            orders.push(Order::Run { node, chunk });
        }
        orders
    }

    fn next(&mut self) -> Option<usize> {
        self.queue.retain(|job| !self.waiting[*job].is_empty());
        match self.kind {
            Kind::Fixed | Kind::Even => self.queue.first().copied(),
            Kind::Random if self.queue.is_empty() => None,
            Kind::Random => Some(self.queue[self.rng.random_range(0..self.queue.len())]),
        }
    }

    fn put_back(&mut self, chunk: Chunk) {
        self.waiting[chunk.job].push_front(chunk.frames);
        if !self.queue.contains(&chunk.job) {
            self.queue.push(chunk.job);
        }
        self.sort();
    }

    fn sort(&mut self) {
        let jobs = &self.workload.jobs;
        // Urgent is the highest priority that the others have.
        let rank = |job: &usize| {
            let priority = if jobs[*job].urgent { 100 } else { jobs[*job].priority };
            (std::cmp::Reverse(priority), *job)
        };
        self.queue.sort_by_key(rank);
    }
}

impl Scheduler for Baseline<'_> {
    fn up(&mut self, _: u64, node: usize) -> Vec<Order> {
        self.up[node] = true;
        self.give()
    }

    fn down(&mut self, _: u64, node: usize) -> Vec<Order> {
        self.up[node] = false;
        if let Some(chunk) = self.held[node].take() {
            self.put_back(chunk);
        }
        self.give()
    }

    fn submit(&mut self, _: u64, job: usize) -> Vec<Order> {
        let frames = self.workload.jobs[job].frames;
        let size = match self.kind {
            Kind::Fixed | Kind::Random => FIXED,
            Kind::Even => frames.div_ceil(self.up.len() as u64),
        };
        let mut from = 1;
        while from <= frames {
            let to = (from + size - 1).min(frames);
            let range = FrameRange { first: Frame(from as i64), last: Frame(to as i64) };
            self.waiting[job].push_back(range.into());
            from = to + 1;
        }
        self.queue.push(job);
        self.sort();
        self.give()
    }

    fn ended(&mut self, _: u64, node: usize, chunk: &Chunk, seconds: Option<f64>) -> Vec<Order> {
        self.held[node] = None;
        if seconds.is_none() {
            self.put_back(chunk.clone());
        }
        self.give()
    }

    fn tick(&mut self, _: u64) -> Vec<Order> {
        Vec::new()
    }
}
