//! What a ComfyUI's node classes take and give (`/object_info`), and a graph held against it.
//!
//! ComfyUI itself says only some of this: it takes any input that a class does not declare without a word, and
//! tells of a missing class only the first. So the whole graph is looked at here, before it is sent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use crate::declared::Declared;
use crate::graph::{Graph, GraphNode, Link, link_of};

/// The node classes of a ComfyUI, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signatures {
    classes: BTreeMap<String, Signature>,
}

/// What a class takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    pub inputs: BTreeMap<String, Input>,
    /// The same in the editor's order, as they are declared.
    pub declared: Vec<Declared>,
    /// Types of the outputs.
    pub outputs: Vec<String>,
    /// It shows or saves something: what a graph is run for.
    pub is_output: bool,
    /// Where it comes from, e.g. `nodes` or `custom_nodes.ComfyUI-KJNodes`.
    pub module: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub is_required: bool,
    pub kind: InputKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum InputKind {
    Int {
        min: f64,
        max: f64,
    },
    Float {
        min: f64,
        max: f64,
    },
    Bool,
    Text,
    /// One of these, which are texts or numbers.
    Choice(Vec<Value>),
    /// A file of the server's input folder, any picture by its path, too.
    InputFile,
    /// Comes over a link, of one of these types; `*` is any.
    Link(Vec<String>),
}

/// What of a graph a ComfyUI would not take, or would not heed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("node {node} ({class}){}", at(.input.as_deref()))]
pub struct Mismatch {
    pub node: String,
    pub class: String,
    pub input: Option<String>,
    #[source]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum What {
    #[error("there is no such node class")]
    NoClass,
    #[error("required, and not given")]
    Missing,
    #[error("the class has no such input; it has {known}")]
    Undeclared { known: String },
    #[error("{value} is no {wanted}")]
    Type { value: String, wanted: &'static str },
    #[error("{value} is out of range; give {range}")]
    Range { value: String, range: String },
    #[error("{value} is not one of {choices}")]
    Choice { value: String, choices: String },
    #[error("takes {wanted}, but node {from} gives {given}")]
    Link { from: String, given: String, wanted: String },
    #[error("node {from} has no output {slot}")]
    Slot { from: String, slot: i64 },
    #[error("takes {wanted} over a link, not a value")]
    Value { wanted: String },
}

fn at(input: Option<&str>) -> String {
    input.map(|input| format!(", input {input}")).unwrap_or_default()
}

/// Classes that take the settings of whatever format they are told to write.
const MOVIES: [&str; 1] = ["VHS_VideoCombine"];

/// Choices told in a message.
const TOLD: usize = 12;

impl Signatures {
    /// From a server's answer to `/object_info`. What cannot be understood takes anything.
    pub fn read(object_info: &Value) -> Self {
        let entries = object_info.as_object().into_iter().flatten();
        Self { classes: entries.map(|(name, entry)| (name.clone(), Signature::read(entry))).collect() }
    }

    pub fn get(&self, class: &str) -> Option<&Signature> {
        self.classes.get(class)
    }

    /// Everything of `graph` that this ComfyUI would not take, or would not heed.
    pub fn check(&self, graph: &Graph) -> Vec<Mismatch> {
        let nodes = graph.nodes();
        nodes.iter().flat_map(|(id, node)| self.check_node(nodes, id, node)).collect()
    }

    fn check_node(&self, nodes: &BTreeMap<String, GraphNode>, id: &str, node: &GraphNode) -> Vec<Mismatch> {
        let mismatch = |input: Option<&str>, what| Mismatch {
            node: id.to_owned(),
            class: node.class_type.clone(),
            input: input.map(str::to_owned),
            what,
        };
        let Some(signature) = self.get(&node.class_type) else { return vec![mismatch(None, What::NoClass)] };
        let missing = signature
            .inputs
            .iter()
            .filter(|(name, input)| {
                input.is_required && !input.kind.is_dynamic() && !node.inputs.contains_key(*name)
            })
            .map(|(name, _)| mismatch(Some(name), What::Missing));
        let wrong = node.inputs.iter().filter_map(|(name, value)| {
            let what = match (signature.inputs.get(name), link_of(value)) {
                (None, _) if signature.takes(&node.class_type, name) => None,
                (None, _) => Some(What::Undeclared {
                    known: signature.inputs.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
                }),
                (Some(input), Some(link)) => self.check_link(nodes, input, link),
                (Some(input), None) => input.kind.check(value),
            };
            what.map(|what| mismatch(Some(name), what))
        });
        missing.chain(wrong).collect()
    }

    fn check_link(&self, nodes: &BTreeMap<String, GraphNode>, input: &Input, link: Link<'_>) -> Option<What> {
        // Of a class that is not there it is said already.
        let source = self.get(&nodes.get(link.node)?.class_type)?;
        let given = usize::try_from(link.slot).ok().and_then(|slot| source.outputs.get(slot));
        let Some(given) = given else {
            return Some(What::Slot { from: link.node.to_owned(), slot: link.slot });
        };
        let wanted = input.kind.types();
        let any = |types: &[String]| types.iter().any(|one| one == "*" || one.starts_with("COMFY_"));
        let given_types = types_of(given);
        let fits =
            any(&wanted) || any(&given_types) || given_types.iter().any(|given| wanted.contains(given));
        (!fits).then(|| What::Link {
            from: link.node.to_owned(),
            given: given.clone(),
            wanted: wanted.join(" or "),
        })
    }
}

impl Signature {
    fn read(entry: &Value) -> Self {
        let declared = |kind: &str| entry["input"][kind].as_object().cloned().unwrap_or_default();
        let read = |declared: Map<String, Value>, is_required: bool| {
            declared.into_iter().map(move |(name, declaration)| {
                (name, Input { is_required, kind: InputKind::read(&declaration) })
            })
        };
        let inputs: BTreeMap<String, Input> =
            read(declared("optional"), false).chain(read(declared("required"), true)).collect();
        let order = ["required", "optional"].into_iter().flat_map(|kind| {
            entry["input_order"][kind].as_array().into_iter().flatten().filter_map(Value::as_str)
        });
        let declaration = |name: &str| {
            let kinds = ["required", "optional"].into_iter();
            kinds.map(|kind| &entry["input"][kind][name]).find(|declaration| !declaration.is_null())
        };
        let text = |value: &Value| value.as_str().unwrap_or("*").to_owned();
        Self {
            declared: order.filter_map(|name| Some(Declared::new(name, declaration(name)?))).collect(),
            outputs: entry["output"].as_array().into_iter().flatten().map(text).collect(),
            is_output: entry["output_node"].as_bool().unwrap_or(false),
            module: entry["python_module"].as_str().unwrap_or("").to_owned(),
            inputs,
        }
    }

    /// Whether an input that is not declared is heeded all the same: `images.image0` of a declared `images` that grows,
    /// and the settings of a movie's format.
    pub(crate) fn takes(&self, class: &str, input: &str) -> bool {
        let grows = |root| self.inputs.get(root).is_some_and(|input| input.kind.is_dynamic());
        MOVIES.contains(&class) || input.split_once('.').is_some_and(|(root, _)| grows(root))
    }

    /// The package that brings the class; `None` for ComfyUI itself.
    pub fn package(&self) -> Option<&str> {
        self.module.strip_prefix("custom_nodes.")
    }
}

impl InputKind {
    /// From `[type, options]`, in the older and the newer way of declaring choices.
    fn read(declaration: &Value) -> Self {
        let options = &declaration[1];
        let number = |name: &str, otherwise| options[name].as_f64().unwrap_or(otherwise);
        let is_file = options["image_upload"].as_bool().unwrap_or(false);
        match &declaration[0] {
            _ if is_file => Self::InputFile,
            // A value that comes over a link only.
            Value::String(kind) if options["forceInput"] == true => Self::Link(types_of(kind)),
            Value::Array(choices) => Self::Choice(choices.clone()),
            Value::String(kind) => match kind.as_str() {
                "INT" => {
                    Self::Int { min: number("min", f64::NEG_INFINITY), max: number("max", f64::INFINITY) }
                }
                "FLOAT" => {
                    Self::Float { min: number("min", f64::NEG_INFINITY), max: number("max", f64::INFINITY) }
                }
                "BOOLEAN" => Self::Bool,
                "STRING" => Self::Text,
                "COMBO" => Self::Choice(options["options"].as_array().cloned().unwrap_or_default()),
                kind => Self::Link(types_of(kind)),
            },
            _ => Self::Link(vec!["*".to_owned()]),
        }
    }

    /// Its inputs have names of their own, which are not declared.
    pub(crate) fn is_dynamic(&self) -> bool {
        matches!(self, Self::Link(types) if types.iter().any(|kind| kind.starts_with("COMFY_") && kind != "COMFY_MATCHTYPE_V3"))
    }

    /// Types that it takes over a link.
    fn types(&self) -> Vec<String> {
        let one = |kind: &str| vec![kind.to_owned()];
        match self {
            Self::Int { .. } => one("INT"),
            Self::Float { .. } => one("FLOAT"),
            Self::Bool => one("BOOLEAN"),
            Self::Text => one("STRING"),
            Self::Choice(_) | Self::InputFile => one("COMBO"),
            Self::Link(types) => types.clone(),
        }
    }

    /// Whether a literal is of its kind, be it in range and on the list or not.
    pub fn is_kind_of(&self, value: &Value) -> bool {
        match self.check(value) {
            Some(What::Choice { .. }) => {
                let Self::Choice(choices) = self else { return false };
                choices.is_empty() || choices.iter().any(|choice| choice.is_string() == value.is_string())
            }
            wrong => !matches!(wrong, Some(What::Type { .. } | What::Value { .. })),
        }
    }

    /// What is wrong with a literal.
    fn check(&self, value: &Value) -> Option<What> {
        // A list is wrapped, or it would be taken for a link.
        let value = value.get("__value__").unwrap_or(value);
        let wrong = |wanted| Some(What::Type { value: shown(value), wanted });
        match self {
            Self::Int { min, max } => match value
                .as_i64()
                .map(|number| number as f64)
                .or(value.as_u64().map(|number| number as f64))
            {
                Some(number) => range(number, *min, *max, value),
                None => wrong("whole number"),
            },
            Self::Float { min, max } => match value.as_f64() {
                Some(number) => range(number, *min, *max, value),
                None => wrong("number"),
            },
            Self::Bool => (!value.is_boolean()).then(|| wrong("true or false")).flatten(),
            Self::Text | Self::InputFile => (!value.is_string()).then(|| wrong("text")).flatten(),
            Self::Choice(choices) => {
                let same = |choice: &Value| {
                    choice == value || choice.as_f64().is_some_and(|number| value.as_f64() == Some(number))
                };
                (!choices.iter().any(same))
                    .then(|| What::Choice { value: shown(value), choices: told(choices) })
            }
            Self::Link(types) if types.iter().any(|kind| kind == "*" || kind.starts_with("COMFY_")) => None,
            Self::Link(types) => Some(What::Value { wanted: types.join(" or ") }),
        }
    }
}

fn types_of(kind: &str) -> Vec<String> {
    kind.split(',').map(|kind| kind.trim().to_owned()).collect()
}

fn range(number: f64, min: f64, max: f64, value: &Value) -> Option<What> {
    let range = match (min.is_finite(), max.is_finite()) {
        _ if (min..=max).contains(&number) => return None,
        (true, true) => format!("{min} to {max}"),
        (true, false) => format!("{min} or more"),
        _ => format!("{max} or less"),
    };
    Some(What::Range { value: shown(value), range })
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("'{text}'"))
}

fn told(choices: &[Value]) -> String {
    let mut told: Vec<String> = choices
        .iter()
        .take(TOLD)
        .map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned))
        .collect();
    if choices.len() > TOLD {
        told.push(format!("{} more", choices.len() - TOLD));
    }
    if told.is_empty() { "nothing: the server offers none".to_owned() } else { told.join(", ") }
}
