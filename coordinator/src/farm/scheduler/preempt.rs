//! An urgent job does not wait behind what has not begun, and, where a show allows it, not behind what has.

use crate::farm::{
    model::{
        attempt::Attempt,
        command::Step,
        ids::{AttemptId, JobId, NodeName, Timestamp},
        node::Node,
    },
    state::{Farm, touched::Touched},
};

impl Farm {
    /// Nodes give back chunks that wait behind another, so that urgent jobs come next; and if that gives an urgent
    /// job no node at all, the running chunk that loses least is interrupted, of the shows that allow it.
    pub(in crate::farm) fn make_room(&mut self, now: Timestamp, step: &mut Step) {
        if !self.queue.has_urgent() {
            return;
        }
        let urgent: Vec<JobId> =
            self.queue.jobs().filter(|(level, _)| level.is_urgent()).map(|(_, job)| job).collect();
        for id in urgent {
            let waiting = |farm: &Self| {
                farm.jobs.get(&id).filter(|job| job.wants_chunk()).map_or(0, |job| job.waiting.len())
            };
            for (_, behind) in self.behind_others(now, id) {
                let before = waiting(self);
                if before == 0 {
                    break;
                }
                self.preempt(now, behind, "an urgent job goes first", step);
                if waiting(self) == before {
                    // Those who are at it end it sooner.
                    break;
                }
            }
            let idle = self.jobs.get(&id).is_some_and(|job| job.wants_chunk() && job.running.is_empty());
            if idle && let Some(victim) = self.cheapest_to_interrupt(now, id) {
                self.preempt(now, victim, "an urgent job interrupts it", step);
            }
        }
    }

    /// Takes an attempt back and gives its node what is best for it now.
    fn preempt(&mut self, now: Timestamp, id: AttemptId, reason: &'static str, step: &mut Step) {
        let Some(name) = self.attempts.get(&id).map(|attempt| attempt.node.clone()) else { return };
        self.withdraw(now, id, reason, step);
        self.rank(id.job);
        self.touched = Touched::default();
        self.fill_node(now, &name, step);
    }

    /// Chunks that have not begun on nodes that could have one of the job, those first whose node is free first.
    fn behind_others(&self, now: Timestamp, id: JobId) -> Vec<(u64, AttemptId)> {
        let mut found: Vec<(u64, AttemptId)> = Vec::new();
        for name in self.could_run(id) {
            let Some(node) = self.nodes.get(name) else { continue };
            let mut held: Vec<(Timestamp, AttemptId)> =
                node.chunks.iter().filter_map(|id| Some((self.attempts.get(id)?.assigned, *id))).collect();
            held.sort_unstable();
            let (Some((_, first)), Some((_, last))) = (held.first(), held.last()) else { continue };
            let is_urgent = self.jobs.get(&last.job).is_some_and(|job| job.spec.urgent);
            if held.len() < 2 || is_urgent {
                continue;
            }
            let milliseconds = (self.seconds_left(now, *first) * 1000.0) as u64;
            found.push((milliseconds, *last));
        }
        found.sort_unstable();
        found
    }

    /// Of the chunks that may be interrupted for the job, the one that was begun last.
    fn cheapest_to_interrupt(&self, now: Timestamp, id: JobId) -> Option<AttemptId> {
        let nodes = self.could_run(id).filter_map(|name| self.nodes.get(name));
        let held = nodes.flat_map(|node| &node.chunks).filter_map(|id| Some((*id, self.attempts.get(id)?)));
        let may_go = |victim: &AttemptId| {
            let job = self.jobs.get(&victim.job);
            job.is_some_and(|job| !job.spec.urgent && self.policy(&job.spec.show).preemptible)
        };
        let cost = |attempt: &Attempt| now.since(attempt.assigned);
        held.filter(|(id, _)| may_go(id)).min_by_key(|(id, attempt)| (cost(attempt), *id)).map(|(id, _)| id)
    }

    fn could_run(&self, id: JobId) -> impl Iterator<Item = &NodeName> {
        let class = self.jobs.get(&id).map(|job| job.class);
        let fits = move |node: &&Node| {
            node.is_ready() && class.is_some_and(|class| node.fits.get(&class) == Some(&Ok(())))
        };
        self.nodes.values().filter(fits).map(|node| &node.about.name)
    }
}
