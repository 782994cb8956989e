//! Which storage a submission is for: the ids by which agents know it again.

use std::collections::{BTreeMap, BTreeSet};

use hearth_storage::{Roots, StorageId, marker};
use tracing::warn;

use super::SubmissionError;
use crate::farm::Submission;

/// Ids of storage by root.
pub(super) type StorageIds = BTreeMap<String, StorageId>;

/// Reads the ids of the storage behind these roots; those that have none are left out. Blocks on storage.
pub fn ids(names: &BTreeSet<String>, roots: &Roots) -> StorageIds {
    let read = |root: &String| {
        let id = marker::read(&roots.root(root).ok()?).unwrap_or_else(|error| {
            warn!(root, %error, "the root's marker cannot be read");
            None
        });
        Some((root.clone(), id?))
    };
    names.iter().filter_map(read).collect()
}

/// Gives storage that has no id one. A root that this host cannot write stays unmarked: agents go by what they find
/// there. `known`: ids that the farm's jobs have found before; such a root had one, and never gets another. Blocks on
/// storage.
///
/// # Errors
/// When a root that had an id has none now.
pub fn make_ids(
    names: &BTreeSet<String>,
    roots: &Roots,
    known: &StorageIds,
) -> Result<StorageIds, SubmissionError> {
    let mut made = StorageIds::new();
    for root in names {
        let path = roots.root(root).map_err(SubmissionError::Output)?;
        if known.contains_key(root) {
            return Err(SubmissionError::OtherStorage { root: root.clone(), path });
        }
        match marker::read_or_make(&path) {
            Ok(id) => drop(made.insert(root.clone(), id)),
            Err(error) => {
                warn!(root, %error, "the root cannot be marked; whether agents see the same is not proved");
            }
        }
    }
    Ok(made)
}

/// Notes in every job the ids of the storage that it is for.
pub fn note_ids(submission: &mut Submission, ids: &StorageIds) {
    for job in &mut submission.jobs {
        let of_job: StorageIds =
            job.spec.roots().filter_map(|root| Some((root.to_owned(), ids.get(root)?.clone()))).collect();
        job.spec.storage = of_job;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_marked_once_and_its_marker_is_missed() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut roots = Roots::default();
        roots.insert("comps", dir.path());
        let names = BTreeSet::from(["comps".to_owned()]);
        assert_eq!(ids(&names, &roots), StorageIds::new());
        let made = make_ids(&names, &roots, &StorageIds::new()).expect("marked");
        assert_eq!(ids(&names, &roots), made);
        std::fs::remove_file(dir.path().join(marker::MARKER_FILE)).expect("removed");
        let refused = make_ids(&names, &roots, &made);
        assert!(matches!(refused, Err(SubmissionError::OtherStorage { .. })), "{refused:?}");
        assert!(
            !dir.path().join(marker::MARKER_FILE).exists(),
            "nothing is written to what may be another disk"
        );
    }
}
