//! `hearth`: see [`hearth_client::cli`].

use std::process::ExitCode;

// A thread of its own for I/O: the last spans are sent while the main thread waits for that.
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    hearth_client::cli::main().await
}
