//! All rules of the farm, as a pure state machine: no clock, no randomness, no I/O, no `async`.
//!
//! ```text
//! farm.apply(now, command) -> Step { changes, effects, answer }
//! ```
//!
//! `changes` name the records that the command touched; the driver writes them as one group. `effects`
//! and `answer` may be released only after that write is durable (as in a Raft `Ready`).
//!
//! Each rule has its file: `submit`, `control`, `choose` (which job for a node), `fit` (what suits what it has loaded),
//! `share` (what shows have had), `limits` (who may have no more), `carve` (how many frames), `pace` (how long things
//! take), `urgent` (who makes room), `spare` (what idle nodes do for others), `hand_out` and `lease` (who holds what,
//! and until when), `retry` and `suspects` (what has failed), `quarantine` (who has failed), `finish`, `explain` (what
//! people ask), `reconcile` (what a store or a connection has lost).
//! Frames are the truth: a job keeps interval sets, chunks are only leases on frames.
//!
//! `records` says what is durable, `restore` makes a farm of it again.

mod attempt;
mod carve;
mod choose;
mod classes;
mod command;
mod control;
mod dispatch;
mod edit;
mod explain;
mod finish;
mod fit;
mod follow;
mod forecast;
mod hand_out;
mod ids;
pub mod invariants;
mod job;
mod lease;
mod limits;
mod names;
mod node;
mod pace;
mod presets;
mod quarantine;
mod queue;
mod reconcile;
mod records;
mod restore;
mod retry;
mod share;
mod spare;
mod spec;
mod submit;
mod suspects;
mod urgent;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hearth_workflows::{Workflow, WorkflowId};
use rustc_hash::FxHashMap as HashMap;

pub use attempt::{Attempt, AttemptPhase, Estimate, Progress, Work};
pub use command::{
    Answer, AssignedWork, Assignment, Command, Effect, Found, Held, JobEvent, Outcome, Refusal, Segment,
    Step, Submission, Submitted,
};
pub use edit::Edit;
pub use explain::Eta;
pub use follow::Source;
pub use forecast::{Cost, Fit, Forecast};
pub use ids::{AttemptId, FarmTag, JobId, NodeName, Priority, Session, Timestamp};
pub use job::{Ended, Failure, FailureKind, Job, LostFrames, Phase};
pub use limits::LimitPolicy;
pub use names::UnknownName;
pub use node::{Capabilities, Lack, Node, NodeAbout};
pub use presets::{Owner, Preset, PresetChange, PresetId, PresetVersion, WrongName};
pub use reconcile::ToSurvey;
pub use records::{Key, Record, RecordError};
pub use share::ShowPolicy;
pub use spec::{Deliver, JobClip, JobSpec, MadeBy, PassFiles, Render, Task, Terms, Tile};
pub use view::{AttemptView, JobFilter, JobState, JobView, NodeState, NodeView};

use classes::Classes;
use dispatch::Touched;
use limits::Holders;
use pace::{Pace, PaceRecord};
use queue::Queue;
use share::{Shares, SharesRecord};
use spare::Behind;

/// How often jobs are held against their deadlines.
const JUDGE_DEADLINES: Duration = Duration::from_secs(10);

/// How often what shows have had is written down.
const KEEP_SHARES: Duration = Duration::from_secs(60);

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
struct KnownWorkflow {
    workflow: Arc<Workflow>,
    /// Jobs that name it; forgotten with the last.
    jobs: usize,
    pace: Pace,
    /// What of it is durable.
    kept: Option<PaceRecord>,
    /// Nodes that have its models loaded, or will have them.
    loaded_on: usize,
}

impl KnownWorkflow {
    fn new(workflow: Arc<Workflow>) -> Self {
        Self { workflow, jobs: 0, pace: Pace::default(), kept: None, loaded_on: 0 }
    }

    /// Seconds that loading its models costs.
    fn load(&self) -> f64 {
        // Until that was seen: a minute's third for models, next to nothing for a graph without.
        let usual = if self.workflow.manifest().needs.models.is_empty() { 0.5 } else { 20.0 };
        self.pace.load().unwrap_or(usual)
    }
}

/// The farm: jobs, nodes and the attempts between them.
#[derive(Debug, Clone)]
pub struct Farm {
    config: FarmConfig,
    /// Of the last command.
    now: Timestamp,
    tag: FarmTag,
    next_job: u64,
    jobs: HashMap<JobId, Job>,
    /// Jobs in order of their end, oldest first.
    ended: BTreeSet<(Timestamp, JobId)>,
    /// Cancelled jobs whose frames are kept, and until when.
    kept: BTreeSet<(Timestamp, JobId)>,
    workflows: HashMap<WorkflowId, KnownWorkflow>,
    attempts: HashMap<AttemptId, Attempt>,
    nodes: HashMap<NodeName, Node>,
    presets: BTreeMap<PresetId, Preset>,
    /// Jobs with frames to hand out, best first.
    queue: Queue,
    classes: Classes,
    /// Jobs that wait for an assembly, a delivery or a clean-up, best first.
    chores: BTreeSet<choose::Rank>,
    /// Nodes that can take another chunk, least busy first.
    open: BTreeSet<(usize, NodeName)>,
    /// How many nodes are connected, ready and not drained; and of each kind of GPU.
    ready: usize,
    ready_kinds: HashMap<String, usize>,
    shares: Shares,
    /// The nodes that work for each show, and those that use what there is only so much of.
    holders: Holders,
    in_use: Holders,
    /// A show, a job or a limit has room again, or frames can be made that could not before.
    room_made: bool,
    /// Other nodes can run some jobs than when they were last counted, perhaps.
    able_changed: bool,
    /// By show, jobs with frames to hand out that want some nodes at least.
    minima: BTreeMap<String, BTreeSet<JobId>>,
    /// What of them is durable, and since when.
    kept_shares: Option<SharesRecord>,
    shares_kept_at: Timestamp,
    /// Thousandths of nodes that work for each show.
    served: HashMap<String, u32>,
    leases: BTreeSet<(Timestamp, AttemptId)>,
    /// Chunks that take far longer than they should.
    late: BTreeSet<AttemptId>,
    /// Chunks that wait behind another one on their node.
    behind: Behind,
    /// When a job that a node has to leave alone may be given to it again.
    wakeups: BTreeSet<(Timestamp, JobId)>,
    /// Submissions by the client's own id.
    requests: HashMap<String, JobId>,
    /// Where active jobs will put their results.
    outputs: HashMap<String, JobId>,
    /// A job, and one that waits for it, in whole or frame by frame.
    dependents: BTreeSet<(JobId, JobId)>,
    /// The first job of a batch, and each of its jobs.
    batches: BTreeSet<(JobId, JobId)>,
    /// Jobs with a deadline.
    deadlines: BTreeSet<(Timestamp, JobId)>,
    deadlines_judged_at: Timestamp,
    touched: Touched,
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
            room_made: false,
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
    fn keep_pace(&mut self, workflow: &WorkflowId, step: &mut Step) {
        let Some(known) = self.workflows.get_mut(workflow) else { return };
        let record = Some(known.pace.record());
        if known.kept != record {
            known.kept = record;
            step.changes.push(Key::Pace(workflow.clone()));
        }
    }

    /// Forgets what was too much for the memory of these nodes' kinds of GPU.
    fn try_memory(&mut self, node: Option<&NodeName>, step: &mut Step) {
        let kinds: BTreeSet<String> = match node {
            Some(name) => {
                self.nodes.get(name).map(|node| node.capabilities.device.clone()).into_iter().collect()
            }
            None => self.nodes.values().map(|node| node.capabilities.device.clone()).collect(),
        };
        let workflows: Vec<WorkflowId> = self.workflows.keys().cloned().collect();
        for workflow in workflows {
            let Some(known) = self.workflows.get_mut(&workflow) else { continue };
            if kinds.iter().filter(|kind| known.pace.forget_cap(kind)).count() > 0 {
                self.keep_pace(&workflow, step);
            }
        }
    }

    /// How a show is treated.
    fn policy(&self, show: &str) -> &ShowPolicy {
        const USUAL: &ShowPolicy =
            &ShowPolicy { weight: 1.0, min_nodes: 0, max_nodes: 0, preemptible: false };
        self.config.shows.get(show).unwrap_or(USUAL)
    }

    /// Applies one command at the time `now`: changes what it changes, moves jobs on, and hands out work.
    pub fn apply(&mut self, now: Timestamp, command: Command) -> Step {
        let mut step = Step::default();
        self.now = now;
        let is_tick = matches!(command, Command::Tick);
        step.answer = self.handle(now, command, &mut step);
        self.settle_touched(now, &mut step);
        self.dispatch(now, &mut step);
        if is_tick {
            self.help_out(now, &mut step);
        }
        step
    }

    fn handle(&mut self, now: Timestamp, command: Command, step: &mut Step) -> Result<Answer, Refusal> {
        match command {
            Command::Submit(submission) => self.submit(now, *submission, step),
            Command::Pause(job) => self.pause(job, step),
            Command::Resume(job) => self.resume(job, step),
            Command::Cancel(job) => self.cancel(now, job, self.config.keep_cancelled, step),
            Command::Remove(job) => self.cancel(now, job, Duration::ZERO, step),
            Command::Retry(job) => self.retry_failed(now, job, step),
            Command::SetPriority(job, priority) => self.set_priority(job, priority, step),
            Command::Edit(job, edit) => self.edit(now, job, *edit, step),
            Command::Drain(node) => self.set_drained(&node, true, step),
            Command::Undrain(node) => self.set_drained(&node, false, step),
            Command::ChangePreset(id, change) => self.change_preset(now, id, change, step),
            Command::Hello { session, about, capabilities, slots, reason, held } => self
                .hello(now, session, *about, *capabilities, (slots, reason), held, step)
                .map(|()| Answer::Done),
            Command::Readiness { session, node, slots, reason, capabilities } => {
                self.readiness(now, session, &node, (slots, reason), capabilities, step);
                Ok(Answer::Done)
            }
            Command::Heartbeat { session, node, attempts, clock } => {
                self.heartbeat(now, session, &node, &attempts, clock);
                Ok(Answer::Done)
            }
            Command::TryMemory(node) => {
                self.try_memory(node.as_ref(), step);
                Ok(Answer::Done)
            }
            Command::Gone { session, node } => {
                self.gone(now, session, &node, step);
                Ok(Answer::Done)
            }
            Command::Progress { session, node, attempt, progress } => {
                self.progress(now, session, &node, attempt, progress, step);
                Ok(Answer::Done)
            }
            Command::Result { session, node, attempt, frames, outcome } => {
                self.result(now, session, &node, attempt, &frames, outcome, step);
                Ok(Answer::Done)
            }
            Command::Tick => {
                self.tick(now, step);
                Ok(Answer::Done)
            }
            Command::Disconnected => {
                self.disconnect(now, step);
                Ok(Answer::Done)
            }
            Command::Distrust => {
                self.distrust(step);
                Ok(Answer::Done)
            }
            Command::Surveyed { job, found, assembled } => {
                self.surveyed(now, job, found, assembled, step);
                Ok(Answer::Done)
            }
        }
    }

    /// Time has passed: leases run out, nodes may be given again what they failed, old jobs are forgotten.
    fn tick(&mut self, now: Timestamp, step: &mut Step) {
        self.expire_leases(now, step);
        self.end_quarantines(now, step);
        self.count_able();
        let woken = self.wake(now);
        if std::mem::take(&mut self.room_made) || woken {
            self.touched.open_nodes();
        }
        self.touched.urgent();
        self.touched.chores();
        self.end_keeping(now, step);
        self.forget(now, step);
        self.keep_shares(now, step);
        if now.since(self.deadlines_judged_at) >= JUDGE_DEADLINES {
            self.deadlines_judged_at = now;
            self.judge_deadlines(step);
        }
    }

    /// What shows have had outlives this coordinator, but for the last minute.
    fn keep_shares(&mut self, now: Timestamp, step: &mut Step) {
        if now.since(self.shares_kept_at) < KEEP_SHARES {
            return;
        }
        self.shares_kept_at = now;
        let record = Some(self.shares.record());
        if self.kept_shares != record {
            self.kept_shares = record;
            step.changes.push(Key::Shares);
        }
    }
}
