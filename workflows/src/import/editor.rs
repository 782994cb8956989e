//! ComfyUI's editor format (`nodes`, `links`, `widgets_values`) as API format.
//!
//! The editor keeps a node's values in the order of its widgets, without their names: only what the classes declare
//! says which is which. Where that leaves any doubt, the graph is refused.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    graph::link,
    signatures::{InputKind, Signature, Signatures},
};

/// Modes of a node in the editor.
const MUTED: i64 = 2;
const BYPASSED: i64 = 4;

/// What the editor adds behind a seed.
const AFTER_GENERATE: [&str; 4] = ["fixed", "increment", "decrement", "randomize"];

struct Editor<'a> {
    nodes: BTreeMap<String, &'a Value>,
    /// Link number to node and output.
    links: BTreeMap<i64, (String, i64)>,
}

/// The graph in API format, or why that cannot be said for sure.
pub(super) fn to_api(text: &str, signatures: Option<&Signatures>) -> Result<Value, String> {
    let signatures = signatures.ok_or("only a ComfyUI knows its nodes' inputs: name one with --node")?;
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let subgraphs = value["definitions"]["subgraphs"].as_array().is_some_and(|all| !all.is_empty());
    if subgraphs {
        return Err("it has subgraphs".to_owned());
    }
    let editor = Editor::read(&value)?;
    let mut graph = Map::new();
    for (id, node) in &editor.nodes {
        let class = class_of(node);
        if is_aside(class) || mode_of(node) == MUTED || mode_of(node) == BYPASSED {
            continue;
        }
        let signature =
            signatures.get(class).ok_or_else(|| format!("node {id} is {class}, which that ComfyUI lacks"))?;
        let inputs = editor.inputs(id, node, signature)?;
        let title = node["title"].as_str().unwrap_or(class);
        graph.insert(
            id.clone(),
            json!({ "class_type": class, "inputs": inputs, "_meta": { "title": title } }),
        );
    }
    Ok(Value::Object(graph))
}

fn class_of(node: &Value) -> &str {
    node["type"].as_str().unwrap_or("")
}

fn mode_of(node: &Value) -> i64 {
    node["mode"].as_i64().unwrap_or(0)
}

/// Nodes that are there for people only.
fn is_aside(class: &str) -> bool {
    matches!(class, "Note" | "MarkdownNote" | "Reroute" | "PrimitiveNode")
}

fn id_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|id| id.to_string()))
}

impl<'a> Editor<'a> {
    fn read(value: &'a Value) -> Result<Self, String> {
        let mut nodes = BTreeMap::new();
        for node in value["nodes"].as_array().into_iter().flatten() {
            let id = id_of(&node["id"]).ok_or("a node has no id")?;
            nodes.insert(id, node);
        }
        let mut links = BTreeMap::new();
        for entry in value["links"].as_array().into_iter().flatten() {
            let named = entry.is_object();
            let number = if named { &entry["id"] } else { &entry[0] };
            let node = if named { &entry["origin_id"] } else { &entry[1] };
            let slot = if named { &entry["origin_slot"] } else { &entry[2] };
            let read = (|| Some((number.as_i64()?, (id_of(node)?, slot.as_i64()?))))();
            let (number, source) = read.ok_or("a link cannot be read")?;
            links.insert(number, source);
        }
        Ok(Self { nodes, links })
    }

    fn inputs(&self, id: &str, node: &Value, signature: &Signature) -> Result<Map<String, Value>, String> {
        let mut inputs = widgets(id, node, signature)?;
        for slot in node["inputs"].as_array().into_iter().flatten() {
            let (Some(name), Some(number)) = (slot["name"].as_str(), slot["link"].as_i64()) else { continue };
            match self.source(number, 0)? {
                Source::Output(node, slot) => inputs.insert(name.to_owned(), link(&node, slot)),
                Source::Value(value) => inputs.insert(name.to_owned(), value),
                Source::Nothing => inputs.remove(name),
            };
        }
        Ok(inputs)
    }

    /// Where a link comes from, through nodes that only pass on.
    fn source(&self, number: i64, depth: usize) -> Result<Source, String> {
        let (id, slot) = self.links.get(&number).ok_or("a link comes from nowhere")?;
        let node = self.nodes.get(id).ok_or("a link comes from nowhere")?;
        if depth > self.nodes.len() {
            return Err("reroutes run in a circle".to_owned());
        }
        let inputs = || node["inputs"].as_array().into_iter().flatten();
        let follow = |input: Option<&Value>| match input.and_then(|input| input["link"].as_i64()) {
            Some(number) => self.source(number, depth + 1),
            None => Ok(Source::Nothing),
        };
        match class_of(node) {
            "PrimitiveNode" => {
                Ok(node["widgets_values"].get(0).cloned().map_or(Source::Nothing, Source::Value))
            }
            "Reroute" => follow(inputs().next()),
            _ if mode_of(node) == MUTED => Ok(Source::Nothing),
            _ if mode_of(node) == BYPASSED => {
                let slot = usize::try_from(*slot).unwrap_or(0);
                let kind = &node["outputs"][slot]["type"];
                // As ComfyUI does: the input at the output's own place, if it fits, and else the first of its type.
                let fits = |input: &&Value| *kind == "*" || input["type"] == "*" || input["type"] == *kind;
                let own = inputs().nth(slot).filter(fits);
                follow(own.or_else(|| inputs().find(|input| input["type"] == *kind)))
            }
            _ => Ok(Source::Output(id.clone(), *slot)),
        }
    }
}

/// The node's values by name.
fn widgets(id: &str, node: &Value, signature: &Signature) -> Result<Map<String, Value>, String> {
    let known = |name: &String| signature.inputs.contains_key(name);
    let given = match &node["widgets_values"] {
        // Some packages name them.
        Value::Object(named) => {
            return Ok(named
                .iter()
                .filter(|(name, _)| known(name))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect());
        }
        Value::Array(given) => given.as_slice(),
        _ => &[],
    };
    let mut given = given.iter().peekable();
    let mut inputs = Map::new();
    let refused = |why: String| Err(format!("node {id} ({}): {why}", class_of(node)));
    for name in &signature.widgets {
        let input = &signature.inputs[name];
        let Some(value) = given.next() else {
            if input.is_required {
                return refused(format!(
                    "it has no value for {name}; it is of another version of its package"
                ));
            }
            break;
        };
        // A value of another kind shows that the class has other widgets than it had.
        if !input.kind.is_kind_of(value) {
            return refused(format!("{value} cannot be {name}; it is of another version of its package"));
        }
        inputs.insert(name.clone(), value.clone());
        let is_file = matches!(input.kind, InputKind::InputFile);
        let aside = given.peek().and_then(|next| next.as_str());
        let skips = match aside {
            Some(next) if name.ends_with("seed") => AFTER_GENERATE.contains(&next),
            Some(next) => is_file && next == "image",
            None => false,
        };
        if skips {
            given.next();
        }
    }
    if given.next().is_some() {
        return refused("it has more values than its class has widgets".to_owned());
    }
    Ok(inputs)
}

enum Source {
    Output(String, i64),
    Value(Value),
    /// What would give it is switched off.
    Nothing,
}
