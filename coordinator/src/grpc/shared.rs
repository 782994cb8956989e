//! Sets of names that nodes have in common, each kept once: ten thousand nodes with the same hundreds of node
//! classes would fill the memory otherwise.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use hearth_proto::names;

/// The sets that some node has at present, by digest. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SharedNames(Arc<Mutex<HashMap<String, Weak<HashSet<String>>>>>);

impl SharedNames {
    /// The set of this digest, if some node has it.
    pub(super) fn get(&self, digest: &str) -> Option<Arc<HashSet<String>>> {
        if digest.is_empty() {
            return Some(Arc::default());
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest)?.upgrade()
    }

    /// The set of these names, the one that is kept already if there is one; and its digest, which is made here,
    /// so that no node can say something else under it.
    pub(super) fn keep(&self, names: Vec<String>) -> (String, Arc<HashSet<String>>) {
        let digest = names::digest(names.iter().map(String::as_str));
        if let Some(known) = self.get(&digest) {
            return (digest, known);
        }
        let names = Arc::new(names.into_iter().collect());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, names| names.strong_count() > 0);
        kept.insert(digest.clone(), Arc::downgrade(&names));
        (digest, names)
    }
}
