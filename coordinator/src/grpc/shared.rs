//! Sets of names that nodes have in common, each kept once: ten thousand nodes with the same hundreds of node
//! classes would fill the memory otherwise.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The sets that some node has at present. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SharedNames(Arc<Mutex<Vec<Weak<HashSet<String>>>>>);

impl SharedNames {
    /// The set of these names: the one that is kept already, if there is one.
    pub(super) fn of(&self, names: Vec<String>) -> Arc<HashSet<String>> {
        let names: HashSet<String> = names.into_iter().collect();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.strong_count() > 0);
        let same = kept.iter().filter_map(Weak::upgrade).find(|kept| **kept == names);
        same.unwrap_or_else(|| {
            let names = Arc::new(names);
            kept.push(Arc::downgrade(&names));
            names
        })
    }
}
