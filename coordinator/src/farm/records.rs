//! What of the farm is durable, as records under keys. Leases and progress are not.
//!
//! Members of a record that changes are never left out when it is written: a store may keep them one by one.

use std::{collections::BTreeSet, fmt, str::FromStr};

use hearth_workflows::{FrameSet, WorkflowId};
use serde::{Deserialize, Serialize};

use super::{
    Farm,
    attempt::Work,
    ids::{AttemptId, FarmTag, JobId, NodeName, Priority, Timestamp},
    job::{Failure, LostFrames, Phase},
    presets::PresetId,
    quarantine::Quarantine,
};

/// Version of the records. A store with a newer one is refused.
pub(super) const SCHEMA: u32 = 4;

/// Names a record. Its text is the key in the store: `job:12`, `attempt:12-34`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Meta,
    /// What shows and users have had lately.
    Shares,
    Workflow(WorkflowId),
    /// What was learned about a workflow.
    Pace(WorkflowId),
    Spec(JobId),
    Job(JobId),
    Piece(AttemptId),
    Attempt(AttemptId),
    Node(NodeName),
    Preset(PresetId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("meta"),
            Self::Shares => f.write_str("shares"),
            Self::Workflow(id) => write!(f, "workflow:{id}"),
            Self::Pace(id) => write!(f, "pace:{id}"),
            Self::Spec(id) => write!(f, "spec:{id}"),
            Self::Job(id) => write!(f, "job:{id}"),
            Self::Piece(id) => write!(f, "piece:{id}"),
            Self::Attempt(id) => write!(f, "attempt:{id}"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Preset(id) => write!(f, "preset:{id}"),
        }
    }
}

impl FromStr for Key {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let unknown = || RecordError::UnknownKey { key: text.to_owned() };
        match text {
            "meta" => return Ok(Self::Meta),
            "shares" => return Ok(Self::Shares),
            _ => {}
        }
        let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
        let job = || name.parse().map(JobId).map_err(|_| unknown());
        let attempt = || name.parse::<AttemptId>().map_err(|()| unknown());
        Ok(match kind {
            "workflow" => Self::Workflow(WorkflowId(name.to_owned())),
            "pace" => Self::Pace(WorkflowId(name.to_owned())),
            "spec" => Self::Spec(job()?),
            "job" => Self::Job(job()?),
            "piece" => Self::Piece(attempt()?),
            "attempt" => Self::Attempt(attempt()?),
            "node" => Self::Node(name.into()),
            "preset" => Self::Preset(name.parse().map_err(|_| unknown())?),
            _ => return Err(unknown()),
        })
    }
}

/// A record's value, as JSON. Two are equal when they say the same, in whatever order.
#[derive(Debug, Clone)]
pub struct Record(pub String);

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let value = |record: &Self| serde_json::from_str::<serde_json::Value>(&record.0).ok();
        self.0 == other.0 || value(self).is_some_and(|ours| value(other) == Some(ours))
    }
}

impl Eq for Record {}

/// Why records are no farm.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("unknown record '{key}'; was the store written by a newer Hearth?")]
    UnknownKey { key: String },
    #[error("record '{key}' cannot be read")]
    Broken { key: String, source: serde_json::Error },
    #[error("the store has schema {found}, this Hearth knows up to {SCHEMA}; update Hearth")]
    NewerSchema { found: u32 },
    #[error("record '{key}' names {missing}, which is not in the store")]
    Missing { key: String, missing: String },
    #[error("the workflow of record '{key}' is not usable any more")]
    Workflow { key: String, source: Box<hearth_workflows::WorkflowError> },
}

impl RecordError {
    /// The record that can be set aside; `None`: without it there is no farm.
    pub(super) fn key(&self) -> Option<Key> {
        let key = match self {
            Self::Broken { key, .. } | Self::Missing { key, .. } | Self::Workflow { key, .. } => key,
            Self::UnknownKey { .. } | Self::NewerSchema { .. } => return None,
        };
        key.parse().ok().filter(|key| *key != Key::Meta)
    }
}

impl Key {
    pub(super) fn job(&self) -> Option<JobId> {
        match self {
            Self::Spec(job) | Self::Job(job) => Some(*job),
            Self::Piece(attempt) | Self::Attempt(attempt) => Some(attempt.job),
            Self::Meta
            | Self::Shares
            | Self::Workflow(_)
            | Self::Pace(_)
            | Self::Node(_)
            | Self::Preset(_) => None,
        }
    }

    /// Whether the other record makes no sense without this one.
    pub(super) fn carries(&self, other: &Self, record: &Record) -> bool {
        let of_workflow = match (self, other) {
            // Its id is a digest, which nothing else has.
            (Self::Workflow(id), Self::Spec(_)) => record.0.contains(&id.0),
            _ => false,
        };
        self == other || of_workflow || self.job().is_some() && self.job() == other.job()
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct MetaRecord {
    pub(super) schema: u32,
    pub(super) tag: FarmTag,
    pub(super) next_job: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WorkflowRecord {
    pub(super) name: String,
    pub(super) manifest: String,
    pub(super) graph: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub(super) priority: Priority,
    pub(super) phase: Phase,
    pub(super) paused: bool,
    pub(super) waiting: FrameSet,
    pub(super) failed: FrameSet,
    pub(super) tries: Vec<FrameSet>,
    pub(super) chore_tries: u32,
    pub(super) next_attempt: u32,
    pub(super) failures: Vec<Failure>,
    #[serde(default)]
    pub(super) lost: Vec<LostFrames>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) makers: Vec<NodeName>,
    pub(super) message: String,
    pub(super) submitted: Timestamp,
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AttemptRecord {
    pub(super) node: NodeName,
    pub(super) work: Work,
    pub(super) assigned: Timestamp,
}

#[derive(Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) drained: bool,
    #[serde(default)]
    pub(super) quarantine: Option<Quarantine>,
    /// Whether its agent is connected: for those who follow, and for people who look.
    pub(super) online: bool,
    pub(super) host: String,
    pub(super) agent_version: String,
    pub(super) slots: usize,
    pub(super) reason: String,
    pub(super) pools: BTreeSet<String>,
    pub(super) roots: BTreeSet<String>,
    pub(super) device: String,
    pub(super) vram_bytes: u64,
    pub(super) comfyui_version: String,
}

impl Farm {
    /// The present value of a record; `None` when there is none (any more).
    pub fn record(&self, key: &Key) -> Option<Record> {
        match key {
            Key::Meta => {
                encode(&MetaRecord { schema: SCHEMA, tag: self.tag.clone(), next_job: self.next_job })
            }
            Key::Shares => encode(self.kept_shares.as_ref()?),
            Key::Workflow(id) => {
                let workflow = &self.workflows.get(id)?.workflow;
                encode(&WorkflowRecord {
                    name: workflow.name().to_owned(),
                    manifest: workflow.manifest_text().to_owned(),
                    graph: workflow.graph_text().to_owned(),
                })
            }
            Key::Pace(id) => encode(self.workflows.get(id)?.kept.as_ref()?),
            Key::Preset(id) => encode(self.presets.get(id)?),
            Key::Spec(id) => encode(self.jobs.get(id)?.spec.as_ref()),
            Key::Job(id) => {
                let job = self.jobs.get(id)?;
                encode(&JobRecord {
                    priority: job.priority,
                    phase: job.phase,
                    paused: job.paused,
                    waiting: job.waiting.clone(),
                    failed: job.failed.clone(),
                    tries: job.tries.clone(),
                    chore_tries: job.chore_tries,
                    next_attempt: job.next_attempt,
                    failures: job.failures.iter().cloned().collect(),
                    lost: job.lost.clone(),
                    makers: job.makers.clone(),
                    message: job.message.clone(),
                    submitted: job.submitted,
                    started: job.started,
                    ended: job.ended,
                })
            }
            Key::Piece(id) => encode(self.jobs.get(&id.job)?.pieces.get(&id.number)?),
            Key::Attempt(id) => {
                let attempt = self.attempts.get(id)?;
                encode(&AttemptRecord {
                    node: attempt.node.clone(),
                    work: attempt.work.clone(),
                    assigned: attempt.assigned,
                })
            }
            Key::Node(name) => {
                let node = self.nodes.get(name)?;
                encode(&NodeRecord {
                    drained: node.drained,
                    quarantine: node.quarantine.clone(),
                    online: node.session.is_some(),
                    host: node.about.host.clone(),
                    agent_version: node.about.agent_version.clone(),
                    slots: node.slots,
                    reason: node.reason.clone(),
                    pools: node.capabilities.pools.clone(),
                    roots: node.capabilities.roots.iter().cloned().collect(),
                    device: node.capabilities.device.clone(),
                    vram_bytes: node.capabilities.vram_bytes,
                    comfyui_version: node.capabilities.comfyui_version.clone(),
                })
            }
        }
    }

    /// Every record of the farm, for a snapshot.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = vec![Key::Meta];
        keys.extend(self.kept_shares.as_ref().map(|_| Key::Shares));
        keys.extend(self.workflows.keys().cloned().map(Key::Workflow));
        let learned = self.workflows.iter().filter(|(_, known)| known.kept.is_some());
        keys.extend(learned.map(|(id, _)| Key::Pace(id.clone())));
        for (id, job) in &self.jobs {
            keys.extend([Key::Spec(*id), Key::Job(*id)]);
            keys.extend(job.pieces.keys().map(|n| Key::Piece(AttemptId { job: *id, number: *n })));
        }
        keys.extend(self.attempts.keys().copied().map(Key::Attempt));
        keys.extend(self.nodes.keys().cloned().map(Key::Node));
        keys.extend(self.presets.keys().cloned().map(Key::Preset));
        keys
    }
}

pub(super) fn missing(key: &Key, what: &str) -> RecordError {
    RecordError::Missing { key: key.to_string(), missing: what.to_owned() }
}

fn encode<T: Serialize>(value: &T) -> Option<Record> {
    // The records are plain structs with string keys: they always serialise.
    serde_json::to_string(value).ok().map(Record)
}

pub(super) fn decode<'a, T: Deserialize<'a>>(key: &Key, record: &'a Record) -> Result<T, RecordError> {
    serde_json::from_str(&record.0).map_err(|source| RecordError::Broken { key: key.to_string(), source })
}
