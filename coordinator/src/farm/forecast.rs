//! What would become of a job that was not submitted: which nodes could run it, what the others lack, and what it would
//! cost. Decides nothing.

use hearth_workflows::Workflow;

use super::{
    Farm,
    command::{Submission, Submitted},
    ids::NodeName,
    node::{Lack, Node},
    spec::{JobSpec, Render},
};

/// Of one submission, with all of its takes, that was not made.
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
    /// Its GPU: nodes of one kind are alike.
    pub device: String,
    /// Everything that it lacks for any of the takes; empty: it could run them all.
    pub lacks: Vec<Lack>,
}

/// As far as frames of its kind were measured before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Seconds on a GPU of usual speed, handles among them.
    pub gpu_seconds: f64,
    /// Chunks, about.
    pub chunks: u64,
    /// If every node that could went to it at once, and if it came last of all that waits now; `None`: none could.
    pub seconds: Option<(f64, f64)>,
}

/// One take of it.
struct Take<'a> {
    spec: &'a JobSpec,
    render: &'a Render,
    workflow: &'a Workflow,
    models: Vec<String>,
    /// Of all nodes that could run it, in GPUs of usual speed.
    capacity: f64,
}

impl<'a> Take<'a> {
    fn of(job: &'a Submitted) -> Option<Self> {
        let (spec, workflow) = (&job.spec, job.workflow.as_deref()?);
        let render = spec.render()?;
        let models = workflow.needed_models(&render.parameters);
        Some(Self { spec, render, workflow, models, capacity: 0.0 })
    }

    fn lacks(&self, node: &Node) -> Vec<Lack> {
        let able = &node.capabilities;
        let classes = self.workflow.needed_classes().into_iter();
        let classes = classes.filter(|class| !able.classes.contains(*class));
        let models = self.models.iter().filter(|model| !able.models.contains(*model));
        let mut lacks: Vec<Lack> = classes.map(|class| Lack::Class(class.to_owned())).collect();
        lacks.extend(models.cloned().map(Lack::Model));
        lacks.extend(able.lacks_means(self.workflow));
        lacks.extend(able.lacks_place("", self.spec.roots()).err());
        lacks
    }
}

impl Farm {
    /// `submission` has passed every check.
    pub fn forecast(&self, submission: &Submission) -> Forecast {
        let mut takes: Vec<Take<'_>> = submission.jobs.iter().filter_map(Take::of).collect();
        let mut forecast = Forecast::default();
        let Some(pool) = takes.first().map(|take| take.spec.pool.as_str()) else { return forecast };
        let mut nodes: Vec<_> = self.nodes.values().filter(|node| node.session.is_some()).collect();
        nodes.sort_unstable_by(|a, b| a.about.name.cmp(&b.about.name));
        for node in nodes {
            let able = &node.capabilities;
            if matches!(able.lacks_place(pool, std::iter::empty()), Err(Lack::Pool(_))) {
                forecast.elsewhere += 1;
                continue;
            }
            let mut all: Vec<Lack> = Vec::new();
            for take in &mut takes {
                let lacks = take.lacks(node);
                if lacks.is_empty() && node.is_ready() {
                    let known = self.workflows.get(&take.render.workflow);
                    take.capacity += known.map_or(1.0, |known| known.pace.kind_speed(&able.device));
                }
                let new = lacks.into_iter().filter(|lack| !all.contains(lack)).collect::<Vec<_>>();
                all.extend(new);
            }
            let (node, device) = (node.about.name.clone(), able.device.clone());
            forecast.nodes.push(Fit { node, device, lacks: all });
        }
        forecast.cost = self.cost(&takes);
        forecast
    }

    /// Of all takes together; `None` if one of them is of a kind that was never measured.
    fn cost(&self, takes: &[Take<'_>]) -> Option<Cost> {
        let mut all = Cost { gpu_seconds: 0.0, chunks: 0, seconds: None };
        let (mut least, mut earliest) = (f64::INFINITY, 0.0);
        for Take { spec, render, workflow, capacity, .. } in takes {
            let known = self.workflows.get(&render.workflow)?;
            let per_frame = known.pace.likely_base(render.variant(workflow))?;
            let split = render.split(workflow);
            let at_once = match render.chunk_frames {
                _ if split.is_whole() => u64::MAX,
                Some(fixed) => fixed,
                None => (self.config.target_chunk.as_secs_f64() / per_frame.max(1e-6)).clamp(1.0, 1e9) as u64,
            };
            let own = at_once.min(split.max_own(workflow.manifest().shape())).max(1);
            let chunks = spec.frames.len().div_ceil(own);
            let (head, tail) = split.handles();
            // The clip's own ends have none.
            let handles = chunks.saturating_sub(1) * (u64::from(head) + u64::from(tail));
            let seconds = per_frame * (spec.frames.len() + handles) as f64;
            all.gpu_seconds += seconds;
            all.chunks += chunks;
            earliest += seconds / capacity;
            least = least.min(*capacity);
        }
        all.seconds = (least > 0.0).then(|| (earliest, earliest + self.work_waiting() / least));
        Some(all)
    }
}
