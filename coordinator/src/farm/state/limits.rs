//! Who may not have more nodes at a time: shows and jobs by their own word, and everybody by what there is only so
//! much of: licences, quotas of a service.

use std::fmt;

use rustc_hash::FxHashMap as HashMap;

use crate::farm::{
    model::{
        ids::{JobId, NodeName},
        job::Job,
        node::Node,
    },
    state::Farm,
};

/// By name, the nodes that hold something, and with how many chunks.
#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct Holders(HashMap<String, HashMap<NodeName, u32>>);

impl Holders {
    pub(in crate::farm) fn begins(&mut self, name: &str, node: &NodeName) {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), HashMap::default());
        }
        if let Some(nodes) = self.0.get_mut(name) {
            *nodes.entry(node.clone()).or_insert(0) += 1;
        }
    }

    pub(in crate::farm) fn ends(&mut self, name: &str, node: &NodeName) {
        let Some(nodes) = self.0.get_mut(name) else {
            debug_assert!(false, "nobody holds {name}");
            return;
        };
        debug_assert!(nodes.contains_key(node), "{node} does not hold {name}");
        if let Some(chunks) = nodes.get_mut(node) {
            *chunks -= 1;
            if *chunks == 0 {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            self.0.remove(name);
        }
    }

    fn nodes(&self, name: &str) -> impl Iterator<Item = &NodeName> {
        self.0.get(name).into_iter().flat_map(HashMap::keys)
    }

    /// How many but this one hold it.
    pub(in crate::farm) fn others(&self, name: &str, node: &NodeName) -> usize {
        self.0.get(name).map_or(0, |nodes| nodes.len() - usize::from(nodes.contains_key(node)))
    }

    /// How many hold each; for the invariants.
    pub(in crate::farm) fn all(&self) -> impl Iterator<Item = (&String, usize)> {
        self.0.iter().map(|(name, nodes)| (name, nodes.len()))
    }

    /// Whether one more node, this one, may hold it where `most` may; 0: any number.
    pub(in crate::farm) fn has_room(&self, name: &str, most: usize, node: &NodeName) -> bool {
        // Beyond the limit, after a node has come back with a chunk of its own, nobody gets more.
        let has = |nodes: &HashMap<NodeName, u32>| {
            nodes.len() < most || nodes.len() == most && nodes.contains_key(node)
        };
        most == 0 || self.0.get(name).is_none_or(has)
    }
}

/// What keeps a node from a job's chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::farm) enum Bar {
    Show { most: usize },
    Job { most: usize },
    Farm { limit: String, most: usize },
    Host { limit: String, most: usize },
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Show { most } => write!(f, "its show has as many nodes as it may ({most})"),
            Self::Job { most } => write!(f, "it has as many nodes as it may ({most})"),
            Self::Farm { limit, most } => write!(f, "all {most} of {limit} are in use"),
            Self::Host { limit, most } => {
                write!(f, "every host that could run it uses {most} of {limit} already")
            }
        }
    }
}

impl Farm {
    /// Whether the job may have this node as well.
    pub(in crate::farm) fn has_room(&self, job: &Job, node: &Node) -> Result<(), Bar> {
        let (show, name) = (&job.spec.show, &node.about.name);
        let most = self.policy(show).max_nodes;
        if !self.holders.has_room(show, most, name) {
            return Err(Bar::Show { most });
        }
        let terms = &job.spec.terms;
        if terms.max_nodes > 0 {
            let nodes = self.nodes_of(job);
            if nodes.len() > terms.max_nodes || nodes.len() == terms.max_nodes && !nodes.contains(&name) {
                return Err(Bar::Job { most: terms.max_nodes });
            }
        }
        for limit in &terms.limits {
            let Some(policy) = self.config.limits.get(limit) else { continue };
            if !self.in_use.has_room(limit, policy.farm, name) {
                return Err(Bar::Farm { limit: limit.clone(), most: policy.farm });
            }
            if policy.host > 0 {
                let of_host = |other: &&NodeName| {
                    *other != name
                        && self.nodes.get(*other).is_some_and(|other| other.about.host == node.about.host)
                };
                if self.in_use.nodes(limit).filter(of_host).count() >= policy.host {
                    return Err(Bar::Host { limit: limit.clone(), most: policy.host });
                }
            }
        }
        Ok(())
    }

    /// The nodes that are at the job's chunks.
    pub(in crate::farm) fn nodes_of(&self, job: &Job) -> Vec<&NodeName> {
        let held = job.running.iter().filter_map(|attempt| self.attempts.get(attempt));
        let mut nodes: Vec<&NodeName> =
            held.filter(|held| held.work.is_chunk()).map(|held| &held.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// A chunk of the job is on the node from now on.
    pub(in crate::farm) fn chunk_begins(&mut self, id: JobId, name: &NodeName) {
        let Some(job) = self.jobs.get(&id) else { return };
        self.holders.begins(&job.spec.show, name);
        self.classes.begins(job.class);
        for limit in &job.spec.terms.limits {
            self.in_use.begins(limit, name);
        }
    }

    /// It is not any more.
    pub(in crate::farm) fn chunk_ends(&mut self, id: JobId, name: &NodeName) {
        let Some(job) = self.jobs.get(&id) else { return };
        self.holders.ends(&job.spec.show, name);
        self.classes.ends(job.class);
        for limit in &job.spec.terms.limits {
            self.in_use.ends(limit, name);
        }
    }
}
