//! A prompt as the server sees it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The nodes of a prompt by id.
pub type Prompt = BTreeMap<String, PromptNode>;

#[derive(Debug, Clone, PartialEq)]
pub struct PromptNode {
    pub class_type: String,
    pub inputs: Map<String, Value>,
}

/// The node and output that an input links to; `None` for a literal.
pub fn link(value: &Value) -> Option<(&str, usize)> {
    match value.as_array()?.as_slice() {
        [Value::String(node), slot] => Some((node, slot.as_u64()? as usize)),
        _ => None,
    }
}

/// Takes well-formed nodes; what is malformed is told by the validation from the raw prompt.
pub fn parse(prompt: &Map<String, Value>) -> Prompt {
    prompt
        .iter()
        .filter_map(|(id, node)| {
            let class_type = node.get("class_type")?.as_str()?.to_owned();
            let inputs = node.get("inputs")?.as_object()?.clone();
            Some((id.clone(), PromptNode { class_type, inputs }))
        })
        .collect()
}

/// Ids in ComfyUI's order: numbers as numbers.
pub fn id_order(id: &str) -> (u64, String) {
    (id.parse().unwrap_or(u64::MAX), id.to_owned())
}
