//! Nodes that run once for each frame instead of once for the batch.
//!
//! What a node draws, counts or measures over its batch depends on where the clip was cut. Given one frame at a
//! time, with a seed that goes with the frame's number, it makes the same picture in any chunk.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::join;
use crate::{
    frames::Frame,
    graph::{GraphNode, link, link_of},
    manifest::Each,
};

/// Picks pictures out of a batch; core ComfyUI.
pub const PICK_CLASS: &str = "ImageFromBatch";

/// Repeats the nodes of `each` for every frame of `loaded` and joins what they make.
pub(super) fn repeat(nodes: &mut BTreeMap<String, GraphNode>, each: &Each, loaded: &[Frame]) {
    // A bypassed node is not there any more.
    let repeated: BTreeMap<String, GraphNode> =
        each.nodes.iter().filter_map(|id| nodes.remove_entry(id)).collect();
    let is_batch = |node: &str| each.of.iter().any(|batch| batch == node);
    let copy = |id: &str, index: usize| format!("{id}_frame{index}");
    let pick = |id: &str, slot: i64, index: usize| format!("{id}_{slot}_pick{index}");

    let mut picked: BTreeSet<(String, i64)> = BTreeSet::new();
    for (index, frame) in loaded.iter().enumerate() {
        for (id, node) in &repeated {
            let mut node = node.clone();
            for (input, value) in &mut node.inputs {
                match link_of(value).map(|link| (link.node.to_owned(), link.slot)) {
                    Some((source, slot)) if repeated.contains_key(&source) => {
                        *value = link(&copy(&source, index), slot);
                    }
                    Some((source, slot)) if is_batch(&source) => {
                        *value = link(&pick(&source, slot, index), 0);
                        picked.insert((source, slot));
                    }
                    None if each.seeds.iter().any(|seed| seed.node == *id && seed.input == *input) => {
                        *value = seed_of(value, *frame);
                    }
                    _ => {}
                }
            }
            node.title = format!("{}, frame {frame}", node.title);
            nodes.insert(copy(id, index), node);
        }
    }
    for (source, slot) in picked {
        for index in 0..loaded.len() {
            let inputs = json!({ "image": link(&source, slot), "batch_index": index, "length": 1 });
            nodes.insert(pick(&source, slot, index), GraphNode::new(PICK_CLASS, inputs, "pick frame"));
        }
    }
    join_outside(nodes, &repeated, loaded.len());
}

/// Whoever took a batch from a repeated node takes the joined pictures of its copies.
fn join_outside(
    nodes: &mut BTreeMap<String, GraphNode>,
    repeated: &BTreeMap<String, GraphNode>,
    count: usize,
) {
    let taken: BTreeSet<(String, i64)> = nodes
        .values()
        .flat_map(GraphNode::links)
        .filter(|(_, link)| repeated.contains_key(link.node))
        .map(|(_, link)| (link.node.to_owned(), link.slot))
        .collect();
    for (id, slot) in taken {
        let parts = (0..count).map(|index| (format!("{id}_frame{index}"), slot)).collect();
        let Some((root, root_slot)) = join(nodes, &format!("{id}_{slot}"), parts) else { continue };
        for value in nodes.values_mut().flat_map(|node| node.inputs.values_mut()) {
            if *value == link(&id, slot) {
                *value = link(&root, root_slot);
            }
        }
    }
}

/// The seed of a frame: the one given and the frame's number, in the range that every node takes.
fn seed_of(given: &Value, frame: Frame) -> Value {
    let base = given.as_u64().or_else(|| given.as_i64().map(i64::cast_unsigned)).unwrap_or(0);
    (base.wrapping_add_signed(frame.0) & u64::from(u32::MAX)).into()
}
