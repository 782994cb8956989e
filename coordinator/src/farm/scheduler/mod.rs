//! Dispatch: what runs next, decided once for each command, after everything that the command changes has changed.
//!
//! Handlers never hand out work: they mark what they have touched, and [`Farm::dispatch`] looks at that.

pub(in crate::farm) mod carve;
pub(in crate::farm) mod choose;
pub(in crate::farm) mod fit;
pub(in crate::farm) mod hand_out;
pub(in crate::farm) mod help;
pub(in crate::farm) mod preempt;

use crate::farm::{
    model::{command::Step, ids::Timestamp},
    state::Farm,
};

impl Farm {
    /// Hands out work to what was touched: chores, then chunks, then what preemption frees, then what is late elsewhere.
    pub(in crate::farm) fn dispatch(&mut self, now: Timestamp, step: &mut Step) {
        let mut touched = std::mem::take(&mut self.touched);
        debug_assert!(touched.jobs.is_empty(), "jobs are settled before anything is handed out");
        debug_assert!(
            step.changes.iter().all(|key| self.is_indexed(key)),
            "an index does not say what has changed: {:?}",
            step.changes.iter().find(|key| !self.is_indexed(key))
        );
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
        if touched.idle {
            self.help_out(now, step);
        }
        debug_assert!(self.touched.is_empty(), "handing out work has touched something: {:?}", self.touched);
        // Its memory serves the next command.
        touched.clear();
        self.touched = touched;
    }
}
