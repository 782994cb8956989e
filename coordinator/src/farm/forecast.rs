//! What would become of a job that was not submitted: which nodes could run it, what the others lack, and what it would
//! cost. Decides nothing.

use hearth_workflows::Workflow;

use super::{Farm, ids::NodeName, node::Lack, spec::JobSpec};

/// Of one job that was not submitted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    /// Every connected node of the job's pool, by name.
    pub nodes: Vec<Fit>,
    /// Connected nodes outside the pool.
    pub elsewhere: usize,
    pub cost: Option<Cost>,
}

/// Whether a node could run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    pub node: NodeName,
    /// Everything that it lacks; empty: it could.
    pub lacks: Vec<Lack>,
}

/// As far as frames of its kind were measured before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Seconds on a GPU of usual speed, handles not counted.
    pub gpu_seconds: f64,
    /// Chunks, about.
    pub chunks: u64,
    /// If every node that could went to it at once, and if it came last of all that waits now; `None`: none could.
    pub seconds: Option<(f64, f64)>,
}

impl Farm {
    /// `workflow` is that of `spec`, which has passed every check.
    pub fn forecast(&self, spec: &JobSpec, workflow: &Workflow) -> Forecast {
        let Some(render) = spec.render() else { return Forecast::default() };
        let models = workflow.needed_models(&render.parameters);
        let mut forecast = Forecast::default();
        let mut capacity = 0.0;
        let known = self.workflows.get(&render.workflow);
        let mut nodes: Vec<_> = self.nodes.values().filter(|node| node.session.is_some()).collect();
        nodes.sort_unstable_by(|a, b| a.about.name.cmp(&b.about.name));
        for node in nodes {
            let able = &node.capabilities;
            if matches!(able.lacks_place(&spec.pool, std::iter::empty()), Err(Lack::Pool(_))) {
                forecast.elsewhere += 1;
                continue;
            }
            let mut lacks: Vec<Lack> = workflow
                .needed_classes()
                .into_iter()
                .filter(|class| !able.classes.contains(*class))
                .map(|class| Lack::Class(class.to_owned()))
                .collect();
            let missing = models.iter().filter(|model| !able.models.contains(*model));
            lacks.extend(missing.cloned().map(Lack::Model));
            // With none of what is listed already, memory is what is left to be short of.
            lacks.extend(able.lacks_memory(workflow).err());
            lacks.extend(able.lacks_place("", spec.roots()).err());
            if lacks.is_empty() && node.is_ready() {
                capacity += known.map_or(1.0, |known| known.pace.kind_speed(&able.device));
            }
            forecast.nodes.push(Fit { node: node.about.name.clone(), lacks });
        }
        let base = known.and_then(|known| known.pace.likely_base(render.variant(workflow)));
        forecast.cost = base.map(|per_frame| {
            let frames = spec.frames.len();
            let gpu_seconds = per_frame * frames as f64;
            let at_once = match render.chunk_frames {
                _ if render.split(workflow).is_whole() => u64::MAX,
                Some(fixed) => fixed,
                None => (self.config.target_chunk.as_secs_f64() / per_frame.max(1e-6)).clamp(1.0, 1e9) as u64,
            };
            let most = render.split(workflow).max_own(workflow.manifest().shape());
            let seconds = (capacity > 0.0)
                .then(|| (gpu_seconds / capacity, (gpu_seconds + self.work_waiting()) / capacity));
            Cost { gpu_seconds, chunks: frames.div_ceil(at_once.min(most).max(1)), seconds }
        });
        forecast
    }
}
