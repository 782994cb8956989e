//! What of the farm is durable, as records under keys. Leases and progress are not.
//!
//! Members of a record that changes are never left out when it is written: a store may keep them one by one.

pub(in crate::farm) mod restore;

use std::collections::BTreeSet;

use hearth_workflows::FrameSet;
use serde::{Deserialize, Serialize};

use crate::farm::{
    model::{
        attempt::Work,
        ids::{AttemptId, FarmTag, NodeName, Priority, Timestamp},
        job::{Failure, LostFrames, Phase},
        key::{Key, Record, RecordError, SCHEMA},
        quarantine::Quarantine,
    },
    state::Farm,
};

#[derive(Serialize, Deserialize)]
pub(in crate::farm) struct MetaRecord {
    pub(in crate::farm) schema: u32,
    pub(in crate::farm) tag: FarmTag,
    pub(in crate::farm) next_job: u64,
}

#[derive(Serialize, Deserialize)]
pub(in crate::farm) struct WorkflowRecord {
    pub(in crate::farm) name: String,
    pub(in crate::farm) manifest: String,
    pub(in crate::farm) graph: String,
}

#[derive(Serialize, Deserialize)]
pub(in crate::farm) struct JobRecord {
    pub(in crate::farm) priority: Priority,
    pub(in crate::farm) phase: Phase,
    pub(in crate::farm) paused: bool,
    pub(in crate::farm) waiting: FrameSet,
    pub(in crate::farm) failed: FrameSet,
    pub(in crate::farm) tries: Vec<FrameSet>,
    pub(in crate::farm) chore_tries: u32,
    pub(in crate::farm) next_attempt: u32,
    pub(in crate::farm) failures: Vec<Failure>,
    #[serde(default)]
    pub(in crate::farm) lost: Vec<LostFrames>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::farm) makers: Vec<NodeName>,
    pub(in crate::farm) message: String,
    pub(in crate::farm) submitted: Timestamp,
    pub(in crate::farm) started: Option<Timestamp>,
    pub(in crate::farm) ended: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
pub(in crate::farm) struct AttemptRecord {
    pub(in crate::farm) node: NodeName,
    pub(in crate::farm) work: Work,
    pub(in crate::farm) assigned: Timestamp,
}

#[derive(Serialize, Deserialize)]
pub(in crate::farm) struct NodeRecord {
    pub(in crate::farm) drained: bool,
    #[serde(default)]
    pub(in crate::farm) quarantine: Option<Quarantine>,
    /// Whether its agent is connected: for those who follow, and for people who look.
    pub(in crate::farm) online: bool,
    pub(in crate::farm) host: String,
    pub(in crate::farm) agent_version: String,
    pub(in crate::farm) slots: usize,
    pub(in crate::farm) reason: String,
    pub(in crate::farm) pools: BTreeSet<String>,
    pub(in crate::farm) roots: BTreeSet<String>,
    pub(in crate::farm) device: String,
    pub(in crate::farm) vram_bytes: u64,
    pub(in crate::farm) comfyui_version: String,
}

pub(in crate::farm) fn missing(key: &Key, what: &str) -> RecordError {
    RecordError::Missing { key: key.to_string(), missing: what.to_owned() }
}

fn encode<T: Serialize>(value: &T) -> Option<Record> {
    // The records are plain structs with string keys: they always serialise.
    serde_json::to_string(value).ok().map(Record)
}

pub(in crate::farm) fn decode<'a, T: Deserialize<'a>>(
    key: &Key,
    record: &'a Record,
) -> Result<T, RecordError> {
    serde_json::from_str(&record.0).map_err(|source| RecordError::Broken { key: key.to_string(), source })
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
