//! What the agent measures, by Prometheus' conventions.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

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
        meters
    }
}
