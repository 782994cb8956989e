//! What the configuration says of shows and limits.

use serde::{Deserialize, Serialize};

/// A show's part of the farm.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShowPolicy {
    /// Twice the weight is twice the GPUs, where both have enough to do.
    pub weight: f64,
    /// While it has fewer nodes, and something to do, it goes before all shows that have theirs.
    pub min_nodes: usize,
    /// It never has more nodes at a time; 0: no limit.
    pub max_nodes: usize,
    /// An urgent job of another show may interrupt its chunks.
    pub preemptible: bool,
}

impl Default for ShowPolicy {
    fn default() -> Self {
        Self { weight: 1.0, min_nodes: 0, max_nodes: 0, preemptible: false }
    }
}

/// How many nodes may use something at a time. 0: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitPolicy {
    /// On the whole farm.
    pub farm: usize,
    /// Of one host.
    pub host: usize,
}
