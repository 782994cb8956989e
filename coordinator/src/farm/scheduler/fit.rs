//! Whether a node could have a chunk of a job, and how well that suits the models that it has loaded.

use std::time::Duration;

use hearth_workflows::FrameSet;

use crate::farm::{
    model::{
        ids::{ClassId, JobId, NodeName, Timestamp},
        job::Job,
        node::Node,
    },
    scheduler::carve::may_prefetch,
    state::{Farm, pace::Runner},
};

/// A node loads other models only for at least so many times the seconds that loading costs.
const WORTH: f64 = 260.0;

/// A job without a node goes before later ones whose models are loaded after so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// Nodes are few when they are one of so many that are ready, or fewer.
const FEW: usize = 2;

/// One of so many nodes tries a workflow of which nothing is known.
const PIONEERS: usize = 16;

/// A job that a node could have a chunk of.
#[derive(Debug, Clone, Copy)]
pub(in crate::farm) struct Candidate {
    pub(in crate::farm) job: JobId,
    pub(in crate::farm) fit: Fit,
    /// Seconds that are left for each node that is at it.
    pub(in crate::farm) need: f64,
    /// Few nodes can run it: what others can run, too, is done around it.
    pub(in crate::farm) few: bool,
}

/// How well a job suits what a node has loaded; better ones are less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::farm) enum Fit {
    /// No node has its models loaded, or the very node has.
    Fine,
    /// There is enough of it for one more node to load its models.
    Worth,
    /// It ends sooner with one more node, though hardly; or nobody is at it.
    Helps,
}

/// What of a job whose frames are not all alike the node may carve from, and how many frames at most: suspects first,
/// so that people know early what is wrong; then those that the job wants first. Never what cannot be made yet.
pub(in crate::farm) fn apart(
    job: &Job,
    now: Timestamp,
    node: &NodeName,
    count: u64,
) -> Option<(FrameSet, u64)> {
    if let Some((frames, at_most)) = job.suspects.next_for(now, node) {
        return Some((frames.clone(), count.min(at_most)));
    }
    let mut others = job.open().into_owned();
    others.remove_all(&job.suspects.frames());
    let first = others.intersection(&job.spec.terms.first);
    if !first.is_empty() {
        return Some((first, count));
    }
    (!others.is_empty()).then_some((others, count))
}

impl Farm {
    /// Finds out of every class whether the node has what it needs, where that is not known yet.
    pub(in crate::farm) fn look_what_fits(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.fits.len() < self.classes.len()) else {
            return;
        };
        for (class, workflow) in self.classes.ids() {
            if node.fits.contains_key(&class) {
                continue;
            }
            let needs = self.classes.needs(class);
            let Some((known, (models, pool, roots))) = self.workflows.get(workflow).zip(needs) else {
                continue;
            };
            let place = node.capabilities.lacks_place(pool, roots.iter().map(String::as_str));
            node.fits.insert(class, place.and_then(|()| node.capabilities.lacks(&known.workflow, models)));
            self.able_changed = true;
        }
    }

    /// Whether the node, or none at all, has the models of these jobs loaded.
    pub(in crate::farm) fn needs_no_loading(&self, class: ClassId, node: &Node) -> bool {
        self.classes.workflow(class).is_some_and(|workflow| {
            node.loaded.as_ref() == Some(workflow)
                || self.workflows.get(workflow).is_some_and(|known| known.loaded_on == 0)
        })
    }

    /// Whether the node could have a chunk of the job now, and how well it fits.
    pub(in crate::farm) fn candidate(&self, now: Timestamp, node: &Node, id: JobId) -> Option<Candidate> {
        let job = self.jobs.get(&id)?;
        let name = &node.about.name;
        if job.rest_until > now || job.avoid.get(name).is_some_and(|until| *until > now) {
            return None;
        }
        if !may_prefetch(self, job, node) {
            return None;
        }
        if self.has_room(job, node).is_err() {
            return None;
        }
        let mut fit = self.fit(job, node);
        if !job.suspects.is_empty() {
            apart(job, now, name, 1)?;
            // Those who are at it may be those who have failed it.
            let tries_suspects = job.suspects.next_for(now, name).is_some();
            fit = fit.or(tries_suspects.then_some((Fit::Helps, 0.0)));
        }
        let (fit, need) = fit?;
        Some(Candidate { job: id, fit, need, few: self.has_few(job.class) })
    }

    /// Whether so few nodes can run these jobs that those are kept for them. The least flexible job first: best where
    /// what one can run, the others can, too (Pinedo, Scheduling).
    fn has_few(&self, class: ClassId) -> bool {
        self.classes.able(class).is_some_and(|able| able * FEW <= self.ready)
    }

    /// Counts the nodes that can run what there is, when that may have changed.
    pub(in crate::farm) fn count_able(&mut self) {
        if !self.able_changed {
            return;
        }
        let ready: Vec<NodeName> =
            self.nodes.values().filter(|node| node.is_ready()).map(|node| node.about.name.clone()).collect();
        ready.iter().for_each(|name| self.look_what_fits(name));
        self.able_changed = false;
        let classes: Vec<ClassId> = self.classes.ids().map(|(class, _)| class).collect();
        for class in classes {
            let able = |node: &&Node| node.is_ready() && node.fits.get(&class) == Some(&Ok(()));
            let able = self.nodes.values().filter(able).count();
            self.classes.set_able(class, able);
        }
    }

    /// Whether jobs that came later have gone before it for their models long enough: then it is first come, first
    /// served.
    fn has_waited_long(&self, job: &Job) -> bool {
        let since = job.recent.back().map_or(job.submitted, |(at, _)| (*at).max(job.submitted));
        job.running.is_empty() && self.now.since(since) > PATIENCE
    }

    /// Whether some node is at a chunk of the job, with nothing before it.
    pub(in crate::farm) fn has_begun(&self, job: &Job) -> bool {
        job.running.iter().any(|id| self.attempts.get(id).is_some_and(|held| held.begun.is_some()))
    }

    /// `None`: those who are at it end it sooner than this node could begin. With it the seconds that are left for
    /// each node that has its models loaded.
    fn fit(&self, job: &Job, node: &Node) -> Option<(Fit, f64)> {
        let workflow = job.spec.workflow()?;
        let known = self.workflows.get(workflow)?;
        if node.loaded.as_ref() == Some(workflow) || known.loaded_on == 0 || self.has_waited_long(job) {
            return Some((Fit::Fine, 0.0));
        }
        let runner = Runner { name: &node.about.name, kind: &node.capabilities.device };
        let load = known.load();
        let Some(base) = known.pace.likely_base(job.variant) else {
            // A few find out what it costs.
            let pioneers = (self.ready / PIONEERS).max(2);
            let fit = if known.loaded_on < pioneers || load < 1.0 { Fit::Worth } else { Fit::Helps };
            return Some((fit, 0.0));
        };
        let speed = known.pace.speed(runner);
        // Everything of the class that waits, on this node alone.
        let left = base * self.classes.waiting(job.class) as f64 / speed;
        let nodes = known.loaded_on as f64;
        let fit = if left / (nodes + 1.0) >= WORTH * load {
            Fit::Worth
        } else if left / nodes > load + base / speed
            || !self.classes.is_running(job.class)
            || job.spec.urgent && !self.has_begun(job)
        {
            // Those who have its models loaded may be drained, of another pool, or have failed it: as long as nobody
            // is at it, nobody can be said to end it sooner. Or they may be at long chunks of other jobs, for which
            // an urgent one does not wait.
            Fit::Helps
        } else {
            return None;
        };
        Some((fit, left / nodes))
    }
}
