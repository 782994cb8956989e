//! Putting a sequence together beside others who do, or who have been at its chunks.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use hearth_agent::{
    chunk::Failure,
    sequence::{self, Watched},
};
use hearth_client::v1::{self, FailureKind};
use hearth_storage::{
    Roots,
    manifest::{ChunkManifest, FileManifest, SequenceManifest},
};
use hearth_tests::clips;
use hearth_workflows::FrameSet;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A job's chunks on storage.
struct Chunks {
    dir: TempDir,
    segments: Vec<v1::Segment>,
}

impl Chunks {
    /// Published by one attempt each, from number 1 on.
    fn publish(chunks: &[&str]) -> Self {
        let mut published = Self { dir: tempfile::tempdir().expect("a folder"), segments: Vec::new() };
        for (number, frames) in (1..).zip(chunks) {
            let attempt_id = format!("t-1-{number}");
            let digest = published.chunk(&attempt_id, frames, 1);
            let segment = v1::Segment {
                attempt_id,
                node: "n".to_owned(),
                frames: (*frames).to_owned(),
                manifest_blake3: digest,
            };
            published.segments.push(segment);
        }
        published
    }

    /// Writes a chunk; its digest. `size`: of its pictures.
    fn chunk(&self, attempt: &str, frames: &str, size: u32) -> Vec<u8> {
        let folder = self.path(".hearth-t-1").join(attempt);
        let pass = folder.join("beauty");
        fs::create_dir_all(&pass).expect("folder");
        let frames: FrameSet = frames.parse().expect("frames");
        let mut files = BTreeMap::new();
        for frame in frames.iter() {
            clips::make(&pass, frame.0..=frame.0, 8 * size, 8);
            let file = pass.join(format!("{frame}.png"));
            fs::rename(pass.join(format!("plate.{:04}.png", frame.0)), &file).expect("renamed");
            files.insert(frame, FileManifest::of(&file).expect("read"));
        }
        let manifest = ChunkManifest {
            hearth_version: "0".to_owned(),
            attempt: attempt.to_owned(),
            node: "n".to_owned(),
            frames,
            passes: [("beauty".to_owned(), files)].into(),
        };
        manifest.write(&folder).expect("written").as_bytes().to_vec()
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Puts the first `chunks` together, the others being missing.
    fn assemble(&self, attempt: &str, chunks: usize) -> Result<(), Failure> {
        let (there, missing) = self.segments.split_at(chunks);
        let missing: Vec<&str> = missing.iter().map(|segment| segment.frames.as_str()).collect();
        let assembly = v1::Assembly {
            work_dir: "comps/.hearth-t-1".to_owned(),
            output: "comps/out".to_owned(),
            passes: vec![v1::PassFiles {
                name: "beauty".to_owned(),
                pattern: "plate.%04d.png".to_owned(),
                format: "png8".to_owned(),
                colour_space: "srgb".to_owned(),
            }],
            segments: there.to_vec(),
            missing: missing.join(","),
            ..v1::Assembly::default()
        };
        let mut roots = Roots::default();
        roots.insert("comps", self.dir.path());
        let (cancel, tell) = (CancellationToken::new(), |_| {});
        sequence::assemble(&roots, attempt, &assembly, Watched::new(&cancel, &tell, Arc::default()))
    }

    fn result(&self) -> SequenceManifest {
        SequenceManifest::read(&self.path("out")).expect("a sequence")
    }
}

#[test]
fn a_chunk_that_is_not_what_its_node_has_published_is_rendered_again() {
    let chunks = Chunks::publish(&["1-4", "5-8", "9-12"]);
    // Whole, and by its own manifest right: but nobody has told of it.
    chunks.chunk("t-1-2", "5-8", 2);
    let failure = chunks.assemble("t-1-4", 3).expect_err("it is another one");
    assert_eq!((failure.kind, failure.frames.to_string()), (FailureKind::BadOutput, "5-8".to_owned()));
    assert!(!chunks.path("out").exists());

    chunks.chunk("t-1-2", "5-8", 1);
    chunks.assemble("t-1-5", 3).expect("as it was");
    let manifest = chunks.result();
    assert!(manifest.chunks.iter().all(|chunk| chunk.published.is_some()));
    assert_eq!(manifest.assembly, "t-1-5");
}

#[test]
fn a_late_assembly_leaves_a_later_one_alone() {
    let chunks = Chunks::publish(&["1-4", "5-8", "9-12"]);
    chunks.assemble("t-1-9", 2).expect("some frames are missing");
    // An earlier one, whose node was thought dead, comes back with less.
    let failure = chunks.assemble("t-1-7", 1).expect_err("it is too late");
    assert_eq!(failure.kind, FailureKind::Interrupted, "{}", failure.message);
    assert!(failure.message.contains("t-1-9"), "{}", failure.message);
    assert_eq!((chunks.result().assembly, clips::read(&chunks.path("out")).len()), ("t-1-9".to_owned(), 8));
    // The next one brings the rest.
    chunks.assemble("t-1-10", 3).expect("all of them");
    assert_eq!((chunks.result().assembly, clips::read(&chunks.path("out")).len()), ("t-1-10".to_owned(), 12));
}
