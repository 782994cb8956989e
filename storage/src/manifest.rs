//! What finished work says about itself on storage, so that it can be found again by those who have lost
//! everything else.
//!
//! ```text
//! comps/sh010/.hearth-k3f9-12/          a job's unfinished work
//!     job.json                          the job itself, for `hearth farm recover`
//!     k3f9-12-34/                       a published chunk, named for its attempt
//!         chunk.json                    what made it, and size and digest of every file
//!         beauty/1001.png …
//! comps/sh010/v001/                     the finished sequence
//!     manifest.json                     what made which frames
//! ```
//!
//! A manifest is written and flushed to storage before the folder around it appears under its name.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    str::FromStr,
};

use hearth_workflows::{Frame, FrameSet};
use rustix::fs::OFlags;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Describes a published chunk, in its folder.
pub const CHUNK_FILE: &str = "chunk.json";

/// Describes a job, in the folder of its work.
pub const JOB_FILE: &str = "job.json";

/// Describes a finished sequence, in its folder.
pub const SEQUENCE_FILE: &str = "manifest.json";

/// Small pictures of finished frames, in the folder of a chunk or a sequence: `<pass>.<frame>.jpg`.
pub const THUMBNAIL_FOLDER: &str = ".thumbnails";

/// Bytes of a manifest: that of a million frames has fewer.
const LARGEST: u64 = 1 << 30;

/// Bytes read at once.
const BLOCK: usize = 256 * 1024;

/// What one attempt has published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkManifest {
    pub hearth_version: String,
    pub attempt: String,
    pub node: String,
    pub frames: FrameSet,
    /// Of each pass, by frame.
    pub passes: BTreeMap<String, BTreeMap<Frame, FileManifest>>,
}

/// BLAKE3 of a chunk's manifest as it lies on storage: names exactly what an attempt has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ManifestDigest([u8; 32]);

/// A text that is no digest.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no BLAKE3 digest of 64 hexadecimal digits")]
pub struct DigestError(String);

impl ManifestDigest {
    fn of(text: &[u8]) -> Self {
        Self(*blake3::hash(text).as_bytes())
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `None`: they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for ManifestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl FromStr for ManifestDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| DigestError(text.to_owned()))
    }
}

impl TryFrom<String> for ManifestDigest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<ManifestDigest> for String {
    fn from(digest: ManifestDigest) -> Self {
        digest.to_string()
    }
}

/// One file as it was when it was whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileManifest {
    /// Name in the folder of its pass.
    #[serde(deserialize_with = "plain_name")]
    pub name: String,
    pub bytes: u64,
    /// BLAKE3 of the content, in hexadecimal.
    pub blake3: String,
}

/// What made a finished sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceManifest {
    pub hearth_version: String,
    /// The job's work folder, which names farm and job.
    pub job: String,
    pub workflow: String,
    pub parameters: BTreeMap<String, String>,
    pub clip: String,
    /// Pattern of each pass below this folder.
    pub passes: BTreeMap<String, String>,
    /// What would make the same again: `hearth submit --again`.
    #[serde(default)]
    pub submission: Option<SubmissionManifest>,
    /// For frames that stand for other times than the clip's: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<TimesManifest>,
    /// Frames that have failed for good and are not here. The job's work folder stays until they are.
    #[serde(default, skip_serializing_if = "FrameSet::is_empty")]
    pub missing: FrameSet,
    /// Frames of an earlier sequence at this place, which a job for others has left as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptManifest>,
    pub chunks: Vec<SegmentManifest>,
    /// The attempt that put it together. An earlier one of the same job never replaces what it has made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub assembly: String,
    /// Of each pass, by frame.
    #[serde(default)]
    pub files: BTreeMap<String, BTreeMap<Frame, FileManifest>>,
}

/// A submission, with its workflow as texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionManifest {
    pub name: String,
    pub show: String,
    pub user: String,
    pub pool: String,
    pub workflow_name: String,
    pub workflow_manifest: String,
    pub workflow_graph: String,
    /// Frames of the clip.
    pub frames: String,
    pub chunk_frames: u32,
    pub colour_space: String,
    /// As SubmitJobRequest.view.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub view: String,
    pub output: String,
}

/// Frame `first + n` of the result is the clip at frame `first + n * step / multiplier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimesManifest {
    pub first: Frame,
    pub step: u32,
    pub multiplier: u32,
}

/// Frames that an earlier job has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptManifest {
    /// Its work folder, as in [`SequenceManifest::job`].
    pub job: String,
    pub workflow: String,
    pub parameters: BTreeMap<String, String>,
    pub frames: FrameSet,
}

/// Which attempt made which frames, where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentManifest {
    pub frames: FrameSet,
    pub attempt: String,
    pub node: String,
    /// Of the attempt's [`ChunkManifest`]; `None`: its node has not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<ManifestDigest>,
}

impl FileManifest {
    /// Of a file as it is now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut hasher, mut bytes, mut block) = (blake3::Hasher::new(), 0, vec![0; BLOCK]);
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                break;
            }
            hasher.update(&block[..read]);
            bytes += read as u64;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, bytes, blake3: hasher.finalize().to_hex().to_string() })
    }

    /// Whether the file in `folder` still has its size; cheap.
    pub fn has_size(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(&self.name)).is_ok_and(|found| found.len() == self.bytes)
    }

    /// Whether the file in `folder` is still exactly what it was; reads all of it.
    pub fn is_whole(&self, folder: &Path) -> bool {
        self.has_size(folder) && Self::of(&folder.join(&self.name)).is_ok_and(|found| found == *self)
    }
}

impl ChunkManifest {
    /// Of the chunk in `folder`, with its digest; `None` when there is none, or it cannot be read.
    pub fn read(folder: &Path) -> Option<(Self, ManifestDigest)> {
        let text = read_plain(&folder.join(CHUNK_FILE)).ok()?;
        Some((serde_json::from_slice(&text).ok()?, ManifestDigest::of(&text)))
    }

    /// Writes it into `folder`, where nothing else is written from now on.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<ManifestDigest> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        write_whole(&folder.join(CHUNK_FILE), &text)?;
        Ok(ManifestDigest::of(&text))
    }

    /// Its frames of which every file in `folder` is whole.
    pub fn whole_frames(&self, folder: &Path) -> FrameSet {
        let mut whole = self.frames.clone();
        for (pass, files) in &self.passes {
            let folder = folder.join(pass);
            let good = |frame: &Frame| files.get(frame).is_some_and(|file| file.is_whole(&folder));
            let broken: FrameSet = whole.iter().filter(|frame| !good(frame)).collect();
            whole.remove_all(&broken);
        }
        if self.passes.is_empty() { FrameSet::new() } else { whole }
    }
}

impl SequenceManifest {
    /// The frames that it was put together for, with those that are missing.
    pub fn frames(&self) -> FrameSet {
        let mut frames = self.missing.clone();
        self.chunks.iter().for_each(|chunk| frames.insert_all(&chunk.frames));
        frames
    }

    /// Of the sequence in `folder`; `None` when there is none, or it cannot be read.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&read_plain(&folder.join(SEQUENCE_FILE)).ok()?).ok()
    }
}

/// Reads a regular file: links are not followed, pipes not waited for, and what is larger than any manifest is none.
fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The name of a file in a folder that is known: one that leads elsewhere makes the manifest unreadable.
fn plain_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(D::Error::custom(format!("{name:?} is no name of a file")));
    }
    Ok(name)
}

/// A published chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundChunk {
    pub manifest: ChunkManifest,
    pub digest: ManifestDigest,
    /// Those of its frames of which every file is whole.
    pub whole: FrameSet,
}

/// Every published chunk below a job's work folder.
pub fn whole_chunks(work_dir: &Path) -> io::Result<Vec<FoundChunk>> {
    let entries = match fs::read_dir(work_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut chunks = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        let Some((manifest, digest)) = ChunkManifest::read(&folder) else { continue };
        // A folder under another name is not published yet.
        if folder.file_name().is_some_and(|name| name.to_string_lossy() == manifest.attempt) {
            let whole = manifest.whole_frames(&folder);
            chunks.push(FoundChunk { manifest, digest, whole });
        }
    }
    Ok(chunks)
}

/// Writes a file beside its name, flushes it to storage, and renames it: it is there whole, or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // Several nodes, on several hosts, may be writing the same file.
    let unique = RandomState::new().build_hasher().finish();
    let part = path.with_file_name(format!(".{name}-{unique:016x}"));
    let mut file = File::create_new(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), flush)
}

/// Flushes a file's content, or a folder's names, to storage.
pub fn flush(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some file systems cannot flush a folder, and do not need to.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        flushed => flushed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_of_published_chunks_are_found() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = dir.path().join("t-1-2");
        let pass = folder.join("beauty");
        fs::create_dir_all(&pass).expect("folder");
        let frames: FrameSet = "1-4".parse().expect("frames");
        let mut files = BTreeMap::new();
        for frame in frames.iter() {
            let path = pass.join(format!("{frame}.png"));
            fs::write(&path, format!("picture {frame}")).expect("write");
            files.insert(frame, FileManifest::of(&path).expect("read"));
        }
        let manifest = ChunkManifest {
            hearth_version: "0".to_owned(),
            attempt: "t-1-2".to_owned(),
            node: "n".to_owned(),
            frames,
            passes: [("beauty".to_owned(), files)].into(),
        };
        let digest = manifest.write(&folder).expect("written");
        assert_eq!(digest.to_string().parse::<ManifestDigest>().expect("digest"), digest);
        fs::create_dir_all(dir.path().join("t-1-3.part")).expect("folder");
        fs::copy(folder.join(CHUNK_FILE), dir.path().join("t-1-3.part").join(CHUNK_FILE)).expect("copy");
        // Gone, cut off, and of the right size but not the right content.
        fs::remove_file(pass.join("1.png")).expect("removed");
        fs::write(pass.join("2.png"), "pic").expect("write");
        fs::write(pass.join("3.png"), "picture x").expect("write");
        let found = whole_chunks(dir.path()).expect("read");
        assert_eq!(found.len(), 1);
        let whole = "4".parse().expect("frames");
        assert_eq!(found, [FoundChunk { manifest, digest, whole }]);
        assert!(whole_chunks(&dir.path().join("nowhere")).expect("none").is_empty());
    }

    #[test]
    fn a_manifest_whose_files_lie_elsewhere_is_none() {
        for name in ["../../secret", "..", "", "/etc/passwd", "a/b"] {
            let file = FileManifest { name: name.to_owned(), bytes: 1, blake3: String::new() };
            let text = serde_json::to_string(&file).expect("json");
            assert!(serde_json::from_str::<FileManifest>(&text).is_err(), "{name}");
        }
    }
}
