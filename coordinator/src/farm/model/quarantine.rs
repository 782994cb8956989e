//! A node that gets no work for a while, and what has led to that.

use serde::{Deserialize, Serialize};

use crate::farm::model::{
    ids::{JobId, Timestamp},
    node::Node,
};

/// A node is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    pub until: Timestamp,
    /// For people.
    pub reason: String,
    /// Its ComfyUI cannot be used as it is: over once that comes back another.
    #[serde(default)]
    pub unusable: bool,
}

/// What a node has failed since it last did something well. Not durable.
#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct FailureRun {
    pub(in crate::farm) failed: Vec<JobId>,
    pub(in crate::farm) quarantines: u32,
}

impl Node {
    /// Whether anything is held against it.
    pub(in crate::farm) fn has_record(&self) -> bool {
        self.quarantine.is_some() || self.record.quarantines > 0 || !self.record.failed.is_empty()
    }
}
