//! A file system of its own for a folder of a test, which can be full, hang, and go away as a real one does. It needs
//! root and loop devices.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// What takes the room; nothing that a clip or a job is called.
const BALLAST: &str = ".ballast";

/// A mounted image. It is unmounted when it is dropped, whatever it went through; what hangs on it goes on.
#[derive(Debug)]
pub struct Disk {
    device: String,
    folder: PathBuf,
    frozen: bool,
    away: bool,
    /// Something else is mounted in its place.
    replaced: bool,
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let ran = Command::new(program).args(arguments).output().ok()?;
    ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

impl Disk {
    /// Mounts `mebibytes` at `folder`; the image lies at `image`. `None` where the system does not let us.
    pub fn mount(folder: &Path, image: &Path, mebibytes: u64) -> Option<Self> {
        let (folder_text, image) = (folder.to_str()?, image.to_str()?);
        File::create(image).and_then(|file| file.set_len(mebibytes << 20)).ok()?;
        // Nothing is kept back for root, so that full is full.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", image])?;
        let device = run("losetup", &["--find", "--show", image])?;
        let mut disk = Self { device, folder: folder.to_owned(), frozen: false, away: true, replaced: false };
        run("mount", &["-o", "noatime", &disk.device, folder_text])?;
        disk.away = false;
        // It is no folder of a root.
        fs::remove_dir(folder.join("lost+found")).ok()?;
        Some(disk)
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        let mut ballast = File::create(self.folder.join(BALLAST)).expect("a file");
        let mut block = vec![0; 1 << 20];
        while !block.is_empty() {
            if ballast.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
    }

    pub fn make_room(&self) {
        fs::remove_file(self.folder.join(BALLAST)).expect("the ballast is there");
    }

    /// Lets whoever writes wait, in a way that nothing can interrupt, as a hard NFS mount does. Reading goes on.
    pub fn freeze(&mut self) {
        assert!(run("fsfreeze", &["-f", &self.path()]).is_some(), "the disk cannot be frozen");
        self.frozen = true;
    }

    pub fn thaw(&mut self) {
        assert!(run("fsfreeze", &["-u", &self.path()]).is_some(), "the disk cannot be thawed");
        self.frozen = false;
    }

    /// Unmounts it under whoever uses it. In its place is the folder below it, or another file system, empty as well.
    pub fn take_away(&mut self, other: bool) {
        assert!(run("umount", &["-l", &self.path()]).is_some(), "the disk cannot be unmounted");
        self.away = true;
        self.replaced = other && run("mount", &["-t", "tmpfs", "tmpfs", &self.path()]).is_some();
    }

    /// # Panics
    /// When somebody has written to where it was.
    pub fn bring_back(&mut self) {
        let found: Vec<_> = fs::read_dir(&self.folder).expect("a folder").flatten().collect();
        assert!(found.is_empty(), "written where no storage was: {found:?}");
        if std::mem::take(&mut self.replaced) {
            assert!(run("umount", &["-l", &self.path()]).is_some(), "the other disk goes");
        }
        let mounted = run("mount", &["-o", "noatime", &self.device, &self.path()]);
        assert!(mounted.is_some(), "the disk comes back");
        self.away = false;
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    fn path(&self) -> String {
        self.folder.display().to_string()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // As far as it comes: a test may have failed anywhere.
        if self.frozen {
            run("fsfreeze", &["-u", &self.path()]);
        }
        if self.replaced || !self.away {
            run("umount", &["-l", &self.path()]);
        }
        // Once nobody has it open any more.
        run("losetup", &["-d", &self.device]);
    }
}
