//! Parameters: what a person may turn, with type, range, choices and the node inputs they set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{error::WorkflowError, path::RootPath};

/// Parameter values by name, as text. The manifest says how to read each.
pub type ParameterTexts = BTreeMap<String, String>;

/// A parameter as the manifest declares it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    #[serde(rename = "type")]
    pub kind: ParameterType,
    pub default: toml::Value,
    #[serde(default)]
    pub help: String,
    pub min: Option<f64>,
    pub max: Option<f64>,
    #[serde(default)]
    pub choices: Vec<String>,
    /// Of a file: what its name may end in, without the dot, in small letters.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// What a choice gives to its inputs where that is not its own name.
    #[serde(default)]
    pub values: BTreeMap<String, toml::Value>,
    /// Node inputs that take the value, as `node.input`. None for what only the split takes.
    #[serde(default)]
    pub sets: Vec<InputRef>,
    /// The value is a model file in this folder, which a node must have.
    #[serde(default)]
    pub model: Option<String>,
    /// What is taken out of the graph when the parameter is off ([`Parameter::is_off`]).
    #[serde(default)]
    pub bypass: Vec<Bypass>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    Int,
    Float,
    Bool,
    Text,
    Choice,
    /// A picture on storage, root-relative; empty: none.
    Picture,
    /// Another file on storage that a node reads by its path, e.g. a lookup table; root-relative; empty: none.
    File,
}

impl ParameterType {
    /// Whether the value names something on storage.
    pub fn is_on_storage(self) -> bool {
        matches!(self, Self::Picture | Self::File)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Text => "text",
            Self::Choice => "choice",
            Self::Picture => "picture",
            Self::File => "file",
        }
    }
}

/// Of a parameter that is off: `12.image`, the node 12 is left out, and what took its output takes what comes in at
/// `image`. Several inputs of a node stand for its outputs in their order. `12`, the node and the links to it are
/// left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
pub struct Bypass {
    pub node: String,
    pub input: Option<String>,
}

impl From<String> for Bypass {
    fn from(text: String) -> Self {
        match text.split_once('.') {
            Some((node, input)) => Self { node: node.to_owned(), input: Some(input.to_owned()) },
            None => Self { node: text, input: None },
        }
    }
}

impl From<Bypass> for String {
    fn from(Bypass { node, input }: Bypass) -> Self {
        match input {
            Some(input) => format!("{node}.{input}"),
            None => node,
        }
    }
}

/// `node.input`. Node ids have no dots; input names may.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct InputRef {
    pub node: String,
    pub input: String,
}

impl TryFrom<String> for InputRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('.') {
            Some((node, input)) if !node.is_empty() && !input.is_empty() => {
                Ok(Self { node: node.to_owned(), input: input.to_owned() })
            }
            _ => Err(format!("'{text}' is no node input; write it like \"5.strength\"")),
        }
    }
}

impl From<InputRef> for String {
    fn from(input: InputRef) -> Self {
        format!("{}.{}", input.node, input.input)
    }
}

impl Parameter {
    /// The default as text, the form in which values travel.
    pub fn default_text(&self) -> String {
        match &self.default {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Reads `text` as this parameter's type and holds it against range and choices.
    pub fn read(&self, workflow: &str, name: &str, text: &str) -> Result<Value, WorkflowError> {
        let wrong = |expected| WorkflowError::WrongType {
            workflow: workflow.to_owned(),
            name: name.to_owned(),
            value: text.to_owned(),
            expected,
        };
        let trimmed = text.trim();
        match self.kind {
            ParameterType::Int => {
                let value: i64 = trimmed.parse().map_err(|_| wrong("whole number"))?;
                self.check_range(workflow, name, value as f64, trimmed)?;
                Ok(value.into())
            }
            ParameterType::Float => {
                let value: f64 = trimmed.parse().map_err(|_| wrong("number"))?;
                if !value.is_finite() {
                    return Err(wrong("finite number"));
                }
                self.check_range(workflow, name, value, trimmed)?;
                Ok(value.into())
            }
            ParameterType::Bool => match trimmed {
                "true" | "yes" | "on" | "1" => Ok(true.into()),
                "false" | "no" | "off" | "0" => Ok(false.into()),
                _ => Err(wrong("yes or no; write true or false")),
            },
            ParameterType::Text => Ok(text.into()),
            ParameterType::Picture | ParameterType::File => self.read_place(workflow, name, trimmed),
            ParameterType::Choice if self.choices.iter().any(|choice| choice == trimmed) => {
                Ok(trimmed.into())
            }
            ParameterType::Choice => Err(WorkflowError::NotAChoice {
                workflow: workflow.to_owned(),
                name: name.to_owned(),
                value: text.to_owned(),
                choices: self.choices.join(", "),
            }),
        }
    }

    fn read_place(&self, workflow: &str, name: &str, text: &str) -> Result<Value, WorkflowError> {
        let (workflow, name) = (workflow.to_owned(), name.to_owned());
        if text.is_empty() {
            return if self.is_required_place() {
                Err(WorkflowError::PlaceNeeded { workflow, name, kind: self.kind.name() })
            } else {
                Ok("".into())
            };
        }
        let path: RootPath = match text.parse() {
            Ok(path) => path,
            Err(source) => return Err(WorkflowError::Place { workflow, name, source }),
        };
        let ending = path.file_name().rsplit_once('.').map_or("", |(_, ending)| ending).to_lowercase();
        if !self.extensions.is_empty() && !self.extensions.contains(&ending) {
            let (value, extensions) = (text.to_owned(), self.extensions.join(", ."));
            return Err(WorkflowError::WrongExtension { workflow, name, value, extensions });
        }
        Ok(path.to_string().into())
    }

    /// Whether `value` switches off what the parameter is for: false, 0, `none`, nothing.
    pub fn is_off(&self, value: &Value) -> bool {
        match value {
            Value::Bool(on) => !on,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty() || (self.kind == ParameterType::Choice && text == "none"),
            _ => false,
        }
    }

    /// Whether it names a picture or file without which nothing can be rendered.
    pub fn is_required_place(&self) -> bool {
        self.kind.is_on_storage() && self.bypass.is_empty()
    }

    /// What the node inputs get for `value`.
    pub fn bound(&self, value: &Value) -> Value {
        let given = value.as_str().and_then(|choice| self.values.get(choice));
        match given {
            Some(toml::Value::Integer(number)) => (*number).into(),
            Some(toml::Value::Float(number)) => (*number).into(),
            Some(toml::Value::Boolean(on)) => (*on).into(),
            Some(toml::Value::String(text)) => text.as_str().into(),
            _ => value.clone(),
        }
    }

    fn check_range(&self, workflow: &str, name: &str, value: f64, text: &str) -> Result<(), WorkflowError> {
        let too_low = self.min.is_some_and(|min| value < min);
        let too_high = self.max.is_some_and(|max| value > max);
        if !too_low && !too_high {
            return Ok(());
        }
        let range = match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} or more"),
            (None, Some(max)) => format!("{max} or less"),
            (None, None) => String::new(),
        };
        Err(WorkflowError::OutOfRange {
            workflow: workflow.to_owned(),
            name: name.to_owned(),
            value: text.to_owned(),
            range,
        })
    }
}

/// Nothing is given that is not declared.
pub fn check_names(
    workflow: &str,
    declared: &BTreeMap<String, Parameter>,
    given: &ParameterTexts,
) -> Result<(), WorkflowError> {
    let Some(name) = given.keys().find(|name| !declared.contains_key(*name)) else { return Ok(()) };
    let known = declared.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    Err(WorkflowError::UnknownParameter {
        workflow: workflow.to_owned(),
        name: name.clone(),
        known: if known.is_empty() { "none".to_owned() } else { known },
    })
}

/// Every parameter's value: those given, the others at their default.
pub fn resolve(
    workflow: &str,
    declared: &BTreeMap<String, Parameter>,
    given: &ParameterTexts,
) -> Result<BTreeMap<String, Value>, WorkflowError> {
    check_names(workflow, declared, given)?;
    declared
        .iter()
        .map(|(name, parameter)| {
            let text = given.get(name).cloned().unwrap_or_else(|| parameter.default_text());
            Ok((name.clone(), parameter.read(workflow, name, &text)?))
        })
        .collect()
}
