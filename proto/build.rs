//! Compiles the contract with `protox`, so that nobody needs `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["proto/hearth/v1/farm.proto", "proto/hearth/v1/agents.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("hearth_descriptor.bin"), descriptors.encode_to_vec())?;
    // Messages are as large as they are; boxing them would only move the cost.
    let allowed = "#[allow(clippy::large_enum_variant)]";
    tonic_prost_build::configure()
        .codec_path("crate::codec::LeanCodec")
        .enum_attribute(".", allowed)
        .compile_fds(descriptors)?;
    Ok(())
}
