//! Parameters: what a person may turn, with type, range, choices and the node inputs they set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::WorkflowError;

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
    /// Node inputs that take the value, as `node.input`. None for what only the split takes.
    #[serde(default)]
    pub sets: Vec<InputRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    Int,
    Float,
    Bool,
    Text,
    Choice,
}

impl ParameterType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Text => "text",
            Self::Choice => "choice",
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

/// Every parameter's value: those given, the others at their default.
pub fn resolve(
    workflow: &str,
    declared: &BTreeMap<String, Parameter>,
    given: &ParameterTexts,
) -> Result<BTreeMap<String, Value>, WorkflowError> {
    if let Some(name) = given.keys().find(|name| !declared.contains_key(*name)) {
        let known = declared.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(WorkflowError::UnknownParameter {
            workflow: workflow.to_owned(),
            name: name.clone(),
            known: if known.is_empty() { "none".to_owned() } else { known },
        });
    }
    declared
        .iter()
        .map(|(name, parameter)| {
            let text = given.get(name).cloned().unwrap_or_else(|| parameter.default_text());
            Ok((name.clone(), parameter.read(workflow, name, &text)?))
        })
        .collect()
}
