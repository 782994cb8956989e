//! When a process is asked to stop, and that it does.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// How long threads that are still at something are waited for once a program is over. One that hangs on storage would
/// keep the process for ever; what it has left half-done is found so by the next one.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Resolves at SIGINT or SIGTERM.
pub async fn until_stopped() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Signals cannot be had: only a kill ends us, as it would anyway.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Runs a program on threads of its own, and ends with it.
///
/// # Errors
/// The program's own, and when no threads can be had.
pub fn run_to_end<T, E: From<std::io::Error>>(program: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(program);
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}
