//! From pictures to files, numbered as ComfyUI numbers them.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{Class, Done, Input, NodeError, Run};
use crate::pixels::Frame;

const fn saver(name: &'static str, run: fn(&mut Run<'_>) -> Result<Done, NodeError>) -> Class {
    Class {
        name,
        category: "image",
        module: "nodes",
        required: &[
            ("images", Input::Link("IMAGE")),
            ("filename_prefix", Input::Text { default: "ComfyUI" }),
        ],
        optional: &[],
        hidden: &[],
        outputs: &[],
        is_output: true,
        weight: 0.0,
        run,
        check: None,
        is_changed: None,
    }
}

pub(super) const CLASSES: &[Class] = &[
    saver("SaveImage", |run| save(run, "output", Frame::png8)),
    // Not a real ComfyUI's: there, 16 bits need a custom node whose naming is its own.
    saver("SimulatorSaveImage16", |run| save(run, "output", Frame::png16)),
    Class {
        required: &[("images", Input::Link("IMAGE"))],
        ..saver("PreviewImage", |run| save(run, "temp", Frame::png8))
    },
];

/// Writes `prefix_00001_.png` and so on, behind the highest number that stands there.
fn save(run: &mut Run<'_>, kind: &str, encode: fn(&Frame) -> Option<Vec<u8>>) -> Result<Done, NodeError> {
    let prefix = if kind == "temp" { "ComfyUI_temp_simul" } else { run.text("filename_prefix") }.to_owned();
    let (subfolder, stem) = prefix.rsplit_once('/').unwrap_or(("", &prefix));
    if prefix.split('/').any(|part| part == "..") || prefix.starts_with('/') {
        let message = "**** ERROR: Saving image outside the output folder is not allowed.";
        return Err(NodeError::raised("Exception", message));
    }
    let base = if kind == "temp" { run.config.temp() } else { run.config.output() };
    let folder = base.join(subfolder);
    let failed = |error: std::io::Error| NodeError::raised("OSError", error.to_string());
    fs::create_dir_all(&folder).map_err(failed)?;
    let first = highest(&folder, stem) + 1;
    let mut saved: Vec<Value> = Vec::new();
    for (counter, frame) in (first..).zip(run.batch("images")?.clone()) {
        let name = format!("{stem}_{counter:05}_.png");
        let bytes =
            encode(&frame).ok_or_else(|| NodeError::raised("ValueError", "cannot encode the picture"))?;
        (run.write)(&folder.join(&name), &bytes).map_err(failed)?;
        saved.push(json!({ "filename": name, "subfolder": subfolder, "type": kind }));
    }
    Ok(Done { outputs: Vec::new(), shown: Some(json!({ "images": saved })) })
}

/// The highest number of `stem_<number>_…` in the folder.
fn highest(folder: &Path, stem: &str) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(stem)?.strip_prefix('_')?.split(['_', '.']).next()?.parse::<u64>().ok()
    });
    numbers.max().unwrap_or(0)
}
