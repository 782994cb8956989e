//! Nodes and the indexes that lead to them: which are open, which are ready, what each has loaded.

use hearth_workflows::WorkflowId;

use crate::farm::{
    model::{
        ids::{NodeName, Session},
        node::Node,
    },
    state::Farm,
};

impl Farm {
    /// Puts the node into the set of open nodes, or takes it out, and counts it as ready or not. Must be
    /// called after every change of its session, slots, drain or chunks.
    pub(in crate::farm) fn reopen(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let ready = node.is_ready();
        if ready != std::mem::replace(&mut node.counted_ready, ready) {
            let kind = node.capabilities.device.clone();
            if ready {
                node.counted_kind = Some(kind.clone());
                *self.ready_kinds.entry(kind).or_insert(0) += 1;
            } else if let Some(kind) = node.counted_kind.take()
                && let Some(count) = self.ready_kinds.get_mut(&kind)
            {
                *count -= 1;
                if *count == 0 {
                    self.ready_kinds.remove(&kind);
                }
            }
            self.ready = if ready { self.ready + 1 } else { self.ready - 1 };
            self.able_changed = true;
        }
        if node.session.is_none() {
            // Its ComfyUI may be another one when it comes back.
            self.set_loaded(name, None);
        }
        self.share_out(name);
        let Some(node) = self.nodes.get_mut(name) else { return };
        let at = node.is_open().then_some(node.chunks.len());
        if at == node.open_at {
            return;
        }
        if let Some(before) = std::mem::replace(&mut node.open_at, at) {
            self.open.remove(&(before, name.clone()));
        }
        if let Some(at) = at {
            self.open.insert((at, name.clone()));
        }
    }

    /// The node has the models of this workflow loaded, or will have them when it is through with what it holds.
    pub(in crate::farm) fn set_loaded(&mut self, name: &NodeName, loaded: Option<WorkflowId>) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.loaded != loaded {
            let before = std::mem::replace(&mut node.loaded, loaded.clone());
            if let Some(known) = before.and_then(|before| self.workflows.get_mut(&before)) {
                known.loaded_on -= 1;
            }
            if let Some(known) = loaded.and_then(|loaded| self.workflows.get_mut(&loaded)) {
                known.loaded_on += 1;
            }
        }
    }

    pub(in crate::farm) fn drop_node(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.session = None;
            self.reopen(name);
            self.nodes.remove(name);
            self.workflows.values_mut().for_each(|known| known.pace.forget(name));
        }
    }

    /// The node, if this session of it is the present one.
    pub(in crate::farm) fn current(&mut self, session: Session, name: &NodeName) -> Option<&mut Node> {
        self.nodes.get_mut(name).filter(|node| node.session == Some(session))
    }
}
