//! Which job a node gets next.
//!
//! Urgent jobs come first. Then the show that has the fewest nodes for its share, counting what it has had lately; in
//! it the highest priority, in that the user who has had least, and then first come, first served. A node goes on
//! with the models that it has loaded while no show is behind by more than a few nodes, or a tenth of its own, and
//! loads others only for as much work as is worth it. What only few nodes can run goes first on those.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use crate::farm::{
    model::{
        attempt::Work,
        command::Step,
        ids::{JobId, NodeName, Timestamp},
        node::Node,
    },
    scheduler::{
        carve::chunk_size,
        fit::{Candidate, Fit, apart},
    },
    state::{
        Farm,
        queue::{AtLevel, Level},
    },
};

/// A show without its least number of nodes goes before all others.
const SHORT: f64 = 1e9;

/// Seconds in which a show is given what it had too little of, as far as that is no more than this part of what
/// it is due anyway.
const MAKE_UP: f64 = 600.0;

const MAKE_UP_PART: f64 = 0.05;

/// By how many nodes a show must be behind another for a node to load other models for it, where there is enough for
/// that, and where it only helps; but never by more than a part of what it is due.
const BEHIND: f64 = 2.5;

const FAR_BEHIND: f64 = 4.0;

const BEHIND_PART: f64 = 0.1;

impl Farm {
    /// Gives work to every open node, the least busy first, so that a small job spreads out before any
    /// node gets a second chunk.
    pub(in crate::farm) fn fill_open(&mut self, now: Timestamp, step: &mut Step) {
        let mut from: Option<(usize, NodeName)> = None;
        while !self.queue.is_empty() {
            let next = match &from {
                None => self.open.first(),
                Some(from) => {
                    self.open.range((std::ops::Bound::Excluded(from), std::ops::Bound::Unbounded)).next()
                }
            };
            let Some(place) = next.cloned() else { break };
            // A node that got a chunk and is still open stands further back now, and is met again.
            self.assign_one(now, &place.1, step);
            from = Some(place);
        }
    }

    /// Gives one node what it has room for.
    pub(in crate::farm) fn fill_node(&mut self, now: Timestamp, name: &NodeName, step: &mut Step) {
        while self.nodes.get(name).is_some_and(Node::is_open) && self.assign_one(now, name, step) {}
        if !self.behind.all().is_empty() {
            self.take_over(now, name, false, step);
        }
    }

    /// Hands one chunk to the node; false when there is none for it.
    fn assign_one(&mut self, now: Timestamp, name: &NodeName, step: &mut Step) -> bool {
        self.look_what_fits(name);
        if !self.late.is_empty() && self.assign_spare(now, name, step) {
            return true;
        }
        if !self.behind.urgent().is_empty() && self.take_over(now, name, true, step) {
            return true;
        }
        let Some(Candidate { job: id, .. }) = self.choose(now, name) else { return false };
        let size = self.jobs.get(&id).zip(self.nodes.get(name));
        let size = size.and_then(|(job, node)| chunk_size(self, job, node));
        let Some(count) = size else { return false };
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        let Some(render) = job.spec.render() else { return false };
        let Some(known) = self.workflows.get(&render.workflow) else { return false };
        let split = render.split(&known.workflow);
        let shape = known.workflow.manifest().shape();
        let all_alike = job.suspects.is_empty() && job.spec.terms.first.is_empty() && job.blocked.is_empty();
        let frames = if all_alike {
            split.carve(&mut job.waiting, count, shape)
        } else {
            let Some((mut apart, count)) = apart(job, now, name, count) else { return false };
            let frames = split.carve(&mut apart, count, shape);
            job.waiting.remove_all(&frames);
            job.suspects.remove(&frames);
            frames
        };
        self.hand_out(now, name, id, Work::Chunk(frames), step);
        true
    }

    /// The best job for this node.
    fn choose(&self, now: Timestamp, name: &NodeName) -> Option<Candidate> {
        let node = self.nodes.get(name)?;
        let urgent = if self.queue.has_urgent() { self.choose_among(now, node, true) } else { None };
        urgent.or_else(|| self.choose_among(now, node, false))
    }

    fn choose_among(&self, now: Timestamp, node: &Node, urgent: bool) -> Option<Candidate> {
        let wanted =
            |levels: &BTreeMap<Level, AtLevel>| levels.keys().any(|level| level.is_urgent() == urgent);
        let shows: Vec<_> = self.queue.shows().filter(|(_, levels)| wanted(levels)).collect();
        let due = self.due(now, shows.iter().map(|(show, _)| show.as_str()));
        let mut by_due: Vec<_> = shows
            .into_iter()
            .zip(due)
            .map(|((show, levels), due)| {
                // The node itself is not counted: it is the one to be given.
                let short = self.holders.others(show, &node.about.name) < self.policy(show).min_nodes;
                let behind = due - self.served_by_others(show, node) + if short { SHORT } else { 0.0 };
                (behind, due, show, levels)
            })
            .collect();
        by_due.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best: Option<(f64, Candidate)> = None;
        for (behind, due, show, levels) in by_due {
            if best.as_ref().is_some_and(|(highest, _)| *highest >= behind) {
                // Nothing that comes now is better, however well it fits.
                break;
            }
            if !self.holders.has_room(show, self.policy(show).max_nodes, &node.about.name) {
                continue;
            }
            // Of a show so little behind only what needs no loading could still be better.
            let far = |nodes: f64, times: f64| nodes.min(BEHIND_PART * times * due.max(0.0));
            let only_fine = best.as_ref().is_some_and(|(highest, _)| *highest >= behind - far(BEHIND, 1.0));
            let found = self.best_of_show(now, node, (show, levels), urgent, only_fine);
            let Some(found) = found else { continue };
            let score = behind
                - match found.fit {
                    Fit::Fine => 0.0,
                    Fit::Worth => far(BEHIND, 1.0),
                    Fit::Helps if found.few => far(BEHIND, 1.0),
                    Fit::Helps => far(FAR_BEHIND, 1.5),
                };
            if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
                best = Some((score, found));
            }
        }
        best.map(|(_, found)| found)
    }

    /// How many nodes each of `shows` should have: its part by weight, and as many more as make up within
    /// [`MAKE_UP`] for what it had too little of lately.
    fn due<'a>(&self, now: Timestamp, shows: impl Iterator<Item = &'a str>) -> Vec<f64> {
        let used = |show: &str| {
            let weight = self.policy(show).weight;
            (weight, self.shares.of_show(now, self.config.half_life, show, weight))
        };
        let used: Vec<(f64, f64)> = shows.map(used).collect();
        let weights: f64 = used.iter().map(|(weight, _)| weight).sum::<f64>().max(1e-6);
        let mean = used.iter().map(|(weight, used)| weight * used).sum::<f64>() / weights;
        let share = |(weight, used): (f64, f64)| {
            let part = self.ready as f64 * weight / weights;
            // What nobody else wanted is held against nobody for long.
            part + ((mean - used) * weight / MAKE_UP).clamp(-MAKE_UP_PART * part, MAKE_UP_PART * part)
        };
        used.into_iter().map(share).collect()
    }

    fn best_of_show(
        &self,
        now: Timestamp,
        node: &Node,
        (show, levels): (&str, &BTreeMap<Level, AtLevel>),
        urgent: bool,
        only_fine: bool,
    ) -> Option<Candidate> {
        let slack = self.slack(1.0) * 2.0;
        if let Some(short) = self.short_of_nodes(now, node, show, urgent) {
            return Some(short);
        }
        let mut best: Option<Candidate> = None;
        for (_, at_level) in levels.iter().filter(|(level, _)| level.is_urgent() == urgent) {
            let mut fitting: Vec<(f64, &BTreeSet<JobId>)> = Vec::new();
            let mut last: Option<(&str, f64)> = None;
            let mut least = f64::INFINITY;
            for ((user, class), jobs) in at_level {
                if node.fits.get(class) != Some(&Ok(())) {
                    continue;
                }
                let used = match last {
                    Some((known, used)) if known == user => used,
                    _ => self.shares.of_user(now, self.config.half_life, show, user),
                };
                last = Some((user, used));
                least = least.min(used);
                if !only_fine || self.needs_no_loading(*class, node) {
                    fitting.push((used, jobs));
                }
            }
            fitting.sort_by(|a, b| a.0.total_cmp(&b.0));
            let ahead = |found: &Candidate| if found.fit == Fit::Fine { 3.0 * slack } else { slack };
            let mut found: Vec<(f64, Candidate)> = Vec::new();
            for (used, jobs) in fitting {
                let least = if only_fine { least } else { found.first().map_or(used, |(used, _)| *used) };
                if used > least + 3.0 * slack {
                    break;
                }
                let candidate = jobs.iter().find_map(|job| self.candidate(now, node, *job));
                found.extend(candidate.map(|candidate| (used, candidate)));
            }
            let least = found.first().map_or(0.0, |(least, _)| *least);
            let fair = found.iter().filter(|(used, found)| *used <= least + ahead(found));
            let order = |a: &Candidate, b: &Candidate| {
                let need = if a.fit == Fit::Helps { b.need.total_cmp(&a.need) } else { Ordering::Equal };
                b.few.cmp(&a.few).then(a.fit.cmp(&b.fit)).then(need).then(a.job.cmp(&b.job))
            };
            let Some((_, candidate)) = fair.min_by(|a, b| order(&a.1, &b.1)) else { continue };
            if best.is_none_or(|best| candidate.fit < best.fit) {
                best = Some(*candidate);
            }
            if candidate.fit <= Fit::Worth || candidate.few {
                break;
            }
        }
        best
    }

    /// A job of the show that has fewer nodes than it wants at least.
    fn short_of_nodes(&self, now: Timestamp, node: &Node, show: &str, urgent: bool) -> Option<Candidate> {
        self.minima.get(show)?.iter().find_map(|id| {
            let job = self.jobs.get(id)?;
            let short = job.spec.urgent == urgent
                && node.fits.get(&job.class) == Some(&Ok(()))
                && self.nodes_of(job).len() < job.spec.terms.min_nodes;
            if short { self.candidate(now, node, *id) } else { None }
        })
    }
}
