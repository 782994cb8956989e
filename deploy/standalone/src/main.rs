//! `hearth-standalone`: a whole farm in one process, on the embedded store.
//!
//! - `demo`: four simulated nodes of unequal speed, a real clip, a proof
//! - `up`: the same farm on real ComfyUI servers, for one person's workstation

mod clip;
mod demo;
mod farm;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hearth_telemetry::{Logs, chain};

/// A whole Hearth farm in one process.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  hearth-standalone demo
  hearth-standalone up --comfyui http://127.0.0.1:8188,http://127.0.0.1:8189 --roots plates=/mnt/plates,comps=/mnt/comps"
)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Split a clip over four simulated nodes, put it together, and prove every pixel
    Demo(demo::Flags),
    /// Run the farm on real ComfyUI servers
    Up(up::Flags),
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Flags::parse().command;
    let level = match command {
        Command::Demo(_) => "error",
        Command::Up(_) => "info",
    };
    let logs = Logs { service: "hearth-standalone", level, ..Logs::default() };
    let _logs = match logs.install() {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("hearth-standalone: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let done = match command {
        Command::Demo(flags) => demo::run(flags).await,
        Command::Up(flags) => up::run(flags).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth-standalone: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
