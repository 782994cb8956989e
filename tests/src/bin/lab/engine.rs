//! A farm of GPUs in virtual time: who runs what, what it costs, and what is measured of it.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
};

use hearth_workflows::FrameSet;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::workload::Workload;

/// Frames for a node, as its scheduler has cut them.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// Chosen by the scheduler.
    pub(crate) id: u64,
    pub(crate) job: usize,
    pub(crate) frames: FrameSet,
    /// Frames rendered, handles among them.
    pub(crate) rendered: u64,
}

/// What a scheduler wants done.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Run { node: usize, chunk: Chunk },
    Cancel { id: u64 },
}

/// Decides who gets what. Times are milliseconds.
pub(crate) trait Scheduler {
    fn up(&mut self, now: u64, node: usize) -> Vec<Order>;
    fn down(&mut self, now: u64, node: usize) -> Vec<Order>;
    fn submit(&mut self, now: u64, job: usize) -> Vec<Order>;
    /// `seconds`: `None`, it failed.
    fn ended(&mut self, now: u64, node: usize, chunk: &Chunk, seconds: Option<f64>) -> Vec<Order>;
    fn tick(&mut self, now: u64) -> Vec<Order>;
}

/// Between two ticks.
const TICK: u64 = 2_000;

/// Nothing takes longer than this many virtual seconds.
const END: u64 = 60 * 3600 * 1000;

enum What {
    Submit(usize),
    Ends { node: usize, run: u64 },
    Down(usize),
    Up(usize),
    Tick,
}

struct Event {
    at: u64,
    order: u64,
    what: What,
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

#[derive(Default)]
struct Node {
    up: bool,
    queue: VecDeque<Chunk>,
    /// What runs, since when, and whether it will fail.
    running: Option<Running>,
    loaded: Option<usize>,
}

struct Running {
    chunk: Chunk,
    run: u64,
    since: u64,
    seconds: f64,
    loading: f64,
    fails: bool,
}

/// A stretch of time on a GPU.
#[derive(Debug, Clone)]
pub(crate) struct Spell {
    pub(crate) job: usize,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Seconds of it that went into loading models, and part of the rest that went into handles.
    pub(crate) loading: f64,
    pub(crate) handles: f64,
    pub(crate) useful: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    pub(crate) makespan: f64,
    pub(crate) spells: Vec<Spell>,
    pub(crate) switches: usize,
    /// By job: seconds from its submission to its first frame, and to its last.
    pub(crate) first_start: Vec<f64>,
    pub(crate) ended: Vec<f64>,
    /// When how many frames of each show wait for a GPU: at each change, all shows.
    pub(crate) waiting: Vec<(u64, Vec<u64>)>,
    /// Nodes that are up, at each change.
    pub(crate) up: Vec<(u64, usize)>,
}

/// Plays a workload with a scheduler.
pub(crate) fn play(workload: &Workload, seed: u64, scheduler: &mut dyn Scheduler) -> Run {
    let mut engine = Engine {
        workload,
        rng: SmallRng::seed_from_u64(seed),
        now: 0,
        order: 0,
        runs: 0,
        events: BinaryHeap::new(),
        nodes: workload.gpus.iter().map(|_| Node::default()).collect(),
        submitted: vec![false; workload.jobs.len()],
        done: vec![FrameSet::new(); workload.jobs.len()],
        out: vec![0; workload.jobs.len()],
        left: workload.jobs.len(),
        run: Run {
            first_start: vec![f64::NAN; workload.jobs.len()],
            ended: vec![f64::NAN; workload.jobs.len()],
            ..Run::default()
        },
    };
    for (job, work) in workload.jobs.iter().enumerate() {
        engine.at(millis(work.at), What::Submit(job));
    }
    for node in 0..workload.gpus.len() {
        engine.at(0, What::Up(node));
    }
    for outage in &workload.outages {
        engine.at(millis(outage.at), What::Down(outage.node));
        engine.at(millis(outage.at + outage.seconds), What::Up(outage.node));
    }
    engine.at(TICK, What::Tick);
    engine.play(scheduler);
    engine.run
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

struct Engine<'a> {
    workload: &'a Workload,
    rng: SmallRng,
    now: u64,
    order: u64,
    runs: u64,
    events: BinaryHeap<Event>,
    nodes: Vec<Node>,
    submitted: Vec<bool>,
    done: Vec<FrameSet>,
    /// Frames of each job that some node has.
    out: Vec<u64>,
    left: usize,
    run: Run,
}

impl Engine<'_> {
    fn at(&mut self, at: u64, what: What) {
        self.order += 1;
        self.events.push(Event { at: at.max(self.now), order: self.order, what });
    }

    fn play(&mut self, scheduler: &mut dyn Scheduler) {
        while let Some(Event { at, what, .. }) = self.events.pop() {
            self.now = at;
            assert!(at < END, "{} jobs never end: {:?}", self.left, self.unfinished());
            let orders = match what {
                What::Submit(job) => {
                    self.submitted[job] = true;
                    scheduler.submit(at, job)
                }
                What::Up(node) => {
                    if std::mem::replace(&mut self.nodes[node].up, true) {
                        Vec::new()
                    } else {
                        scheduler.up(at, node)
                    }
                }
                What::Down(node) => self.down(node, scheduler),
                What::Tick => {
                    self.at(at + TICK, What::Tick);
                    scheduler.tick(at)
                }
                What::Ends { node, run } => self.ends(node, run, scheduler),
            };
            self.obey(orders);
            self.note();
            if self.left == 0 {
                self.run.makespan = at as f64 / 1000.0;
                return;
            }
        }
    }

    fn unfinished(&self) -> Vec<(usize, u64, u64)> {
        let jobs = self.workload.jobs.iter().enumerate();
        let open = jobs.filter(|(job, work)| self.done[*job].len() < work.frames);
        open.map(|(job, work)| (job, self.done[job].len(), work.frames)).collect()
    }

    fn down(&mut self, node: usize, scheduler: &mut dyn Scheduler) -> Vec<Order> {
        self.nodes[node].up = false;
        self.nodes[node].loaded = None;
        let queued: Vec<Chunk> = self.nodes[node].queue.drain(..).collect();
        let running = self.nodes[node].running.take();
        if let Some(running) = &running {
            self.spell(running, false);
        }
        for chunk in queued.iter().chain(running.iter().map(|running| &running.chunk)) {
            self.out[chunk.job] -= chunk.frames.len();
        }
        scheduler.down(self.now, node)
    }

    fn spell(&mut self, running: &Running, useful: bool) {
        let chunk = &running.chunk;
        self.run.spells.push(Spell {
            handles: (chunk.rendered - chunk.frames.len()) as f64 / chunk.rendered as f64,
            job: running.chunk.job,
            from: running.since,
            to: self.now,
            loading: running.loading.min((self.now - running.since) as f64 / 1000.0),
            useful,
        });
    }

    fn ends(&mut self, node: usize, run: u64, scheduler: &mut dyn Scheduler) -> Vec<Order> {
        let Some(running) = self.nodes[node].running.take_if(|running| running.run == run) else {
            return Vec::new();
        };
        let Running { fails, seconds, .. } = running;
        self.spell(&running, !fails);
        let chunk = running.chunk;
        let job = chunk.job;
        self.out[job] -= chunk.frames.len();
        self.start(node);
        if !fails {
            self.done[job].insert_all(&chunk.frames);
            let work = &self.workload.jobs[job];
            if self.done[job].len() >= work.frames && self.run.ended[job].is_nan() {
                self.run.ended[job] = self.now as f64 / 1000.0 - work.at;
                self.left -= 1;
            }
        }
        scheduler.ended(self.now, node, &chunk, (!fails).then_some(seconds))
    }

    fn obey(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Run { node, chunk } => {
                    self.out[chunk.job] += chunk.frames.len();
                    self.nodes[node].queue.push_back(chunk);
                    self.start(node);
                }
                Order::Cancel { id } => self.cancel(id),
            }
        }
    }

    fn cancel(&mut self, id: u64) {
        for node in 0..self.nodes.len() {
            if let Some(at) = self.nodes[node].queue.iter().position(|chunk| chunk.id == id) {
                let chunk = self.nodes[node].queue.remove(at).expect("it is there");
                self.out[chunk.job] -= chunk.frames.len();
            }
            if let Some(running) = self.nodes[node].running.take_if(|running| running.chunk.id == id) {
                self.out[running.chunk.job] -= running.chunk.frames.len();
                self.spell(&running, false);
                self.start(node);
            }
        }
    }

    /// Takes up the next chunk of a node that is free.
    fn start(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.up || node.running.is_some() {
            return;
        }
        let Some(chunk) = node.queue.pop_front() else { return };
        let work = &self.workload.jobs[chunk.job];
        let model = &self.workload.models[work.model];
        let loading = if node.loaded == Some(work.model) { 0.0 } else { model.load };
        if node.loaded.is_some() && loading > 0.0 {
            self.run.switches += 1;
        }
        node.loaded = Some(work.model);
        // About one in twenty more or less, and now and then one that hangs on something for a while.
        let noise = 1.0 + 0.05 * (self.rng.random_range(-1.0_f64..1.0) + self.rng.random_range(-1.0..1.0));
        let straggles = if self.rng.random_bool(0.002) { 6.0 } else { 1.0 };
        let per_frame = model.seconds_per_frame * work.factor / self.workload.gpus[index].speed;
        let fails = self.rng.random_bool(self.workload.failure_rate);
        let mut seconds = loading + per_frame * chunk.rendered as f64 * noise * straggles;
        if fails {
            seconds *= self.rng.random_range(0.1..0.9);
        }
        let first = &mut self.run.first_start[chunk.job];
        if first.is_nan() {
            *first = self.now as f64 / 1000.0 - work.at;
        }
        self.runs += 1;
        let run = self.runs;
        node.running = Some(Running { chunk, run, since: self.now, seconds, loading, fails });
        self.at(self.now + millis(seconds).max(1), What::Ends { node: index, run });
    }

    /// Keeps what has changed.
    fn note(&mut self) {
        let mut waiting = vec![0; self.workload.shows.len()];
        for (job, work) in self.workload.jobs.iter().enumerate() {
            if self.submitted[job] {
                let open = work.frames - self.done[job].len().min(work.frames);
                // Frames that two nodes have count once more than they should: then none waits.
                waiting[work.show] += open.saturating_sub(self.out[job]);
            }
        }
        if self.run.waiting.last().is_none_or(|(_, last)| *last != waiting) {
            self.run.waiting.push((self.now, waiting));
        }
        let up = self.nodes.iter().filter(|node| node.up).count();
        if self.run.up.last().is_none_or(|(_, last)| *last != up) {
            self.run.up.push((self.now, up));
        }
    }
}
