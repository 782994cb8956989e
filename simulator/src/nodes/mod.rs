//! The node classes: what each declares, and what it does.

mod custom;
mod image;
mod load;
mod matte;
mod recorded;
mod save;
mod stand_in;

use std::{collections::BTreeMap, time::SystemTime};

use serde_json::{Map, Value, json};

use crate::{config::Config, pixels::Batch};

/// What flows along a link.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    Image(Batch),
    Mask(Batch),
    /// A picture with a fourth channel.
    Rgba {
        colour: Batch,
        alpha: Batch,
    },
    /// Pictures on their way through a sampler.
    Latent(Batch),
    Int(i64),
    Text(String),
    /// Models, conditionings and empty latents: only their type and origin matter here.
    Token {
        kind: &'static str,
        width: u32,
        height: u32,
        count: usize,
        seed: u64,
    },
}

/// The declared type of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Comes over a link, of this type.
    Link(&'static str),
    Int {
        default: i64,
        min: i64,
        max: u64,
    },
    Float {
        default: f64,
        min: f64,
        max: f64,
    },
    Text {
        default: &'static str,
    },
    Bool {
        default: bool,
    },
    /// Fixed choices, in the older or newer way of declaring them.
    Combo {
        choices: &'static [&'static str],
        new_style: bool,
    },
    /// Choices that may be numbers, too.
    Listed {
        choices: &'static [Value],
        new_style: bool,
    },
    /// The files of a model folder.
    Model(&'static str),
    /// A file of the input folder; checked by the node's own hook.
    InputFile,
}

/// A node class.
pub struct Class {
    pub name: &'static str,
    pub category: &'static str,
    pub module: &'static str,
    pub required: &'static [(&'static str, Input)],
    pub optional: &'static [(&'static str, Input)],
    /// Inputs that the server fills in itself, where the node's own check sees them.
    pub hidden: &'static [&'static str],
    pub outputs: &'static [&'static str],
    pub is_output: bool,
    /// Simulated time for a frame, as a multiple of the server's.
    pub weight: f64,
    pub run: fn(&mut Run<'_>) -> Result<Done, NodeError>,
    /// The node's own check of its inputs; the text follows `input - `.
    pub check: Option<fn(&Config, &Map<String, Value>) -> Result<(), String>>,
    /// Changes when the node must run again although its inputs are the same.
    pub is_changed: Option<fn(&Config, &Map<String, Value>) -> String>,
}

impl std::fmt::Debug for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Class").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a node gives: its outputs, and what it shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Done {
    pub outputs: Vec<Data>,
    pub shown: Option<Value>,
}

impl Done {
    /// Every frame of `batch` through `make`.
    fn each(
        batch: &Batch,
        make: impl Fn(&crate::pixels::Frame) -> crate::pixels::Frame,
    ) -> Result<Self, NodeError> {
        Self::image(batch.iter().map(|frame| make(frame).into()).collect())
    }

    fn image(batch: Batch) -> Result<Self, NodeError> {
        Ok(Self { outputs: vec![Data::Image(batch)], shown: None })
    }
}

/// Why a node did not end well.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeError {
    Interrupted,
    Raised { kind: &'static str, message: String },
}

impl NodeError {
    pub(crate) fn raised(kind: &'static str, message: impl Into<String>) -> Self {
        Self::Raised { kind, message: message.into() }
    }

    /// As torch words it.
    pub(crate) fn out_of_memory() -> Self {
        let message = "Allocation on device 0 would exceed allowed memory. (out of memory)\n\
                       This error means you ran out of memory on your GPU.\n\n\
                       TIPS: If the workflow worked before you might have accidentally set the batch_size to a large number.";
        Self::raised("torch.OutOfMemoryError", message)
    }
}

/// One execution of a node.
pub struct Run<'a> {
    pub config: &'a Config,
    pub inputs: &'a Map<String, Value>,
    /// What the links brought, by input.
    pub linked: &'a BTreeMap<String, Data>,
    /// Called with step, steps and perhaps a picture; ends the node when it says so.
    pub progress: &'a mut dyn FnMut(u64, u64, Option<&crate::pixels::Frame>) -> Result<(), NodeError>,
    /// Takes the file writes, so that faults can strike them.
    pub write: &'a mut dyn FnMut(&std::path::Path, &[u8]) -> std::io::Result<()>,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl Run<'_> {
    fn batch(&self, input: &str) -> Result<&Batch, NodeError> {
        let missing = || NodeError::raised("TypeError", format!("{input}: expected a picture"));
        stand_in::colours(self.linked, input).ok_or_else(missing)
    }

    fn int(&self, input: &str) -> i64 {
        match self.linked.get(input) {
            Some(Data::Int(value)) => *value,
            _ => self.inputs.get(input).and_then(number).unwrap_or(0.0) as i64,
        }
    }

    fn float(&self, input: &str) -> f32 {
        self.inputs.get(input).and_then(number).unwrap_or(0.0) as f32
    }

    fn text(&self, input: &str) -> &str {
        match self.linked.get(input) {
            Some(Data::Text(text)) => text,
            _ => self.inputs.get(input).and_then(Value::as_str).unwrap_or(""),
        }
    }
}

/// Numbers come as numbers or as text.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The class `name`, if this server has it.
pub fn find(config: &Config, name: &str) -> Option<&'static Class> {
    if config.without.iter().any(|without| without == name) {
        return None;
    }
    classes().find(|class| class.name == name)
}

/// Every class.
pub fn classes() -> impl Iterator<Item = &'static Class> {
    let own = [custom::CLASSES, image::CLASSES, load::CLASSES, save::CLASSES];
    own.into_iter().chain([recorded::classes()]).flatten()
}

/// The answer to `/object_info`.
pub fn all_object_info(config: &Config) -> Value {
    let known = classes().filter(|class| find(config, class.name).is_some());
    Value::Object(known.map(|class| (class.name.to_owned(), object_info(config, class))).collect())
}

/// The entry of a class in `/object_info`.
pub fn object_info(config: &Config, class: &Class) -> Value {
    let declare = |inputs: &[(&str, Input)]| -> Map<String, Value> {
        inputs.iter().map(|(name, input)| ((*name).to_owned(), declaration(config, input))).collect()
    };
    let mut input = Map::new();
    let mut order = Map::new();
    for (kind, inputs) in [("required", class.required), ("optional", class.optional)] {
        if !inputs.is_empty() || kind == "required" {
            input.insert(kind.to_owned(), declare(inputs).into());
            order.insert(kind.to_owned(), inputs.iter().map(|(name, _)| *name).collect());
        }
    }
    if class.is_output {
        input.insert("hidden".into(), json!({ "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO" }));
        order.insert("hidden".into(), json!(["prompt", "extra_pnginfo"]));
    }
    json!({
        "input": input,
        "input_order": order,
        "is_input_list": false,
        "output": class.outputs,
        "output_is_list": vec![false; class.outputs.len()],
        "output_name": class.outputs,
        "name": class.name,
        "display_name": class.name,
        "description": "",
        "python_module": class.module,
        "category": class.category,
        "output_node": class.is_output,
        "has_intermediate_output": false,
        "search_aliases": [],
    })
}

/// `[type, options]` of an input, as in `input_config`.
pub fn declaration(config: &Config, input: &Input) -> Value {
    match input {
        Input::Link(kind) => json!([kind, {}]),
        Input::Int { default, min, max } => {
            let mut options = json!({ "default": default, "step": 1 });
            // Some have no limits.
            if *min > i64::MIN {
                options["min"] = json!(min);
            }
            if *max < u64::MAX || *min > i64::MIN {
                options["max"] = json!(max);
            }
            json!(["INT", options])
        }
        Input::Float { default, min, max } => {
            let mut options = json!({ "default": default, "step": 0.01 });
            if *min > f64::MIN {
                options["min"] = json!(min);
            }
            if *max < f64::MAX {
                options["max"] = json!(max);
            }
            json!(["FLOAT", options])
        }
        Input::Text { default } => json!(["STRING", { "default": default }]),
        Input::Bool { default } => json!(["BOOLEAN", { "default": default }]),
        Input::Combo { choices, new_style: true } => {
            json!(["COMBO", { "multiselect": false, "options": choices }])
        }
        Input::Combo { choices, new_style: false } => json!([choices, {}]),
        Input::Listed { choices, new_style: true } => {
            json!(["COMBO", { "multiselect": false, "options": choices }])
        }
        Input::Listed { choices, new_style: false } => json!([choices, {}]),
        Input::Model(_) => json!([choices(config, input), {}]),
        Input::InputFile => json!([choices(config, input), { "image_upload": true }]),
    }
}

/// What a combo offers just now.
pub fn choices(config: &Config, input: &Input) -> Vec<Value> {
    match input {
        Input::Combo { choices, .. } => choices.iter().map(|choice| (*choice).into()).collect(),
        Input::Listed { choices, .. } => choices.to_vec(),
        Input::Model(folder) => {
            config.models.get(*folder).into_iter().flatten().map(|file| file.as_str().into()).collect()
        }
        Input::InputFile => {
            let mut files: Vec<String> = std::fs::read_dir(config.input())
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect();
            files.sort();
            files.into_iter().map(Value::from).collect()
        }
        _ => Vec::new(),
    }
}

/// Size and time of a file, for nodes that run again when it changes.
fn stamp(path: &std::path::Path) -> String {
    let Ok(about) = std::fs::metadata(path) else { return "gone".to_owned() };
    let time = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}:{}", about.len(), since.as_nanos())
}
