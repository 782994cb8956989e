//! A node's values by name, out of the list that the editor keeps in the order of its widgets.
//!
//! Only the class's declaration says which value is which, and the editor and packages put values of their own between
//! them. A value whose kind does not fit is refused: it shows another version of the class, and a guess would set the
//! wrong thing. What is missing or too much at the end is another version, too, but harms nobody, and is noted.

use serde_json::{Map, Value};

use crate::signatures::{Declared, Signature};

/// Words that the editor adds behind a seed.
const AFTER_GENERATE: [&str; 5] = ["fixed", "increment", "decrement", "randomize", "increment-wrap"];

/// Names of values that only the editor has a use for.
const EDITORS_OWN: [&str; 4] = ["videopreview", "choose video to upload", "upload", "save_image"];

/// The values of a node.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) by_name: Map<String, Value>,
    /// Guesses, for the person who imports.
    pub(super) notes: Vec<String>,
}

/// Reads the values of a node of the class `class`.
pub(super) fn read(class: &str, node: &Value, signature: &Signature) -> Result<Values, String> {
    match &node["widgets_values"] {
        Value::Object(named) => Ok(by_name(class, named, signature)),
        Value::Array(given) => {
            let listed = listed_values(node, given, signature);
            listed.or_else(|why| match &node["widgets_values_named"] {
                Value::Object(named) => Ok(by_name(class, named, signature)),
                _ => Err(why),
            })
        }
        _ => listed_values(node, &[], signature),
    }
}

/// Reads the values of a node whose class nobody declares, as far as the file itself says their names. `None`: it does
/// not.
pub(super) fn undeclared(node: &Value) -> Option<Map<String, Value>> {
    if let Value::Object(named) = &node["widgets_values"] {
        return Some(without_editors_own(named));
    }
    let given: Vec<&Value> = node["widgets_values"].as_array().into_iter().flatten().collect();
    let inputs = node["inputs"].as_array().into_iter().flatten();
    let names: Vec<&str> = inputs.filter_map(|input| input["widget"]["name"].as_str()).collect();
    if given.is_empty() && names.is_empty() {
        return Some(Map::new());
    }
    let is_control = |value: &&Value| value.as_str().is_some_and(|text| AFTER_GENERATE.contains(&text));
    let values: Vec<&Value> = given.into_iter().filter(|value| !is_control(value)).collect();
    let pairs = names.iter().map(|name| (*name).to_owned()).zip(values.iter().map(|value| (*value).clone()));
    (names.len() == values.len()).then(|| pairs.collect())
}

fn without_editors_own(named: &Map<String, Value>) -> Map<String, Value> {
    let kept = named.iter().filter(|(name, _)| !EDITORS_OWN.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn by_name(class: &str, named: &Map<String, Value>, signature: &Signature) -> Values {
    let mut values = Values::default();
    for (name, value) in without_editors_own(named) {
        let root = name.split('.').next().unwrap_or(&name);
        if signature.inputs.contains_key(root) || signature.takes(class, &name) {
            values.by_name.insert(name, value);
        }
    }
    for declared in signature.declared.iter().filter(|declared| declared.is_widget()) {
        if !values.by_name.contains_key(&declared.name) {
            values.by_name.insert(declared.name.clone(), declared.default());
            values.notes.push(format!("{} is not in the file: taken as declared", declared.name));
        }
    }
    values
}

/// Reads a list, and when that fails once more with a place for each value that comes over a link only: older editors
/// kept one.
fn listed_values(node: &Value, given: &[Value], signature: &Signature) -> Result<Values, String> {
    let plain = Reader::new(node, given, false).run(signature);
    let forced = signature.declared.iter().any(Declared::is_forced);
    match plain {
        Ok((values, 0)) => Ok(values),
        plain if forced => match Reader::new(node, given, true).run(signature) {
            Ok((values, 0)) => Ok(values),
            _ => plain.map(|(values, _)| values),
        },
        plain => plain.map(|(values, _)| values),
    }
}

struct Reader<'a> {
    given: &'a [Value],
    at: usize,
    /// Inputs that the file lists. Every socket is listed; a declared input that is not is a widget of the package's own.
    listed: Vec<&'a str>,
    with_forced: bool,
    values: Values,
    missing: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(node: &'a Value, given: &'a [Value], with_forced: bool) -> Self {
        let inputs = node["inputs"].as_array().into_iter().flatten();
        let listed = inputs.filter_map(|input| input["name"].as_str()).collect();
        Self { given, at: 0, listed, with_forced, values: Values::default(), missing: Vec::new() }
    }

    /// The values, and how many were left that mean something.
    fn run(mut self, signature: &Signature) -> Result<(Values, usize), String> {
        for (place, declared) in signature.declared.iter().enumerate() {
            let next = signature.declared[place + 1..].iter().find(|next| self.is_widget(next));
            let before_bool = next.is_some_and(|next| next.kind() == "BOOLEAN");
            self.take(&declared.name, declared, before_bool)?;
        }
        let rest = &self.given[self.at.min(self.given.len())..];
        let is_empty = |value: &&Value| value.is_null() || **value == "" || **value == "image";
        let left = rest.iter().filter(|value| !is_empty(value)).count();
        if left > 0 {
            self.values.notes.push(format!("{left} values more than its class has widgets: left out"));
        }
        if !self.missing.is_empty() {
            let missing = self.missing.join(", ");
            self.values.notes.push(format!("{missing}: not in the file, taken as declared"));
        }
        Ok((self.values, left))
    }

    fn is_widget(&self, declared: &Declared) -> bool {
        declared.is_widget()
            || self.with_forced && declared.is_forced()
            || declared.is_packages_own() && !self.listed.contains(&declared.name.as_str())
    }

    fn next(&self) -> Option<&'a Value> {
        self.given.get(self.at)
    }

    fn take(&mut self, name: &str, declared: &Declared, before_bool: bool) -> Result<(), String> {
        if !self.is_widget(declared) {
            return Ok(());
        }
        let value = match self.next() {
            Some(value) if !value.is_null() => {
                self.at += 1;
                if !declared.fits(value) {
                    return Err(format!("{value} cannot be {name}; it is of another version of its package"));
                }
                value.clone()
            }
            null => {
                self.at += usize::from(null.is_some());
                self.missing.push(name.to_owned());
                declared.default()
            }
        };
        // Packages take these for true and false.
        let value = match value.as_str().map(str::to_lowercase).as_deref() {
            Some("true") if declared.kind() == "BOOLEAN" => true.into(),
            Some("false") if declared.kind() == "BOOLEAN" => false.into(),
            _ if declared.kind() == "BOOLEAN" && value.is_number() => (value.as_f64() == Some(1.0)).into(),
            _ => value,
        };
        // A value that comes over a link has a place in the list, and nothing else.
        if !declared.is_forced() {
            self.values.by_name.insert(name.to_owned(), value.clone());
        }
        for (part_name, part) in self.in_order(name, declared.parts_of(&value))? {
            self.take(&part_name, &part, false)?;
        }
        self.skip_control(name, declared, before_bool);
        self.skip_buttons(declared);
        Ok(())
    }

    /// The parts of a choice with their full names. JSON objects have no order: that of the file's inputs counts.
    fn in_order(&self, name: &str, parts: Vec<Declared>) -> Result<Vec<(String, Declared)>, String> {
        let named = parts.into_iter().map(|part| (format!("{name}.{}", part.name), part));
        let mut named: Vec<(String, Declared)> = named.collect();
        // Before the frontend listed all of them, sizes stood so wherever they stood.
        let usual = |part: &str| ["width", "height", "crop"].iter().position(|usual| *usual == part);
        let listed = |full: &str| self.listed.iter().position(|listed| *listed == full);
        let widgets: Vec<_> = named.iter().filter(|(_, part)| part.is_widget()).collect();
        if widgets.iter().all(|(full, _)| listed(full).is_some()) {
            named.sort_by_key(|(full, _)| listed(full));
        } else if widgets.len() < 2 || widgets.iter().all(|(_, part)| usual(&part.name).is_some()) {
            named.sort_by_key(|(_, part)| usual(&part.name));
        } else {
            return Err(format!("the file does not say in which order the parts of {name} stand"));
        }
        Ok(named)
    }

    /// Skips the editor's control of a seed after each run.
    fn skip_control(&mut self, name: &str, declared: &Declared, before_bool: bool) {
        let is_word = |value: &Value| value.as_str().is_some_and(|text| AFTER_GENERATE.contains(&text));
        let is_seed = declared.is_controlled() || matches!(name, "seed" | "noise_seed");
        let skips = match self.next() {
            Some(next) if is_seed || declared.kind() == "INT" => {
                // In files of 2023 it is true or false.
                is_word(next) || is_seed && next.is_boolean() && !before_bool
            }
            _ => false,
        };
        if !skips {
            return;
        }
        self.at += 1;
        // Behind that of a list stands a text that filters it.
        if declared.has_choices() && self.next().is_some_and(Value::is_string) {
            self.at += 1;
        }
    }

    /// Buttons and players count as values.
    fn skip_buttons(&mut self, declared: &Declared) {
        let is_button = |value: &Value| value.is_null() || *value == "image" || *value == "";
        if declared.is_upload() && self.next().is_some_and(is_button) {
            self.at += 1;
            while declared.is_audio() && self.next().is_some_and(is_button) {
                self.at += 1;
            }
        }
    }
}
