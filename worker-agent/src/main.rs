//! `hearth-agent`: see [`hearth_agent`].

use std::process::ExitCode;

use clap::Parser as _;
use hearth_agent::flags::Flags;
use hearth_telemetry::{Logs, chain, run_to_end, until_stopped};

fn main() -> ExitCode {
    match run_to_end(start()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth-agent: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<(), Box<dyn std::error::Error>> {
    let config = Flags::parse().config()?;
    let _logs = Logs {
        service: "hearth-agent",
        format: config.log_format,
        level: "info",
        otlp_endpoint: config.otlp_endpoint.clone(),
    }
    .install()?;
    hearth_agent::run(config, until_stopped()).await?;
    Ok(())
}
