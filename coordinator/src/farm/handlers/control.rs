//! What people may do to jobs and nodes, beside cancelling and editing.

use std::collections::BTreeSet;

use hearth_workflows::WorkflowId;

use crate::farm::{
    model::{
        command::{Answer, Refusal, Step},
        ids::{JobId, NodeName, Priority},
        key::Key,
        quarantine::FailureRun,
    },
    state::Farm,
};

impl Farm {
    pub(in crate::farm) fn pause(&mut self, id: JobId, step: &mut Step) -> Result<Answer, Refusal> {
        self.active(id)?.paused = true;
        self.changed(id, step);
        Ok(Answer::Done)
    }

    pub(in crate::farm) fn resume(&mut self, id: JobId, step: &mut Step) -> Result<Answer, Refusal> {
        self.active(id)?.paused = false;
        self.changed(id, step);
        self.touched.chores();
        self.touched.open_nodes();
        Ok(Answer::Done)
    }

    pub(in crate::farm) fn set_priority(
        &mut self,
        id: JobId,
        priority: Priority,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        self.unrank(id);
        match self.active(id) {
            Ok(job) => job.priority = priority,
            Err(refusal) => {
                self.rank(id);
                return Err(refusal);
            }
        }
        self.changed(id, step);
        self.touched.open_nodes();
        Ok(Answer::Done)
    }

    pub(in crate::farm) fn set_drained(
        &mut self,
        name: &NodeName,
        drained: bool,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        let node = self.nodes.get_mut(name).ok_or_else(|| Refusal::NoSuchNode(name.clone()))?;
        node.drained = drained;
        if !drained {
            // Somebody has looked at it.
            (node.quarantine, node.record) = (None, FailureRun::default());
        }
        step.changes.push(Key::Node(name.clone()));
        self.reopen(name);
        if !drained {
            self.touched.chores();
            self.touched.node(name);
        }
        Ok(Answer::Done)
    }

    /// Forgets what was too much for the memory of these nodes' kinds of GPU.
    pub(in crate::farm) fn try_memory(&mut self, node: Option<&NodeName>, step: &mut Step) {
        let kinds: BTreeSet<String> = match node {
            Some(name) => {
                self.nodes.get(name).map(|node| node.capabilities.device.clone()).into_iter().collect()
            }
            None => self.nodes.values().map(|node| node.capabilities.device.clone()).collect(),
        };
        let workflows: Vec<WorkflowId> = self.workflows.keys().cloned().collect();
        for workflow in workflows {
            let Some(known) = self.workflows.get_mut(&workflow) else { continue };
            if kinds.iter().filter(|kind| known.pace.forget_cap(kind)).count() > 0 {
                self.keep_pace(&workflow, step);
            }
        }
    }
}
