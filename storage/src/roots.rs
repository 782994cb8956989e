//! Named roots: jobs say `plates/sh010/…`, each host says where `plates` is.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    str::FromStr,
};

use hearth_workflows::{RootPath, SequencePath};
use rustix::{
    fs::{CWD, Mode, OFlags, mkdirat, openat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::marker::{self, MARKER_FILE, StorageId};

/// Why a path on shared storage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("no storage root '{root}' on this host; it has {known}")]
    Unknown { root: String, known: String },
    #[error("storage root {root} ({path}) cannot be reached; is it mounted?")]
    Unreachable { root: String, path: PathBuf, source: io::Error },
    #[error(
        "storage root {root} ({path}) is not the storage that the job was submitted to: its {MARKER_FILE} is gone, or is that of another; is it mounted?"
    )]
    OtherStorage { root: String, path: PathBuf },
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
#[serde(try_from = "RootsText", into = "BTreeMap<String, PathBuf>")]
pub struct Roots {
    paths: BTreeMap<String, PathBuf>,
    /// By root, the storage that must be there before anything is made below it.
    storage: BTreeMap<String, StorageId>,
}

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
            RootsText::Table(paths) => Ok(Self { paths, storage: BTreeMap::new() }),
        }
    }
}

impl From<Roots> for BTreeMap<String, PathBuf> {
    fn from(roots: Roots) -> Self {
        roots.paths
    }
}

impl Roots {
    /// The same roots for a job that was submitted to this storage: nothing is made where another one is.
    #[must_use]
    pub fn on_storage(&self, storage: BTreeMap<String, StorageId>) -> Self {
        Self { paths: self.paths.clone(), storage }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub fn insert(&mut self, name: &str, path: impl Into<PathBuf>) {
        self.paths.insert(name.to_owned(), path.into());
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

    /// Makes a folder below its root, and what is missing above it. Never makes the root, and makes nothing where
    /// another storage is than the job's: an empty mount point would take what belongs on storage.
    ///
    /// # Errors
    /// When the folder is in no root of this host, or its root is not there, or is another storage.
    pub fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let roots = self.paths.iter().filter(|(_, base)| folder.starts_with(base));
        let (root, base) = roots
            .max_by_key(|(_, base)| base.as_os_str().len())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is in no storage root"))?;
        // Looked at and written through one handle: a mount that drops in between takes the handle with it.
        let opened = open_folder(CWD, base)?;
        if let Some(id) = self.storage.get(root) {
            is_storage(root, base, id, marker::read_in(&opened)).map_err(io::Error::other)?;
        }
        make_in(opened, below(base, folder)?)
    }

    /// Proves that each root that the job uses is the storage that it was submitted to, and not an empty mount point
    /// or another disk.
    ///
    /// # Errors
    /// When a root cannot be reached, or is another storage.
    pub fn prove(&self) -> Result<(), RootsError> {
        self.storage.iter().try_for_each(|(root, id)| {
            let path = self.root(root)?;
            is_storage(root, &path, id, marker::read(&path))
        })
    }

    /// The roots that [`prove`](Self::prove) looks at.
    pub fn proven(&self) -> impl Iterator<Item = &str> {
        self.storage.keys().map(String::as_str)
    }

    fn inside(&self, root: &str, below: &str, shown: &str) -> Result<PathBuf, RootsError> {
        let base = self.paths.get(root).ok_or_else(|| RootsError::Unknown {
            root: root.to_owned(),
            known: if self.paths.is_empty() {
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
            self.paths.values().any(|base| base.canonicalize().is_ok_and(|base| real.starts_with(base)))
        });
        let outside = || RootsError::LinksOut { path: file.to_owned() };
        if inside { Ok(()) } else { Err(outside()) }
    }

    /// The root-relative name of an absolute path on this host; `None` when it lies in no root.
    pub fn name_of(&self, path: &Path) -> Option<String> {
        self.paths.iter().find_map(|(name, base)| {
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

fn is_storage(
    root: &str,
    path: &Path,
    id: &StorageId,
    found: io::Result<Option<StorageId>>,
) -> Result<(), RootsError> {
    let (root, path) = (root.to_owned(), path.to_owned());
    match found {
        Ok(Some(found)) if found == *id => Ok(()),
        Ok(_) => Err(RootsError::OtherStorage { root, path }),
        Err(source) => Err(RootsError::Unreachable { root, path, source }),
    }
}

/// Makes `folder` and what is missing above it, down from `base`, which is never made.
///
/// # Errors
/// When `base` is not there, or a folder cannot be made.
pub fn make_below(base: &Path, folder: &Path) -> io::Result<()> {
    make_in(open_folder(CWD, base)?, below(base, folder)?)
}

fn below<'a>(base: &Path, folder: &'a Path) -> io::Result<&'a Path> {
    folder.strip_prefix(base).map_err(io::Error::other)
}

/// Makes what is missing of `below`, folder by folder.
fn make_in(mut folder: OwnedFd, below: &Path) -> io::Result<()> {
    for part in below.components() {
        match mkdirat(&folder, part.as_os_str(), Mode::from_raw_mode(0o777)) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        folder = open_folder(&folder, Path::new(part.as_os_str()))?;
    }
    Ok(())
}

/// For what lies in it, which takes no right to list it where the system can do without.
fn open_folder(at: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const ENTER: OFlags = OFlags::PATH;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const ENTER: OFlags = OFlags::RDONLY;
    let opened = openat(at, path, ENTER | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|error| match error {
        Errno::NOENT => io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display())),
        error => error.into(),
    })
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

    #[test]
    fn folders_are_made_below_a_root_and_never_the_root() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut roots = Roots::default();
        roots.insert("comps", dir.path().join("comps"));
        let folder = dir.path().join("comps/sh010/v001");
        assert_eq!(roots.make_folder(&folder).expect_err("no root").kind(), io::ErrorKind::NotFound);
        assert!(!dir.path().join("comps").exists());
        std::fs::create_dir(dir.path().join("comps")).expect("mkdir");
        roots.make_folder(&folder).expect("made");
        roots.make_folder(&folder).expect("there");
        assert!(folder.is_dir());
        assert!(roots.make_folder(&dir.path().join("elsewhere")).is_err());
    }

    #[test]
    fn storage_is_proved_by_its_marker() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut roots = Roots::default();
        roots.insert("comps", dir.path());
        let id = crate::marker::read_or_make(dir.path()).expect("marked");
        let roots = roots.on_storage(BTreeMap::from([("comps".to_owned(), id)]));
        roots.prove().expect("the same");
        roots.make_folder(&dir.path().join("sh010/v001")).expect("made on it");
        // As when another disk is mounted there, or none.
        std::fs::remove_dir_all(dir.path().join("sh010")).expect("removed");
        std::fs::remove_file(dir.path().join(MARKER_FILE)).expect("removed");
        assert!(matches!(roots.prove(), Err(RootsError::OtherStorage { .. })));
        let refused = roots.make_folder(&dir.path().join("sh010/v001")).expect_err("another storage");
        assert!(refused.to_string().contains("comps"), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("folder").count(), 0, "nothing is made there");
    }
}
