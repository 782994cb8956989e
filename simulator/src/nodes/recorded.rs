//! Classes as a real server declares them, custom node packages included (`recorded.json`, from the `/object_info` of
//! a 0.19.3): names, inputs, ranges, choices and outputs are theirs, what they do is a stand-in of ours.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::{Class, Input, stand_in};

/// Inputs whose choices are the files of a model folder.
const MODELS: &[(&str, &str, &str)] = &[
    ("ADE_LoadAnimateDiffModel", "model_name", "animatediff_models"),
    ("CLIPLoader", "clip_name", "text_encoders"),
    ("CLIPVisionLoader", "clip_name", "clip_vision"),
    ("CheckpointLoaderSimple", "ckpt_name", "checkpoints"),
    ("ControlNetLoader", "control_net_name", "controlnet"),
    ("DualCLIPLoader", "clip_name1", "text_encoders"),
    ("DualCLIPLoader", "clip_name2", "text_encoders"),
    ("FaceRestoreModelLoader", "model_name", "facerestore_models"),
    ("IPAdapterModelLoader", "ipadapter_file", "ipadapter"),
    ("LoraLoaderModelOnly", "lora_name", "loras"),
    ("ModelPatchLoader", "name", "model_patches"),
    ("ProPostApplyLUT", "lut_name", "luts"),
    ("StyleModelLoader", "style_model_name", "style_models"),
    ("UNETLoader", "unet_name", "diffusion_models"),
    ("UpscaleModelLoader", "model_name", "upscale_models"),
    ("VAELoader", "vae_name", "vae"),
];

static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let recorded: Map<String, Value> =
        serde_json::from_str(include_str!("recorded.json")).unwrap_or_default();
    recorded.iter().filter_map(|(name, entry)| class(name, entry)).collect()
});

pub(super) fn classes() -> &'static [Class] {
    &CLASSES
}

/// Kept for as long as the process lives: there is one table of classes.
fn keep(text: &str) -> &'static str {
    text.to_owned().leak()
}

fn class(name: &str, entry: &Value) -> Option<Class> {
    let (weight, run) = stand_in::behaviour(name)?;
    let name = keep(name);
    let inputs = |kind: &str| -> &'static [(&'static str, Input)] {
        let order = entry["input_order"][kind].as_array().into_iter().flatten().filter_map(Value::as_str);
        let read = |input: &str| (keep(input), declared(name, input, &entry["input"][kind][input]));
        order.map(read).collect::<Vec<_>>().leak()
    };
    let texts = |value: &Value| -> &'static [&'static str] {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(keep).collect::<Vec<_>>().leak()
    };
    Some(Class {
        name,
        category: keep(entry["category"].as_str().unwrap_or("")),
        module: keep(entry["python_module"].as_str().unwrap_or("nodes")),
        required: inputs("required"),
        optional: inputs("optional"),
        hidden: &[],
        outputs: texts(&entry["output"]),
        is_output: entry["output_node"] == true,
        weight,
        run,
        check: None,
        is_changed: None,
    })
}

fn declared(class: &str, input: &str, declaration: &Value) -> Input {
    if let Some((.., folder)) = MODELS.iter().find(|(of, name, _)| (*of, *name) == (class, input)) {
        return Input::Model(folder);
    }
    let options = &declaration[1];
    let listed =
        |choices: &Value| choices.as_array().cloned().unwrap_or_default().leak() as &'static [Value];
    match &declaration[0] {
        choices @ Value::Array(_) => Input::Listed { choices: listed(choices), new_style: false },
        Value::String(kind) => match kind.as_str() {
            "INT" => Input::Int {
                default: options["default"].as_i64().unwrap_or(0),
                min: options["min"].as_i64().unwrap_or(i64::MIN),
                max: options["max"].as_u64().unwrap_or(u64::MAX),
            },
            "FLOAT" => Input::Float {
                default: options["default"].as_f64().unwrap_or(0.0),
                min: options["min"].as_f64().unwrap_or(f64::MIN),
                max: options["max"].as_f64().unwrap_or(f64::MAX),
            },
            "STRING" => Input::Text { default: keep(options["default"].as_str().unwrap_or("")) },
            "BOOLEAN" => Input::Bool { default: options["default"] == true },
            "COMBO" => Input::Listed { choices: listed(&options["options"]), new_style: true },
            kind => Input::Link(keep(kind)),
        },
        _ => Input::Link("*"),
    }
}
