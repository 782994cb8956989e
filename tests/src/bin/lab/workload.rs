//! What a facility wants rendered in some hours, drawn from a seed.

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

/// One GPU. `speed`: how many times as fast as the slowest kind.
#[derive(Debug, Clone)]
pub(crate) struct Gpu {
    pub(crate) speed: f64,
    pub(crate) kind: &'static str,
}

/// A workflow with its models.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Seconds to load, on any GPU.
    pub(crate) load: f64,
    /// Of the slowest kind.
    pub(crate) seconds_per_frame: f64,
    /// Frames rendered beside a chunk's own, on each side.
    pub(crate) handles: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Seconds after the start.
    pub(crate) at: f64,
    pub(crate) show: usize,
    pub(crate) priority: u32,
    pub(crate) urgent: bool,
    pub(crate) model: usize,
    /// A frame of it takes so many times what the model usually does (resolution, steps).
    pub(crate) factor: f64,
    pub(crate) frames: u64,
}

/// A node that is away for a while.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    pub(crate) node: usize,
    pub(crate) at: f64,
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) models: Vec<Model>,
    pub(crate) jobs: Vec<Work>,
    /// Weight of each show.
    pub(crate) shows: Vec<f64>,
    pub(crate) outages: Vec<Outage>,
    /// How often a chunk fails, for no fault of anybody's.
    pub(crate) failure_rate: f64,
}

const KINDS: [(&str, f64); 4] = [("A5000", 1.0), ("A6000", 1.6), ("4090", 2.6), ("H100", 4.0)];

impl Workload {
    /// `nodes` GPUs of unequal speed and `jobs` jobs that come within `hours` hours, by day more than by night;
    /// together they keep the farm busy for about `busy` hours.
    pub(crate) fn draw(seed: u64, nodes: usize, jobs: usize, hours: f64, busy: f64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let gpus: Vec<Gpu> = (0..nodes)
            .map(|_| {
                let (kind, speed) = KINDS[rng.random_range(0..KINDS.len())];
                Gpu { speed: speed * rng.random_range(0.95..1.05), kind }
            })
            .collect();
        let models: Vec<Model> = (0..8)
            .map(|index| Model {
                load: rng.random_range(8.0..45.0),
                seconds_per_frame: 2.0 * 15.0_f64.powf(rng.random_range(0.0..1.0)),
                handles: u32::from(index % 4 == 3),
            })
            .collect();
        let shows = vec![2.0, 1.0, 1.0, 1.0];
        let mut drawn: Vec<Work> = (0..jobs)
            .map(|index| {
                // Most of it is there when the night begins: people submit before they go. The rest comes from
                // those who work at night, and from scripts.
                let at = if rng.random_bool(0.6) {
                    rng.random_range(0.0..0.1)
                } else {
                    rng.random_range(0.0..1.0)
                };
                Work {
                    at: at * hours * 3600.0,
                    show: index % shows.len(),
                    priority: [50, 50, 50, 50, 50, 50, 30, 80][rng.random_range(0..8)],
                    urgent: false,
                    model: rng.random_range(0..models.len()),
                    factor: 4.0_f64.powf(rng.random_range(-0.5..0.5)),
                    frames: 50 + 20.0_f64.powf(rng.random_range(1.0..2.5)) as u64,
                }
            })
            .collect();
        // As much as keeps the farm busy for so long, whatever was drawn.
        let capacity: f64 = gpus.iter().map(|gpu| gpu.speed).sum();
        let cost = |work: &Work| models[work.model].seconds_per_frame * work.factor * work.frames as f64;
        let scale = busy * 3600.0 * capacity / drawn.iter().map(cost).sum::<f64>();
        for work in &mut drawn {
            work.frames = ((work.frames as f64 * scale) as u64).max(10);
        }
        // Somebody always has something urgent: short, and in the middle of it all.
        for _ in 0..2 {
            drawn.push(Work {
                at: rng.random_range(0.2..0.8) * hours * 3600.0,
                show: rng.random_range(0..shows.len()),
                priority: 50,
                urgent: true,
                model: rng.random_range(0..models.len()),
                factor: 1.0,
                frames: 24,
            });
        }
        drawn.sort_by(|a, b| a.at.total_cmp(&b.at));
        let outages = (0..nodes / 16)
            .map(|_| Outage {
                node: rng.random_range(0..nodes),
                at: rng.random_range(0.0..hours.max(busy)) * 3600.0,
                seconds: rng.random_range(120.0..1200.0),
            })
            .collect();
        Self { gpus, models, jobs: drawn, shows, outages, failure_rate: 0.005 }
    }

    /// Seconds of the slowest kind of GPU that a job takes, without handles and loading.
    pub(crate) fn cost(&self, job: usize) -> f64 {
        let work = &self.jobs[job];
        self.models[work.model].seconds_per_frame * work.factor * work.frames as f64
    }

    /// No schedule ends earlier: from any time on, what comes later has to be rendered by all GPUs together. None
    /// renders while it is away, nor before it has loaded some model, for which it takes the least that there is.
    pub(crate) fn lower_bound(&self) -> f64 {
        let load = self.models.iter().map(|model| model.load).fold(f64::INFINITY, f64::min);
        let mut changes: Vec<(f64, f64)> = Vec::new();
        for (node, gpu) in self.gpus.iter().enumerate() {
            let of_node = self.outages.iter().filter(|outage| outage.node == node);
            let mut away: Vec<(f64, f64)> =
                of_node.map(|outage| (outage.at, outage.at + outage.seconds + load)).collect();
            away.push((0.0, load));
            away.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut free = 0.0;
            for (from, to) in away {
                // Before that, since the last time that it was away.
                if from > free {
                    changes.extend([(free, gpu.speed), (from, -gpu.speed)]);
                }
                free = to.max(free);
            }
            changes.push((free, gpu.speed));
        }
        changes.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ends = |at: f64| {
            let later = (0..self.jobs.len()).filter(|job| self.jobs[*job].at >= at);
            let mut left: f64 = later.map(|job| self.cost(job)).sum();
            let (mut now, mut capacity) = (at, 0.0);
            for (when, change) in &changes {
                if *when > now {
                    let done = (when - now) * capacity;
                    if done >= left {
                        break;
                    }
                    left -= done;
                    now = *when;
                }
                capacity += change;
            }
            now + left / capacity
        };
        self.jobs.iter().map(|work| ends(work.at)).fold(0.0, f64::max)
    }
}
