//! What would become of a job that was not submitted: which nodes could run it, what the others lack, and what it would
//! cost. Decides nothing.

use hearth_workflows::{Requirements, Workflow};

use crate::farm::{
    model::{
        command::{Submission, Submitted},
        ids::NodeName,
        node::{Capabilities, Lack},
        spec::{JobSpec, Render},
    },
    state::Farm,
};

/// Of one submission, with all of its takes, that was not made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    /// Every connected node of the job's pool, by name.
    pub nodes: Vec<Fit>,
    /// Connected nodes outside the pool.
    pub elsewhere: usize,
    /// Every take has a node that could run it, be it another one for each.
    pub runs: bool,
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

/// What takes need of a node beyond what their workflow needs; most takes need the same.
struct Needs {
    requirements: Requirements,
    roots: Vec<String>,
    /// Nodes that could run them, ready or not.
    able: usize,
    /// Of those that are ready, in GPUs of usual speed.
    capacity: f64,
}

impl Needs {
    fn lacks(&self, able: &Capabilities) -> impl Iterator<Item = Lack> {
        let Requirements { classes, models } = &self.requirements;
        let classes = classes.iter().filter(|class| !able.classes.contains(*class));
        let models = models.iter().filter(|model| !able.models.contains(*model));
        let place = able.lacks_place("", self.roots.iter().map(String::as_str));
        classes.cloned().map(Lack::Class).chain(models.cloned().map(Lack::Model)).chain(place.err())
    }
}

impl Farm {
    /// `submission` has passed every check: all of its takes are of one workflow, in one pool.
    pub fn forecast(&self, submission: &Submission) -> Forecast {
        let mut forecast = Forecast::default();
        let rendered = |job: &&Submitted| job.workflow.is_some() && job.spec.render().is_some();
        let Some(first) = submission.jobs.iter().find(rendered) else { return forecast };
        let Some(workflow) = first.workflow.as_deref() else { return forecast };
        let mut all: Vec<Needs> = Vec::new();
        let mut takes: Vec<(&JobSpec, &Render, usize)> = Vec::new();
        for spec in submission.jobs.iter().filter(rendered).map(|job| &job.spec) {
            let Some(render) = spec.render() else { continue };
            let requirements = workflow.requirements(&render.parameters);
            let roots: Vec<String> = spec.roots().map(str::to_owned).collect();
            let known =
                all.iter().position(|needs| needs.requirements == requirements && needs.roots == roots);
            takes.push((spec, render, known.unwrap_or(all.len())));
            if known.is_none() {
                all.push(Needs { requirements, roots, able: 0, capacity: 0.0 });
            }
        }
        let known = self.workflows.get(workflow.id());
        let mut nodes: Vec<_> = self.nodes.values().filter(|node| node.session.is_some()).collect();
        nodes.sort_unstable_by(|a, b| a.about.name.cmp(&b.about.name));
        for node in nodes {
            let able = &node.capabilities;
            if matches!(able.lacks_place(&first.spec.pool, std::iter::empty()), Err(Lack::Pool(_))) {
                forecast.elsewhere += 1;
                continue;
            }
            let mut lacks: Vec<Lack> = able.lacks_means(workflow).collect();
            let fits = lacks.is_empty();
            for needs in &mut all {
                let own: Vec<Lack> = needs.lacks(able).collect();
                if fits && own.is_empty() {
                    needs.able += 1;
                    if node.is_ready() {
                        needs.capacity += known.map_or(1.0, |known| known.pace.kind_speed(&able.device));
                    }
                }
                for lack in own {
                    if !lacks.contains(&lack) {
                        lacks.push(lack);
                    }
                }
            }
            let (node, device) = (node.about.name.clone(), able.device.clone());
            forecast.nodes.push(Fit { node, device, lacks });
        }
        forecast.runs = all.iter().all(|needs| needs.able > 0);
        forecast.cost = self.cost(workflow, &takes, &all);
        forecast
    }

    /// Of all takes together; `None` if one of them is of a kind that was never measured.
    fn cost(
        &self,
        workflow: &Workflow,
        takes: &[(&JobSpec, &Render, usize)],
        needs: &[Needs],
    ) -> Option<Cost> {
        let known = self.workflows.get(workflow.id())?;
        let mut all = Cost { gpu_seconds: 0.0, chunks: 0, seconds: None };
        let (mut least, mut earliest) = (f64::INFINITY, 0.0);
        for (spec, render, kind) in takes {
            let capacity = needs[*kind].capacity;
            let per_frame = known.pace.likely_base(render.variant(workflow))?;
            let split = render.split(workflow);
            let at_once = match render.chunk_frames {
                _ if split.is_whole() => u64::MAX,
                Some(fixed) => fixed,
                None => (self.config.target_chunk.as_secs_f64() / per_frame.max(1e-6)).clamp(1.0, 1e9) as u64,
            };
            let own = at_once.min(split.max_own(workflow.manifest().shape())).max(1);
            let chunks = spec.frames.len().div_ceil(own);
            // Counted for every chunk, as when it is measured.
            let (head, tail) = split.handles();
            let rendered = spec.frames.len() + chunks * (u64::from(head) + u64::from(tail));
            let seconds = per_frame * rendered as f64;
            all.gpu_seconds += seconds;
            all.chunks += chunks;
            earliest += seconds / capacity;
            least = least.min(capacity);
        }
        all.seconds = (least > 0.0).then(|| (earliest, earliest + self.work_waiting() / least));
        Some(all)
    }
}
