//! Jobs with frames to hand out, in the order in which they may have a node: urgent ones first, then by show, and
//! within a show by priority. Jobs that need the same of a node stand together, so that what does not fit a node is
//! passed over at once.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::farm::model::ids::{ClassId, JobId, Priority};

/// Urgent before all others, then by priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::farm) struct Level(Reverse<(bool, Priority)>);

impl Level {
    pub(in crate::farm) fn new(urgent: bool, priority: Priority) -> Self {
        Self(Reverse((urgent, priority)))
    }

    pub(in crate::farm) fn is_urgent(self) -> bool {
        self.0.0.0
    }

    pub(in crate::farm) fn priority(self) -> Priority {
        self.0.0.1
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::farm) struct Place {
    pub(in crate::farm) show: String,
    pub(in crate::farm) level: Level,
    pub(in crate::farm) class: ClassId,
    pub(in crate::farm) user: String,
}

/// Jobs of one level, first come first, by whose they are and what they need.
pub(in crate::farm) type AtLevel = BTreeMap<(String, ClassId), BTreeSet<JobId>>;

#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct Queue {
    shows: BTreeMap<String, BTreeMap<Level, AtLevel>>,
    len: usize,
    urgent: usize,
}

impl Queue {
    pub(in crate::farm) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(in crate::farm) fn has_urgent(&self) -> bool {
        self.urgent > 0
    }

    pub(in crate::farm) fn insert(&mut self, place: &Place, job: JobId) {
        let show = self.shows.entry(place.show.clone()).or_default();
        let level = show.entry(place.level).or_default();
        let jobs = level.entry((place.user.clone(), place.class)).or_default();
        let new = usize::from(jobs.insert(job));
        self.len += new;
        self.urgent += if place.level.is_urgent() { new } else { 0 };
    }

    pub(in crate::farm) fn remove(&mut self, place: &Place, job: JobId) {
        let Some(show) = self.shows.get_mut(&place.show) else { return };
        let Some(level) = show.get_mut(&place.level) else { return };
        let key = (place.user.clone(), place.class);
        let Some(jobs) = level.get_mut(&key) else { return };
        let gone = usize::from(jobs.remove(&job));
        self.len -= gone;
        self.urgent -= if place.level.is_urgent() { gone } else { 0 };
        // What is empty is not looked through again and again.
        if jobs.is_empty() {
            level.remove(&key);
        }
        if level.is_empty() {
            show.remove(&place.level);
        }
        if show.is_empty() {
            self.shows.remove(&place.show);
        }
    }

    pub(in crate::farm) fn contains(&self, place: &Place, job: JobId) -> bool {
        let level = self.shows.get(&place.show).and_then(|show| show.get(&place.level));
        let jobs = level.and_then(|level| level.get(&(place.user.clone(), place.class)));
        jobs.is_some_and(|jobs| jobs.contains(&job))
    }

    pub(in crate::farm) fn has_show(&self, show: &str) -> bool {
        self.shows.contains_key(show)
    }

    /// Every show with its levels, best first.
    pub(in crate::farm) fn shows(&self) -> impl Iterator<Item = (&String, &BTreeMap<Level, AtLevel>)> {
        self.shows.iter()
    }

    /// Every job, in no order.
    pub(in crate::farm) fn jobs(&self) -> impl Iterator<Item = (Level, JobId)> {
        let levels = self.shows.values().flatten();
        levels.flat_map(|(level, classes)| classes.values().flatten().map(|job| (*level, *job)))
    }
}
