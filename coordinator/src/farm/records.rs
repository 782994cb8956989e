//! What of the farm is durable, as records under keys. Leases, progress and measured speeds are not.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use hearth_workflows::{FrameSet, Workflow, WorkflowId};
use serde::{Deserialize, Serialize};

use super::{
    Farm, FarmConfig, KnownWorkflow,
    attempt::{Attempt, Work},
    ids::{AttemptId, FarmTag, JobId, NodeName, Priority, Timestamp},
    job::{Ended, Failure, Job, JobSpec, Phase, Piece},
    node::{Node, NodeAbout},
    pace::Pace,
};

/// Version of the records. A store with a newer one is refused.
const SCHEMA: u32 = 1;

/// Names a record. Its text is the key in the store: `job:12`, `attempt:12-34`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Meta,
    Workflow(WorkflowId),
    Spec(JobId),
    Job(JobId),
    Piece(AttemptId),
    Attempt(AttemptId),
    Node(NodeName),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("meta"),
            Self::Workflow(id) => write!(f, "workflow:{id}"),
            Self::Spec(id) => write!(f, "spec:{id}"),
            Self::Job(id) => write!(f, "job:{id}"),
            Self::Piece(id) => write!(f, "piece:{id}"),
            Self::Attempt(id) => write!(f, "attempt:{id}"),
            Self::Node(name) => write!(f, "node:{name}"),
        }
    }
}

impl FromStr for Key {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let unknown = || RecordError::UnknownKey { key: text.to_owned() };
        if text == "meta" {
            return Ok(Self::Meta);
        }
        let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
        let job = || name.parse().map(JobId).map_err(|_| unknown());
        let attempt = || name.parse::<AttemptId>().map_err(|()| unknown());
        Ok(match kind {
            "workflow" => Self::Workflow(WorkflowId(name.to_owned())),
            "spec" => Self::Spec(job()?),
            "job" => Self::Job(job()?),
            "piece" => Self::Piece(attempt()?),
            "attempt" => Self::Attempt(attempt()?),
            "node" => Self::Node(name.into()),
            _ => return Err(unknown()),
        })
    }
}

/// A record's value, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(pub String);

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

#[derive(Serialize, Deserialize)]
struct MetaRecord {
    schema: u32,
    tag: FarmTag,
    next_job: u64,
}

#[derive(Serialize, Deserialize)]
struct WorkflowRecord {
    name: String,
    manifest: String,
    graph: String,
}

#[derive(Serialize, Deserialize)]
struct JobRecord {
    priority: Priority,
    phase: Phase,
    paused: bool,
    waiting: FrameSet,
    failed: FrameSet,
    tries: Vec<FrameSet>,
    chore_tries: u32,
    next_attempt: u32,
    failures: Vec<Failure>,
    message: String,
    submitted: Timestamp,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct AttemptRecord {
    node: NodeName,
    work: Work,
    assigned: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct NodeRecord {
    drained: bool,
}

impl Farm {
    /// The present value of a record; `None` when there is none (any more).
    pub fn record(&self, key: &Key) -> Option<Record> {
        match key {
            Key::Meta => {
                encode(&MetaRecord { schema: SCHEMA, tag: self.tag.clone(), next_job: self.next_job })
            }
            Key::Workflow(id) => {
                let workflow = &self.workflows.get(id)?.workflow;
                encode(&WorkflowRecord {
                    name: workflow.name().to_owned(),
                    manifest: workflow.manifest_text().to_owned(),
                    graph: workflow.graph_text().to_owned(),
                })
            }
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
                if node.drained { encode(&NodeRecord { drained: true }) } else { None }
            }
        }
    }

    /// Every record of the farm, for a snapshot.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = vec![Key::Meta];
        keys.extend(self.workflows.keys().cloned().map(Key::Workflow));
        for (id, job) in &self.jobs {
            keys.extend([Key::Spec(*id), Key::Job(*id)]);
            keys.extend(job.pieces.keys().map(|n| Key::Piece(AttemptId { job: *id, number: *n })));
        }
        keys.extend(self.attempts.keys().copied().map(Key::Attempt));
        keys.extend(self.nodes.values().filter(|n| n.drained).map(|n| Key::Node(n.about.name.clone())));
        keys
    }

    /// The farm that `records` describe, at the time `now`. Every attempt gets a whole lease, in which its
    /// agent can come back. `None` when there are no records: a new farm.
    pub fn restore(
        now: Timestamp,
        config: FarmConfig,
        records: &BTreeMap<Key, Record>,
    ) -> Result<Option<Self>, RecordError> {
        let Some(meta) = records.get(&Key::Meta) else { return Ok(None) };
        let meta: MetaRecord = decode(&Key::Meta, meta)?;
        if meta.schema > SCHEMA {
            return Err(RecordError::NewerSchema { found: meta.schema });
        }
        let mut farm = Farm::new(config, meta.tag);
        farm.next_job = meta.next_job;
        // The order of keys brings workflows before specs, specs before jobs, jobs before pieces and attempts.
        let mut specs: BTreeMap<JobId, JobSpec> = BTreeMap::new();
        for (key, record) in records {
            match key {
                Key::Meta => {}
                Key::Workflow(id) => farm.restore_workflow(key, id, record)?,
                Key::Spec(id) => {
                    specs.insert(*id, decode(key, record)?);
                }
                Key::Job(id) => {
                    let spec = specs.remove(id).ok_or_else(|| missing(key, "its spec"))?;
                    farm.restore_job(key, *id, spec, record)?;
                }
                Key::Piece(id) => {
                    let piece: Piece = decode(key, record)?;
                    let job = farm.jobs.get_mut(&id.job).ok_or_else(|| missing(key, "its job"))?;
                    job.done.insert_all(&piece.frames);
                    job.pieces.insert(id.number, piece);
                }
                Key::Attempt(id) => farm.restore_attempt(now, key, *id, record)?,
                Key::Node(name) => {
                    let NodeRecord { drained } = decode(key, record)?;
                    farm.restored_node(now, name).drained = drained;
                }
            }
        }
        let ids: Vec<JobId> = farm.jobs.keys().copied().collect();
        ids.into_iter().for_each(|id| farm.rank(id));
        Ok(Some(farm))
    }

    fn restore_workflow(&mut self, key: &Key, id: &WorkflowId, record: &Record) -> Result<(), RecordError> {
        let WorkflowRecord { name, manifest, graph } = decode(key, record)?;
        let workflow = Workflow::parse(&name, &manifest, &graph)
            .map_err(|source| RecordError::Workflow { key: key.to_string(), source: Box::new(source) })?;
        let known = KnownWorkflow { workflow: Arc::new(workflow), jobs: 0, pace: Pace::default() };
        self.workflows.insert(id.clone(), known);
        Ok(())
    }

    fn restore_job(
        &mut self,
        key: &Key,
        id: JobId,
        spec: JobSpec,
        record: &Record,
    ) -> Result<(), RecordError> {
        let record: JobRecord = decode(key, record)?;
        let known = self
            .workflows
            .get_mut(&spec.workflow)
            .ok_or_else(|| missing(key, &format!("workflow {}", spec.workflow)))?;
        known.jobs += 1;
        if !spec.request_id.is_empty() {
            self.requests.insert(spec.request_id.clone(), id);
        }
        let mut job = Job::new(spec, record.priority, record.submitted);
        job.phase = record.phase;
        job.paused = record.paused;
        job.waiting = record.waiting;
        job.failed = record.failed;
        job.tries = record.tries;
        job.chore_tries = record.chore_tries;
        job.next_attempt = record.next_attempt;
        job.failures = record.failures.into();
        job.message = record.message;
        job.started = record.started;
        job.ended = record.ended;
        if job.phase == Phase::Ended(Ended::Done) {
            job.done = job.spec.frames.clone();
        }
        match job.ended {
            Some(ended) => {
                self.ended.insert((ended, id));
            }
            None => {
                self.outputs.insert(job.spec.output.to_string(), id);
            }
        }
        self.jobs.insert(id, job);
        Ok(())
    }

    fn restore_attempt(
        &mut self,
        now: Timestamp,
        key: &Key,
        id: AttemptId,
        record: &Record,
    ) -> Result<(), RecordError> {
        let AttemptRecord { node: name, work, assigned } = decode(key, record)?;
        let job = self.jobs.get_mut(&id.job).ok_or_else(|| missing(key, "its job"))?;
        job.running.insert(id);
        let node = self.restored_node(now, &name);
        if work.is_chunk() {
            node.chunks.insert(id);
        } else {
            node.chore = Some(id);
        }
        let lease_until = now.after(self.config.lease);
        self.enter(id, Attempt { node: name, work, assigned, lease_until, progress: None });
        Ok(())
    }

    /// The node, offline until it says hello.
    fn restored_node(&mut self, now: Timestamp, name: &NodeName) -> &mut Node {
        self.nodes.entry(name.clone()).or_insert_with(|| {
            let about = NodeAbout { name: name.clone(), host: String::new(), agent_version: String::new() };
            Node::new(about, now)
        })
    }
}

fn missing(key: &Key, what: &str) -> RecordError {
    RecordError::Missing { key: key.to_string(), missing: what.to_owned() }
}

fn encode<T: Serialize>(value: &T) -> Option<Record> {
    // The records are plain structs with string keys: they always serialise.
    serde_json::to_string(value).ok().map(Record)
}

fn decode<'a, T: Deserialize<'a>>(key: &Key, record: &'a Record) -> Result<T, RecordError> {
    serde_json::from_str(&record.0).map_err(|source| RecordError::Broken { key: key.to_string(), source })
}
