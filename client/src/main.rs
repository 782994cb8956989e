//! `hearth`: see [`hearth_client::cli`].

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    hearth_client::cli::main().await
}
