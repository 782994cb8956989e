//! Picture to picture.

use std::sync::Arc;

use super::{Class, Data, Done, Input, NodeError, Run};
use crate::pixels::{Batch, Frame};

const METHODS: &[&str] = &["nearest-exact", "bilinear", "area", "bicubic", "lanczos"];
const SIDE: Input = Input::Int { default: 512, min: 0, max: 16384 };
const IMAGE: Input = Input::Link("IMAGE");
const RADIUS: Input = Input::Int { default: 1, min: 1, max: 31 };
const SIGMA: Input = Input::Float { default: 1.0, min: 0.1, max: 10.0 };

/// An `IMAGE` to `IMAGE` class of ComfyUI's core.
const fn core(
    name: &'static str,
    required: &'static [(&'static str, Input)],
    weight: f64,
    run: fn(&mut Run<'_>) -> Result<Done, NodeError>,
) -> Class {
    Class {
        name,
        category: "image",
        module: "nodes",
        required,
        optional: &[],
        hidden: &[],
        outputs: &["IMAGE"],
        is_output: false,
        weight,
        run,
        check: None,
        is_changed: None,
    }
}

pub(super) const CLASSES: &[Class] = &[
    core(
        "EmptyImage",
        &[
            ("width", Input::Int { default: 512, min: 1, max: 16384 }),
            ("height", Input::Int { default: 512, min: 1, max: 16384 }),
            ("batch_size", Input::Int { default: 1, min: 1, max: 4096 }),
            ("color", Input::Int { default: 0, min: 0, max: 0x00ff_ffff }),
        ],
        0.0,
        empty,
    ),
    core(
        "ImageScale",
        &[
            ("image", IMAGE),
            ("upscale_method", Input::Combo { choices: METHODS, new_style: false }),
            ("width", SIDE),
            ("height", SIDE),
            ("crop", Input::Combo { choices: &["disabled", "center"], new_style: false }),
        ],
        0.25,
        scale,
    ),
    core(
        "ImageScaleBy",
        &[
            ("image", IMAGE),
            ("upscale_method", Input::Combo { choices: METHODS, new_style: false }),
            ("scale_by", Input::Float { default: 1.0, min: 0.01, max: 8.0 }),
        ],
        0.25,
        scale_by,
    ),
    core("ImageInvert", &[("image", IMAGE)], 0.25, |run| {
        Done::each(run.batch("image")?, |f| f.map(|v| 1.0 - v))
    }),
    core("ImageBlur", &[("image", IMAGE), ("blur_radius", RADIUS), ("sigma", SIGMA)], 1.0, |run| {
        let (radius, sigma) = (run.int("blur_radius") as u32, run.float("sigma"));
        Done::each(run.batch("image")?, |frame| frame.blurred(radius, sigma))
    }),
    core(
        "ImageSharpen",
        &[
            ("image", IMAGE),
            ("sharpen_radius", RADIUS),
            ("sigma", SIGMA),
            ("alpha", Input::Float { default: 1.0, min: 0.0, max: 5.0 }),
        ],
        1.0,
        sharpen,
    ),
    core(
        "ImageBlend",
        &[
            ("image1", IMAGE),
            ("image2", IMAGE),
            ("blend_factor", Input::Float { default: 0.5, min: 0.0, max: 1.0 }),
            (
                "blend_mode",
                Input::Combo {
                    choices: &["normal", "multiply", "screen", "overlay", "soft_light", "difference"],
                    new_style: true,
                },
            ),
        ],
        0.5,
        blend,
    ),
    core("ImageBatch", &[("image1", IMAGE), ("image2", IMAGE)], 0.0, batch),
    core(
        "ImageFromBatch",
        &[
            ("image", IMAGE),
            ("batch_index", Input::Int { default: 0, min: 0, max: 4095 }),
            ("length", Input::Int { default: 1, min: 1, max: 4096 }),
        ],
        0.0,
        from_batch,
    ),
    core(
        "RepeatImageBatch",
        &[("image", IMAGE), ("amount", Input::Int { default: 1, min: 1, max: 4096 })],
        0.0,
        |run| {
            let all = run.batch("image")?;
            Done::image(
                all.iter().cycle().take(all.len() * run.int("amount").max(1) as usize).cloned().collect(),
            )
        },
    ),
    // Not a real ComfyUI's: the mean over neighbours in time, shorter at the ends of the batch. With it a
    // test can prove that handles make a split invisible, for any radius.
    core(
        "SimulatorTemporalMean",
        &[("image", IMAGE), ("radius", Input::Int { default: 1, min: 0, max: 64 })],
        1.0,
        temporal_mean,
    ),
];

fn empty(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let colour = run.int("color");
    let part = |shift: u32| ((colour >> shift) & 0xff) as f32 / 255.0;
    let frame =
        Frame::filled(run.int("width") as u32, run.int("height") as u32, [part(16), part(8), part(0)]);
    let frame = Arc::new(frame);
    Done::image((0..run.int("batch_size").max(1)).map(|_| frame.clone()).collect())
}

fn scale(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (method, width, height) = (run.text("upscale_method"), run.int("width"), run.int("height"));
    Done::each(run.batch("image")?, |frame| {
        // A side of 0 keeps the aspect.
        let (old_width, old_height) = (i64::from(frame.width), i64::from(frame.height));
        let (width, height) = match (width, height) {
            (0, 0) => (old_width, old_height),
            (0, height) => ((old_width * height / old_height).max(1), height),
            (width, 0) => (width, (old_height * width / old_width).max(1)),
            sides => sides,
        };
        frame.resized(width as u32, height as u32, method)
    })
}

fn scale_by(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (method, factor) = (run.text("upscale_method"), run.float("scale_by"));
    let side = |old: u32| ((old as f32 * factor).round() as u32).max(1);
    Done::each(run.batch("image")?, |frame| frame.resized(side(frame.width), side(frame.height), method))
}

/// Unsharp masking: the picture plus ten times alpha of what a blur takes from it.
fn sharpen(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (radius, sigma, alpha) = (run.int("sharpen_radius") as u32, run.float("sigma"), run.float("alpha"));
    Done::each(run.batch("image")?, |frame| {
        let soft = frame.blurred(radius, sigma);
        frame.zip(&soft, |sharp, soft| (sharp + 10.0 * alpha * (sharp - soft)).clamp(0.0, 1.0))
    })
}

fn blend(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (below, above) = (run.batch("image1")?, run.batch("image2")?);
    let (factor, mode) = (run.float("blend_factor"), run.text("blend_mode"));
    if below.len() != above.len() && below.len() != 1 && above.len() != 1 {
        let message = format!(
            "The size of tensor a ({}) must match the size of tensor b ({}) at non-singleton dimension 0",
            below.len(),
            above.len()
        );
        return Err(NodeError::raised("RuntimeError", message));
    }
    let mix = |a: f32, b: f32| -> f32 {
        let mixed = match mode {
            "multiply" => a * b,
            "screen" => 1.0 - (1.0 - a) * (1.0 - b),
            "overlay" if a <= 0.5 => 2.0 * a * b,
            "overlay" => 1.0 - 2.0 * (1.0 - a) * (1.0 - b),
            "soft_light" if b <= 0.5 => a - (1.0 - 2.0 * b) * a * (1.0 - a),
            "soft_light" => a + (2.0 * b - 1.0) * (a.sqrt() - a),
            "difference" => a - b,
            _ => b,
        };
        (a * (1.0 - factor) + mixed * factor).clamp(0.0, 1.0)
    };
    let at = |batch: &Batch, index: usize| batch[index.min(batch.len() - 1)].clone();
    let made = (0..below.len().max(above.len())).map(|index| {
        let lower = at(below, index);
        let upper = at(above, index).resized(lower.width, lower.height, "bicubic");
        Arc::new(lower.zip(&upper, mix))
    });
    Done::image(made.collect())
}

/// Joins; what differs in size takes the size of the first.
fn batch(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let mut all = run.batch("image1")?.clone();
    let (width, height) = all.first().map_or((0, 0), |frame| (frame.width, frame.height));
    for frame in run.batch("image2")? {
        let fits = (frame.width, frame.height) == (width, height);
        all.push(if fits { frame.clone() } else { frame.resized(width, height, "bilinear").into() });
    }
    Done::image(all)
}

/// Index and length are clamped to what is there.
fn from_batch(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let all = run.batch("image")?;
    let first = (run.int("batch_index").max(0) as usize).min(all.len().saturating_sub(1));
    let last = (first + run.int("length").max(1) as usize).min(all.len());
    Done::image(all[first..last].to_vec())
}

fn temporal_mean(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (all, radius) = (run.batch("image")?, run.int("radius").max(0) as usize);
    let made = (0..all.len()).map(|index| {
        let window = &all[index.saturating_sub(radius)..(index + radius + 1).min(all.len())];
        let mut sum = Frame::filled(window[0].width, window[0].height, [0.0; 3]);
        for frame in window {
            sum = sum.zip(frame, |sum, value| sum + value);
        }
        Arc::new(sum.map(|value| value / window.len() as f32))
    });
    Ok(Done { outputs: vec![Data::Image(made.collect())], shown: None })
}
