//! Classes of custom node packages that pictures in and out of a farm depend on: float EXR files
//! (ComfyUI-HQ-Image-Save) and frames between frames (ComfyUI-Frame-Interpolation). Inputs, file names and counts
//! are the real ones; what RIFE paints is a plain mix.

use std::{path::Path, sync::Arc};

use serde_json::json;

use super::{Class, Data, Done, Input, NodeError, Run};
use crate::pixels::Frame;

const TONEMAPS: &[&str] = &["linear", "sRGB", "Reinhard"];
const HQ: &str = "custom_nodes.ComfyUI-HQ-Image-Save";

const FRAME: Input = Input::Int { default: 1001, min: 0, max: 9999 };

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "LoadEXRFrames",
        category: "image",
        module: HQ,
        required: &[
            ("filepath", Input::Text { default: "path/to/frame%04d.exr" }),
            ("tonemap", Input::Combo { choices: TONEMAPS, new_style: false }),
            ("start_frame", FRAME),
            ("end_frame", FRAME),
        ],
        optional: &[],
        hidden: &[],
        outputs: &["IMAGE", "MASK", "INT", "INT"],
        is_output: false,
        weight: 0.0,
        run: load_exr,
        check: None,
        is_changed: None,
    },
    Class {
        name: "SaveEXRFrames",
        category: "image",
        module: HQ,
        required: &[
            ("images", Input::Link("IMAGE")),
            ("filepath", Input::Text { default: "path/to/frame%04d.exr" }),
            ("tonemap", Input::Combo { choices: TONEMAPS, new_style: false }),
            ("start_frame", FRAME),
            ("overwrite", Input::Bool { default: true }),
            ("save_workflow", Input::Combo { choices: &["ui", "api", "ui + api", "none"], new_style: false }),
        ],
        optional: &[],
        hidden: &["extra_pnginfo", "prompt"],
        outputs: &[],
        is_output: true,
        weight: 0.0,
        run: save_exr,
        check: None,
        is_changed: None,
    },
];

fn numbered(path: &str, number: i64) -> String {
    path.replace("%04d", &format!("{number:04}"))
}

fn load_exr(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (path, first, last) = (run.text("filepath").to_owned(), run.int("start_frame"), run.int("end_frame"));
    let path = run.config.base.join(path).display().to_string();
    let curve: fn(f32) -> f32 = match run.text("tonemap") {
        "sRGB" => to_srgb,
        _ => |light| light,
    };
    let (mut frames, mut masks) = (Vec::new(), Vec::new());
    for number in first..=last {
        let file = numbered(&path, number);
        let missing = || NodeError::raised("Exception", format!("Path not found: {file}"));
        let (frame, alpha) = Frame::load_float(Path::new(&file)).map_err(|_| missing())?;
        frames.push(Arc::new(frame.map(curve)));
        masks.push(Arc::new(alpha.map(|alpha| 1.0 - alpha)));
    }
    let count = Data::Int(frames.len() as i64);
    let outputs = vec![Data::Image(frames), Data::Mask(masks), count, Data::Int(first)];
    Ok(Done { outputs, shown: None })
}

fn save_exr(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let path = run.text("filepath").to_owned();
    if !path.to_lowercase().ends_with(".exr") {
        return Err(NodeError::raised("Exception", "Filepath needs to end in .exr or .EXR"));
    }
    let folder = Path::new(&path).parent().filter(|folder| folder.is_absolute());
    let folder = folder.ok_or_else(|| NodeError::raised("Exception", "Invalid filepath"))?;
    let failed = |error: std::io::Error| NodeError::raised("OSError", error.to_string());
    std::fs::create_dir_all(folder).map_err(failed)?;
    let curve: fn(f32) -> f32 = match run.text("tonemap") {
        "sRGB" => to_linear,
        _ => |light| light,
    };
    for (number, frame) in (run.int("start_frame")..).zip(run.batch("images")?.clone()) {
        let place = (number - run.int("start_frame")) as usize;
        let bytes = match run.linked.get("images") {
            // It turns a fourth channel round: transparency is what it wants.
            Some(Data::Rgba { alpha, .. }) => {
                frame.map(curve).exr_with(&alpha[place].map(|value| 1.0 - value))
            }
            _ => frame.map(curve).exr(),
        };
        let bytes = bytes.ok_or_else(|| NodeError::raised("ValueError", "cannot encode the picture"))?;
        (run.write)(Path::new(&numbered(&path, number)), &bytes).map_err(failed)?;
    }
    // The real one lists nothing.
    Ok(Done { outputs: Vec::new(), shown: Some(json!({ "images": [] })) })
}

/// `multiplier * (n - 1) + 1` pictures of n, the last of the clip written once.
pub(super) fn interpolate(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let multiplier = run.int("multiplier").max(1);
    let frames = run.batch("frames")?.clone();
    let mut made = Vec::new();
    for pair in frames.windows(2) {
        for step in 0..multiplier {
            let part = step as f32 / multiplier as f32;
            made.push(if step == 0 {
                pair[0].clone()
            } else {
                Arc::new(pair[0].zip(&pair[1], |before, after| before + (after - before) * part))
            });
        }
    }
    made.extend(frames.last().cloned());
    Done::image(made)
}

fn to_srgb(light: f32) -> f32 {
    if light <= 0.003_130_8 { light * 12.92 } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 }
}

fn to_linear(number: f32) -> f32 {
    if number <= 0.040_45 { number / 12.92 } else { ((number + 0.055) / 1.055).powf(2.4) }
}
