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

/// Nodes of the editor that no server knows, or that do nothing there.
const EDITORS_OWN: [&str; 26] = [
    "Note",
    "MarkdownNote",
    "Note Plus (mtb)",
    "Reroute",
    "PrimitiveNode",
    "SetNode",
    "GetNode",
    "Anything Everywhere",
    "Anything Everywhere3",
    "Anything Everywhere?",
    "Prompts Everywhere",
    "Seed Everywhere",
    "Label (rgthree)",
    "Bookmark (rgthree)",
    "Fast Groups Muter (rgthree)",
    "Fast Groups Bypasser (rgthree)",
    "Fast Muter (rgthree)",
    "Fast Bypasser (rgthree)",
    "Fast Actions Button (rgthree)",
    "Mute / Bypass Relay (rgthree)",
    "Mute / Bypass Repeater (rgthree)",
    "Node Collector (rgthree)",
    "Random Unmuter (rgthree)",
    "Reroute (rgthree)",
    "WorkflowNote",
    "easy note",
];

/// True for a node that exists in the editor only.
pub(super) fn is_editors_own(class: &str) -> bool {
    EDITORS_OWN.contains(&class)
}

/// How much a title sounds like the clip, and not like something beside it.
pub(super) fn clip_likeness(title: &str) -> i32 {
    let title = title.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| title.contains(word));
    let clip = ["plate", "clip", "source", "footage", "input", "foreground", "video", "shot"];
    let beside = ["background", "reference", "style", "mask", "matte", "texture", "face", "pose"];
    i32::from(has(&clip)) - i32::from(has(&beside))
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
        // Of a package: what it samples is most often the whole clip at once, with noise of its own.
        _ if is_unknown_sampler(class) => Some(Reach::Whole),
        _ => None,
    }
}

/// Whether a class seems to sample in a way that is not known here.
fn is_unknown_sampler(class: &str) -> bool {
    let beside = ["Select", "Option", "Config", "Settings", "Loader", "Scheduler", "Sigmas", "Preview"];
    class.contains("Sampler")
        && !class.starts_with("Sampler")
        && !beside.iter().any(|word| class.contains(word))
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

/// Folder of the model files that an input of a class names. Packages keep theirs where they like: of those nothing is
/// guessed, since no node would be found that has the file in the wrong folder.
pub(super) fn model_folder(class: &str, input: &str) -> Option<&'static str> {
    Some(match (class, input) {
        (
            "CheckpointLoaderSimple"
            | "CheckpointLoader"
            | "unCLIPCheckpointLoader"
            | "ImageOnlyCheckpointLoader",
            "ckpt_name",
        ) => "checkpoints",
        ("UNETLoader", "unet_name") => "diffusion_models",
        (
            "CLIPLoader" | "DualCLIPLoader" | "TripleCLIPLoader" | "QuadrupleCLIPLoader",
            "clip_name" | "clip_name1" | "clip_name2" | "clip_name3" | "clip_name4",
        ) => "text_encoders",
        ("CLIPVisionLoader", "clip_name") => "clip_vision",
        ("VAELoader", "vae_name") => "vae",
        ("LoraLoader" | "LoraLoaderModelOnly", "lora_name") => "loras",
        ("ControlNetLoader" | "DiffControlNetLoader", "control_net_name") => "controlnet",
        ("StyleModelLoader", "style_model_name") => "style_models",
        ("UpscaleModelLoader", "model_name") => "upscale_models",
        ("IPAdapterModelLoader", "ipadapter_file") => "ipadapter",
        ("ADE_LoadAnimateDiffModel", "model_name") => "animatediff_models",
        ("FaceRestoreModelLoader", "model_name") => "facerestore_models",
        ("ModelPatchLoader", "name") => "model_patches",
        (_, "lut_name" | "lut_file") => "luts",
        _ => return None,
    })
}

/// Numbers of frames that a model makes: `multiple * n + plus`.
pub(super) fn frame_rule(class: &str) -> Option<(u32, u32)> {
    let has = |word: &str| class.contains(word);
    match () {
        () if has("Cosmos") && has("Predict2") => Some((4, 1)),
        () if has("Cosmos") || has("LTXV") || class.starts_with("EmptyLTX") => Some((8, 1)),
        () if has("Wan") || has("Hunyuan") && has("Video") || has("SeedVR2Video") => Some((4, 1)),
        () => None,
    }
}

/// Whether a value is the name of a model file.
pub(super) fn is_model(value: &str) -> bool {
    let ends = [".safetensors", ".ckpt", ".pth", ".pt", ".gguf", ".bin", ".cube", ".onnx"];
    ends.iter().any(|end| value.ends_with(end))
}
