//! Names that a submission takes from the farm: pools, limits, shows. One that is misspelt would wait for ever, or count
//! for nobody.

use std::collections::BTreeSet;

use crate::farm::state::Farm;

/// Letters in which a misspelt name differs from what was meant, at most.
const SLIPS: usize = 2;

/// Bytes of a name that may be a slip: comparing takes time and memory with the square of them.
const LONGEST: usize = 256;

/// A name that nothing on the farm has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownName {
    #[error("no node is in pool '{name}'{}; submit it anyway with --anyway if one will be", meant(near.as_deref()))]
    Pool { name: String, near: Option<String> },
    #[error(
        "the farm has no limit '{name}'{}; configure it in [limits], or submit the job anyway with --anyway, without it",
        meant(near.as_deref())
    )]
    Limit { name: String, near: Option<String> },
}

fn meant(near: Option<&str>) -> String {
    near.map_or(String::new(), |near| format!(" (is '{near}' meant?)"))
}

/// What is nearest to `name`, if that is near.
fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let length = name.chars().count();
    if name.len() > LONGEST {
        return None;
    }
    let known = known.into_iter().filter(|known| known.chars().count().abs_diff(length) <= SLIPS);
    let slips = |known: &&str| strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase());
    let nearest = known.min_by_key(slips)?;
    (slips(&nearest) <= SLIPS.min(length / 2)).then(|| nearest.to_owned())
}

impl Farm {
    /// The first of the pools and limits that nothing on the farm has. A farm that has met no node yet knows no pools.
    pub fn unknown_name(&self, pool: &str, limits: &[String]) -> Option<UnknownName> {
        let pools: BTreeSet<&str> =
            self.nodes.values().flat_map(|node| &node.capabilities.pools).map(String::as_str).collect();
        let mut wanted = pool.split('+').map(str::trim).filter(|name| !name.is_empty());
        let unknown = wanted.find(|name| !pools.contains(name.strip_prefix('!').unwrap_or(name)));
        if let Some(name) = unknown.filter(|_| !self.nodes.is_empty()) {
            let name = name.strip_prefix('!').unwrap_or(name);
            return Some(UnknownName::Pool { name: name.to_owned(), near: near(name, pools) });
        }
        let name = limits.iter().find(|name| !self.config.limits.contains_key(*name))?;
        let known = self.config.limits.keys().map(String::as_str);
        Some(UnknownName::Limit { name: name.clone(), near: near(name, known) })
    }

    /// The show that may be meant where this one is new to the farm.
    pub fn show_like(&self, show: &str) -> Option<String> {
        let mut of_jobs = self.jobs.values().map(|job| job.spec.show.as_str());
        // Of many thousand jobs, one of the same show is soon found.
        if show.is_empty() || self.config.shows.contains_key(show) || of_jobs.any(|known| known == show) {
            return None;
        }
        let of_jobs = self.jobs.values().map(|job| job.spec.show.as_str()).filter(|known| !known.is_empty());
        let known: BTreeSet<&str> = of_jobs.chain(self.config.shows.keys().map(String::as_str)).collect();
        near(show, known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_near() {
        let known = ["comp", "desktop", "a100"];
        assert_eq!(near("cmop", known).as_deref(), Some("comp"));
        assert_eq!(near("Desktop", known).as_deref(), Some("desktop"));
        assert_eq!(near("roto", known), None);
        assert_eq!(near("x", known), None);
        assert_eq!(near(&"x".repeat(10_000_000), known), None);
    }
}
