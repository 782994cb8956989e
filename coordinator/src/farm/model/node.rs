//! Nodes: what they can run, and what they hold.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
};

use hearth_workflows::{Requirements, Workflow, WorkflowId};
use rustc_hash::FxHashMap as HashMap;

use crate::farm::model::{
    ids::{AttemptId, ClassId, NodeName, Session, Timestamp},
    quarantine::{FailureRun, Quarantine},
    spec::JobSpec,
};

/// Who a node is.
#[derive(Debug, Clone)]
pub struct NodeAbout {
    pub name: NodeName,
    pub host: String,
    pub agent_version: String,
    /// Which start of an agent this is; empty: it does not say.
    pub instance: String,
}

/// What a node can do; told in its hello.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    pub pools: BTreeSet<String>,
    /// Many nodes have the same hundreds of names, which those who bring them keep only once.
    pub classes: Arc<HashSet<String>>,
    /// As `folder/file`.
    pub models: Arc<HashSet<String>>,
    /// Storage roots that its agent has mapped.
    pub roots: HashSet<String>,
    pub device: String,
    pub vram_bytes: u64,
    pub comfyui_version: String,
    /// Its agent can encode.
    pub ffmpeg: bool,
    /// What its ComfyUI saves to a path, its agent can fetch.
    pub saves_to_paths: bool,
}

/// Why a node cannot run a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    Pool(String),
    Class(String),
    Model(String),
    Vram {
        needed_bytes: u64,
    },
    Root(String),
    SavedPaths,
    /// It said so when it tried.
    Tried(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => match pool.strip_prefix('!') {
                Some(pool) => write!(f, "in pool {pool}, which the job leaves alone"),
                None => write!(f, "not in pool {pool}"),
            },
            Self::Class(class) => write!(f, "node class {class} is not installed"),
            Self::Model(model) => write!(f, "model {model} is missing"),
            Self::Vram { needed_bytes } => {
                write!(f, "less than {:.1} GiB of GPU memory", *needed_bytes as f64 / GIB)
            }
            Self::Root(root) => write!(f, "storage root {root} is not mapped on its host"),
            Self::SavedPaths => f.write_str(
                "what its ComfyUI saves to a path cannot be fetched, since it is not known where its output folder lies; start it with --output-directory and an absolute path, or the agent with --transfer shared if both see the same paths",
            ),
            Self::Tried(reason) => f.write_str(reason),
        }
    }
}

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// A ComfyUI server with its agent.
#[derive(Debug, Clone)]
pub struct Node {
    pub about: NodeAbout,
    pub capabilities: Capabilities,
    /// `None`: its agent is not connected.
    pub session: Option<Session>,
    /// Chunks it takes at a time; 0 when its ComfyUI is not ready.
    pub slots: usize,
    /// Why it is not ready.
    pub reason: String,
    pub drained: bool,
    pub quarantine: Option<Quarantine>,
    pub chunks: BTreeSet<AttemptId>,
    /// An assembly, a delivery or a clean-up; it takes no slot, since it needs no GPU.
    pub chore: Option<AttemptId>,
    pub last_seen: Timestamp,
    /// Its agent's clock says about the same as the coordinator's.
    pub agrees: bool,
    pub frames_done: u64,
    pub chunks_done: u64,
    pub chunks_failed: u64,
    pub(in crate::farm) record: FailureRun,
    /// Whether it has what jobs need, by class; and what it found missing when it tried.
    pub(in crate::farm) fits: HashMap<ClassId, Result<(), Lack>>,
    /// The workflow of the last chunk it was given.
    pub(in crate::farm) loaded: Option<WorkflowId>,
    /// The jobs of the chunks it holds, and how many thousandths of it each has; see `share`.
    pub(in crate::farm) serving: Vec<(Arc<JobSpec>, u32)>,
    /// The kind of GPU under which the farm counts it among its ready nodes.
    pub(in crate::farm) counted_kind: Option<String>,
    /// Whether the farm counts it among its ready nodes.
    pub(in crate::farm) counted_ready: bool,
    /// Its key in the farm's set of open nodes.
    pub(in crate::farm) open_at: Option<usize>,
}

impl Node {
    /// Returns true if the node is gone, holds no work and is not drained.
    pub(in crate::farm) fn is_forgettable(&self) -> bool {
        self.session.is_none() && !self.drained && self.chunks.is_empty() && self.chore.is_none()
    }

    pub(in crate::farm) fn new(about: NodeAbout, now: Timestamp) -> Self {
        Self {
            about,
            capabilities: Capabilities::default(),
            session: None,
            slots: 0,
            reason: String::new(),
            drained: false,
            quarantine: None,
            chunks: BTreeSet::new(),
            chore: None,
            last_seen: now,
            agrees: false,
            frames_done: 0,
            chunks_done: 0,
            chunks_failed: 0,
            record: FailureRun::default(),
            fits: HashMap::default(),
            loaded: None,
            serving: Vec::new(),
            counted_kind: None,
            counted_ready: false,
            open_at: None,
        }
    }

    pub fn state(&self) -> NodeState {
        match (self.session, self.drained, self.slots) {
            (None, ..) => NodeState::Offline,
            (_, true, _) => NodeState::Drained,
            (.., 0) => NodeState::Unready,
            _ if self.quarantine.is_some() => NodeState::Quarantined,
            _ if self.chunks.is_empty() => NodeState::Idle,
            _ => NodeState::Busy,
        }
    }

    /// Whether it could be working.
    pub fn is_ready(&self) -> bool {
        self.session.is_some() && !self.drained && self.quarantine.is_none() && self.slots > 0
    }

    /// Whether it can take another chunk.
    pub fn is_open(&self) -> bool {
        self.is_ready() && self.chunks.len() < self.slots
    }
}

impl Capabilities {
    /// What the workflow needs with a job's parameters and this node has not.
    pub fn lacks(&self, workflow: &Workflow, needed: &Requirements) -> Result<(), Lack> {
        if let Some(class) = needed.classes.iter().find(|class| !self.classes.contains(*class)) {
            return Err(Lack::Class(class.clone()));
        }
        if let Some(model) = needed.models.iter().find(|model| !self.models.contains(*model)) {
            return Err(Lack::Model(model.clone()));
        }
        self.lacks_means(workflow).next().map_or(Ok(()), Err)
    }

    /// What is no name: memory, and storage that both see.
    pub fn lacks_means(&self, workflow: &Workflow) -> impl Iterator<Item = Lack> + use<> {
        let needed_bytes = (workflow.manifest().needs.vram_gib * GIB) as u64;
        let vram = (self.vram_bytes < needed_bytes).then_some(Lack::Vram { needed_bytes });
        let storage = workflow.saves_to_paths() && !self.saves_to_paths;
        vram.into_iter().chain(storage.then_some(Lack::SavedPaths))
    }

    /// Pools and storage roots. `comp+a100+!desktop`: in the first two, and not in the third.
    pub fn lacks_place<'a>(&self, pools: &str, mut roots: impl Iterator<Item = &'a str>) -> Result<(), Lack> {
        let mut wanted = pools.split('+').map(str::trim).filter(|pool| !pool.is_empty());
        let lacks = wanted.find(|pool| match pool.strip_prefix('!') {
            Some(pool) => self.pools.contains(pool),
            None => !self.pools.contains(*pool),
        });
        if let Some(pool) = lacks {
            return Err(Lack::Pool(pool.to_owned()));
        }
        match roots.find(|root| !self.roots.contains(*root)) {
            Some(root) => Err(Lack::Root(root.to_owned())),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    Idle,
    Busy,
    Drained,
    /// It failed one job after another, and gets no work for a while.
    Quarantined,
    Unready,
    Offline,
}
