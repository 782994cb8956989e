//! BullMQ's prioritised queue on a Redis of the same settings, from npm: what many facilities would build with.

use std::{path::Path, process::Command};

use hearth_tests::redis_server::RedisServer;

const JOBS: &str = "20000";

/// Tried: more is not faster, and a hundred is what two cores can keep busy.
const CONCURRENCY: &str = "100";

/// Jobs a second, added beforehand, taken and completed; `None` without node and npm.
pub(crate) async fn rate() -> Option<f64> {
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
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
