//! Jobs that need the same of a node: workflow, models, pool and storage. Whether a node has it is found out once for all
//! of them.

use hearth_workflows::{Requirements, WorkflowId};
use rustc_hash::FxHashMap as HashMap;

use crate::farm::model::{ids::ClassId, spec::JobSpec};

/// What a node must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Needs {
    workflow: WorkflowId,
    /// With the parameters that they have.
    requirements: Requirements,
    pool: String,
    roots: Vec<String>,
}

#[derive(Debug, Clone)]
pub(in crate::farm) struct Class {
    needs: Needs,
    jobs: usize,
    /// Frames of all its jobs that may be handed out.
    waiting: u64,
    /// Chunks of them that nodes have.
    running: usize,
    /// Ready nodes that can run them, as far as that was found out; `None` before it was counted.
    able: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct Classes {
    ids: HashMap<Needs, ClassId>,
    known: HashMap<ClassId, Class>,
    last: ClassId,
    all_waiting: u64,
}

impl Classes {
    /// The class of a job that is new; `None` for a delivery.
    pub(in crate::farm) fn enter(&mut self, spec: &JobSpec, requirements: Requirements) -> Option<ClassId> {
        let workflow = spec.workflow()?.clone();
        let roots = spec.roots().map(str::to_owned).collect();
        let needs = Needs { workflow, requirements, pool: spec.pool.clone(), roots };
        let id = *self.ids.entry(needs.clone()).or_insert_with(|| {
            self.last += 1;
            self.last
        });
        self.known.entry(id).or_insert(Class { needs, jobs: 0, waiting: 0, running: 0, able: None }).jobs +=
            1;
        Some(id)
    }

    /// A job of it is gone; true when it was the last.
    pub(in crate::farm) fn leave(&mut self, id: ClassId) -> bool {
        let Some(class) = self.known.get_mut(&id) else { return false };
        class.jobs -= 1;
        if class.jobs > 0 {
            return false;
        }
        self.ids.remove(&class.needs);
        self.known.remove(&id);
        true
    }

    pub(in crate::farm) fn len(&self) -> usize {
        self.known.len()
    }

    pub(in crate::farm) fn ids(&self) -> impl Iterator<Item = (ClassId, &WorkflowId)> {
        self.known.iter().map(|(id, class)| (*id, &class.needs.workflow))
    }

    pub(in crate::farm) fn workflow(&self, id: ClassId) -> Option<&WorkflowId> {
        self.known.get(&id).map(|class| &class.needs.workflow)
    }

    /// Requirements, pool and storage roots of its jobs.
    pub(in crate::farm) fn needs(&self, id: ClassId) -> Option<(&Requirements, &str, &[String])> {
        let needs = &self.known.get(&id)?.needs;
        Some((&needs.requirements, &needs.pool, &needs.roots))
    }

    pub(in crate::farm) fn waiting(&self, id: ClassId) -> u64 {
        self.known.get(&id).map_or(0, |class| class.waiting)
    }

    /// Frames of all jobs that may be handed out.
    pub(in crate::farm) fn all_waiting(&self) -> u64 {
        self.all_waiting
    }

    /// Ready nodes that can run it; `None`: nobody has counted them yet.
    pub(in crate::farm) fn able(&self, id: ClassId) -> Option<usize> {
        self.known.get(&id)?.able
    }

    pub(in crate::farm) fn set_able(&mut self, id: ClassId, nodes: usize) {
        if let Some(class) = self.known.get_mut(&id) {
            class.able = Some(nodes);
        }
    }

    /// Whether some node is at it.
    pub(in crate::farm) fn is_running(&self, id: ClassId) -> bool {
        self.known.get(&id).is_some_and(|class| class.running > 0)
    }

    pub(in crate::farm) fn begins(&mut self, id: ClassId) {
        if let Some(class) = self.known.get_mut(&id) {
            class.running += 1;
        }
    }

    pub(in crate::farm) fn ends(&mut self, id: ClassId) {
        if let Some(class) = self.known.get_mut(&id) {
            class.running = class.running.saturating_sub(1);
        }
    }

    /// So many frames of it wait more, or less, than before.
    pub(in crate::farm) fn wait(&mut self, id: ClassId, before: u64, now: u64) {
        if let Some(class) = self.known.get_mut(&id) {
            class.waiting = (class.waiting + now).saturating_sub(before);
            self.all_waiting = (self.all_waiting + now).saturating_sub(before);
        }
    }
}
