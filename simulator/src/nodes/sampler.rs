//! Just enough of diffusion to run its protocol: loaders, a sampler with steps and previews, a decoder that
//! makes noise from the seed. No model is run.

use std::sync::Arc;

use super::{Class, Data, Done, Input, NodeError, Run};
use crate::pixels::Frame;

const fn class(
    name: &'static str,
    required: &'static [(&'static str, Input)],
    outputs: &'static [&'static str],
    run: fn(&mut Run<'_>) -> Result<Done, NodeError>,
) -> Class {
    Class {
        name,
        category: "sampling",
        module: "nodes",
        required,
        optional: &[],
        hidden: &[],
        outputs,
        is_output: false,
        weight: 0.0,
        run,
        check: None,
        is_changed: None,
    }
}

const SIDE: Input = Input::Int { default: 512, min: 16, max: 16384 };

pub(super) const CLASSES: &[Class] = &[
    class(
        "UNETLoader",
        &[
            ("unet_name", Input::Model("diffusion_models")),
            (
                "weight_dtype",
                Input::Combo { choices: &["default", "fp8_e4m3fn", "fp8_e5m2"], new_style: false },
            ),
        ],
        &["MODEL"],
        |_| token("MODEL"),
    ),
    Class {
        optional: &[("device", Input::Combo { choices: &["default", "cpu"], new_style: false })],
        ..class(
            "CLIPLoader",
            &[
                ("clip_name", Input::Model("text_encoders")),
                ("type", Input::Combo { choices: &["stable_diffusion", "sd3", "flux2"], new_style: false }),
            ],
            &["CLIP"],
            |_| token("CLIP"),
        )
    },
    class("VAELoader", &[("vae_name", Input::Model("vae"))], &["VAE"], |_| token("VAE")),
    class(
        "CheckpointLoaderSimple",
        &[("ckpt_name", Input::Model("checkpoints"))],
        &["MODEL", "CLIP", "VAE"],
        // Its model files are empty, as in a ComfyUI whose download broke off.
        |_| {
            let message = "Error while deserializing header: header too small\n";
            Err(NodeError::raised("safetensors._safetensors_rust.SafetensorError", message))
        },
    ),
    class(
        "CLIPTextEncode",
        &[("text", Input::Text { default: "" }), ("clip", Input::Link("CLIP"))],
        &["CONDITIONING"],
        |_| token("CONDITIONING"),
    ),
    class(
        "EmptyLatentImage",
        &[("width", SIDE), ("height", SIDE), ("batch_size", Input::Int { default: 1, min: 1, max: 4096 })],
        &["LATENT"],
        |run| {
            let (width, height) = (run.int("width") as u32, run.int("height") as u32);
            let count = run.int("batch_size").max(1) as usize;
            let latent = Data::Token { kind: "LATENT", width, height, count, seed: 0 };
            Ok(Done { outputs: vec![latent], shown: None })
        },
    ),
    class(
        "KSampler",
        &[
            ("model", Input::Link("MODEL")),
            ("seed", Input::Int { default: 0, min: 0, max: u64::MAX }),
            ("steps", Input::Int { default: 20, min: 1, max: 10_000 }),
            ("cfg", Input::Float { default: 8.0, min: 0.0, max: 100.0 }),
            ("sampler_name", Input::Combo { choices: &["euler", "dpmpp_2m", "ddim"], new_style: false }),
            ("scheduler", Input::Combo { choices: &["normal", "karras", "simple"], new_style: false }),
            ("positive", Input::Link("CONDITIONING")),
            ("negative", Input::Link("CONDITIONING")),
            ("latent_image", Input::Link("LATENT")),
            ("denoise", Input::Float { default: 1.0, min: 0.0, max: 1.0 }),
        ],
        &["LATENT"],
        sample,
    ),
    class(
        "VAEDecode",
        &[("samples", Input::Link("LATENT")), ("vae", Input::Link("VAE"))],
        &["IMAGE"],
        |run| {
            let Some(Data::Token { width, height, count, seed, .. }) = run.linked.get("samples") else {
                return Err(NodeError::raised("TypeError", "samples: expected a latent"));
            };
            Done::image(
                (0..*count).map(|index| Arc::new(noise(*width, *height, seed + index as u64))).collect(),
            )
        },
    ),
];

fn token(kind: &'static str) -> Result<Done, NodeError> {
    let count = if kind == "MODEL" { 3 } else { 1 };
    // A loader with several outputs gives each of its kind; nobody looks inside.
    let outputs = (0..count).map(|_| Data::Token { kind, width: 0, height: 0, count: 1, seed: 0 }).collect();
    Ok(Done { outputs, shown: None })
}

fn sample(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let Some(Data::Token { width, height, count, .. }) = run.linked.get("latent_image").cloned() else {
        return Err(NodeError::raised("TypeError", "latent_image: expected a latent"));
    };
    let (seed, steps) = (run.int("seed") as u64, run.int("steps").max(1) as u64);
    let picture = noise(width, height, seed);
    for step in 1..=steps {
        (run.progress)(step, steps, Some(&picture))?;
    }
    Ok(Done { outputs: vec![Data::Token { kind: "LATENT", width, height, count, seed }], shown: None })
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
