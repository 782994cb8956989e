//! A node that fails one job after another gets no work for a while, when others have done what it failed: frames
//! and jobs that fail everywhere are nobody's fault.

use crate::farm::{
    model::{
        command::Step,
        ids::{JobId, NodeName, Timestamp},
        key::Key,
        node::Node,
        quarantine::{FailureRun, Quarantine},
    },
    state::Farm,
};

/// So many chunks in a row, of two jobs at least.
const FAILURES: usize = 3;

/// The longest quarantine, as a multiple of the first, by exponent of two.
const LONGEST: u32 = 6;

impl Farm {
    /// Another node has done what this one has failed.
    pub(in crate::farm) fn hold_against(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        id: JobId,
        message: &str,
        step: &mut Step,
    ) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let record = &mut node.record;
        record.failed.push(id);
        let (count, mut jobs) = (record.failed.len(), record.failed.clone());
        jobs.sort_unstable();
        jobs.dedup();
        if node.quarantine.is_some() || count < FAILURES || jobs.len() < 2 {
            return;
        }
        let times = 2_u32.pow(record.quarantines.min(LONGEST));
        record.quarantines += 1;
        // One more failure after it brings the next.
        record.failed.drain(..count - FAILURES);
        let jobs: Vec<String> = jobs.iter().map(JobId::to_string).collect();
        node.quarantine = Some(Quarantine {
            until: now.after(self.config.quarantine.saturating_mul(times)),
            reason: format!(
                "it failed {count} chunks in a row, of jobs {}, which others did well; the latest with: {message}",
                jobs.join(", ")
            ),
            unusable: false,
        });
        step.changes.push(Key::Node(name.clone()));
        self.reopen(name);
    }

    /// The node's ComfyUI cannot be used as it is: one failure says enough.
    pub(in crate::farm) fn set_aside(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        reason: &str,
        step: &mut Step,
    ) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let times = 2_u32.pow(node.record.quarantines.min(LONGEST));
        node.record.quarantines += 1;
        node.quarantine = Some(Quarantine {
            until: now.after(self.config.quarantine.saturating_mul(times)),
            reason: reason.to_owned(),
            unusable: true,
        });
        step.changes.push(Key::Node(name.clone()));
        self.reopen(name);
    }

    /// The node has done something well.
    pub(in crate::farm) fn clear_record(&mut self, name: &NodeName, step: &mut Step) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.record = FailureRun::default();
        if node.quarantine.take().is_some() {
            step.changes.push(Key::Node(name.clone()));
            self.reopen(name);
        }
    }

    /// Nodes whose time is over get work again.
    pub(in crate::farm) fn end_quarantines(&mut self, now: Timestamp, step: &mut Step) {
        let is_over = |node: &&Node| node.quarantine.as_ref().is_some_and(|q| q.until <= now);
        let over: Vec<NodeName> =
            self.nodes.values().filter(is_over).map(|node| node.about.name.clone()).collect();
        for name in over {
            if let Some(node) = self.nodes.get_mut(&name) {
                node.quarantine = None;
            }
            step.changes.push(Key::Node(name.clone()));
            self.reopen(&name);
            self.touched.node(&name);
        }
    }
}
