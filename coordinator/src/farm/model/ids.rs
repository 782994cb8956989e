//! Names of things. Each kind has its own type, so that none is taken for another.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Jobs that need the same of a node; see [`Classes`](crate::farm::state::classes::Classes).
pub(in crate::farm) type ClassId = u32;

/// What makes frames of one workflow cost more or less: parameters and size of the picture.
pub(in crate::farm) type Variant = u64;

/// Unix time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// Zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Counts up from 1 on each farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One try of one chunk: the job and a number that counts up in it. Unique on this farm for ever, since
/// the number is durable before the attempt is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptId {
    pub job: JobId,
    pub number: u32,
}

/// A short random name of a farm, made once with its store. It keeps attempt ids (which are ComfyUI prompt
/// ids and folder names too) of two farms apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FarmTag(pub String);

impl FarmTag {
    /// The attempt's name outside the coordinator: `k3f9-12-34`.
    pub fn attempt_name(&self, attempt: AttemptId) -> String {
        format!("{}-{}-{}", self.0, attempt.job, attempt.number)
    }

    /// The attempt that `name` names; `None` for another farm's.
    pub fn attempt_of(&self, name: &str) -> Option<AttemptId> {
        let rest = name.strip_prefix(&self.0)?.strip_prefix('-')?;
        rest.parse().ok()
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.job, self.number)
    }
}

impl From<AttemptId> for String {
    fn from(id: AttemptId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for AttemptId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map_err(|()| "an attempt is written as job-number")
    }
}

impl FromStr for AttemptId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (job, number) = text.split_once('-').ok_or(())?;
        Ok(Self { job: JobId(job.parse().map_err(|_| ())?), number: number.parse().map_err(|_| ())? })
    }
}

/// The name of a node, unique on the farm.
#[derive(Debug, Clone, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl PartialEq for NodeName {
    fn eq(&self, other: &Self) -> bool {
        // Nearly all that are the same are clones of one.
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Hash for NodeName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl NodeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One connection of a node's agent; a later one has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

impl Session {
    /// Of a node that is connected to another coordinator, the leader.
    pub const ELSEWHERE: Self = Self(0);
}

/// 0 (whenever) to 100 (first).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    pub const DEFAULT: Self = Self(50);

    /// `None` above 100.
    pub fn new(value: u32) -> Option<Self> {
        u8::try_from(value).ok().filter(|value| *value <= 100).map(Self)
    }

    pub fn get(self) -> u8 {
        self.0
    }
}
