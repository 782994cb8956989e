//! What is known of node classes that their declarations do not say: how they load and save, what they look at in
//! time, where their models lie.

use crate::manifest::{Load, Save};

/// How a class loads a clip.
pub(super) fn loader(class: &str) -> Option<Load> {
    match class {
        "VHS_LoadImagesPath" => Some(Load::Directory),
        "LoadEXRFrames" => Some(Load::Frames),
        "LoadImage" => Some(Load::Image),
        _ => None,
    }
}

/// How a class saves a pass.
pub(super) fn saver(class: &str) -> Option<Save> {
    match class {
        "SaveImage" => Some(Save::Images),
        "SaveEXRFrames" => Some(Save::Frames),
        _ => None,
    }
}

/// What a class looks at in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Puts pictures between frames.
    Interpolates,
    /// Mixes all frames of the batch.
    Whole,
    /// Looks at neighbours.
    Neighbours,
    /// Draws noise by the place in the batch.
    Draws,
}

pub(super) fn reach(class: &str) -> Option<Reach> {
    match class {
        _ if class.ends_with(" VFI") => Some(Reach::Interpolates),
        _ if class.starts_with("ADE_") => Some(Reach::Whole),
        // The last of these take pictures by their place in the batch, or put some from elsewhere into it.
        "DeflickerFrames"
        | "Robust Video Matting"
        | "FlashVSRNode"
        | "FlashVSRNodeAdv"
        | "ImageBatch"
        | "ImageFromBatch"
        | "ImageFromBatch+"
        | "GetImageRangeFromBatch"
        | "LatentBatch"
        | "LatentFromBatch"
        | "ReverseImageBatch"
        | "VHS_SelectEveryNthImage"
        | "VHS_SplitImages" => Some(Reach::Whole),
        "SeedVR2VideoUpscaler" => Some(Reach::Neighbours),
        "KSampler"
        | "KSamplerAdvanced"
        | "SamplerCustom"
        | "SamplerCustomAdvanced"
        | "BetterFilmGrain"
        | "UltimateSDUpscale"
        | "UltimateSDUpscaleNoUpscale"
        | "ProPostFilmGrain"
        | "ImageAddNoise" => Some(Reach::Draws),
        _ => None,
    }
}

/// Whether pictures come out of a class that nobody declares.
pub(super) fn gives_pictures(class: &str) -> bool {
    let others =
        ["Latent", "VAEEncode", "KSampler", "SamplerCustom", "ControlNetApply", "Conditioning", "Loader"];
    class == "VAEDecode" || !others.iter().any(|other| class.contains(other))
}

/// Inputs that say how many frames a model makes.
pub(super) const LENGTHS: [&str; 2] = ["length", "batch_size"];

/// Inputs that a person would turn, and how they are called then.
pub(super) const TURNED: [&str; 26] = [
    "alpha",
    "amount",
    "blend_factor",
    "blur_radius",
    "cfg",
    "contrast",
    "denoise",
    "factor",
    "guidance",
    "height",
    "intensity",
    "megapixels",
    "noise_seed",
    "opacity",
    "radius",
    "scale_by",
    "seed",
    "sharpen_radius",
    "sigma",
    "steps",
    "strength",
    "temperature",
    "text",
    "upscale_by",
    "weight",
    "width",
];

/// Folder of the model files that an input names.
pub(super) fn model_folder(input: &str) -> Option<&'static str> {
    Some(match input {
        "ckpt_name" => "checkpoints",
        "unet_name" => "diffusion_models",
        "clip_name" | "clip_name1" | "clip_name2" | "clip_name3" => "text_encoders",
        "vae_name" => "vae",
        "lora_name" => "loras",
        "control_net_name" => "controlnet",
        "style_model_name" => "style_models",
        "ipadapter_file" => "ipadapter",
        "lut_name" | "lut_file" => "luts",
        _ => return None,
    })
}

/// Whether a value is the name of a model file.
pub(super) fn is_model(value: &str) -> bool {
    let ends = [".safetensors", ".ckpt", ".pth", ".pt", ".gguf", ".bin", ".cube", ".onnx"];
    ends.iter().any(|end| value.ends_with(end))
}
