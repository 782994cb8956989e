//! What shows and users have had lately, in GPU seconds that fade: who had little goes first.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rustc_hash::FxHashMap as HashMap;
use serde::{Deserialize, Serialize};

use crate::farm::{
    model::{
        command::Step,
        ids::{NodeName, Timestamp},
        key::Key,
        node::Node,
        spec::JobSpec,
    },
    state::Farm,
};

/// How often what shows have had is written down.
const KEEP_SHARES: Duration = Duration::from_secs(60);

/// Shows and users that are remembered after their last job; those that used least are forgotten first.
const KEPT: usize = 10_000;

/// Seconds of which half count after each half-life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Faded {
    seconds: f64,
    at: Timestamp,
}

impl Faded {
    fn at(self, now: Timestamp, half_life: Duration) -> f64 {
        let age = now.since(self.at).as_secs_f64() / half_life.as_secs_f64().max(1.0);
        self.seconds * 0.5_f64.powf(age)
    }

    fn add(&mut self, now: Timestamp, half_life: Duration, seconds: f64) {
        // What was charged too much is given back; nobody is owed more than nothing.
        *self = Self { seconds: (self.at(now, half_life) + seconds).max(0.0), at: now };
    }
}

/// What everybody has had.
#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct Shares {
    shows: HashMap<String, Faded>,
    /// By show, then by user.
    users: HashMap<String, HashMap<String, Faded>>,
}

/// What of it is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::farm) struct SharesRecord {
    shows: BTreeMap<String, Faded>,
    /// By show, then by user.
    users: BTreeMap<String, BTreeMap<String, Faded>>,
}

impl Shares {
    pub(in crate::farm) fn record(&self) -> SharesRecord {
        let mut record =
            SharesRecord { shows: self.shows.clone().into_iter().collect(), users: BTreeMap::new() };
        for (show, users) in &self.users {
            record.users.insert(show.clone(), users.clone().into_iter().collect());
        }
        record
    }

    /// Takes over what was kept; who works for whom is known from elsewhere.
    pub(in crate::farm) fn restore(&mut self, record: SharesRecord) {
        self.shows = record.shows.into_iter().collect();
        let users = record.users.into_iter();
        self.users = users.map(|(show, users)| (show, users.into_iter().collect())).collect();
    }

    pub(in crate::farm) fn charge(
        &mut self,
        now: Timestamp,
        half_life: Duration,
        (show, user): (&str, &str),
        seconds: f64,
    ) {
        if let (Some(of_show), Some(of_user)) =
            (self.shows.get_mut(show), self.users.get_mut(show).and_then(|users| users.get_mut(user)))
        {
            of_show.add(now, half_life, seconds);
            of_user.add(now, half_life, seconds);
            return;
        }
        if self.shows.len() + self.users.values().map(HashMap::len).sum::<usize>() > KEPT {
            self.shows.retain(|_, used| used.at(now, half_life) > 1.0);
            self.users.values_mut().for_each(|users| users.retain(|_, used| used.at(now, half_life) > 1.0));
            self.users.retain(|_, users| !users.is_empty());
        }
        self.shows.entry(show.to_owned()).or_default().add(now, half_life, seconds);
        let users = self.users.entry(show.to_owned()).or_default();
        users.entry(user.to_owned()).or_default().add(now, half_life, seconds);
    }

    /// GPU seconds of a show, for each unit of its weight.
    pub(in crate::farm) fn of_show(
        &self,
        now: Timestamp,
        half_life: Duration,
        show: &str,
        weight: f64,
    ) -> f64 {
        self.shows.get(show).map_or(0.0, |used| used.at(now, half_life)) / weight.max(1e-6)
    }

    pub(in crate::farm) fn of_user(
        &self,
        now: Timestamp,
        half_life: Duration,
        show: &str,
        user: &str,
    ) -> f64 {
        let used = self.users.get(show).and_then(|users| users.get(user));
        used.map_or(0.0, |used| used.at(now, half_life))
    }

    /// A show, and a user of it, that had nothing to do has something now: it goes first, but what it has not used
    /// meanwhile is not owed to it. `least`: the least of those who have something to do; `ahead`: how far it may
    /// be before them, both in GPU seconds for each unit of weight.
    pub(in crate::farm) fn wakes(
        &mut self,
        now: Timestamp,
        half_life: Duration,
        show: &str,
        weight: f64,
        (least, ahead): (f64, f64),
    ) {
        let used = self.of_show(now, half_life, show, weight);
        let missing = (least - ahead - used) * weight;
        if missing > 0.0 {
            self.shows.entry(show.to_owned()).or_default().add(now, half_life, missing);
        }
    }
}

/// A whole node.
const WHOLE: f64 = 1000.0;

impl Farm {
    /// GPU seconds, for each unit of weight, that a show may be ahead when it has something to do again.
    pub(in crate::farm) fn slack(&self, weights: f64) -> f64 {
        self.config.share_slack * 3600.0 * self.ready.max(1) as f64 / weights.max(1e-6)
    }

    /// What shows have had outlives this coordinator, but for the last minute.
    pub(in crate::farm) fn keep_shares(&mut self, now: Timestamp, step: &mut Step) {
        if now.since(self.shares_kept_at) < KEEP_SHARES {
            return;
        }
        self.shares_kept_at = now;
        let record = Some(self.shares.record());
        if self.kept_shares != record {
            self.kept_shares = record;
            step.changes.push(Key::Shares);
        }
    }

    /// Finds out anew for whom the node works: for each show a part, by the time that its chunks will take. One that
    /// has a long chunk of one show and after it a short one of another works for the first.
    pub(in crate::farm) fn share_out(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get(name) else { return };
        let chunks = node.chunks.iter().filter(|_| node.is_ready());
        let held: Vec<(&Arc<JobSpec>, f64)> = chunks
            .filter_map(|id| Some((&self.jobs.get(&id.job)?.spec, self.attempts.get(id)?.estimate.seconds)))
            .map(|(spec, seconds)| (spec, seconds.max(1.0)))
            .collect();
        let all: f64 = held.iter().map(|(_, seconds)| seconds).sum();
        let part = |(spec, seconds): (&Arc<JobSpec>, f64)| (spec.clone(), (seconds / all * WHOLE) as u32);
        let now: Vec<(Arc<JobSpec>, u32)> = held.into_iter().map(part).collect();
        for (spec, part) in &now {
            match self.served.get_mut(&spec.show) {
                Some(served) => *served += part,
                None => drop(self.served.insert(spec.show.clone(), *part)),
            }
        }
        let before = self.nodes.get_mut(name).map(|node| std::mem::replace(&mut node.serving, now));
        for (spec, part) in before.into_iter().flatten() {
            let Some(served) = self.served.get_mut(&spec.show) else { continue };
            *served -= part;
            if *served == 0 {
                self.served.remove(&spec.show);
            }
        }
    }

    /// How many nodes but this one work for the show.
    pub(in crate::farm) fn served_by_others(&self, show: &str, node: &Node) -> f64 {
        let of_show = |(spec, _): &&(Arc<JobSpec>, u32)| spec.show == show;
        let own: u32 = node.serving.iter().filter(of_show).map(|(_, part)| part).sum();
        f64::from(self.served.get(show).map_or(0, |served| served - own)) / WHOLE
    }
}
