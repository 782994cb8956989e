//! BullMQ's prioritised queue on a Redis of the same settings, from npm: what many facilities would build with.

use std::{path::Path, process::Command};

use hearth_tests::redis_server::RedisServer;

const JOBS: &str = "20000";

/// Tried: more is not faster, and a hundred is what two cores can keep busy.
const CONCURRENCY: &str = "100";

/// Jobs a second.
pub(crate) struct Rates {
    /// Added in bulk, taken and completed: the whole life of a chunk.
    pub(crate) whole: f64,
    /// Taken and completed, of those that were added beforehand.
    pub(crate) taken: f64,
}

/// `None` without node and npm.
pub(crate) async fn rates() -> Option<Rates> {
    let dir = tempfile::tempdir().expect("tempdir");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bullmq");
    for file in ["package.json", "cycles.mjs"] {
        std::fs::copy(source.join(file), dir.path().join(file)).expect("copied");
    }
    let quiet = ["install", "--silent", "--no-audit", "--no-fund"];
    let installed = Command::new("npm").args(quiet).current_dir(dir.path()).status().ok()?;
    if !installed.success() {
        return None;
    }
    let redis = RedisServer::start(&dir.path().join("redis")).await;
    let mut command = Command::new("node");
    command.args(["cycles.mjs", &redis.port.to_string(), JOBS, CONCURRENCY]).current_dir(dir.path());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined").ok()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = told.split_whitespace().map(str::parse);
    Some(Rates { whole: numbers.next()?.ok()?, taken: numbers.next()?.ok()? })
}
