//! Pictures and sequences on storage, for people who look: thumbnails of a job, clips of a folder. Blocks; must
//! never write.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use hearth_proto::v1;
use hearth_storage::{Clip, ClipError, Held, Listing, Roots, manifest::THUMBNAIL_FOLDER};
use rustix::fs::{Mode, OFlags};

use crate::farm::{FarmTag, JobId, JobSpec, JobView, Segment};

/// Thumbnails of one pass.
const MOST_THUMBNAILS: usize = 24;

/// Bytes of thumbnails in one answer, within what a client takes.
const MOST_BYTES: usize = 3 << 20;

/// Bytes of a thumbnail, and files that are looked at in its folder: they are small, unless something else lies there.
const LARGEST_THUMBNAIL: u64 = 1 << 20;
const MOST_FILES: usize = 4_096;

/// Sequences, and folders, that are listed.
const MOST_LISTED: usize = 1_000;

/// Small pictures of what is done of a job: from its output when that is there, and else from its chunks.
pub(super) fn thumbnails(
    roots: &Roots,
    tag: &FarmTag,
    view: &JobView,
    pieces: &[Segment],
    limit: u32,
) -> Vec<v1::Thumbnail> {
    let limit = (limit.max(1) as usize).min(MOST_THUMBNAILS);
    let JobView { id, spec, .. } = view;
    let mut passes: BTreeMap<String, Vec<v1::Thumbnail>> = BTreeMap::new();
    let assembled = roots.hold(&spec.output).map(|folder| in_folder(&folder)).unwrap_or_default();
    let found =
        if assembled.is_empty() { in_chunks(roots, tag, *id, spec, pieces, limit) } else { assembled };
    for thumbnail in found {
        passes.entry(thumbnail.pass.clone()).or_default().push(thumbnail);
    }
    let mut bytes = 0;
    let mut chosen = Vec::new();
    for mut of_pass in passes.into_values() {
        of_pass.sort_by_key(|thumbnail| thumbnail.frame);
        chosen.extend(spread(&of_pass, limit).cloned());
    }
    chosen.retain(|thumbnail: &v1::Thumbnail| {
        bytes += thumbnail.image.len();
        bytes <= MOST_BYTES
    });
    chosen
}

fn in_chunks(
    roots: &Roots,
    tag: &FarmTag,
    job: JobId,
    spec: &JobSpec,
    pieces: &[Segment],
    limit: usize,
) -> Vec<v1::Thumbnail> {
    let Ok(work) = roots.hold(&spec.work_dir(&tag.0, job.0)) else { return Vec::new() };
    let mut pieces: Vec<&Segment> = pieces.iter().collect();
    pieces.sort_by_key(|piece| piece.frames.first());
    let chunk = |piece: &&Segment| work.below(Path::new(&tag.attempt_name(piece.attempt))).ok();
    spread(&pieces, limit).filter_map(chunk).flat_map(|chunk| in_folder(&chunk)).collect()
}

/// Those kept below a folder, as `<pass>.<frame>.jpg`.
fn in_folder(folder: &Held) -> Vec<v1::Thumbnail> {
    let Ok(folder) = folder.below(Path::new(THUMBNAIL_FOLDER)) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(folder.path()) else { return Vec::new() };
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let (pass, frame) = name.to_str()?.strip_suffix(".jpg")?.rsplit_once('.')?;
        let frame = frame.parse().ok()?;
        Some(v1::Thumbnail { pass: pass.to_owned(), frame, image: small_file(&entry.path())? })
    };
    entries.flatten().take(MOST_FILES).filter_map(read).collect()
}

/// A small regular file, whole. What a link leads to is nobody's thumbnail, whoever put it there.
fn small_file(path: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > LARGEST_THUMBNAIL {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_THUMBNAIL).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// At most `limit` of them, from the first to the last.
fn spread<T>(all: &[T], limit: usize) -> impl Iterator<Item = &T> {
    let count = all.len().min(limit);
    // One alone shows the middle: the first frames are often black.
    let place = move |n: usize| if count == 1 { all.len() / 2 } else { n * (all.len() - 1) / (count - 1) };
    (0..count).map(move |n| &all[place(n)])
}

/// The sequences in a folder, and the folders in it.
pub(super) fn clips(roots: &Roots, folder: &str) -> Result<v1::ListClipsResponse, ClipError> {
    let Listing { clips, mut folders, links: mut linked_folders } = Clip::list(roots, folder)?;
    folders.truncate(MOST_LISTED);
    linked_folders.retain(|link| folders.contains(link));
    let describe = |clip: &Clip| {
        let first = clip.frames.first();
        let looked_at = first.map(|frame| clip.look_at(frame));
        let (picture, message) = match looked_at {
            Some(Ok(picture)) => (Some(picture), String::new()),
            Some(Err(error)) => (None, hearth_telemetry::chain(&error)),
            None => (None, String::new()),
        };
        v1::Clip {
            pattern: clip.sequence.to_string(),
            frames: clip.frames.to_string(),
            missing: clip.missing().to_string(),
            width: picture.map_or(0, |picture| picture.width),
            height: picture.map_or(0, |picture| picture.height),
            format: picture.map_or_else(String::new, |picture| picture.format.to_string()),
            message,
        }
    };
    let clips = clips.iter().take(MOST_LISTED).map(describe).collect();
    Ok(v1::ListClipsResponse { clips, folders, linked_folders })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_files_of_their_own_are_thumbnails() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join(THUMBNAIL_FOLDER);
        fs::create_dir(&folder).expect("folder");
        let sized = |name: &str, bytes: u64| {
            File::create(folder.join(name)).and_then(|file| file.set_len(bytes)).expect("file");
        };
        sized("beauty.1001.jpg", LARGEST_THUMBNAIL);
        sized("beauty.1002.jpg", LARGEST_THUMBNAIL + 1);
        fs::write(dir.path().join("secret"), "s").expect("file");
        std::os::unix::fs::symlink(dir.path().join("secret"), folder.join("beauty.1003.jpg")).expect("link");
        let frames: Vec<i64> = in_folder(&Held::open(dir.path()).expect("there"))
            .iter()
            .map(|thumbnail| thumbnail.frame)
            .collect();
        assert_eq!(frames, [1001]);
    }
}
