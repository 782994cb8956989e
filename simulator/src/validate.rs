//! What ComfyUI refuses, in its own words. The shapes are those of recorded exchanges with a real server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{
    config::Config,
    graph::{self, id_order},
    nodes::{self, Class, Input},
};

/// A prompt that will run, perhaps without some of its outputs.
#[derive(Debug)]
pub struct Accepted {
    /// Output nodes that will run.
    pub outputs: Vec<String>,
    /// What is wrong with the others.
    pub node_errors: Value,
}

/// The body of a 400.
pub type Refused = Value;

/// `targets`: the only outputs that are wanted; `None`: all.
pub fn validate(
    config: &Config,
    prompt: &Map<String, Value>,
    targets: Option<&[Value]>,
) -> Result<Accepted, Refused> {
    let mut outputs = Vec::new();
    for (id, node) in prompt {
        let class = node.get("class_type").and_then(Value::as_str);
        match class.and_then(|name| nodes::find(config, name)) {
            Some(class) if class.is_output => outputs.push(id.clone()),
            Some(_) => {}
            None => return Err(missing_class(id, node, class)),
        }
    }
    outputs.retain(|id| targets.is_none_or(|targets| targets.iter().any(|target| target == id.as_str())));
    outputs.sort_by_key(|id| id_order(id));
    if outputs.is_empty() {
        return Err(refusal("prompt_no_outputs", "Prompt has no outputs", "", json!({}), json!({})));
    }
    let mut check = Check {
        config,
        prompt,
        errors: BTreeMap::new(),
        dependents: BTreeMap::new(),
        known: BTreeMap::new(),
    };
    let mut good = Vec::new();
    for output in &outputs {
        if check.node(output, &mut Vec::new()) {
            good.push(output.clone());
        } else {
            check.blame(output);
        }
    }
    let node_errors = check.node_errors();
    if good.is_empty() {
        let own = outputs.iter().flat_map(|id| check.errors.get(id).into_iter().flatten());
        let details: Vec<String> = own
            .map(|error| {
                format!(
                    "{}: {}",
                    error["message"].as_str().unwrap_or(""),
                    error["details"].as_str().unwrap_or("")
                )
            })
            .collect();
        let details = details.join("\n");
        let (kind, message) = ("prompt_outputs_failed_validation", "Prompt outputs failed validation");
        return Err(refusal(kind, message, &details, json!({}), node_errors));
    }
    Ok(Accepted { outputs: good, node_errors })
}

pub fn refusal(kind: &str, message: &str, details: &str, extra: Value, node_errors: Value) -> Refused {
    json!({
        "error": { "type": kind, "message": message, "details": details, "extra_info": extra },
        "node_errors": node_errors,
    })
}

fn missing_class(id: &str, node: &Value, class: Option<&str>) -> Refused {
    let title = node.pointer("/_meta/title").and_then(Value::as_str).or(class);
    let message = match class {
        Some(class) => format!("Node '{class}' not found. The custom node may not be installed."),
        None => format!(
            "Node 'ID #{id}' has no class_type. The workflow may be corrupted or a custom node is missing."
        ),
    };
    let extra = json!({ "node_id": id, "class_type": class, "node_title": title });
    refusal("missing_node_type", &message, &format!("Node ID '#{id}'"), extra, json!({}))
}

struct Check<'a> {
    config: &'a Config,
    prompt: &'a Map<String, Value>,
    errors: BTreeMap<String, Vec<Value>>,
    /// Output nodes that cannot run because of a node.
    dependents: BTreeMap<String, BTreeSet<String>>,
    known: BTreeMap<String, bool>,
}

impl Check<'_> {
    /// Whether the node and all behind it can run.
    fn node(&mut self, id: &str, path: &mut Vec<String>) -> bool {
        if let Some(known) = self.known.get(id) {
            return *known;
        }
        if let Some(at) = path.iter().position(|before| before == id) {
            self.name_cycle(&path[at..]);
            return false;
        }
        let Some((class, inputs)) = self.look_up(id) else { return false };
        if self.prompt.get(id).is_some_and(|node| node.get("inputs").is_none()) && path.is_empty() {
            let extra = json!({ "exception_type": "KeyError", "traceback": [] });
            let message = "Exception when validating node";
            let error = fault("exception_during_validation", message, "'inputs'", extra);
            self.errors.entry(id.to_owned()).or_default().push(error);
            return false;
        }
        path.push(id.to_owned());
        let mut good = true;
        let declared = class.required.iter().map(|input| (input, true));
        let declared = declared.chain(class.optional.iter().map(|input| (input, false)));
        for ((name, input), required) in declared {
            let error = match inputs.get(*name) {
                None if required => Some(fault(
                    "required_input_missing",
                    "Required input is missing",
                    name,
                    json!({ "input_name": name }),
                )),
                None => None,
                Some(value) if value.is_array() => match self.link(id, name, input, value, path) {
                    Ok(linked) => {
                        good &= linked;
                        None
                    }
                    Err(error) => Some(error),
                },
                Some(value) => self.literal(name, input, value),
            };
            if let Some(error) = error {
                good = false;
                self.errors.entry(id.to_owned()).or_default().push(error);
            }
        }
        if good && let Some(Err(reason)) = class.check.map(|check| check(self.config, &inputs)) {
            good = false;
            let declared = class.required.iter().chain(class.optional).map(|(name, _)| name);
            let failed = declared.chain(class.hidden).map(|name| {
                let details = format!("{name} - {reason}");
                fault(
                    "custom_validation_failed",
                    "Custom validation failed for node",
                    &details,
                    json!({ "input_name": name }),
                )
            });
            self.errors.entry(id.to_owned()).or_default().extend(failed);
        }
        path.pop();
        self.known.insert(id.to_owned(), good);
        good
    }

    /// Older releases swallow the recursion, and name no node.
    fn name_cycle(&mut self, cycle: &[String]) {
        if !self.config.version.names_cycles() {
            return;
        }
        let class =
            |id: &String| self.prompt.get(id).and_then(|node| node["class_type"].as_str()).unwrap_or("");
        let whole: Vec<String> =
            cycle.iter().chain(cycle.first()).map(|id| format!("{id} ({})", class(id))).collect();
        let details = whole.join(" -> ");
        for id in cycle {
            let extra = json!({ "node_id": id, "cycle_nodes": cycle });
            let error = fault("dependency_cycle", "Dependency cycle detected", &details, extra);
            self.errors.entry(id.clone()).or_default().push(error);
        }
    }

    fn look_up(&self, id: &str) -> Option<(&'static Class, Map<String, Value>)> {
        let node = self.prompt.get(id)?;
        let class = nodes::find(self.config, node.get("class_type")?.as_str()?)?;
        Some((class, node.get("inputs").and_then(Value::as_object).cloned().unwrap_or_default()))
    }

    fn link(
        &mut self,
        id: &str,
        name: &str,
        input: &Input,
        value: &Value,
        path: &mut Vec<String>,
    ) -> Result<bool, Value> {
        let config = nodes::declaration(self.config, input);
        let Some((source, slot)) = graph::link(value) else {
            let extra = json!({ "input_name": name, "input_config": config, "received_value": value });
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            return Err(fault("bad_linked_input", message, name, extra));
        };
        let Some((class, _)) = self.look_up(source) else {
            // The real one looks the node up and lets the exception be caught one level further out.
            let at_output = path.len() == 1;
            let (who, named) = match path.as_slice() {
                [.., parent, _] => (id.to_owned(), self.input_that_links(parent, id)),
                _ => (id.to_owned(), name.to_owned()),
            };
            let kind =
                if at_output { "exception_during_validation" } else { "exception_during_inner_validation" };
            let message = if at_output {
                "Exception when validating node"
            } else {
                "Exception when validating inner node"
            };
            let details = format!("'{source}'");
            let mut extra = json!({ "exception_type": "KeyError", "traceback": [] });
            if !at_output {
                extra["input_name"] = named.into();
                extra["input_config"] = config;
                extra["exception_message"] = details.clone().into();
                extra["linked_node"] = json!([who, 0]);
            }
            return Err(fault(kind, message, &details, extra));
        };
        let handed_on = class.is_output && self.config.version.savers_have_outputs();
        let given = match class.outputs.get(slot) {
            Some(given) => given,
            None if handed_on && slot == 0 => first_link(class),
            None => return Err(self.no_such_output(id, &config, path)),
        };
        if let Input::Link(wanted) = input
            && given != *wanted
            // Anything.
            && ![given, wanted].contains(&"*")
        {
            let extra = json!({
                "input_name": name, "input_config": config, "received_type": given, "linked_node": value,
            });
            let details = format!("{name}, received_type({given}) mismatch input_type({wanted})");
            return Err(fault(
                "return_type_mismatch",
                "Return type mismatch between linked nodes",
                &details,
                extra,
            ));
        }
        Ok(self.node(source, path))
    }

    /// A link to an output that the node does not have.
    fn no_such_output(&self, id: &str, config: &Value, path: &[String]) -> Value {
        let details = "tuple index out of range";
        let [.., parent, _] = path else {
            let extra = json!({ "exception_type": "IndexError", "traceback": [] });
            return fault("exception_during_validation", "Exception when validating node", details, extra);
        };
        let extra = json!({
            "input_name": self.input_that_links(parent, id), "input_config": config,
            "exception_message": details, "exception_type": "IndexError", "traceback": [],
            "linked_node": [id, 0],
        });
        fault("exception_during_inner_validation", "Exception when validating inner node", details, extra)
    }

    fn input_that_links(&self, parent: &str, child: &str) -> String {
        let inputs = self.prompt.get(parent).and_then(|node| node.get("inputs")).and_then(Value::as_object);
        let mut linking = inputs.into_iter().flatten();
        let found = linking.find(|(_, value)| graph::link(value).is_some_and(|(source, _)| source == child));
        found.map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn literal(&self, name: &str, input: &Input, value: &Value) -> Option<Value> {
        let config = nodes::declaration(self.config, input);
        let extra = json!({ "input_name": name, "input_config": config, "received_value": value });
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let (kind, number) = match input {
            Input::Int { .. } => ("INT", as_number(value)),
            Input::Float { .. } => ("FLOAT", as_number(value)),
            Input::Combo { .. } | Input::Listed { .. } | Input::Model(_) => {
                let choices = nodes::choices(self.config, input);
                let same = |choice: &Value| {
                    choice == value || choice.as_f64().is_some_and(|number| value.as_f64() == Some(number))
                };
                let known = choices.iter().any(same);
                let told = |choice: &Value| {
                    choice.as_str().map_or_else(|| choice.to_string(), |choice| format!("'{choice}'"))
                };
                let listed: Vec<String> = choices.iter().map(told).collect();
                let details = format!("{name}: '{shown}' not in [{}]", listed.join(", "));
                return (!known).then(|| fault("value_not_in_list", "Value not in list", &details, extra));
            }
            Input::Link(_) | Input::Text { .. } | Input::Bool { .. } | Input::InputFile => return None,
        };
        let (min, max) = match input {
            Input::Int { min, max, .. } => (*min as f64, *max as f64),
            Input::Float { min, max, .. } => (*min, *max),
            _ => return None,
        };
        let Some(number) = number else {
            let exception = if kind == "INT" {
                format!("invalid literal for int() with base 10: '{shown}'")
            } else {
                format!("could not convert string to float: '{shown}'")
            };
            let mut extra = extra;
            extra["exception_message"] = exception.clone().into();
            let message = format!("Failed to convert an input value to a {kind} value");
            return Some(fault(
                "invalid_input_type",
                &message,
                &format!("{name}, {shown}, {exception}"),
                extra,
            ));
        };
        if number < min {
            return Some(fault(
                "value_smaller_than_min",
                &format!("Value {shown} smaller than min of {min}"),
                name,
                extra,
            ));
        }
        if number > max {
            return Some(fault(
                "value_bigger_than_max",
                &format!("Value {shown} bigger than max of {max}"),
                name,
                extra,
            ));
        }
        None
    }

    /// Every faulty node that `output` depends on gets it as a dependent.
    fn blame(&mut self, output: &str) {
        let mut open = vec![output.to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            if self.errors.contains_key(&id) {
                self.dependents.entry(id.clone()).or_default().insert(output.to_owned());
            }
            let inputs = self.prompt.get(&id).and_then(|node| node.get("inputs")).and_then(Value::as_object);
            let sources = inputs.into_iter().flatten().filter_map(|(_, value)| graph::link(value));
            open.extend(sources.map(|(source, _)| source.to_owned()));
        }
    }

    fn node_errors(&self) -> Value {
        let told = self.errors.iter().filter(|(id, _)| self.dependents.contains_key(*id));
        let told = told.map(|(id, errors)| {
            let class = self.prompt.get(id).and_then(|node| node.get("class_type"));
            let entry = json!({
                "errors": errors, "dependent_outputs": self.dependents.get(id), "class_type": class,
            });
            (id.clone(), entry)
        });
        Value::Object(told.collect())
    }
}

/// The type of the first input that is a link: a saver hands on what it saves.
fn first_link(class: &Class) -> &'static str {
    let links = class.required.iter().find_map(|(_, input)| match input {
        Input::Link(kind) => Some(*kind),
        _ => None,
    });
    links.unwrap_or("")
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    }
}

fn fault(kind: &str, message: &str, details: &str, extra: Value) -> Value {
    json!({ "type": kind, "message": message, "details": details, "extra_info": extra })
}
