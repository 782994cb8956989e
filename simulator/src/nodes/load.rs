//! From files to pictures: `LoadImage`, and a folder as VideoHelperSuite loads it.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::{Map, Value};

use super::{Class, Data, Done, Input, NodeError, Run, number, stamp};
use crate::{config::Config, pixels::Frame};

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "LoadImage",
        category: "image",
        module: "nodes",
        required: &[("image", Input::InputFile)],
        optional: &[],
        hidden: &[],
        outputs: &["IMAGE", "MASK"],
        is_output: false,
        weight: 0.0,
        run: load_image,
        check: Some(|config, inputs| {
            let image = inputs.get("image").and_then(Value::as_str).unwrap_or("");
            let path = annotated(config, image);
            if path.is_some_and(|path| path.is_file()) {
                Ok(())
            } else {
                Err(format!("Invalid image file: {image}"))
            }
        }),
        is_changed: Some(|config, inputs| {
            let image = inputs.get("image").and_then(Value::as_str).unwrap_or("");
            annotated(config, image).map(|path| stamp(&path)).unwrap_or_default()
        }),
    },
    Class {
        name: "VHS_LoadImagesPath",
        category: "Video Helper Suite",
        module: "custom_nodes.ComfyUI-VideoHelperSuite",
        required: &[("directory", Input::Text { default: "X://path/to/images" })],
        optional: &[
            ("image_load_cap", Input::Int { default: 0, min: 0, max: 9_007_199_254_740_991 }),
            ("skip_first_images", Input::Int { default: 0, min: 0, max: 9_007_199_254_740_991 }),
            ("select_every_nth", Input::Int { default: 1, min: 1, max: 9_007_199_254_740_991 }),
        ],
        hidden: &["unique_id"],
        outputs: &["IMAGE", "MASK", "INT"],
        is_output: false,
        weight: 0.0,
        run: load_folder,
        check: Some(|config, inputs| list(config, inputs).map(drop)),
        is_changed: Some(|config, inputs| {
            let files = list(config, inputs).unwrap_or_default();
            files.iter().map(|path| format!("{}@{}", path.display(), stamp(path))).collect()
        }),
    },
];

/// The file of `name`, `name [output]` or `name [temp]`, relative to its folder. Older releases let an absolute path
/// stand for itself; newer ones refuse whatever lies outside, links followed.
fn annotated(config: &Config, name: &str) -> Option<PathBuf> {
    let (name, folder) = match name.rsplit_once(" [") {
        Some((name, "output]")) => (name, config.output()),
        Some((name, "temp]")) => (name, config.temp()),
        Some((name, "input]")) => (name, config.input()),
        _ => (name, config.input()),
    };
    let path = folder.join(name);
    if name.is_empty() {
        return None;
    }
    if config.version.confines_loads() {
        let (folder, target) = (folder.canonicalize().ok()?, path.canonicalize().ok()?);
        return target.starts_with(folder).then_some(path);
    }
    Some(path)
}

fn load_image(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let image = run.text("image");
    let path = annotated(run.config, image).unwrap_or_default();
    let frame = read(&path)?;
    let mask = Frame::filled(64, 64, [0.0; 3]);
    Ok(Done {
        outputs: vec![Data::Image(vec![Arc::new(frame)]), Data::Mask(vec![Arc::new(mask)])],
        shown: None,
    })
}

fn read(path: &std::path::Path) -> Result<Frame, NodeError> {
    Frame::load(path).map_err(|error| match error {
        image::ImageError::IoError(_) => {
            NodeError::raised("OSError", format!("image file is truncated or unreadable: {}", path.display()))
        }
        _ => NodeError::raised(
            "PIL.UnidentifiedImageError",
            format!("cannot identify image file '{}'", path.display()),
        ),
    })
}

/// The files that would be loaded: by extension, in the order of their names as text, skipped, thinned, cut.
fn list(config: &Config, inputs: &Map<String, Value>) -> Result<Vec<PathBuf>, String> {
    const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];
    let directory = inputs.get("directory").and_then(Value::as_str).unwrap_or("").trim();
    let directory = directory.trim_matches(['"', '\'']);
    let folder = config.base.join(directory);
    if directory.is_empty() || !folder.is_dir() {
        return Err(format!("Directory '{directory}' cannot be found."));
    }
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|ext| ext.to_str()).unwrap_or("").to_lowercase();
            EXTENSIONS.contains(&extension.as_str())
        })
        .collect();
    files.sort();
    let count =
        |name: &str, default: f64| inputs.get(name).and_then(number).unwrap_or(default).max(0.0) as usize;
    let cap = match count("image_load_cap", 0.0) {
        0 => usize::MAX,
        cap => cap,
    };
    let files: Vec<PathBuf> = files
        .into_iter()
        .skip(count("skip_first_images", 0.0))
        .step_by(count("select_every_nth", 1.0).max(1))
        .take(cap)
        .collect();
    if files.is_empty() { Err(format!("No files in directory '{directory}'.")) } else { Ok(files) }
}

fn load_folder(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let files = list(run.config, run.inputs).map_err(|text| NodeError::raised("FileNotFoundError", text))?;
    let mut frames: Vec<Arc<Frame>> = Vec::with_capacity(files.len());
    for path in &files {
        let frame = read(path)?;
        // The commonest size wins there; the first is near enough here.
        let size = frames.first().map_or((frame.width, frame.height), |first| (first.width, first.height));
        frames.push(frame.resized(size.0, size.1, "bilinear").into());
    }
    let count = Data::Int(frames.len() as i64);
    let mask = Data::Mask(vec![Arc::new(Frame::filled(64, 64, [0.0; 3]))]);
    Ok(Done { outputs: vec![Data::Image(frames), mask, count], shown: None })
}
