//! What kind of ComfyUI this one is.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{faults::Fault, version::Version};

/// One simulated server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds `input`, `output` and `temp`, which are made if missing.
    pub base: PathBuf,
    /// The release of ComfyUI that it stands for.
    pub version: Version,
    /// Largest request body (`--max-upload-size`).
    pub max_upload_bytes: usize,
    /// Time that a node of weight 1 takes for a frame, in seconds; 0: as fast as the CPU.
    pub seconds_per_frame: f64,
    /// Memory of the simulated GPU.
    pub vram_bytes: u64,
    /// Model files by folder.
    pub models: BTreeMap<String, Vec<String>>,
    /// Node classes that this server has not.
    pub without: Vec<String>,
    /// It does not tell where its folders lie: started by a relative path, on Windows.
    pub hides_folders: bool,
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
            ("animatediff_models", files(&["mm_sd_v15_v2.ckpt", "v3_sd15_mm.ckpt"])),
            (
                "checkpoints",
                files(&[
                    "dreamshaper_8.safetensors",
                    "realisticVisionV51_v51VAE.safetensors",
                    "v1-5-pruned-emaonly.safetensors",
                ]),
            ),
            (
                "clip_vision",
                files(&[
                    "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
                    "sigclip_vision_patch14_384.safetensors",
                ]),
            ),
            ("controlnet", files(&["FLUX.1-dev-ControlNet-Union-Pro-2.0.safetensors"])),
            (
                "diffusion_models",
                files(&[
                    "Cosmos-1_0-Diffusion-14B-Text2World.safetensors",
                    "Cosmos-1_0-Diffusion-14B-Video2World.safetensors",
                    "Cosmos-1_0-Diffusion-7B-Text2World.safetensors",
                    "Cosmos-1_0-Diffusion-7B-Video2World.safetensors",
                    "cosmos_predict2_14B_video2world_480p_16fps.safetensors",
                    "cosmos_predict2_14B_video2world_720p_16fps.safetensors",
                    "cosmos_predict2_2B_video2world_480p_16fps.safetensors",
                    "flux1-dev-fp8.safetensors",
                    "tiny_random_sd15_unet.safetensors",
                ]),
            ),
            ("facerestore_models", files(&["GFPGANv1.4.pth", "codeformer-v0.1.0.pth"])),
            ("ipadapter", files(&["ip-adapter-plus_sd15.safetensors"])),
            (
                "luts",
                files(&[
                    "Bleach_Bypass_War.cube",
                    "Cinematic_Teal_Orange.cube",
                    "Film_Noir_High_Contrast.cube",
                    "Modern_HDR_Look.cube",
                    "Vintage_Kodak_Vision3.cube",
                ]),
            ),
            ("style_models", files(&["flux1-redux-dev.safetensors"])),
            (
                "text_encoders",
                files(&[
                    "clip_l.safetensors",
                    "oldt5_xxl_fp8_e4m3fn_scaled.safetensors",
                    "t5xxl_fp8_e4m3fn_scaled.safetensors",
                    "tiny_random_clip_l.safetensors",
                ]),
            ),
            ("upscale_models", files(&["4x-ClearRealityV1.pth"])),
            (
                "vae",
                files(&[
                    "ae.safetensors",
                    "cosmos_cv8x8x8_1.0.safetensors",
                    "taesd",
                    "wan_2.1_vae.safetensors",
                ]),
            ),
            ("loras", files(&["uso-flux1-dit-lora-v1.safetensors"])),
            ("model_patches", files(&["uso-flux1-projector-v1.safetensors"])),
        ];
        Self {
            base: PathBuf::from("."),
            version: Version::NEWEST,
            max_upload_bytes: 100 << 20,
            seconds_per_frame: 0.0,
            vram_bytes: 24 << 30,
            models: models.into_iter().map(|(folder, files)| (folder.to_owned(), files)).collect(),
            without: Vec::new(),
            hides_folders: false,
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
