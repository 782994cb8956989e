//! The number of a new version: one more than the highest that is there or on its way.

use std::{collections::HashSet, fs, io};

use hearth_storage::{Roots, RootsError};
use hearth_workflows::{RootPath, path::PathError};

/// An output whose last part has hashes for the version's number: `comps/sh010/v###`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versions {
    /// Everything before the number.
    prefix: String,
    digits: usize,
    suffix: String,
}

impl Versions {
    /// `None`: the output names itself.
    pub(crate) fn of(output: &str) -> Option<Self> {
        let name = output.rfind('/').map_or(0, |at| at + 1);
        let first = output[name..].find('#')? + name;
        let digits = output[first..].chars().take_while(|c| *c == '#').count();
        let suffix = output[first + digits..].to_owned();
        Some(Self { prefix: output[..first].to_owned(), digits, suffix })
    }

    /// What the names of all of them start with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn at(&self, number: u64) -> String {
        let Self { prefix, digits, suffix } = self;
        format!("{prefix}{number:0digits$}{suffix}")
    }

    fn number(&self, output: &str) -> Option<u64> {
        output.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?.parse().ok()
    }

    /// The next one after all that lie on storage and all that are `taken` by jobs. Blocks on storage.
    pub(crate) fn next(&self, roots: &Roots, taken: &HashSet<String>) -> Result<RootPath, VersionError> {
        let first: RootPath = self.at(1).parse().map_err(VersionError::Path)?;
        let parent = self.prefix.rfind('/').map_or("", |at| &self.prefix[..=at]);
        let folder = roots.resolve(&first).map_err(VersionError::Roots)?;
        let mut highest = taken.iter().filter_map(|output| self.number(output)).max().unwrap_or(0);
        match folder.parent().map(fs::read_dir) {
            Some(Ok(entries)) => {
                for entry in entries {
                    let name = entry.map_err(VersionError::Read)?.file_name();
                    let name = format!("{parent}{}", name.to_string_lossy());
                    highest = highest.max(self.number(&name).unwrap_or(0));
                }
            }
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(VersionError::Read(error));
            }
            _ => {}
        }
        self.at(highest + 1).parse().map_err(VersionError::Path)
    }
}

/// Why there is no next version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionError {
    #[error("output path")]
    Path(#[source] PathError),
    #[error("output")]
    Roots(#[source] RootsError),
    #[error("the output's folder cannot be listed for its versions")]
    Read(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_version_is_one_more_than_any() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut roots = Roots::default();
        roots.insert("comps", dir.path().to_owned());
        let next = |taken: &[&str]| {
            let taken = taken.iter().map(|taken| (*taken).to_owned()).collect();
            let versions = Versions::of("comps/sh010/v###").expect("hashes");
            versions.next(&roots, &taken).expect("a version").to_string()
        };
        assert_eq!(next(&[]), "comps/sh010/v001");
        for name in ["v001", "v003", "v0x", "w009", "v002_old"] {
            fs::create_dir_all(dir.path().join("sh010").join(name)).expect("folder");
        }
        assert_eq!(next(&[]), "comps/sh010/v004");
        assert_eq!(next(&["comps/sh010/v007", "comps/sh020/v050"]), "comps/sh010/v008");
        assert_eq!(next(&["comps/sh010/v1234"]), "comps/sh010/v1235");
        assert_eq!(Versions::of("comps/##/v001"), None);
    }
}
