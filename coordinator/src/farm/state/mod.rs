//! The state of a farm, and the indexes over it. The functions of this room keep queue, chores, open nodes, leases and
//! limits right; `is_indexed` asserts it before anything is handed out. Handlers keep the lists of ended and kept jobs, of
//! outputs and of wakeups themselves.
//!
//! Must never decide anything: neither what a failure means nor what runs next.

pub(in crate::farm) mod attempts;
pub(in crate::farm) mod chain;
pub(in crate::farm) mod classes;
pub(in crate::farm) mod jobs;
pub(in crate::farm) mod limits;
pub(in crate::farm) mod nodes;
pub(in crate::farm) mod pace;
pub(in crate::farm) mod queue;
pub(in crate::farm) mod share;
pub(in crate::farm) mod touched;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hearth_workflows::{Workflow, WorkflowId};
use rustc_hash::FxHashMap as HashMap;

use crate::farm::{
    model::{
        attempt::Attempt,
        command::Step,
        ids::{AttemptId, FarmTag, JobId, NodeName, Timestamp},
        job::Job,
        key::Key,
        node::Node,
        policy::{LimitPolicy, ShowPolicy},
        preset::{Preset, PresetId},
    },
    state::{
        attempts::Behind,
        classes::Classes,
        limits::Holders,
        pace::{Pace, PaceRecord},
        queue::Queue,
        share::{Shares, SharesRecord},
        touched::Touched,
    },
};

/// Numbers of the farm's rules.
#[derive(Debug, Clone)]
pub struct FarmConfig {
    /// How long an attempt lives without being heard of.
    pub lease: Duration,
    /// How long a chunk should keep a node busy.
    pub target_chunk: Duration,
    /// Frames of a chunk for a node that never ran the workflow.
    pub first_chunk_frames: u64,
    /// Failures after which a frame is given up.
    pub max_tries: u32,
    /// How long a node that failed a job is not given it again; doubles with every try.
    pub retry_delay: Duration,
    /// How long a node that fails one job after another gets no work; doubles every time.
    pub quarantine: Duration,
    /// A chunk is late so much later than 1.8 times its estimate.
    pub late: Duration,
    /// Ended jobs older than this are forgotten.
    pub keep_ended: Duration,
    /// What a cancelled job has rendered is kept for so long, in which it can be taken up again.
    pub keep_cancelled: Duration,
    /// At most so many ended jobs are kept.
    pub max_ended: usize,
    /// Jobs that have not ended; one more is refused.
    pub max_active: usize,
    /// A node that was not heard of for so long is forgotten, unless it is drained.
    pub forget_node: Duration,
    /// Maximum number of nodes that are remembered; beyond it, nodes that are gone are forgotten, longest gone first.
    pub max_nodes: usize,
    /// What shows have had counts half after so long.
    pub half_life: Duration,
    /// How far a show may be behind its share for the sake of loaded models, as part of what it is due in an hour.
    pub share_slack: f64,
    /// By show; others have the usual one.
    pub shows: BTreeMap<String, ShowPolicy>,
    /// What there is only so much of, by name.
    pub limits: BTreeMap<String, LimitPolicy>,
}

impl Default for FarmConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            target_chunk: Duration::from_secs(30),
            first_chunk_frames: 4,
            max_tries: 4,
            retry_delay: Duration::from_secs(2),
            quarantine: Duration::from_secs(60),
            late: Duration::from_secs(10),
            keep_ended: Duration::from_secs(7 * 24 * 3600),
            keep_cancelled: Duration::from_secs(24 * 3600),
            max_ended: 10_000,
            max_active: 100_000,
            forget_node: Duration::from_secs(7 * 24 * 3600),
            max_nodes: 20_000,
            half_life: Duration::from_secs(3600),
            share_slack: 0.02,
            shows: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }
}

/// A workflow in use, with what was learned about running it.
#[derive(Debug, Clone)]
pub(in crate::farm) struct KnownWorkflow {
    pub(in crate::farm) workflow: Arc<Workflow>,
    /// Jobs that name it; forgotten with the last.
    pub(in crate::farm) jobs: usize,
    pub(in crate::farm) pace: Pace,
    /// What of it is durable.
    pub(in crate::farm) kept: Option<PaceRecord>,
    /// Nodes that have its models loaded, or will have them.
    pub(in crate::farm) loaded_on: usize,
}

impl KnownWorkflow {
    fn new(workflow: Arc<Workflow>) -> Self {
        Self { workflow, jobs: 0, pace: Pace::default(), kept: None, loaded_on: 0 }
    }

    /// Seconds that loading its models costs.
    pub(in crate::farm) fn load(&self) -> f64 {
        // Until that was seen: a minute's third for models, next to nothing for a graph without.
        let usual = if self.workflow.manifest().needs.models.is_empty() { 0.5 } else { 20.0 };
        self.pace.load().unwrap_or(usual)
    }
}

/// The farm: jobs, nodes and the attempts between them.
#[derive(Debug, Clone)]
pub struct Farm {
    pub(in crate::farm) config: FarmConfig,
    /// Of the last command.
    pub(in crate::farm) now: Timestamp,
    pub(in crate::farm) tag: FarmTag,
    pub(in crate::farm) next_job: u64,
    pub(in crate::farm) jobs: HashMap<JobId, Job>,
    /// Jobs in order of their end, oldest first.
    pub(in crate::farm) ended: BTreeSet<(Timestamp, JobId)>,
    /// Cancelled jobs whose frames are kept, and until when.
    pub(in crate::farm) kept: BTreeSet<(Timestamp, JobId)>,
    pub(in crate::farm) workflows: HashMap<WorkflowId, KnownWorkflow>,
    pub(in crate::farm) attempts: HashMap<AttemptId, Attempt>,
    pub(in crate::farm) nodes: HashMap<NodeName, Node>,
    pub(in crate::farm) presets: BTreeMap<PresetId, Preset>,
    /// Jobs with frames to hand out, best first.
    pub(in crate::farm) queue: Queue,
    pub(in crate::farm) classes: Classes,
    /// Jobs that wait for an assembly, a delivery or a clean-up, best first.
    pub(in crate::farm) chores: BTreeSet<jobs::Rank>,
    /// Nodes that can take another chunk, least busy first.
    pub(in crate::farm) open: BTreeSet<(usize, NodeName)>,
    /// How many nodes are connected, ready and not drained; and of each kind of GPU.
    pub(in crate::farm) ready: usize,
    pub(in crate::farm) ready_kinds: HashMap<String, usize>,
    pub(in crate::farm) shares: Shares,
    /// The nodes that work for each show, and those that use what there is only so much of.
    pub(in crate::farm) holders: Holders,
    pub(in crate::farm) in_use: Holders,
    /// Other nodes can run some jobs than when they were last counted, perhaps.
    pub(in crate::farm) able_changed: bool,
    /// By show, jobs with frames to hand out that want some nodes at least.
    pub(in crate::farm) minima: BTreeMap<String, BTreeSet<JobId>>,
    /// What of them is durable, and since when.
    pub(in crate::farm) kept_shares: Option<SharesRecord>,
    pub(in crate::farm) shares_kept_at: Timestamp,
    /// Thousandths of nodes that work for each show.
    pub(in crate::farm) served: HashMap<String, u32>,
    pub(in crate::farm) leases: BTreeSet<(Timestamp, AttemptId)>,
    /// Chunks that take far longer than they should.
    pub(in crate::farm) late: BTreeSet<AttemptId>,
    /// Chunks that wait behind another one on their node.
    pub(in crate::farm) behind: Behind,
    /// When a job that a node has to leave alone may be given to it again.
    pub(in crate::farm) wakeups: BTreeSet<(Timestamp, JobId)>,
    /// Submissions by the client's own id.
    pub(in crate::farm) requests: HashMap<String, JobId>,
    /// Where active jobs will put their results.
    pub(in crate::farm) outputs: HashMap<String, JobId>,
    /// A job, and one that waits for it, in whole or frame by frame.
    pub(in crate::farm) dependents: BTreeSet<(JobId, JobId)>,
    /// The first job of a batch, and each of its jobs.
    pub(in crate::farm) batches: BTreeSet<(JobId, JobId)>,
    /// Jobs with a deadline.
    pub(in crate::farm) deadlines: BTreeSet<(Timestamp, JobId)>,
    pub(in crate::farm) deadlines_judged_at: Timestamp,
    pub(in crate::farm) touched: Touched,
}

impl Farm {
    /// An empty farm. `tag` makes its attempt ids differ from those of any other farm.
    pub fn new(config: FarmConfig, tag: FarmTag) -> Self {
        Self {
            config,
            now: Timestamp(0),
            tag,
            next_job: 1,
            jobs: HashMap::default(),
            ended: BTreeSet::new(),
            kept: BTreeSet::new(),
            workflows: HashMap::default(),
            attempts: HashMap::default(),
            nodes: HashMap::default(),
            presets: BTreeMap::new(),
            queue: Queue::default(),
            classes: Classes::default(),
            chores: BTreeSet::new(),
            open: BTreeSet::new(),
            ready: 0,
            ready_kinds: HashMap::default(),
            shares: Shares::default(),
            holders: Holders::default(),
            in_use: Holders::default(),
            able_changed: false,
            minima: BTreeMap::new(),
            kept_shares: None,
            shares_kept_at: Timestamp(0),
            served: HashMap::default(),
            leases: BTreeSet::new(),
            late: BTreeSet::new(),
            behind: Behind::default(),
            wakeups: BTreeSet::new(),
            requests: HashMap::default(),
            outputs: HashMap::default(),
            dependents: BTreeSet::new(),
            batches: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            deadlines_judged_at: Timestamp(0),
            touched: Touched::default(),
        }
    }

    pub fn tag(&self) -> &FarmTag {
        &self.tag
    }

    pub fn config(&self) -> &FarmConfig {
        &self.config
    }

    /// What was learned about a workflow outlives this coordinator.
    pub(in crate::farm) fn keep_pace(&mut self, workflow: &WorkflowId, step: &mut Step) {
        let Some(known) = self.workflows.get_mut(workflow) else { return };
        let record = Some(known.pace.record());
        if known.kept != record {
            known.kept = record;
            step.changes.push(Key::Pace(workflow.clone()));
        }
    }

    /// How a show is treated.
    pub(in crate::farm) fn policy(&self, show: &str) -> &ShowPolicy {
        const USUAL: &ShowPolicy =
            &ShowPolicy { weight: 1.0, min_nodes: 0, max_nodes: 0, preemptible: false };
        self.config.shows.get(show).unwrap_or(USUAL)
    }
}
