//! Names of the farm's durable records, and what a record is.

use std::{fmt, str::FromStr};

use hearth_workflows::WorkflowId;

use crate::farm::model::{
    ids::{AttemptId, JobId, NodeName},
    preset::PresetId,
};

/// Version of the records. A store with a newer one is refused.
pub(in crate::farm) const SCHEMA: u32 = 4;

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
    pub(in crate::farm) fn key(&self) -> Option<Key> {
        let key = match self {
            Self::Broken { key, .. } | Self::Missing { key, .. } | Self::Workflow { key, .. } => key,
            Self::UnknownKey { .. } | Self::NewerSchema { .. } => return None,
        };
        key.parse().ok().filter(|key| *key != Key::Meta)
    }
}

impl Key {
    pub(in crate::farm) fn job(&self) -> Option<JobId> {
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
    pub(in crate::farm) fn carries(&self, other: &Self, record: &Record) -> bool {
        let of_workflow = match (self, other) {
            // Its id is a digest, which nothing else has.
            (Self::Workflow(id), Self::Spec(_)) => record.0.contains(&id.0),
            _ => false,
        };
        self == other || of_workflow || self.job().is_some() && self.job() == other.job()
    }
}
