//! What a command has touched, for `settle` and `dispatch` to look at.

use crate::farm::model::ids::{JobId, NodeName};

/// Marks that handlers leave for `settle` and `dispatch`. Empty between two commands.
#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct Touched {
    /// Jobs of which no frame may wait or run any more.
    pub(in crate::farm) jobs: Vec<JobId>,
    /// Nodes that may have capacity now.
    pub(in crate::farm) nodes: Vec<NodeName>,
    /// Any open node may find work now.
    pub(in crate::farm) open_nodes: bool,
    /// A chore may wait, or a node may take one.
    pub(in crate::farm) chores: bool,
    /// Urgent work may be new.
    pub(in crate::farm) urgent: bool,
    /// Time has passed: idle nodes may help others.
    pub(in crate::farm) idle: bool,
}

impl Touched {
    pub(in crate::farm) fn job(&mut self, id: JobId) {
        self.jobs.push(id);
    }

    pub(in crate::farm) fn node(&mut self, name: &NodeName) {
        self.nodes.push(name.clone());
    }

    pub(in crate::farm) fn open_nodes(&mut self) {
        self.open_nodes = true;
    }

    pub(in crate::farm) fn chores(&mut self) {
        self.chores = true;
    }

    pub(in crate::farm) fn urgent(&mut self) {
        self.urgent = true;
    }

    pub(in crate::farm) fn idle(&mut self) {
        self.idle = true;
    }

    /// Removes every mark and keeps the memory.
    pub(in crate::farm) fn clear(&mut self) {
        let Self { jobs, nodes, open_nodes, chores, urgent, idle } = self;
        jobs.clear();
        nodes.clear();
        [open_nodes, chores, urgent, idle].into_iter().for_each(|mark| *mark = false);
    }

    pub(in crate::farm) fn is_empty(&self) -> bool {
        let Self { jobs, nodes, open_nodes, chores, urgent, idle } = self;
        jobs.is_empty() && nodes.is_empty() && !open_nodes && !chores && !urgent && !idle
    }
}
