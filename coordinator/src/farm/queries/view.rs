//! The farm as people see it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use hearth_storage::StorageId;
use hearth_workflows::{FrameSet, Workflow};

use crate::farm::{
    model::{
        attempt::Progress,
        command::Segment,
        ids::{AttemptId, JobId, NodeName, Priority, Session, Timestamp},
        job::{Ended, Failure, Job, LostFrames, Phase},
        node::{Capabilities, Node, NodeAbout, NodeState},
        spec::JobSpec,
    },
    queries::{eta::Eta, explain::TOLD},
    state::Farm,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    Waiting,
    Running,
    Paused,
    Assembling,
    Delivering,
    Done,
    /// Done, but for frames that failed for good.
    Partial,
    Failed,
    Cancelled,
}

/// A job, as it stands.
#[derive(Debug, Clone)]
pub struct JobView {
    pub id: JobId,
    pub spec: Arc<JobSpec>,
    pub workflow: Option<Arc<Workflow>>,
    pub priority: Priority,
    pub state: JobState,
    pub message: String,
    pub waiting: u64,
    pub running: u64,
    pub done: u64,
    pub failed: FrameSet,
    pub attempts: Vec<AttemptView>,
    /// Newest first.
    pub failures: Vec<Failure>,
    /// Why frames have failed for good.
    pub lost: Vec<LostFrames>,
    /// Nodes that have finished frames of it; not told among many jobs.
    pub nodes: Vec<NodeName>,
    /// Finished frames a second.
    pub frames_per_second: Option<f64>,
    pub eta: Option<Eta>,
    /// It will be done after its deadline, or is not yet though that has passed.
    pub late: bool,
    pub submitted: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct AttemptView {
    pub id: AttemptId,
    pub node: NodeName,
    pub frames: FrameSet,
    pub assigned: Timestamp,
    pub progress: Option<Progress>,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Empty: any.
    pub show: String,
    pub user: String,
    pub active_only: bool,
    /// Empty: any.
    pub states: Vec<JobState>,
    /// What stands in its name, clip, output or workflow, in small letters; empty: anything.
    pub text: String,
    /// At most so many, newest first.
    pub limit: usize,
}

#[derive(Debug, Clone)]
pub struct NodeView {
    pub about: NodeAbout,
    pub capabilities: Capabilities,
    pub state: NodeState,
    pub message: String,
    pub quarantined_until: Option<Timestamp>,
    pub attempts: Vec<AttemptView>,
    pub frames_done: u64,
    pub chunks_done: u64,
    pub chunks_failed: u64,
}

/// Nodes of a job that are named.
const TOLD_NODES: usize = 64;

/// What people call the phase that it is in.
fn job_state(job: &Job) -> JobState {
    match job.phase {
        Phase::Ended(Ended::Done) => JobState::Done,
        Phase::Ended(Ended::Partial) => JobState::Partial,
        Phase::Ended(Ended::Failed) => JobState::Failed,
        Phase::Ended(Ended::Cancelled { .. }) => JobState::Cancelled,
        Phase::Assembling => JobState::Assembling,
        Phase::Rendering | Phase::Delivering if job.paused => JobState::Paused,
        Phase::Rendering | Phase::Delivering if job.running.is_empty() => JobState::Waiting,
        Phase::Rendering => JobState::Running,
        Phase::Delivering => JobState::Delivering,
    }
}

/// Whether `text`, in small letters, stands in what people know the job by.
fn has_text(spec: &JobSpec, text: &str) -> bool {
    let render = spec.render();
    let workflow = render.map_or("", |render| render.workflow_name.as_str());
    let clip = render.and_then(|render| render.clip.as_ref()).map(|clip| clip.path.to_string());
    [spec.name.as_str(), spec.output.as_str(), workflow, clip.as_deref().unwrap_or_default()]
        .into_iter()
        .any(|known| known.to_lowercase().contains(text))
}

/// The nodes that have finished frames of it.
pub(in crate::farm) fn nodes_of(job: &Job) -> Vec<NodeName> {
    let nodes = job.pieces.values().map(|piece| &piece.node).chain(&job.makers);
    let nodes: BTreeSet<&NodeName> = nodes.collect();
    nodes.into_iter().take(TOLD_NODES).cloned().collect()
}

impl Farm {
    /// Jobs that it knows, ended ones too.
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    pub fn job(&self, id: JobId) -> Option<JobView> {
        self.jobs.get(&id).map(|job| self.view(id, job, false))
    }

    /// The jobs that `filter` names, newest first, and how many matched in all.
    pub fn jobs(&self, filter: &JobFilter) -> (Vec<JobView>, usize) {
        let wanted = |job: &Job| {
            (filter.show.is_empty() || job.spec.show == filter.show)
                && (filter.user.is_empty() || job.spec.user == filter.user)
                && !(filter.active_only && job.is_ended())
                && (filter.states.is_empty() || filter.states.contains(&job_state(job)))
                && (filter.text.is_empty() || has_text(&job.spec, &filter.text))
        };
        let mut ids: Vec<JobId> =
            self.jobs.iter().filter(|(_, job)| wanted(job)).map(|(id, _)| *id).collect();
        let total = ids.len();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.truncate(filter.limit);
        // What goes before each of many jobs would take too long to look up.
        let views = ids.into_iter().filter_map(|id| Some(self.view(id, self.jobs.get(&id)?, true)));
        (views.collect(), total)
    }

    /// The job that a client has submitted under this id of its own.
    pub fn requested(&self, request_id: &str) -> Option<JobId> {
        self.requests.get(request_id).copied()
    }

    /// Whether some node holds this attempt.
    pub fn holds(&self, attempt: AttemptId) -> bool {
        self.attempts.contains_key(&attempt)
    }

    /// Every node, by name.
    pub fn nodes(&self) -> Vec<NodeView> {
        let mut nodes: Vec<NodeView> = self.nodes.keys().filter_map(|name| self.node(name)).collect();
        nodes.sort_unstable_by(|a, b| a.about.name.cmp(&b.about.name));
        nodes
    }

    /// The state of every node, in no order.
    pub fn node_states(&self) -> Vec<NodeState> {
        self.nodes.values().map(Node::state).collect()
    }

    pub fn node(&self, name: &NodeName) -> Option<NodeView> {
        let node = self.nodes.get(name)?;
        let state = node.state();
        let attempts = node.chunks.iter().chain(&node.chore);
        Some(NodeView {
            about: node.about.clone(),
            capabilities: node.capabilities.clone(),
            state,
            message: match (state, &node.quarantine) {
                (NodeState::Quarantined, Some(quarantine)) => quarantine.reason.clone(),
                _ => node.reason.clone(),
            },
            quarantined_until: node.quarantine.as_ref().map(|quarantine| quarantine.until),
            attempts: attempts.filter_map(|id| self.attempt_view(*id)).collect(),
            frames_done: node.frames_done,
            chunks_done: node.chunks_done,
            chunks_failed: node.chunks_failed,
        })
    }

    /// How many jobs wait for a chunk at each priority, and how many frames those are.
    pub fn queue_depth(&self) -> Vec<(u8, usize, u64)> {
        let mut depth: BTreeMap<Reverse<u8>, (usize, u64)> = BTreeMap::new();
        for (level, id) in self.queue.jobs() {
            let Some(job) = self.jobs.get(&id) else { continue };
            let (jobs, frames) = depth.entry(Reverse(level.priority().get())).or_default();
            *jobs += 1;
            *frames += job.waiting.len();
        }
        depth.into_iter().map(|(Reverse(priority), (jobs, frames))| (priority, jobs, frames)).collect()
    }

    fn view(&self, id: JobId, job: &Job, among_many: bool) -> JobView {
        let attempts: Vec<AttemptView> = job.running.iter().filter_map(|id| self.attempt_view(*id)).collect();
        let answered = |id: &AttemptId| Some(self.attempts.get(id)?.work.frames()?.len());
        let mut running = job.running.iter().filter_map(answered).sum();
        let (mut waiting, mut done) = (job.waiting.len(), job.done.len());
        if let (Phase::Delivering, Some(attempt)) = (job.phase, attempts.first()) {
            // Its frames have no life of their own: they are as far as the encoder is.
            let part = attempt.progress.as_ref().map_or(0.0, |progress| progress.fraction.clamp(0.0, 1.0));
            done = (waiting as f64 * part) as u64;
            (running, waiting) = (waiting - done, 0);
        }
        let state = job_state(job);
        let known = job.spec.workflow().and_then(|id| self.workflows.get(id));
        let message = match (state, job.message.is_empty(), known) {
            (JobState::Waiting, true, known) => self.awaits_what(job).unwrap_or_else(|| match known {
                Some(_) => self.why_nobody(job),
                None => self.why_not_delivered(&job.spec, ""),
            }),
            _ => job.message.clone(),
        };
        JobView {
            id,
            spec: job.spec.clone(),
            workflow: known.map(|known| known.workflow.clone()),
            priority: job.priority,
            state,
            message,
            waiting,
            running,
            done,
            failed: job.failed.clone(),
            attempts,
            failures: job.failures.iter().rev().cloned().collect(),
            lost: job.lost.clone(),
            nodes: if among_many { Vec::new() } else { nodes_of(job) },
            frames_per_second: job.frames_per_second(),
            eta: if among_many && job.running.is_empty() { None } else { self.eta(id) },
            late: job.late,
            submitted: job.submitted,
            started: job.started,
            ended: job.ended,
        }
    }

    fn attempt_view(&self, id: AttemptId) -> Option<AttemptView> {
        let attempt = self.attempts.get(&id)?;
        Some(AttemptView {
            id,
            node: attempt.node.clone(),
            frames: attempt.work.rendered().cloned().unwrap_or_default(),
            assigned: attempt.assigned,
            progress: attempt.progress.clone(),
        })
    }

    /// Output places that start with `prefix` and belong to jobs that have not ended.
    pub fn outputs_like(&self, prefix: &str) -> HashSet<String> {
        self.outputs.keys().filter(|output| output.starts_with(prefix)).cloned().collect()
    }

    /// The storage that the latest job found behind these roots, as far as any has.
    pub fn storage_of(&self, roots: &BTreeSet<String>) -> BTreeMap<String, StorageId> {
        let mut latest: BTreeMap<&String, (JobId, &StorageId)> = BTreeMap::new();
        for (id, job) in &self.jobs {
            for (root, storage) in job.spec.storage.iter().filter(|(root, _)| roots.contains(*root)) {
                let known = latest.entry(root).or_insert((*id, storage));
                if known.0 < *id {
                    *known = (*id, storage);
                }
            }
        }
        latest.into_iter().map(|(root, (_, storage))| (root.clone(), storage.clone())).collect()
    }

    /// The jobs that were submitted together with `id`, itself among them.
    pub fn batch(&self, id: JobId) -> Vec<JobView> {
        let first = self.jobs.get(&id).and_then(|job| job.spec.batch).unwrap_or(id);
        let batch = self.batches.range((first, JobId(0))..=(first, JobId(u64::MAX))).map(|(_, job)| *job);
        let batch: Vec<JobView> = batch.filter_map(|id| self.job(id)).collect();
        if batch.is_empty() { self.job(id).into_iter().collect() } else { batch }
    }

    /// Which attempt has made what of a job that is not put together yet.
    pub fn pieces(&self, id: JobId) -> Vec<Segment> {
        let job = self.jobs.get(&id);
        job.into_iter().flat_map(|job| job.segments(id)).collect()
    }

    /// Why no node can run it: empty when some node could.
    fn why_nobody(&self, job: &Job) -> String {
        let online: Vec<_> = self.nodes.values().filter(|node| node.session.is_some()).collect();
        if online.is_empty() {
            return "no node is connected to the farm".to_owned();
        }
        if online.iter().any(|node| node.session == Some(Session::ELSEWHERE)) {
            // What they can run only the leader knows.
            return String::new();
        }
        let mut lacks = std::collections::BTreeSet::new();
        for node in &online {
            match self.lack_of(job, node) {
                Ok(()) => return String::new(),
                Err(lack) => lacks.insert(lack),
            };
        }
        let told: Vec<String> = lacks.into_iter().take(TOLD).collect();
        format!("none of {} connected nodes can run it: {}", online.len(), told.join("; "))
    }
}
