//! How fast each node runs one workflow, learned from its results. In memory only: a restarted coordinator
//! learns again within a chunk.

use std::collections::HashMap;

use super::ids::NodeName;

/// Weight of the newest measurement.
const NEWEST: f64 = 0.4;

#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    nodes: HashMap<NodeName, Measured>,
    /// Frames a second of all measured nodes that are ready, and how many those are.
    ready_rate: f64,
    ready_count: usize,
}

#[derive(Debug, Clone, Default)]
struct Measured {
    seconds_per_frame: Option<f64>,
    /// Most frames of a chunk, after it ran out of memory.
    cap: Option<u64>,
    ready: bool,
}

impl Measured {
    fn rate(&self) -> Option<f64> {
        self.seconds_per_frame.map(|seconds| 1.0 / seconds.max(1e-6))
    }
}

impl Pace {
    pub(super) fn seconds_per_frame(&self, node: &NodeName) -> Option<f64> {
        self.nodes.get(node)?.seconds_per_frame
    }

    pub(super) fn cap(&self, node: &NodeName) -> Option<u64> {
        self.nodes.get(node)?.cap
    }

    /// A chunk of `frames` took `seconds` on the node, which is ready.
    pub(super) fn measure(&mut self, node: &NodeName, frames: u64, seconds: f64) {
        if frames == 0 || !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        self.set_ready(node, false);
        let measured = self.nodes.entry(node.clone()).or_default();
        let newest = seconds / frames as f64;
        measured.seconds_per_frame = Some(match measured.seconds_per_frame {
            Some(before) => before + NEWEST * (newest - before),
            None => newest,
        });
        self.set_ready(node, true);
    }

    /// A chunk of `frames` was too much for the node's memory.
    pub(super) fn too_much(&mut self, node: &NodeName, frames: u64) {
        let measured = self.nodes.entry(node.clone()).or_default();
        let half = (frames / 2).max(1);
        measured.cap = Some(measured.cap.map_or(half, |cap| cap.min(half)));
    }

    pub(super) fn set_ready(&mut self, node: &NodeName, ready: bool) {
        let Some(measured) = self.nodes.get_mut(node) else { return };
        let Some(rate) = measured.rate() else { return };
        if measured.ready == ready {
            return;
        }
        measured.ready = ready;
        if ready {
            self.ready_rate += rate;
            self.ready_count += 1;
        } else {
            self.ready_rate -= rate;
            self.ready_count -= 1;
            if self.ready_count == 0 {
                self.ready_rate = 0.0;
            }
        }
    }

    /// The part of the farm's speed that this node is, 0 to 1; unmeasured nodes count as average.
    pub(super) fn share(&self, node: &NodeName, ready_nodes: usize) -> f64 {
        if self.ready_count == 0 || self.ready_rate <= 0.0 {
            return 1.0 / ready_nodes as f64;
        }
        let mean = self.ready_rate / self.ready_count as f64;
        let own = self.nodes.get(node).and_then(Measured::rate).unwrap_or(mean);
        let all = mean * ready_nodes.max(self.ready_count) as f64;
        (own / all).clamp(0.0, 1.0)
    }
}
