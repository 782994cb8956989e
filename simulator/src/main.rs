//! `comfy-simulator`: a ComfyUI without a GPU, as a program.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use hearth_simulator::{Config, Fault, Simulator, Version};

/// A ComfyUI without a GPU: real protocol, real pictures, simulated speed.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Where to serve; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8188")]
    listen: SocketAddr,
    /// Folder for input, output and temp
    #[arg(long)]
    base: PathBuf,
    /// The release of ComfyUI to be
    #[arg(long, default_value_t = Version::NEWEST)]
    comfyui_version: Version,
    /// Largest request body in MiB, as ComfyUI's own flag
    #[arg(long, default_value_t = 100.0)]
    max_upload_size: f64,
    /// Seconds that a heavy node takes for a frame
    #[arg(long, default_value_t = 0.0)]
    seconds_per_frame: f64,
    /// Memory of the simulated GPU in GiB
    #[arg(long, default_value_t = 24.0)]
    vram_gib: f64,
    /// Send preview pictures
    #[arg(long)]
    previews: bool,
    /// A node class that this server has not; can be given several times
    #[arg(long)]
    without: Vec<String>,
    /// What goes wrong with the next prompt, e.g. hang, die, out-of-memory; can be given several times
    #[arg(long, value_parser = fault)]
    fault: Vec<Fault>,
    /// What goes wrong with every prompt after those
    #[arg(long, value_parser = fault, default_value = "none")]
    always: Fault,
    /// A node that works on a picture with this first pixel raises an exception, e.g. ff00ff
    #[arg(long, value_parser = colour)]
    poison: Option<[u8; 3]>,
}

fn fault(text: &str) -> Result<Fault, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

fn colour(text: &str) -> Result<[u8; 3], String> {
    let number = u32::from_str_radix(text, 16).map_err(|error| error.to_string())?;
    let [0, rgb @ ..] = number.to_be_bytes() else { return Err("a colour is written as rrggbb".to_owned()) };
    Ok(rgb)
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    let config = Config {
        base: flags.base,
        version: flags.comfyui_version,
        max_upload_bytes: (flags.max_upload_size * f64::from(1 << 20)) as usize,
        seconds_per_frame: flags.seconds_per_frame,
        vram_bytes: (flags.vram_gib * (1_u64 << 30) as f64) as u64,
        previews: flags.previews,
        without: flags.without,
        faults: flags.fault,
        always: flags.always,
        poison: flags.poison,
        ..Config::default()
    };
    match Simulator::start_process(flags.listen, config).await {
        Ok(simulator) => {
            println!("listening on {}", simulator.url());
            simulator.wait().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("comfy-simulator: cannot serve on {}: {error}", flags.listen);
            ExitCode::FAILURE
        }
    }
}
