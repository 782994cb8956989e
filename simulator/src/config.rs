//! What kind of ComfyUI this one is.

use std::{collections::BTreeMap, path::PathBuf};

use crate::faults::Fault;

/// One simulated server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds `input`, `output` and `temp`, which are made if missing.
    pub base: PathBuf,
    /// Time that a node of weight 1 takes for a frame, in seconds; 0: as fast as the CPU.
    pub seconds_per_frame: f64,
    /// Memory of the simulated GPU.
    pub vram_bytes: u64,
    /// Model files by folder.
    pub models: BTreeMap<String, Vec<String>>,
    /// Node classes that this server has not.
    pub without: Vec<String>,
    /// Send preview pictures while frames are made.
    pub previews: bool,
    /// What goes wrong, one fault a prompt, in this order.
    pub faults: Vec<Fault>,
    /// What goes wrong with every prompt after those.
    pub always: Fault,
    /// A node that works on a picture with this first pixel (RGB) raises an exception.
    pub poison: Option<[u8; 3]>,
}

impl Default for Config {
    fn default() -> Self {
        let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let models = [
            ("checkpoints", files(&["dreamshaper_8.safetensors", "v1-5-pruned-emaonly.safetensors"])),
            ("diffusion_models", files(&["tiny_random_sd15_unet.safetensors"])),
            ("text_encoders", files(&["tiny_random_clip_l.safetensors"])),
            ("vae", files(&["taesd"])),
            ("loras", files(&[])),
        ];
        Self {
            base: PathBuf::from("."),
            seconds_per_frame: 0.0,
            vram_bytes: 24 << 30,
            models: models.into_iter().map(|(folder, files)| (folder.to_owned(), files)).collect(),
            without: Vec::new(),
            previews: false,
            faults: Vec::new(),
            always: Fault::None,
            poison: None,
        }
    }
}

impl Config {
    pub fn input(&self) -> PathBuf {
        self.base.join("input")
    }

    pub fn output(&self) -> PathBuf {
        self.base.join("output")
    }

    pub fn temp(&self) -> PathBuf {
        self.base.join("temp")
    }
}
