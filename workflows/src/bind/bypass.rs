//! What a parameter that is off takes out of the graph.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{graph::GraphNode, parameters::Bypass};

/// Takes the bypassed nodes out, and with them whatever only they had a use for.
pub(super) fn bypass(nodes: &mut BTreeMap<String, GraphNode>, bypasses: &[Bypass]) {
    if bypasses.is_empty() {
        return;
    }
    let ends = ends(nodes);
    let mut slots: BTreeMap<&str, i64> = BTreeMap::new();
    for Bypass { node, input } in bypasses {
        // The inputs named stand for the node's outputs, in their order.
        let slot = slots.entry(node).or_insert(-1);
        *slot += 1;
        let stands_in = input.as_ref().and_then(|input| nodes.get(node)?.inputs.get(input).cloned());
        let is_output = |value: &Value| match crate::graph::link_of(value) {
            Some(link) => link.node == node && (input.is_none() || link.slot == *slot),
            None => false,
        };
        for entry in nodes.values_mut() {
            match &stands_in {
                Some(source) => {
                    entry
                        .inputs
                        .values_mut()
                        .filter(|value| is_output(value))
                        .for_each(|value| *value = source.clone());
                }
                None => entry.inputs.retain(|_, value| !is_output(value)),
            }
        }
    }
    let gone: BTreeSet<&String> = bypasses.iter().map(|bypass| &bypass.node).collect();
    let kept: Vec<String> = ends.into_iter().filter(|end| !gone.contains(end)).collect();
    let used = behind(nodes, kept);
    nodes.retain(|id, _| used.contains(id));
}

/// Nodes that no other takes anything from: what a ComfyUI runs the graph for.
fn ends(nodes: &BTreeMap<String, GraphNode>) -> Vec<String> {
    let sources: BTreeSet<&str> =
        nodes.values().flat_map(GraphNode::links).map(|(_, link)| link.node).collect();
    nodes.keys().filter(|id| !sources.contains(id.as_str())).cloned().collect()
}

/// `open` and every node that they take something from.
fn behind(nodes: &BTreeMap<String, GraphNode>, mut open: Vec<String>) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    while let Some(id) = open.pop() {
        if let Some(node) = nodes.get(&id)
            && used.insert(id)
        {
            open.extend(node.links().map(|(_, link)| link.node.to_owned()));
        }
    }
    used
}
