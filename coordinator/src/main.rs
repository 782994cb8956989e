//! `hearth-coordinator`: see [`hearth_coordinator`].

use std::process::ExitCode;

use clap::Parser as _;
use hearth_coordinator::{
    flags::{Flags, Tool},
    tools,
};
use hearth_telemetry::{Logs, chain, run_to_end, until_stopped};

fn main() -> ExitCode {
    match run_to_end(start()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hearth-coordinator: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut flags = Flags::parse();
    let tool = flags.tool();
    let config = flags.config()?;
    let _logs = Logs {
        service: "hearth-coordinator",
        format: config.log_format,
        level: if tool.is_some() { "warn" } else { "info" },
        otlp_endpoint: config.otlp_endpoint.clone(),
    }
    .install()?;
    if let Some(Tool::Farm(tool)) = tool {
        return Ok(tools::run(tool, &config).await?);
    }
    hearth_coordinator::run(config, until_stopped()).await?;
    Ok(ExitCode::SUCCESS)
}
