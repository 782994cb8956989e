//! Proof that a root is the storage that it was: a small file in it with an id of its own, made once.
//!
//! A mount that drops leaves an empty folder behind, which takes files as well as the mount did. They would lie on the
//! local disk, hidden as soon as the mount is back. The folder has no marker, or the marker of something else.

use std::{
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    os::fd::AsFd,
    path::Path,
};

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

/// The marker's name in a root.
pub const MARKER_FILE: &str = ".hearth-root";

/// Bytes of a marker that are read: an id is shorter.
const LONGEST: usize = 64;

/// The id of one storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageId(String);

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for StorageId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

/// Reads the id of the storage that is at `root`; `None`: it has none.
///
/// # Errors
/// When the storage does not answer, or what lies there is no marker.
pub fn read(root: &Path) -> io::Result<Option<StorageId>> {
    id_in(File::open(root.join(MARKER_FILE)))
}

/// The same of a root that is open.
pub(crate) fn read_in(root: impl AsFd) -> io::Result<Option<StorageId>> {
    let opened =
        openat(root, MARKER_FILE, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    id_in(opened.map(File::from).map_err(io::Error::from))
}

fn id_in(marker: io::Result<File>) -> io::Result<Option<StorageId>> {
    let marker = match marker {
        Ok(marker) => marker,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    // One byte more than is right tells that it is no id.
    marker.take(LONGEST as u64 + 2).read_to_end(&mut text)?;
    match std::str::from_utf8(&text).map(str::trim) {
        Ok(id) if !id.is_empty() && id.len() <= LONGEST => Ok(Some(StorageId(id.to_owned()))),
        _ => Err(io::Error::new(ErrorKind::InvalidData, format!("{MARKER_FILE} holds no id; remove it"))),
    }
}

/// The same, and gives the storage an id where it has none. Never makes the root itself.
///
/// # Errors
/// When the root is not there, or cannot be written.
pub fn read_or_make(root: &Path) -> io::Result<StorageId> {
    if let Some(id) = read(root)? {
        return Ok(id);
    }
    let id = uuid::Uuid::new_v4().to_string();
    // Whole under its name at once: another coordinator may do the same now, and the first one counts.
    let part = root.join(format!("{MARKER_FILE}-{id}"));
    let made = File::create_new(&part)
        .and_then(|mut file| file.write_all(format!("{id}\n").as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| place(&part, &root.join(MARKER_FILE)));
    // It has its other name by now, or is not wanted.
    let _ = fs::remove_file(&part);
    match made {
        Ok(()) => Ok(StorageId(id)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            read(root)?.ok_or_else(|| io::Error::from(ErrorKind::NotFound))
        }
        Err(error) => Err(error),
    }
}

/// Gives a file its name unless that is taken. Storage without hard links takes a rename, which is as good but where
/// two make the marker at the same time: the reader of the loser sees the winner's.
fn place(part: &Path, marker: &Path) -> io::Result<()> {
    match fs::hard_link(part, marker) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        Err(_) => fs::rename(part, marker),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_keeps_its_id_and_another_has_another() {
        let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        assert_eq!(read(one.path()).expect("readable"), None);
        let id = read_or_make(one.path()).expect("made");
        assert_eq!(read_or_make(one.path()).expect("there"), id);
        assert_eq!(read(one.path()).expect("readable"), Some(id.clone()));
        assert_ne!(read_or_make(other.path()).expect("made"), id);
        assert_eq!(fs::read_dir(one.path()).expect("folder").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_root_that_is_not_there_is_never_made() {
        let dir = tempfile::tempdir().expect("a folder");
        let away = dir.path().join("away");
        assert!(read_or_make(&away).is_err());
        assert!(!away.exists());
    }

    #[test]
    fn what_is_no_marker_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(MARKER_FILE), b"").expect("written");
        assert_eq!(read(dir.path()).expect_err("refused").kind(), ErrorKind::InvalidData);
    }
}
