//! Files and folders on storage, held open: what is done to them happens where they were found, whatever their names
//! come to mean meanwhile.
//!
//! Storage is shared: between a check of a path and its use somebody can put a symbolic link in its way, and frames from
//! outside would be read, or files written there. So a place is opened first, then the system is asked where that is, and
//! from then on it is used by its descriptor. Nothing here is ever opened for reading or writing by itself: a FIFO that
//! somebody has put there must not hang whoever looks.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mkdirat, openat, statat, unlinkat},
    io::Errno,
};

/// A file or a folder, held open until the last clone of this is dropped.
#[derive(Debug, Clone)]
pub struct Held {
    handle: Arc<OwnedFd>,
    shown: PathBuf,
}

/// Says only where something is, which needs no right to read it and never waits.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const PLACE: OFlags = OFlags::NONBLOCK.union(OFlags::CLOEXEC);

impl Held {
    /// What `path` leads to, links followed.
    ///
    /// # Errors
    /// When nothing is there, or it cannot be reached.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(openat(CWD, path, PLACE, Mode::empty())?, path.to_owned()))
    }

    /// The folder that `path` leads to, links followed; storage that is mounted when it is used is mounted.
    ///
    /// # Errors
    /// When no folder is there, or it cannot be reached.
    pub fn open_folder(path: &Path) -> io::Result<Self> {
        Ok(Self::new(openat(CWD, path, PLACE | OFlags::DIRECTORY, Mode::empty())?, path.to_owned()))
    }

    /// Whether something was refused since a link lies in its place.
    pub fn is_link(error: &io::Error) -> bool {
        error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
    }

    fn new(handle: OwnedFd, shown: PathBuf) -> Self {
        Self { handle: Arc::new(handle), shown }
    }

    /// A path to it for this process alone. Where the system has none (it is no Linux), that is the one under which it was
    /// opened.
    pub fn path(&self) -> PathBuf {
        by_descriptor(&*self.handle).unwrap_or_else(|| self.shown.clone())
    }

    /// Its name for people: the path under which it was opened.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// Where it lies, without any link in the path.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn real(&self) -> io::Result<PathBuf> {
        match by_descriptor(&*self.handle) {
            Some(path) => fs::read_link(path),
            None => self.shown.canonicalize(),
        }
    }

    /// What lies below this folder, with no link on the way to it, nor in its place.
    ///
    /// # Errors
    /// When nothing is there, or a link is, or the path leads out.
    pub fn below(&self, path: &Path) -> io::Result<Self> {
        let shown = self.shown.join(path);
        Ok(Self::new(open_below(&self.handle, path)?, shown))
    }

    /// Makes the folder below this one, and what is missing on the way to it, none of which may be a link.
    ///
    /// # Errors
    /// When it cannot be made, or something else lies there.
    pub fn make_below(&self, path: &Path) -> io::Result<Self> {
        let mut folder = self.clone();
        for part in path.components() {
            let Component::Normal(name) = part else { return Err(leads_out(path)) };
            match mkdirat(&folder.handle, name, Mode::from_raw_mode(0o777)) {
                Err(Errno::EXIST) => {}
                made => made?,
            }
            folder = folder.step(Path::new(name))?;
        }
        Ok(folder)
    }

    /// A folder in this one, which is no link.
    fn step(&self, name: &Path) -> io::Result<Self> {
        let flags = PLACE | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let opened = openat(&self.handle, name, flags, Mode::empty()).map_err(|error| match error {
            // What the system says of a link that it was told not to follow.
            Errno::LOOP | Errno::NOTDIR => is_no_folder(&self.shown.join(name)),
            error => error.into(),
        })?;
        Ok(Self::new(opened, self.shown.join(name)))
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        fs::metadata(self.path()).is_ok_and(|metadata| metadata.is_dir())
    }

    /// Gives this file another name, beside its own.
    ///
    /// # Errors
    /// When the name is taken, or links cannot be had there.
    pub fn link(&self, to: &Path) -> io::Result<()> {
        match by_descriptor(&*self.handle) {
            Some(path) => Ok(linkat(CWD, path, CWD, to, AtFlags::SYMLINK_FOLLOW)?),
            None => fs::hard_link(&self.shown, to),
        }
    }

    /// Opens a file in this folder to read it, without waiting for anybody; a link in its place is refused.
    ///
    /// # Errors
    /// When it is not there, is a link, or cannot be read.
    pub fn read(&self, name: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.handle, name, flags, Mode::empty())?.into())
    }

    /// Gives a file of the folder `from` a name in this one, beside its own; a link in its place is refused.
    ///
    /// # Errors
    /// When the name is taken, or links cannot be had there, or it is no regular file.
    pub fn link_from(&self, from: &Self, name: &Path, to: &Path) -> io::Result<()> {
        linkat(&from.handle, name, &self.handle, to, AtFlags::empty())?;
        // What was linked may have been swapped since it was looked at.
        let linked = statat(&self.handle, to, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(linked.st_mode).is_file() {
            return Ok(());
        }
        unlinkat(&self.handle, to, AtFlags::empty())?;
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no regular file", name.display())))
    }

    /// Removes a file of this folder, if it is there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn unlink(&self, name: &Path) -> io::Result<()> {
        match unlinkat(&self.handle, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// Copies this file; the copy shares its blocks where the file system can (Btrfs, XFS).
    ///
    /// # Errors
    /// When it is no regular file, or cannot be read or written.
    pub fn copy(&self, to: &Path) -> io::Result<()> {
        // A pipe would be waited for.
        if !fs::metadata(self.path())?.is_file() {
            let told = format!("{} is no regular file", self.shown.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
        }
        fs::copy(self.path(), to).map(drop)
    }

    /// In what is told of it, the name for people in place of the paths for this process and its children.
    pub fn tell(&self, said: &str) -> String {
        self.tell_of(&self.path_for_children(), &self.tell_of(&self.path(), said))
    }

    fn tell_of(&self, path: &Path, said: &str) -> String {
        let (path, shown) = (path.to_string_lossy(), self.shown.to_string_lossy());
        let mut told = String::new();
        let mut rest = said;
        while let Some(at) = rest.find(&*path) {
            let (before, after) = (&rest[..at], &rest[at + path.len()..]);
            told.push_str(before);
            // Of another descriptor, whose number begins alike.
            let is_other = after.starts_with(|next: char| next.is_ascii_digit());
            told.push_str(if is_other { &path } else { &shown });
            rest = after;
        }
        told + rest
    }

    /// A path to it for a program that this one starts, under the same user.
    pub fn path_for_children(&self) -> PathBuf {
        match by_descriptor(&*self.handle) {
            Some(path) => Path::new("/proc")
                .join(std::process::id().to_string())
                .join(path.strip_prefix("/proc/self").unwrap_or(&path)),
            None => self.shown.clone(),
        }
    }

    /// What lies below this folder, links followed wherever they lead: [`real`](Self::real) tells where that is.
    ///
    /// # Errors
    /// When nothing is there, or it cannot be reached.
    pub fn find(&self, path: &Path) -> io::Result<Self> {
        let shown = self.shown.join(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(Self::new(openat(&self.handle, path, PLACE, Mode::empty())?, shown))
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn by_descriptor(handle: impl AsFd) -> Option<PathBuf> {
    use std::os::fd::AsRawFd as _;

    Some(PathBuf::from(format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn by_descriptor(_: impl AsFd) -> Option<PathBuf> {
    None
}

/// In one call, where the system has it (Linux 5.6).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn open_below(folder: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};

    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(folder, path, PLACE, Mode::empty(), within) {
        // Containers may forbid what they do not know.
        Err(Errno::NOSYS | Errno::PERM) => step_below(folder, path),
        opened => Ok(opened?),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open_below(folder: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    step_below(folder, path)
}

/// Folder by folder.
fn step_below(folder: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for part in path.components() {
        let Component::Normal(name) = part else { return Err(leads_out(path)) };
        let flags = PLACE | OFlags::NOFOLLOW;
        let next = openat(at.as_ref().unwrap_or(folder), name, flags, Mode::empty())?;
        // As a place even a link can be held.
        if FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode).is_symlink() {
            return Err(Errno::LOOP.into());
        }
        at = Some(next);
    }
    at.ok_or_else(|| leads_out(path))
}

fn leads_out(path: &Path) -> io::Error {
    let told = format!("{} does not stay below its folder", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, told)
}

fn is_no_folder(path: &Path) -> io::Error {
    let told = format!("{} is a link or a file where a folder belongs; move it away", path.display());
    io::Error::new(io::ErrorKind::NotADirectory, told)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_held_stays_what_it_was_when_its_name_is_swapped() {
        let dir = tempfile::tempdir().expect("a folder");
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        for (folder, text) in [(&inside, "ours"), (&outside, "secret")] {
            fs::create_dir(folder).expect("folder");
            fs::write(folder.join("file"), text).expect("written");
        }
        let held = Held::open(&inside).expect("there");
        fs::rename(&inside, dir.path().join("moved")).expect("moved");
        symlink(&outside, &inside).expect("link");
        assert_eq!(fs::read_to_string(held.path().join("file")).expect("read"), "ours");
        fs::write(held.path().join("new"), "n").expect("written");
        held.make_below(Path::new("a/b")).expect("made");
        assert!(!outside.join("new").exists() && !outside.join("a").exists());
        assert!(dir.path().join("moved/a/b").is_dir());
        assert_eq!(held.real().expect("told"), dir.path().canonicalize().expect("there").join("moved"));
        let said = format!("cannot read {}", held.path().join("file").display());
        assert_eq!(held.tell(&said), format!("cannot read {}", inside.join("file").display()));
    }

    #[test]
    fn no_link_is_followed_below_a_folder_that_is_held() {
        let dir = tempfile::tempdir().expect("a folder");
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir_all(inside.join("a/b")).expect("folder");
        fs::create_dir(&outside).expect("folder");
        fs::write(outside.join("file"), "secret").expect("written");
        fs::write(inside.join("a/b/file"), "ours").expect("written");
        symlink(&outside, inside.join("out")).expect("link");
        symlink(outside.join("file"), inside.join("a/link")).expect("link");
        let held = Held::open(&inside).expect("there");
        for open in [open_below, step_below] {
            open(&held.handle, Path::new("a/b/file")).expect("there");
            for leads_out in ["out/file", "out", "a/link", "../outside/file", "/etc/passwd"] {
                assert!(open(&held.handle, Path::new(leads_out)).is_err(), "{leads_out}");
            }
        }
        let refused = held.make_below(Path::new("out/new")).expect_err("it is a link");
        assert!(refused.to_string().contains("is a link"), "{refused}");
        assert!(!outside.join("new").exists());
        let file = held.below(Path::new("a/b/file")).expect("there");
        file.link(&dir.path().join("linked")).expect("linked");
        assert_eq!(fs::read_to_string(dir.path().join("linked")).expect("read"), "ours");
    }
}
