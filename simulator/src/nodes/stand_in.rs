//! What stands in for models: image operations with the real nodes' inputs, outputs, frame counts and reach in time.
//!
//! They are simple and repeat exactly, but every input counts: another seed, prompt, model or strength is another
//! picture. What a real node draws by the place in the batch is drawn so here, too: a cut through it shows.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use super::{Data, Done, NodeError, Run};
use crate::pixels::{Batch, Frame};

type Behaviour = fn(&mut Run<'_>) -> Result<Done, NodeError>;

/// Weight of a class (its simulated time for a frame) and what it does.
pub(super) fn behaviour(class: &str) -> Option<(f64, Behaviour)> {
    Some(match class {
        "ADE_AnimateDiffSamplingSettings" => (0.0, |run| token(run, &["SAMPLE_SETTINGS"])),
        "ADE_ApplyAnimateDiffModel" => (0.0, |run| token(run, &["M_MODELS"])),
        "ADE_IterationOptsFreeInit" => (0.0, |run| token(run, &["ITERATION_OPTS"])),
        "ADE_LoadAnimateDiffModel" => (0.0, |run| token(run, &["MOTION_MODEL_ADE"])),
        "ADE_StandardUniformContextOptions" => (0.0, |run| token(run, &["CONTEXT_OPTIONS"])),
        "ADE_UseEvolvedSampling" => (0.0, |run| token(run, &["MOVING_MODEL"])),
        "CLIPLoader" | "DualCLIPLoader" => (0.0, |run| token(run, &["CLIP"])),
        "CLIPTextEncode" | "CLIPTextEncodeFlux" | "ConditioningZeroOut" | "StyleModelApply" => {
            (0.0, |run| token(run, &["CONDITIONING"]))
        }
        "CLIPVisionEncode" => (0.0, |run| token(run, &["CLIP_VISION_OUTPUT"])),
        "CLIPVisionLoader" => (0.0, |run| token(run, &["CLIP_VISION"])),
        "CheckpointLoaderSimple" => (0.0, checkpoint),
        "ControlNetApplyAdvanced" => (0.0, |run| token(run, &["CONDITIONING", "CONDITIONING"])),
        "ControlNetLoader" => (0.0, |run| token(run, &["CONTROL_NET"])),
        "DownloadAndLoadDepthAnythingV2Model" => (0.0, |run| token(run, &["DAMODEL"])),
        "FaceRestoreModelLoader" => (0.0, |run| token(run, &["FACERESTORE_MODEL"])),
        "ModelPatchLoader" => (0.0, |run| token(run, &["MODEL_PATCH"])),
        "IPAdapterAdvanced" | "LoraLoaderModelOnly" | "UNETLoader" | "USOStyleReference" => {
            (0.0, |run| token(run, &["MODEL"]))
        }
        "IPAdapterModelLoader" => (0.0, |run| token(run, &["IPADAPTER"])),
        "RemBGSession+" => (0.0, |run| token(run, &["REMBG_SESSION"])),
        "SeedVR2LoadDiTModel" => (0.0, |run| token(run, &["SEEDVR2_DIT"])),
        "SeedVR2LoadVAEModel" => (0.0, |run| token(run, &["SEEDVR2_VAE"])),
        "StyleModelLoader" => (0.0, |run| token(run, &["STYLE_MODEL"])),
        "UpscaleModelLoader" => (0.0, |run| token(run, &["UPSCALE_MODEL"])),
        "VAELoader" => (0.0, |run| token(run, &["VAE"])),
        "CosmosImageToVideoLatent" => (0.0, |run| video_latent(run, 8)),
        "CosmosPredict2ImageToVideoLatent" => (0.0, |run| video_latent(run, 4)),
        "EmptyLatentImage" | "EmptySD3LatentImage" => (0.0, empty_latent),
        "GetImageSize" => (0.0, size),
        "StringConcatenate" => (0.0, concatenate),
        "VAEEncode" => {
            (0.25, |run| Ok(Done { outputs: vec![Data::Latent(run.batch("pixels")?.clone())], shown: None }))
        }
        "KSampler" => (1.0, sample),
        "VAEDecode" => (0.25, decode),
        "UltimateSDUpscaleNoUpscale" => (1.0, |run| {
            let (frames, amount) = (run.batch("upscaled_image")?.clone(), run.float("denoise"));
            let seed = run.seed(&["upscaled_image"]);
            // A tile of all frames is one batch, whose noise goes by the place in it.
            Done::image(noisy(&frames, seed, amount))
        }),
        "SeedVR2VideoUpscaler" => (1.0, upscale_over_time),
        "DeflickerFrames" => (0.5, deflicker),
        "RIFE VFI" => (1.0, super::custom::interpolate),
        "BetterFilmGrain" => (0.25, grain),
        "AccurateAO_HBAO" => (1.0, occlusion),
        "DepthAnything_V2" => (1.0, |run| paint(run, "images", |grey, _| grey)),
        "DepthAnythingV2Preprocessor" => (1.0, |run| paint(run, "image", |grey, _| grey)),
        "DSINE-NormalMapPreprocessor" => (1.0, normals),
        "LineArtPreprocessor" => (0.5, |run| paint(run, "image", |grey, soft| (grey - soft).abs() * 4.0)),
        "FaceRestoreCFWithModel" => (1.0, |run| touch(run, "image")),
        "EnhanceDetail" => (0.25, |run| touch(run, "images")),
        "LayerFilter: DistortDisplace" => (0.5, |run| touch(run, "image")),
        "ColorMatch" => (0.25, colour_match),
        "AdjustContrast" => (0.1, |run| {
            let factor = run.float("factor");
            Done::each(run.batch("images")?, |f| f.map(|v| ((v - 0.5) * factor + 0.5).clamp(0.0, 1.0)))
        }),
        "LayerColor: ColorTemperature" => (0.1, temperature),
        "LayerUtility: AnyRerouter" => (0.0, |run| hand_on(run, "any")),
        "PrimitiveString" => {
            (0.0, |run| Ok(Done { outputs: vec![Data::Text(run.text("value").to_owned())], shown: None }))
        }
        "ProPostApplyLUT" => (0.25, look_up),
        "ProPostVignette" => (0.1, vignette),
        "ImageResize+" => (0.25, shrink),
        "ImageScaleToTotalPixels" => (0.25, to_pixels),
        "ImageUpscaleWithModel" => {
            (1.0, |run| Done::each(run.batch("image")?, |f| f.resized(f.width * 4, f.height * 4, "lanczos")))
        }
        "Keyer" => (0.25, super::matte::key),
        "AlphaMatte" => (1.0, super::matte::refine),
        "BlurImageFast" => (0.1, |run| {
            let radius = run.int("radius_x").max(0) as u32;
            Done::each(run.batch("images")?, |f| f.blurred(radius, (radius as f32 / 2.0).max(0.1)))
        }),
        "BlurMaskFast" => (0.1, |run| {
            let radius = run.int("radius_x").max(0) as u32;
            let masks = run.batch("masks")?.iter();
            mask(masks.map(|m| m.blurred(radius, (radius as f32 / 2.0).max(0.1)).into()).collect())
        }),
        "ImageToMask" => (0.0, |run| {
            mask(run.batch("image")?.iter().map(|f| f.per_pixel(|[red, ..]| [red; 3]).into()).collect())
        }),
        "MaskToImage" => (0.0, |run| Done::image(run.batch("mask")?.clone())),
        "InvertMask" => {
            (0.0, |run| mask(run.batch("mask")?.iter().map(|f| f.map(|v| 1.0 - v).into()).collect()))
        }
        "GeekyRemB" => (1.0, super::matte::cut_out_with_alpha),
        "SplitImageWithAlpha" => (0.0, super::matte::split_alpha),
        "JoinImageWithAlpha" => (0.0, super::matte::join_alpha),
        "ImageRemoveAlpha+" => (0.0, |run| Done::image(run.batch("image")?.clone())),
        "ImageRemoveBackground+" => (1.0, super::matte::cut_out),
        "LayerStyle: DropShadow V3" => (0.5, super::matte::drop_shadow),
        _ => return None,
    })
}

fn mask(batch: Batch) -> Result<Done, NodeError> {
    Ok(Done { outputs: vec![Data::Mask(batch)], shown: None })
}

impl Run<'_> {
    /// A number made of all inputs but those named, linked ones included.
    pub(super) fn seed(&self, but: &[&str]) -> u64 {
        let mut hash = DefaultHasher::new();
        for (input, value) in self.inputs {
            if but.contains(&input.as_str()) {
                continue;
            }
            input.hash(&mut hash);
            match self.linked.get(input) {
                Some(Data::Token { seed, .. }) => seed.hash(&mut hash),
                Some(Data::Image(batch) | Data::Mask(batch) | Data::Latent(batch)) => {
                    batch.iter().for_each(|frame| {
                        frame.data.iter().for_each(|value| value.to_bits().hash(&mut hash));
                    });
                }
                Some(Data::Rgba { colour, .. }) => colour.len().hash(&mut hash),
                Some(Data::Int(value)) => value.hash(&mut hash),
                Some(Data::Text(text)) => text.hash(&mut hash),
                None => value.to_string().hash(&mut hash),
            }
        }
        hash.finish()
    }
}

/// Models, conditionings and the like: nothing but where they come from.
fn token(run: &mut Run<'_>, kinds: &[&'static str]) -> Result<Done, NodeError> {
    let seed = run.seed(&[]);
    let token = |kind: &&'static str| Data::Token { kind, width: 0, height: 0, count: 1, seed };
    Ok(Done { outputs: kinds.iter().map(token).collect(), shown: None })
}

fn checkpoint(run: &mut Run<'_>) -> Result<Done, NodeError> {
    // Where this one's answers were recorded, the file was empty, as after a download that broke off.
    if run.text("ckpt_name") == "v1-5-pruned-emaonly.safetensors" {
        let message = "Error while deserializing header: header too small\n";
        return Err(NodeError::raised("safetensors._safetensors_rust.SafetensorError", message));
    }
    token(run, &["MODEL", "CLIP", "VAE"])
}

fn empty_latent(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (width, height) = (run.int("width") as u32, run.int("height") as u32);
    let count = run.int("batch_size").max(1) as usize;
    Ok(Done { outputs: vec![Data::Token { kind: "LATENT", width, height, count, seed: 0 }], shown: None })
}

/// `step * floor((length - 1) / step) + 1` frames.
fn video_latent(run: &mut Run<'_>, step: i64) -> Result<Done, NodeError> {
    let (width, height) = (run.int("width") as u32, run.int("height") as u32);
    let count = ((run.int("length").max(1) - 1) / step * step + 1) as usize;
    let seed = run.seed(&["vae"]);
    Ok(Done { outputs: vec![Data::Token { kind: "LATENT", width, height, count, seed }], shown: None })
}

fn size(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let batch = run.batch("image")?;
    let (width, height) = batch.first().map_or((0, 0), |frame| (frame.width, frame.height));
    let sizes = [i64::from(width), i64::from(height), batch.len() as i64];
    Ok(Done { outputs: sizes.map(Data::Int).into(), shown: None })
}

fn concatenate(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let text = format!("{}{}{}", run.text("string_a"), run.text("delimiter"), run.text("string_b"));
    Ok(Done { outputs: vec![Data::Text(text)], shown: None })
}

/// `frames` with noise, drawn for the place in the batch from one seed.
fn noisy(frames: &[Arc<Frame>], seed: u64, amount: f32) -> Batch {
    let place = |(place, frame): (usize, &Arc<Frame>)| {
        let noise = noise(frame.width, frame.height, seed.wrapping_add(place as u64));
        Arc::new(frame.zip(&noise, |value, noise| (value + amount * (noise - 0.5) * 0.5).clamp(0.0, 1.0)))
    };
    frames.iter().enumerate().map(place).collect()
}

fn sample(run: &mut Run<'_>) -> Result<Done, NodeError> {
    // Seeds one apart draw what stands one place apart.
    let seed = run.seed(&["latent_image", "seed"]).wrapping_add(run.int("seed") as u64);
    let steps = run.int("steps").max(1) as u64;
    let moves = matches!(run.linked.get("model"), Some(Data::Token { kind: "MOVING_MODEL", .. }));
    let amount = run.float("denoise");
    let made = match run.linked.get("latent_image").cloned() {
        Some(Data::Latent(frames)) if moves => {
            // FreeInit mixes all frames of the batch.
            let mean = mean(&frames);
            let mixed: Batch = frames.iter().map(|f| f.zip(&mean, |a, b| 0.8 * a + 0.2 * b).into()).collect();
            noisy(&mixed, seed, amount)
        }
        Some(Data::Latent(frames)) => noisy(&frames, seed, amount),
        Some(Data::Token { width, height, count, seed: latent, .. }) => (0..count as u64)
            .map(|at| noise(width, height, seed.wrapping_add(latent).wrapping_add(at)).into())
            .collect(),
        _ => return Err(NodeError::raised("TypeError", "latent_image: expected a latent")),
    };
    let first = made.first().cloned();
    for step in 1..=steps {
        (run.progress)(step, steps, first.as_deref())?;
    }
    Ok(Done { outputs: vec![Data::Latent(made)], shown: None })
}

fn decode(run: &mut Run<'_>) -> Result<Done, NodeError> {
    match run.linked.get("samples") {
        Some(Data::Latent(frames)) => Done::image(frames.clone()),
        _ => Err(NodeError::raised("TypeError", "samples: expected a latent")),
    }
}

fn mean(frames: &[Arc<Frame>]) -> Frame {
    let Some(first) = frames.first() else { return Frame::filled(1, 1, [0.0; 3]) };
    let sum = frames[1..].iter().fold((**first).clone(), |sum, frame| sum.zip(frame, |a, b| a + b));
    sum.map(|value| value / frames.len() as f32)
}

/// Every frame as the mean of it and up to `reach` neighbours on either side.
fn over_time(frames: &[Arc<Frame>], reach: usize, amount: f32) -> Batch {
    let at = |place: usize| {
        let window = &frames[place.saturating_sub(reach)..(place + reach + 1).min(frames.len())];
        Arc::new(frames[place].zip(&mean(window), |value, mean| value + amount * (mean - value)))
    };
    (0..frames.len()).map(at).collect()
}

fn deflicker(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (reach, amount) = (run.int("smooth_window").max(1) as usize / 2, run.float("smooth_strength") / 2.0);
    let smooth = over_time(run.batch("images")?, reach, amount);
    Ok(Done { outputs: vec![Data::Image(smooth.clone()), Data::Image(smooth)], shown: None })
}

/// The shorter side becomes `resolution`; a frame looks at two neighbours on either side.
fn upscale_over_time(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (side, seed) = (run.int("resolution").max(16) as u32, run.seed(&["image"]));
    let frames = over_time(run.batch("image")?, 2, 0.5);
    let large = |frame: &Arc<Frame>| {
        let times = f64::from(side) / f64::from(frame.width.min(frame.height));
        let scaled = |length: u32| (f64::from(length) * times).round() as u32;
        let large = frame.resized(scaled(frame.width), scaled(frame.height), "bicubic");
        let noise = noise(large.width, large.height, seed);
        Arc::new(large.zip(&noise, |value, noise| (value + 0.02 * (noise - 0.5)).clamp(0.0, 1.0)))
    };
    Done::image(frames.iter().map(large).collect())
}

/// One block of noise for the whole batch, as the real one draws it.
fn grain(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (seed, strength) = (run.int("seed") as u64, run.float("strength"));
    let scale = run.float("scale");
    let grainy = |(place, frame): (usize, &Arc<Frame>)| {
        let noise = noise(frame.width, frame.height, seed.wrapping_mul(1_000_003).wrapping_add(place as u64));
        Arc::new(frame.zip(&noise, |value, noise| {
            (value + strength * scale * (noise - 0.5) * (1.0 - value)).clamp(0.0, 1.0)
        }))
    };
    Done::image(run.batch("image")?.iter().enumerate().map(grainy).collect())
}

pub(super) fn grey(frame: &Frame) -> Frame {
    frame.per_pixel(|[red, green, blue]| [0.2126 * red + 0.7152 * green + 0.0722 * blue; 3])
}

/// Of its own grey and a softer one, with the model's mark on it.
fn paint(run: &mut Run<'_>, input: &str, make: fn(f32, f32) -> f32) -> Result<Done, NodeError> {
    let mark = 0.9 + 0.1 * part(run.seed(&[input]));
    Done::each(run.batch(input)?, |frame| {
        let grey = grey(frame);
        grey.zip(&grey.blurred(2, 1.0), |grey, soft| (make(grey, soft) * mark).clamp(0.0, 1.0))
    })
}

/// A little of the picture changed, by all that the node was told.
/// What came in, whatever it is.
fn hand_on(run: &mut Run<'_>, input: &str) -> Result<Done, NodeError> {
    let given = run.linked.get(input).cloned();
    let given = given.ok_or_else(|| NodeError::raised("TypeError", format!("{input} is no link")))?;
    Ok(Done { outputs: vec![given], shown: None })
}

/// `ProPostApplyLUT`: a table from the folder of models, which stands for itself here, or one that an absolute path
/// names; what is in that counts, not where it lies.
fn look_up(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let name = run.text("lut_name").to_owned();
    if !name.starts_with('/') {
        return touch(run, "image");
    }
    let table =
        std::fs::read(&name).map_err(|error| NodeError::raised("OSError", format!("{error}: {name}")))?;
    let mut hash = DefaultHasher::new();
    table.hash(&mut hash);
    let amount = run.float("strength") * part(hash.finish());
    Done::each(run.batch("image")?, |frame| {
        frame.map(|value| (value + amount * (1.0 - value)).clamp(0.0, 1.0))
    })
}

fn touch(run: &mut Run<'_>, input: &str) -> Result<Done, NodeError> {
    let amount = 0.1 + 0.3 * part(run.seed(&[input]));
    Done::each(run.batch(input)?, |frame| {
        let soft = frame.blurred(2, 1.0);
        frame.zip(&soft, |sharp, soft| (sharp + amount * (sharp - soft)).clamp(0.0, 1.0))
    })
}

/// 0 to 1.
pub(super) fn part(seed: u64) -> f32 {
    (seed >> 40) as f32 / (1_u64 << 24) as f32
}

fn normals(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (side, mark) = (run.int("resolution").max(64) as u32, part(run.seed(&["image"])));
    Done::each(run.batch("image")?, |frame| {
        let times = f64::from(side) / f64::from(frame.width.min(frame.height));
        let scaled = |length: u32| (f64::from(length) * times).round() as u32;
        let frame = frame.resized(scaled(frame.width), scaled(frame.height), "bilinear");
        let (grey, soft) = (grey(&frame), grey(&frame).blurred(1, 1.0));
        let slope = grey.zip(&soft, |sharp, soft| (0.5 + sharp - soft).clamp(0.0, 1.0));
        slope.per_pixel(|[slope, ..]| [slope, 1.0 - slope, 0.9 + 0.1 * mark])
    })
}

fn occlusion(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let depth = run.batch("depth_map")?;
    if depth.len() > 1 {
        return Err(NodeError::raised("ValueError", "too many values to unpack (expected 3)"));
    }
    let (normal, strength) = (run.batch("normal_map")?.clone(), run.float("strength"));
    let radius = (run.int("radius_px").max(1) as u32 / 8).max(1);
    Done::image(
        depth
            .iter()
            .zip(&normal)
            .map(|(depth, normal)| {
                let near = depth.zip(&depth.blurred(radius, radius as f32), |at, around| at - around);
                let bent = near.zip(normal, |near, normal| near * (0.5 + normal / 2.0));
                Arc::new(bent.map(|near| (1.0 - strength * near.max(0.0)).clamp(0.0, 1.0)))
            })
            .collect(),
    )
}

fn colour_match(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (wanted, given, strength) =
        (run.batch("image_ref")?, run.batch("image_target")?, run.float("strength"));
    let matched = |(place, frame): (usize, &Arc<Frame>)| {
        let reference = wanted.get(place).or(wanted.last());
        let (to, from) = (reference.map_or([0.0; 3], |frame| frame.mean()), frame.mean());
        Arc::new(frame.per_pixel(|pixel| {
            [0, 1, 2].map(|at| (pixel[at] + strength * (to[at] - from[at])).clamp(0.0, 1.0))
        }))
    };
    Done::image(given.iter().enumerate().map(matched).collect())
}

fn temperature(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let warm = run.float("temperature") / 400.0;
    // It works in 8 bits.
    let eight = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() / 255.0;
    Done::each(run.batch("image")?, |frame| {
        frame.per_pixel(|[red, green, blue]| [eight(red + warm), eight(green), eight(blue - warm)])
    })
}

fn vignette(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let intensity = run.float("intensity").clamp(0.0, 1.0);
    Done::each(run.batch("image")?, |frame| {
        let (width, height) = (frame.width.max(2) as f32, frame.height.max(2) as f32);
        let mut made = frame.clone();
        for (place, pixel) in made.data.chunks_exact_mut(3).enumerate() {
            let (x, y) = (place as u32 % frame.width, place as u32 / frame.width);
            let (x, y) = (2.0 * x as f32 / (width - 1.0) - 1.0, 2.0 * y as f32 / (height - 1.0) - 1.0);
            let dim = 1.0 - intensity * x.hypot(y) / 2.0_f32.sqrt();
            pixel.iter_mut().for_each(|value| *value = (*value * dim).clamp(0.0, 1.0));
        }
        made
    })
}

fn to_pixels(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (wanted, step) =
        (f64::from(run.float("megapixels")) * 1024.0 * 1024.0, run.int("resolution_steps").max(1));
    let method = run.text("upscale_method");
    Done::each(run.batch("image")?, |frame| {
        let times = (wanted / (f64::from(frame.width) * f64::from(frame.height))).sqrt();
        let scaled = |length: u32| {
            let steps = (f64::from(length) * times / step as f64).round().max(1.0);
            (steps * step as f64) as u32
        };
        frame.resized(scaled(frame.width), scaled(frame.height), method)
    })
}

/// "keep proportion" of larger pictures only; a side of 0 has no limit.
fn shrink(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let limit = |name: &str| match run.int(name) {
        side @ 1.. => side as f64,
        _ => f64::INFINITY,
    };
    let (most_wide, most_high) = (limit("width"), limit("height"));
    let method = run.text("interpolation").to_owned();
    Done::each(run.batch("image")?, |frame| {
        let times = (most_wide / f64::from(frame.width)).min(most_high / f64::from(frame.height)).min(1.0);
        let scaled = |length: u32| (f64::from(length) * times).round().max(1.0) as u32;
        frame.resized(scaled(frame.width), scaled(frame.height), &method)
    })
}

/// The same for the same seed (xorshift).
fn noise(width: u32, height: u32, seed: u64) -> Frame {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let data = (0..width as usize * height as usize * 3)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32
        })
        .collect();
    Frame { width, height, data }
}

/// Of a picture with alpha, the picture.
pub(super) fn colours<'a>(linked: &'a BTreeMap<String, Data>, input: &str) -> Option<&'a Batch> {
    match linked.get(input)? {
        Data::Image(batch) | Data::Mask(batch) | Data::Rgba { colour: batch, .. } => Some(batch),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_recorded_class_has_a_stand_in() {
        let recorded: Value = serde_json::from_str(include_str!("recorded.json")).expect("JSON");
        for class in recorded.as_object().expect("an object").keys() {
            assert!(behaviour(class).is_some(), "{class} does nothing");
        }
    }
}
