//! What the coordinator measures, by Prometheus' conventions.

use std::sync::Mutex;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    driver::Standing,
    farm::{FailureKind, Farm, NodeState},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PriorityLabel {
    priority: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label values")]
enum State {
    idle,
    busy,
    drained,
    unready,
    quarantined,
    offline,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

const STATES: [(NodeState, State); 6] = [
    (NodeState::Idle, State::idle),
    (NodeState::Busy, State::busy),
    (NodeState::Drained, State::drained),
    (NodeState::Unready, State::unready),
    (NodeState::Quarantined, State::quarantined),
    (NodeState::Offline, State::offline),
];

/// The coordinator's meters.
#[derive(Debug)]
pub struct Meters {
    pub commit_seconds: Histogram,
    pub commits_failed: Counter,
    pub decision_seconds: Histogram,
    pub assigned: Counter,
    chunk_seconds: Histogram,
    frames_done: Counter,
    failures: Family<ReasonLabel, Counter>,
    waiting_jobs: Family<PriorityLabel, Gauge>,
    waiting_frames: Family<PriorityLabel, Gauge>,
    nodes: Family<StateLabel, Gauge>,
    leading: Gauge,
    store_up: Gauge,
    /// Priorities told before, which must fall to zero.
    told: Mutex<Vec<u32>>,
}

impl Meters {
    /// The meters, registered under their names.
    pub fn register(registry: &mut Registry) -> Self {
        let meters = Self {
            commit_seconds: Histogram::new(exponential(0.000_1, 2.0, 16)),
            commits_failed: Counter::default(),
            decision_seconds: Histogram::new(exponential(0.000_001, 2.0, 16)),
            assigned: Counter::default(),
            chunk_seconds: Histogram::new(exponential(0.1, 2.0, 16)),
            frames_done: Counter::default(),
            failures: Family::default(),
            waiting_jobs: Family::default(),
            waiting_frames: Family::default(),
            nodes: Family::default(),
            leading: Gauge::default(),
            store_up: Gauge::default(),
            told: Mutex::new(Vec::new()),
        };
        let farm = registry.sub_registry_with_prefix("hearth");
        farm.register("store_commit_seconds", "Time of a commit of a group", meters.commit_seconds.clone());
        farm.register("store_commits_failed", "Commits that failed", meters.commits_failed.clone());
        let about = "Time of one command in memory: what it changes, and what is handed out for it";
        farm.register("decision_seconds", about, meters.decision_seconds.clone());
        farm.register("attempts_assigned", "Attempts handed out", meters.assigned.clone());
        farm.register("chunk_seconds", "Time of a finished chunk in ComfyUI", meters.chunk_seconds.clone());
        farm.register("frames_done", "Frames finished", meters.frames_done.clone());
        farm.register("attempts_failed", "Failed attempts by reason", meters.failures.clone());
        farm.register("queue_jobs", "Jobs with waiting frames", meters.waiting_jobs.clone());
        farm.register("queue_frames", "Waiting frames", meters.waiting_frames.clone());
        farm.register("nodes", "Nodes by state", meters.nodes.clone());
        farm.register("leading", "1 while this coordinator leads", meters.leading.clone());
        farm.register("store_up", "1 while the store answers", meters.store_up.clone());
        meters
    }

    pub(crate) fn stands(&self, standing: &Standing) {
        if *standing != Standing::Leading {
            self.stop_observing();
        }
        self.leading.set(i64::from(*standing == Standing::Leading));
        self.store_up.set(i64::from(!matches!(standing, Standing::Away { .. })));
    }

    pub(crate) fn finished(&self, seconds: f64, frames: u64) {
        self.chunk_seconds.observe(seconds);
        self.frames_done.inc_by(frames);
    }

    pub(crate) fn failed(&self, kind: FailureKind) {
        // The kinds serialise to their snake-case names.
        let reason = serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned));
        self.failures.get_or_create(&ReasonLabel { reason: reason.unwrap_or_default() }).inc();
    }

    /// Whoever does not lead has nothing to tell of the farm: its leader does.
    fn stop_observing(&self) {
        let Ok(mut told) = self.told.lock() else { return };
        self.forget_queue(&mut told);
        for (_, state) in STATES {
            self.nodes.get_or_create(&StateLabel { state }).set(0);
        }
    }

    fn forget_queue(&self, told: &mut Vec<u32>) {
        for priority in told.drain(..) {
            let label = PriorityLabel { priority };
            self.waiting_jobs.get_or_create(&label).set(0);
            self.waiting_frames.get_or_create(&label).set(0);
        }
    }

    /// Takes the gauges from the farm as it stands.
    pub(crate) fn observe(&self, farm: &Farm) {
        let depth = farm.queue_depth();
        let Ok(mut told) = self.told.lock() else { return };
        self.forget_queue(&mut told);
        for (priority, jobs, frames) in depth {
            let label = PriorityLabel { priority: priority.into() };
            self.waiting_jobs.get_or_create(&label).set(jobs as i64);
            self.waiting_frames.get_or_create(&label).set(frames as i64);
            told.push(priority.into());
        }
        let states = farm.node_states();
        for (state, label) in STATES {
            let count = states.iter().filter(|found| **found == state).count();
            self.nodes.get_or_create(&StateLabel { state: label }).set(count as i64);
        }
    }
}

fn exponential(start: f64, factor: f64, count: u16) -> impl Iterator<Item = f64> {
    prometheus_client::metrics::histogram::exponential_buckets(start, factor, count)
}
