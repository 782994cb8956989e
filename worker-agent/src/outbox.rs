//! What must survive the agent's own death: assignments it works on, results that nobody has taken.
//!
//! One file each, written beside its name and renamed: a half-written one is never read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hearth_proto::v1;
use prost::Message;
use tracing::warn;

/// A chunk that a node works on, with the workflow it needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeptChunk {
    pub assignment: v1::Assignment,
    pub source: v1::WorkflowSource,
    pub job: v1::JobDefinition,
}

/// A node's folder.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    chunks: PathBuf,
    results: PathBuf,
    /// By attempt, how many lives of the agent have ended over it.
    deaths: PathBuf,
    /// There while the agent lives, and when it did not end by itself.
    alive: PathBuf,
    /// The life before did not end by itself.
    died: bool,
}

impl Outbox {
    pub(crate) fn open(state: &Path, node: &str) -> io::Result<Self> {
        let plain: String = node
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' })
            .collect();
        let base = state.join(plain);
        let alive = base.join("alive");
        let outbox = Self {
            chunks: base.join("chunks"),
            results: base.join("results"),
            deaths: base.join("deaths"),
            died: alive.exists(),
            alive,
        };
        for folder in [&outbox.chunks, &outbox.results, &outbox.deaths] {
            fs::create_dir_all(folder)?;
        }
        fs::write(&outbox.alive, b"")?;
        Ok(outbox)
    }

    /// The agent ends because somebody wants it to.
    pub(crate) fn close(&self) {
        if let Err(error) = fs::remove_file(&self.alive) {
            warn!(file = %self.alive.display(), %error, "cannot note that the agent ended by itself");
        }
    }

    /// How many lives of the agent have ended while it had this chunk in hand, the last one included. To be asked once
    /// a life.
    pub(crate) fn count_deaths(&self, attempt: &str) -> u32 {
        let file = self.deaths.join(attempt);
        let before =
            fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0_u32);
        let deaths = before.saturating_add(u32::from(self.died));
        if deaths > before {
            keep(&self.deaths, attempt, deaths.to_string().as_bytes());
        }
        deaths
    }

    pub(crate) fn keep_chunk(&self, kept: &KeptChunk) {
        let mut bytes = kept.assignment.encode_length_delimited_to_vec();
        bytes.extend(kept.source.encode_length_delimited_to_vec());
        bytes.extend(kept.job.encode_length_delimited_to_vec());
        keep(&self.chunks, &kept.assignment.attempt_id, &bytes);
    }

    pub(crate) fn keep_result(&self, result: &v1::AttemptResult) {
        keep(&self.results, &result.attempt_id, &result.encode_to_vec());
        self.drop_chunk(&result.attempt_id);
    }

    pub(crate) fn drop_chunk(&self, attempt: &str) {
        // Chores were never kept.
        let _ = fs::remove_file(self.chunks.join(attempt));
        let _ = fs::remove_file(self.deaths.join(attempt));
    }

    pub(crate) fn drop_result(&self, attempt: &str) {
        let _ = fs::remove_file(self.results.join(attempt));
    }

    pub(crate) fn chunks(&self) -> Vec<KeptChunk> {
        read_all(&self.chunks, |mut bytes| {
            Ok(KeptChunk {
                assignment: v1::Assignment::decode_length_delimited(&mut bytes)?,
                source: v1::WorkflowSource::decode_length_delimited(&mut bytes)?,
                job: v1::JobDefinition::decode_length_delimited(&mut bytes)?,
            })
        })
    }

    pub(crate) fn results(&self) -> Vec<v1::AttemptResult> {
        read_all(&self.results, |bytes| v1::AttemptResult::decode(bytes))
    }
}

/// Failing to keep is no reason to stop working: it only matters if the agent dies too.
fn keep(folder: &Path, name: &str, bytes: &[u8]) {
    let part = folder.join(format!(".{name}"));
    let kept = fs::write(&part, bytes).and_then(|()| fs::rename(&part, folder.join(name)));
    if let Err(error) = kept {
        warn!(folder = %folder.display(), %error, "cannot keep what the agent's death would lose");
    }
}

fn read_all<T>(folder: &Path, read: impl Fn(&[u8]) -> Result<T, prost::DecodeError>) -> Vec<T> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    files
        .filter_map(|entry| {
            let bytes = fs::read(entry.path()).ok()?;
            match read(&bytes) {
                Ok(kept) => Some(kept),
                Err(error) => {
                    warn!(file = %entry.path().display(), %error, "unreadable, ignored");
                    None
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_by_the_next_life() {
        let dir = tempfile::tempdir().expect("tempdir");
        let outbox = Outbox::open(dir.path(), "host:8188").expect("open");
        let assignment = v1::Assignment { attempt_id: "t-1-2".to_owned(), job_id: 1, ..Default::default() };
        let source = v1::WorkflowSource { name: "w".to_owned(), ..Default::default() };
        outbox.keep_chunk(&KeptChunk {
            assignment: assignment.clone(),
            source,
            job: v1::JobDefinition::default(),
        });
        std::fs::write(dir.path().join("host_8188/chunks/broken"), b"\xff\xff").expect("write");
        let again = Outbox::open(dir.path(), "host:8188").expect("open");
        assert_eq!(again.chunks().len(), 1);
        assert_eq!(again.chunks()[0].assignment, assignment);
        let result = v1::AttemptResult { attempt_id: "t-1-2".to_owned(), ..Default::default() };
        again.keep_result(&result);
        assert!(again.chunks().is_empty());
        assert_eq!(again.results(), [result]);
        again.drop_result("t-1-2");
        assert!(again.results().is_empty());
    }

    #[test]
    fn deaths_are_counted_and_ends_are_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let life = || Outbox::open(dir.path(), "n").expect("open");
        let first = life();
        assert_eq!(first.count_deaths("t-1-2"), 0);
        first.close();
        assert_eq!(life().count_deaths("t-1-2"), 0);
        assert_eq!(life().count_deaths("t-1-2"), 1);
        let third = life();
        assert_eq!(third.count_deaths("t-1-2"), 2);
        third.drop_chunk("t-1-2");
        assert_eq!(life().count_deaths("t-1-2"), 1, "another chunk of that name begins anew");
    }
}
