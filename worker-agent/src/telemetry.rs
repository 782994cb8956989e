//! What the agent measures, by Prometheus' conventions.

use std::sync::atomic::Ordering;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::sequence::{COPIED, LINKED};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct NodeLabel {
    pub(crate) node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    pub(crate) node: String,
    /// `done`, `cancelled`, or the kind of failure.
    pub(crate) outcome: String,
}

/// The agent's meters.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) attempts: Family<OutcomeLabel, Counter>,
    pub(crate) chunk_seconds: Family<NodeLabel, Histogram>,
    pub(crate) held: Family<NodeLabel, Gauge>,
    pub(crate) comfyui_up: Family<NodeLabel, Gauge>,
    pub(crate) unreported: Family<NodeLabel, Gauge>,
}

impl Meters {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.1, 2.0, 16));
        let meters = Self {
            attempts: Family::default(),
            chunk_seconds: Family::new_with_constructor(histogram),
            held: Family::default(),
            comfyui_up: Family::default(),
            unreported: Family::default(),
        };
        let agent = registry.sub_registry_with_prefix("hearth_agent");
        agent.register("attempts", "Ended attempts by outcome", meters.attempts.clone());
        agent.register("chunk_seconds", "Time of a finished chunk in ComfyUI", meters.chunk_seconds.clone());
        agent.register("attempts_held", "Attempts that the node works on", meters.held.clone());
        agent.register("comfyui_up", "Whether ComfyUI answers", meters.comfyui_up.clone());
        agent.register("results_unreported", "Results that nobody has taken yet", meters.unreported.clone());
        // Counted where files are placed, for the whole process.
        agent.register_collector(Box::new(PlacedFiles));
        meters
    }
}

/// How files came to their places on storage.
#[derive(Debug)]
struct PlacedFiles;

impl Collector for PlacedFiles {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Files placed by hard link, or by a copy where links are refused";
        let mut metric =
            encoder.encode_descriptor("hearth_agent_files_placed", help, None, MetricType::Counter)?;
        for (how, count) in [("link", &LINKED), ("copy", &COPIED)] {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(metric.encode_family(&[("how", how)])?)?;
        }
        Ok(())
    }
}
