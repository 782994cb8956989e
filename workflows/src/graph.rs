//! A ComfyUI graph in API format: `{"id": {"class_type", "inputs", "_meta"}}`.
//!
//! The checks here are about what kills or fools a ComfyUI (an unreachable node without `inputs`, a link
//! to nowhere, an `is_changed` left over from picture metadata), so that no such prompt is ever sent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::error::WorkflowError;

/// Classes that re-queue prompts by themselves, under ids nobody knows.
const UNSAFE_CLASSES: [&str; 1] = ["VHS_BatchManager"];

/// A node of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphNode {
    pub class_type: String,
    pub inputs: Map<String, Value>,
    /// `_meta.title`, or the class.
    pub title: String,
}

/// An output of another node: its id and the number of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    pub node: &'a str,
    pub slot: i64,
}

/// A checked graph: every link has a target, nothing runs in a circle.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    nodes: BTreeMap<String, GraphNode>,
}

impl Graph {
    /// Reads and checks `text`; `file` is for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, WorkflowError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|source| WorkflowError::Json { file: file.to_owned(), source })?;
        let Value::Object(entries) = value else {
            return Err(WorkflowError::EmptyGraph { file: file.to_owned() });
        };
        if entries.get("nodes").is_some_and(Value::is_array) {
            return Err(WorkflowError::EditorFormat { file: file.to_owned() });
        }
        if entries.is_empty() {
            return Err(WorkflowError::EmptyGraph { file: file.to_owned() });
        }
        let nodes = entries
            .into_iter()
            .map(|(id, entry)| Ok((id.clone(), parse_node(file, &id, entry)?)))
            .collect::<Result<BTreeMap<_, _>, WorkflowError>>()?;
        let graph = Self { nodes };
        graph.check_links(file)?;
        graph.check_cycles(file)?;
        Ok(graph)
    }

    pub fn nodes(&self) -> &BTreeMap<String, GraphNode> {
        &self.nodes
    }

    pub fn get(&self, id: &str) -> Option<&GraphNode> {
        self.nodes.get(id)
    }

    /// Every class the graph uses.
    pub fn classes(&self) -> BTreeSet<&str> {
        self.nodes.values().map(|node| node.class_type.as_str()).collect()
    }

    /// The ids, for messages.
    pub fn ids(&self) -> String {
        self.nodes.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn check_links(&self, file: &str) -> Result<(), WorkflowError> {
        for (id, node) in &self.nodes {
            for (input, value) in &node.inputs {
                let Value::Array(items) = value else { continue };
                let broken = || WorkflowError::BrokenLink {
                    file: file.to_owned(),
                    node: id.clone(),
                    input: input.clone(),
                };
                // ComfyUI takes any list for a link.
                let link = as_link(items).ok_or_else(broken)?;
                if !self.nodes.contains_key(link.node) {
                    return Err(WorkflowError::DanglingLink {
                        file: file.to_owned(),
                        node: id.clone(),
                        input: input.clone(),
                        target: link.node.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Kahn's algorithm: what is left when no node without open inputs is left lies on or behind a circle.
    fn check_cycles(&self, file: &str) -> Result<(), WorkflowError> {
        let mut open: BTreeMap<&str, usize> = BTreeMap::new();
        let mut feeds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, node) in &self.nodes {
            let sources: Vec<_> = node.links().map(|(_, link)| link.node).collect();
            open.insert(id, sources.len());
            for source in sources {
                feeds.entry(source).or_default().push(id);
            }
        }
        let mut ready: Vec<&str> = open.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        while let Some(id) = ready.pop() {
            open.remove(id);
            for target in feeds.remove(id).unwrap_or_default() {
                if let Some(count) = open.get_mut(target) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(target);
                    }
                }
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let cycle = open.into_keys().collect::<Vec<_>>().join(", ");
        Err(WorkflowError::Cycle { file: file.to_owned(), cycle })
    }
}

impl GraphNode {
    /// The inputs that are links.
    pub fn links(&self) -> impl Iterator<Item = (&str, Link<'_>)> {
        self.inputs.iter().filter_map(|(input, value)| Some((input.as_str(), link_of(value)?)))
    }

    pub(crate) fn new(class: &str, inputs: Value, title: &str) -> Self {
        let inputs = if let Value::Object(inputs) = inputs { inputs } else { Map::new() };
        Self { class_type: class.to_owned(), inputs, title: title.to_owned() }
    }

    /// The node as ComfyUI wants it.
    pub fn to_value(&self) -> Value {
        serde_json::json!({
            "class_type": self.class_type,
            "inputs": self.inputs,
            "_meta": { "title": self.title },
        })
    }
}

/// A value that links to output `slot` of `node`.
pub fn link(node: &str, slot: i64) -> Value {
    serde_json::json!([node, slot])
}

/// The output that an input's value links to; `None` for a literal.
pub fn link_of(value: &Value) -> Option<Link<'_>> {
    as_link(value.as_array()?)
}

fn as_link(items: &[Value]) -> Option<Link<'_>> {
    match items {
        [Value::String(node), slot] => Some(Link { node, slot: slot.as_i64()? }),
        _ => None,
    }
}

fn parse_node(file: &str, id: &str, entry: Value) -> Result<GraphNode, WorkflowError> {
    let broken = |missing| WorkflowError::BrokenNode { file: file.to_owned(), node: id.to_owned(), missing };
    let Value::Object(mut entry) = entry else { return Err(broken("class_type")) };
    let Some(Value::String(class_type)) = entry.remove("class_type") else {
        return Err(broken("class_type"));
    };
    let Some(Value::Object(mut inputs)) = entry.remove("inputs") else {
        return Err(broken("inputs"));
    };
    if UNSAFE_CLASSES.contains(&class_type.as_str()) {
        return Err(WorkflowError::UnsafeClass {
            file: file.to_owned(),
            node: id.to_owned(),
            class: class_type,
        });
    }
    // Prompts recovered from a picture's metadata carry this, and it would override the cache's own check.
    inputs.remove("is_changed");
    let title = entry
        .get("_meta")
        .and_then(|meta| meta.get("title"))
        .and_then(Value::as_str)
        .unwrap_or(&class_type)
        .to_owned();
    Ok(GraphNode { class_type, inputs, title })
}
