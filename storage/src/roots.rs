//! Named roots: jobs say `plates/sh010/…`, each host says where `plates` is.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use hearth_workflows::{RootPath, SequencePath};
use serde::{Deserialize, Serialize};

use crate::{
    held::Held,
    marker::{self, MARKER_FILE, StorageId},
};

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
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
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
            RootsText::Table(paths) => {
                let mut roots = Self::default();
                for (name, path) in paths {
                    roots.insert_checked(&name, &path)?;
                }
                Ok(roots)
            }
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

    /// As [`insert`](Self::insert), for what people have written: a name that can stand in paths, an absolute path.
    fn insert_checked(&mut self, name: &str, path: &Path) -> Result<(), RootsError> {
        let is_plain = !name.is_empty() && !name.contains(['/', '\\', '.']);
        if !is_plain || !path.is_absolute() {
            return Err(RootsError::Syntax { text: format!("{name}={}", path.display()) });
        }
        self.insert(name, path);
        Ok(())
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

    /// The same as [`resolve`](Self::resolve), of what is there, held open: whatever its name comes to mean, it is this.
    ///
    /// # Errors
    /// When nothing is there, or it lies outside its root.
    pub fn hold(&self, path: &RootPath) -> Result<Held, RootsError> {
        self.held(path.root(), path.below_root(), path.as_str())
    }

    /// The folder of a sequence, held open.
    ///
    /// # Errors
    /// When it is not there, or lies outside its root.
    pub fn hold_folder(&self, sequence: &SequencePath) -> Result<Held, RootsError> {
        self.held(sequence.root(), sequence.folder_below_root(), &sequence.to_string())
    }

    /// The folder that a path lies in, held open, and the path's last part.
    ///
    /// # Errors
    /// When the folder is not there, or lies outside its root.
    pub fn hold_parent<'a>(&self, path: &'a RootPath) -> Result<(Held, &'a str), RootsError> {
        let (folder, name) = path.below_root().rsplit_once('/').unwrap_or(("", path.below_root()));
        Ok((self.held(path.root(), folder, path.as_str())?, name))
    }

    /// A root's own folder, held open.
    ///
    /// # Errors
    /// When it is not there.
    pub fn hold_root(&self, name: &str) -> Result<Held, RootsError> {
        self.held(name, "", name)
    }

    /// A file in a folder that is held, links followed as long as they lead into a root.
    ///
    /// # Errors
    /// When nothing is there, or it lies outside every root.
    pub fn hold_file(&self, folder: &Held, name: &str) -> Result<Held, RootsError> {
        match folder.below(Path::new(name)) {
            // It is a link, perhaps.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            found => return found.map_err(|source| open_error(folder, name, source)),
        }
        let found = folder.find(Path::new(name)).map_err(|source| open_error(folder, name, source))?;
        let real = found.real().map_err(|source| open_error(folder, name, source))?;
        let is_in = |base: &PathBuf| {
            let base = Held::open_folder(base).and_then(|base| base.real());
            base.is_ok_and(|base| real.starts_with(base))
        };
        if self.paths.values().any(is_in) {
            Ok(found)
        } else {
            Err(RootsError::LinksOut { path: found.shown().to_owned() })
        }
    }

    /// Makes a folder below its root, and what is missing above it; it is held open from then on. Never makes the root,
    /// makes nothing where another storage is than the job's (an empty mount point would take what belongs on storage),
    /// and nothing where a link leads out of the root.
    ///
    /// # Errors
    /// When the folder is in no root of this host, or its root is not there, or is another storage, or it would lie outside.
    pub fn make_folder(&self, folder: &Path) -> io::Result<Held> {
        let roots = self.paths.iter().filter(|(_, base)| folder.starts_with(base));
        let (root, path) = roots
            .max_by_key(|(_, base)| base.as_os_str().len())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is in no storage root"))?;
        // Looked at and written through one handle: a mount that drops in between takes the handle with it.
        let base = Held::open_folder(path).map_err(|error| not_there(path, error))?;
        if let Some(id) = self.storage.get(root) {
            is_storage(root, path, id, marker::read_in(&base)).map_err(io::Error::other)?;
        }
        let below = folder.strip_prefix(path).map_err(io::Error::other)?;
        // What is there already may be reached by links that people have put there.
        for there in below.ancestors() {
            match inside(&base, there, root, &folder.to_string_lossy()) {
                Ok(held) if held.is_folder() => {
                    return held.make_below(below.strip_prefix(there).map_err(io::Error::other)?);
                }
                Ok(held) => {
                    let told = format!("{} is no folder; move it away", held.shown().display());
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, told));
                }
                Err(RootsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(RootsError::Open { source, .. }) => return Err(source),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        base.make_below(below)
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

    fn base(&self, root: &str) -> Result<&PathBuf, RootsError> {
        self.paths.get(root).ok_or_else(|| RootsError::Unknown {
            root: root.to_owned(),
            known: if self.paths.is_empty() {
                "none".to_owned()
            } else {
                self.names().collect::<Vec<_>>().join(", ")
            },
        })
    }

    fn held(&self, root: &str, below: &str, shown: &str) -> Result<Held, RootsError> {
        let path = self.base(root)?;
        let base = Held::open_folder(path).map_err(|source| RootsError::Unreachable {
            root: root.to_owned(),
            path: path.clone(),
            source,
        })?;
        inside(&base, Path::new(below), root, shown)
    }

    fn inside(&self, root: &str, below: &str, shown: &str) -> Result<PathBuf, RootsError> {
        let base = self.base(root)?;
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

    /// The one name of a place that has several, since roots lie in each other or are the same: that of the innermost root, of
    /// several the first. Two jobs that write to one place must not pass for two places.
    #[must_use]
    pub fn one_name(&self, path: &RootPath) -> RootPath {
        let real = |base: &PathBuf| base.canonicalize().unwrap_or_else(|_| base.clone());
        let Some(whole) = self.paths.get(path.root()).map(|base| real(base).join(path.below_root())) else {
            return path.clone();
        };
        let inner = self.paths.iter().map(|(name, base)| (name, real(base)));
        let innermost = inner
            .filter(|(_, base)| whole.starts_with(base))
            .min_by_key(|(name, base)| (std::cmp::Reverse(base.as_os_str().len()), (*name).clone()));
        let named = innermost.and_then(|(name, base)| {
            let below = whole.strip_prefix(&base).ok()?.to_str()?.to_owned();
            format!("{name}/{below}").parse().ok()
        });
        named.unwrap_or_else(|| path.clone())
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
            roots.insert_checked(name, Path::new(path))?;
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

/// What lies below a root, links followed as long as they stay there.
fn inside(base: &Held, below: &Path, root: &str, shown: &str) -> Result<Held, RootsError> {
    // Without a link on the way, which is usual, no more is asked.
    if let Ok(held) = base.below(below) {
        return Ok(held);
    }
    let failed = |source| RootsError::Open { path: base.shown().join(below), source };
    let held = base.find(below).map_err(failed)?;
    let (real, real_base) = (held.real().map_err(failed)?, base.real().map_err(failed)?);
    if real.starts_with(&real_base) {
        Ok(held)
    } else {
        Err(RootsError::Outside { path: shown.to_owned(), root: root.to_owned() })
    }
}

fn open_error(folder: &Held, name: &str, source: io::Error) -> RootsError {
    RootsError::Open { path: folder.shown().join(name), source }
}

fn not_there(path: &Path, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
        }
        _ => error,
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
    fn what_is_held_lies_in_a_root() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (base, outside) = (dir.path().join("plates"), dir.path().join("outside"));
        for folder in [base.join("sh010"), outside.clone()] {
            std::fs::create_dir_all(&folder).expect("mkdir");
            std::fs::write(folder.join("1.png"), "p").expect("written");
        }
        let link =
            |from: PathBuf, to: &str| std::os::unix::fs::symlink(from, base.join(to)).expect("symlink");
        link(base.join("sh010"), "same");
        link(outside.clone(), "out");
        link(outside.join("1.png"), "sh010/2.png");
        link(base.join("sh010/1.png"), "sh010/3.png");
        let mut roots = Roots::default();
        roots.insert("plates", &base);
        let hold = |path: &str| roots.hold(&path.parse().expect("a path"));
        assert!(hold("plates/sh010/1.png").is_ok() && hold("plates/same/1.png").is_ok());
        for out in ["plates/out", "plates/out/1.png", "plates/sh010/2.png"] {
            assert!(matches!(hold(out), Err(RootsError::Outside { .. })), "{out}");
        }
        let folder = hold("plates/same").expect("there");
        assert!(roots.hold_file(&folder, "3.png").is_ok());
        assert!(matches!(roots.hold_file(&folder, "2.png"), Err(RootsError::LinksOut { .. })));
        assert!(matches!(roots.hold_file(&folder, "4.png"), Err(RootsError::Open { .. })));
        roots.make_folder(&base.join("same/new")).expect("through a link that stays inside");
        assert!(base.join("sh010/new").is_dir());
        assert!(roots.make_folder(&base.join("out/new")).is_err());
        assert!(!outside.join("new").exists());
    }

    #[test]
    fn a_place_has_one_name_where_roots_lie_in_each_other() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir_all(dir.path().join("comps/shots")).expect("mkdir");
        std::os::unix::fs::symlink(dir.path().join("comps"), dir.path().join("same")).expect("symlink");
        let mut roots = Roots::default();
        for (name, path) in
            [("comps", "comps"), ("shots", "comps/shots"), ("work", "same"), ("plates", "plates")]
        {
            roots.insert(name, dir.path().join(path));
        }
        for (name, one) in [
            ("comps/shots/sh010/v001", "shots/sh010/v001"),
            ("shots/sh010/v001", "shots/sh010/v001"),
            ("work/shots/sh010", "shots/sh010"),
            ("work/sh010", "comps/sh010"),
            ("comps/shots010", "comps/shots010"),
            ("plates/sh010", "plates/sh010"),
            ("other/sh010", "other/sh010"),
            // A root itself is no output: it keeps the name that it can have.
            ("comps/shots", "comps/shots"),
        ] {
            let found = roots.one_name(&name.parse().expect("a path"));
            assert_eq!(found.as_str(), one, "{name}");
        }
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
