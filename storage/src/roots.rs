//! Named roots: jobs say `plates/sh010/…`, each host says where `plates` is.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use hearth_workflows::{RootPath, SequencePath};
use serde::{Deserialize, Serialize};

/// Why a path on shared storage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("no storage root '{root}' on this host; it has {known}")]
    Unknown { root: String, known: String },
    #[error("storage root {root} ({path}) cannot be reached; is it mounted?")]
    Unreachable { root: String, path: PathBuf, source: io::Error },
    #[error("{path} leads out of storage root {root} through a symbolic link; move the files into the root")]
    Outside { path: String, root: String },
    #[error("{path} is a symbolic link that leads out of every storage root; put the file itself there")]
    LinksOut { path: PathBuf },
    #[error("'{text}' is no storage root; write it as name=/absolute/path")]
    Syntax { text: String },
}

/// The roots of this host, by name. Read from a table (`plates = "/mnt/plates"`) or from text
/// (`plates=/mnt/plates,comps=/mnt/comps`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RootsText")]
pub struct Roots(BTreeMap<String, PathBuf>);

#[derive(Deserialize)]
#[serde(untagged)]
enum RootsText {
    Text(String),
    Table(BTreeMap<String, PathBuf>),
}

impl TryFrom<RootsText> for Roots {
    type Error = RootsError;

    fn try_from(text: RootsText) -> Result<Self, RootsError> {
        match text {
            RootsText::Text(text) => text.parse(),
            RootsText::Table(table) => Ok(Self(table)),
        }
    }
}

impl Roots {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn insert(&mut self, name: &str, path: impl Into<PathBuf>) {
        self.0.insert(name.to_owned(), path.into());
    }

    /// Where `path` lies on this host. It need not exist; what of it exists must lie inside the root.
    pub fn resolve(&self, path: &RootPath) -> Result<PathBuf, RootsError> {
        self.inside(path.root(), path.below_root(), path.as_str())
    }

    /// The folder of a sequence on this host.
    pub fn folder(&self, sequence: &SequencePath) -> Result<PathBuf, RootsError> {
        self.inside(sequence.root(), sequence.folder_below_root(), &sequence.to_string())
    }

    /// A root's own folder on this host.
    pub fn root(&self, name: &str) -> Result<PathBuf, RootsError> {
        self.inside(name, "", name)
    }

    fn inside(&self, root: &str, below: &str, shown: &str) -> Result<PathBuf, RootsError> {
        let base = self.0.get(root).ok_or_else(|| RootsError::Unknown {
            root: root.to_owned(),
            known: if self.0.is_empty() {
                "none".to_owned()
            } else {
                self.names().collect::<Vec<_>>().join(", ")
            },
        })?;
        let real_base = base.canonicalize().map_err(|source| RootsError::Unreachable {
            root: root.to_owned(),
            path: base.clone(),
            source,
        })?;
        let whole = base.join(below);
        // A symbolic link can sit in any part that exists already, dangling links included.
        let existing = whole.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(base);
        match existing.canonicalize() {
            Ok(real) if real.starts_with(&real_base) => Ok(whole),
            _ => Err(RootsError::Outside { path: shown.to_owned(), root: root.to_owned() }),
        }
    }

    /// Refuses a file that is a symbolic link to somewhere outside every root.
    pub fn check_link(&self, file: &Path) -> Result<(), RootsError> {
        if !file.is_symlink() {
            return Ok(());
        }
        let inside = file.canonicalize().is_ok_and(|real| {
            self.0.values().any(|base| base.canonicalize().is_ok_and(|base| real.starts_with(base)))
        });
        let outside = || RootsError::LinksOut { path: file.to_owned() };
        if inside { Ok(()) } else { Err(outside()) }
    }

    /// The root-relative name of an absolute path on this host; `None` when it lies in no root.
    pub fn name_of(&self, path: &Path) -> Option<String> {
        self.0.iter().find_map(|(name, base)| {
            let below = path.strip_prefix(base).ok()?;
            Some(format!("{name}/{}", below.to_str()?))
        })
    }
}

/// `name=/path,name=/path`, as in flags and environment variables.
impl FromStr for Roots {
    type Err = RootsError;

    fn from_str(text: &str) -> Result<Self, RootsError> {
        let mut roots = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let syntax = || RootsError::Syntax { text: part.to_owned() };
            let (name, path) = part.split_once('=').ok_or_else(syntax)?;
            let plain = !name.is_empty() && !name.contains(['/', '\\', '.']);
            if !plain || !Path::new(path).is_absolute() {
                return Err(syntax());
            }
            roots.insert(name, path);
        }
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_link_does_not_lead_out() {
        let dir = tempfile::tempdir().expect("tempdir");
        let base = dir.path().join("plates");
        std::fs::create_dir_all(base.join("sh010")).expect("mkdir");
        std::os::unix::fs::symlink("/etc", base.join("out")).expect("symlink");
        std::os::unix::fs::symlink("/nowhere/at/all", base.join("dangling")).expect("symlink");
        std::os::unix::fs::symlink(base.join("sh010"), base.join("same")).expect("symlink");
        let mut roots = Roots::default();
        roots.insert("plates", &base);
        for good in ["plates/sh010", "plates/sh010/new/deep", "plates/same/x"] {
            assert!(roots.resolve(&good.parse().expect("path")).is_ok(), "{good}");
        }
        for bad in ["plates/out", "plates/out/passwd", "plates/dangling/x", "other/x"] {
            assert!(roots.resolve(&bad.parse().expect("path")).is_err(), "{bad}");
        }
    }
}
