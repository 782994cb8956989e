//! Dispatch: what runs next, decided once for each command, after everything that the command changes has changed.
//!
//! Handlers never hand out work: they mark what they have touched, and [`Farm::dispatch`] looks at that.

use super::{
    Farm,
    command::Step,
    ids::{JobId, NodeName, Timestamp},
};

/// What a command has touched. Empty between two commands.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    /// Jobs of which no frame may wait or run any more.
    jobs: Vec<JobId>,
    /// Nodes that may have capacity now.
    nodes: Vec<NodeName>,
    /// Any open node may find work now.
    open_nodes: bool,
    /// A chore may wait, or a node may take one.
    chores: bool,
    /// Urgent work may be new.
    urgent: bool,
}

impl Touched {
    pub(super) fn job(&mut self, id: JobId) {
        if !self.jobs.contains(&id) {
            self.jobs.push(id);
        }
    }

    pub(super) fn node(&mut self, name: &NodeName) {
        if !self.nodes.contains(name) {
            self.nodes.push(name.clone());
        }
    }

    pub(super) fn open_nodes(&mut self) {
        self.open_nodes = true;
    }

    pub(super) fn chores(&mut self) {
        self.chores = true;
    }

    pub(super) fn urgent(&mut self) {
        self.urgent = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.nodes.is_empty() && !self.open_nodes && !self.chores && !self.urgent
    }
}

impl Farm {
    /// Moves touched jobs to the phase that their frames ask for. A job that ends may touch others.
    pub(super) fn settle_touched(&mut self, now: Timestamp, step: &mut Step) {
        while let Some(id) = self.touched.jobs.pop() {
            self.settle(now, id, step);
        }
    }

    /// Hands out work to what was touched: chores, then chunks, then what preemption frees.
    pub(super) fn dispatch(&mut self, now: Timestamp, step: &mut Step) {
        let touched = std::mem::take(&mut self.touched);
        debug_assert!(touched.jobs.is_empty(), "jobs are settled before anything is handed out");
        if touched.chores {
            self.fill_chores(now, step);
        }
        if touched.open_nodes {
            self.fill_open(now, step);
        }
        for name in &touched.nodes {
            self.fill_node(now, name, step);
        }
        if touched.urgent {
            self.make_room(now, step);
        }
        debug_assert!(self.touched.is_empty(), "handing out work has touched something: {:?}", self.touched);
    }
}
