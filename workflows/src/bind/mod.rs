//! From workflow, parameters and a chunk to the prompt that ComfyUI gets.

use std::collections::{BTreeMap, BTreeSet};

mod bypass;
mod each;
mod sample;

use serde_json::{Map, Value, json};

use crate::{
    error::WorkflowError,
    graph::{GraphNode, link},
    manifest::{FactValue, Load, Manifest, Save, SplitRule},
    parameters::{self, Bypass, ParameterTexts},
    split::{ChunkPlan, Split},
    workflow::Workflow,
};

pub use each::PICK_CLASS;
pub use sample::{SAMPLE_INPUT, sample};

/// Joins two batches of pictures; core ComfyUI.
pub const BATCH_CLASS: &str = "ImageBatch";

/// Where the loaded frames lie, as the ComfyUI that loads them sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StagedClip {
    /// No clip comes in.
    Nothing,
    /// One name for each loaded frame, in order.
    Files(Vec<String>),
    /// A folder with exactly the loaded frames, their names in frame order.
    Directory(String),
    /// A path with `%04d`, and the last number; the first is 0.
    Frames { path: String, last: u64 },
}

/// What a parameter's picture or file is called where the ComfyUI that loads it sees it, by parameter.
pub type StagedFiles = BTreeMap<String, String>;

/// The prompt of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// In API format.
    pub graph: Value,
    /// For every pass, the node that saves it and the file prefix it was given.
    pub savers: BTreeMap<String, Saver>,
    /// Titles of the nodes, for people who watch.
    pub titles: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saver {
    pub node: String,
    pub prefix: String,
    pub save: Save,
}

/// Binds `workflow` for one attempt. `out`: an absolute folder, as ComfyUI sees it, for savers that write to a
/// path of their own. Every saver's prefix holds `attempt`, so that no cache answers with
/// the files of another attempt and no two attempts write the same file.
pub fn bind(
    workflow: &Workflow,
    given: &ParameterTexts,
    plan: &ChunkPlan,
    staged: &StagedClip,
    places: &StagedFiles,
    out: &str,
    attempt: &str,
) -> Result<Prompt, WorkflowError> {
    let manifest = workflow.manifest();
    let values = parameters::resolve(workflow.name(), &manifest.parameters, given)?;
    let mut nodes = workflow.graph().nodes().clone();

    for (name, parameter) in &manifest.parameters {
        for target in &parameter.sets {
            let place = places.get(name).filter(|_| parameter.kind.is_on_storage());
            let value = place.map_or_else(|| parameter.bound(&values[name]), |place| place.as_str().into());
            set(&mut nodes, &target.node, &target.input, value);
        }
    }
    for fact in &manifest.facts {
        let value = match fact.value {
            FactValue::Loaded => plan.loaded.len() as i64,
            FactValue::FirstLoaded => plan.loaded.first().map_or(0, |frame| frame.0),
            FactValue::Head => plan.head as i64,
        };
        for target in &fact.sets {
            set(&mut nodes, &target.node, &target.input, value.into());
        }
    }
    let (targets, number): (&[_], i64) = match (&manifest.split, manifest.split(given)) {
        (SplitRule::Interpolate { sets, .. }, Ok(Split::Interpolate { multiplier, .. })) => {
            (sets, multiplier.into())
        }
        (SplitRule::Generate { sets, .. }, _) => (sets, plan.made as i64),
        _ => (&[], 0),
    };
    for target in targets {
        set(&mut nodes, &target.node, &target.input, number.into());
    }
    let mut savers = BTreeMap::new();
    for pass in manifest.passes_made(given) {
        let prefix = match pass.save {
            Save::Images => format!("hearth/{attempt}/{}", pass.name),
            Save::Frames => format!("{out}/{}/frame.%04d.{}", pass.name, pass.format.extension()),
        };
        set(&mut nodes, &pass.node, pass.target(), prefix.as_str().into());
        if pass.save == Save::Frames {
            set(&mut nodes, &pass.node, "start_frame", 0.into());
        }
        savers.insert(pass.name.clone(), Saver { node: pass.node.clone(), prefix, save: pass.save });
    }
    let loader = manifest.clip.as_ref().map_or("", |clip| clip.node.as_str());
    match staged {
        StagedClip::Nothing | StagedClip::Files(_) => {}
        StagedClip::Directory(folder) => {
            set(&mut nodes, loader, Load::Directory.input(), folder.as_str().into());
        }
        StagedClip::Frames { path, last } => {
            for (input, value) in
                [("filepath", path.as_str().into()), ("start_frame", 0.into()), ("end_frame", (*last).into())]
            {
                set(&mut nodes, loader, input, value);
            }
        }
    }
    // From here on, whoever takes the loader's picture takes all frames.
    let loaded = match staged {
        StagedClip::Files(files) => load_files(&mut nodes, loader, files),
        _ => None,
    };
    bypass::bypass(&mut nodes, &left_out(manifest, given, &values));
    for each in &manifest.each {
        let mut each = each.clone();
        if let Some(loaded) = &loaded {
            each.of.iter_mut().filter(|id| *id == loader).for_each(|id| id.clone_from(loaded));
        }
        each::repeat(&mut nodes, &each, &plan.loaded);
    }
    let titles = nodes.iter().map(|(id, node)| (id.clone(), node.title.clone())).collect();
    let graph = nodes.iter().map(|(id, node)| (id.clone(), node.to_value())).collect::<Map<_, _>>();
    Ok(Prompt { graph: Value::Object(graph), savers, titles })
}

/// The node classes of what these parameters leave of the graph; `None` when they do not fit.
pub(crate) fn used_classes(workflow: &Workflow, given: &ParameterTexts) -> Option<BTreeSet<String>> {
    let declared = &workflow.manifest().parameters;
    let values = parameters::resolve(workflow.name(), declared, given).ok()?;
    let mut nodes = workflow.graph().nodes().clone();
    bypass::bypass(&mut nodes, &left_out(workflow.manifest(), given, &values));
    Some(nodes.into_values().map(|node| node.class_type).collect())
}

/// What parameters that are off take out of the graph: their bypasses, and savers of passes that are not made.
fn left_out(manifest: &Manifest, given: &ParameterTexts, values: &BTreeMap<String, Value>) -> Vec<Bypass> {
    let off = manifest.parameters.iter().filter(|(name, parameter)| parameter.is_off(&values[*name]));
    let made: BTreeSet<&str> = manifest.passes_made(given).map(|pass| pass.name.as_str()).collect();
    let unmade = manifest.passes.iter().filter(|pass| !made.contains(pass.name.as_str()));
    off.flat_map(|(_, parameter)| parameter.bypass.iter().cloned())
        .chain(unmade.map(|pass| Bypass { node: pass.node.clone(), input: None }))
        .collect()
}

fn set(nodes: &mut BTreeMap<String, GraphNode>, node: &str, input: &str, value: Value) {
    // The manifest was checked against the graph, so the node is there.
    if let Some(node) = nodes.get_mut(node) {
        node.inputs.insert(input.to_owned(), value);
    }
}

/// Repeats the loader for every file and joins the pictures. The node that has all of them, where it is not the loader.
fn load_files(nodes: &mut BTreeMap<String, GraphNode>, loader: &str, files: &[String]) -> Option<String> {
    let template = nodes.get(loader).cloned()?;
    let mut parts = Vec::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        // The first keeps the loader's id, so that messages about it stay true.
        let id = if index == 0 { loader.to_owned() } else { format!("{loader}_frame{index}") };
        let mut node = template.clone();
        node.inputs.insert(Load::Image.input().to_owned(), file.as_str().into());
        nodes.insert(id.clone(), node);
        parts.push((id, 0));
    }
    let takers: Vec<String> = nodes.keys().cloned().collect();
    let (root, slot) = join(nodes, loader, parts).filter(|(root, _)| root != loader)?;
    for id in takers {
        for value in nodes.get_mut(&id).into_iter().flat_map(|node| node.inputs.values_mut()) {
            if *value == link(loader, 0) {
                *value = link(&root, slot);
            }
        }
    }
    Some(root)
}

/// Joins batches of pictures pairwise (a tree, not a chain: each level copies every picture once, and a chain
/// would copy the first picture once for every other). The output that holds all of them, in order.
fn join(
    nodes: &mut BTreeMap<String, GraphNode>,
    name: &str,
    parts: Vec<(String, i64)>,
) -> Option<(String, i64)> {
    let mut level = parts;
    let mut batches = 0;
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [(first, first_slot), (second, second_slot)] => {
                    batches += 1;
                    let id = format!("{name}_batch{batches}");
                    let inputs =
                        json!({ "image1": link(first, *first_slot), "image2": link(second, *second_slot) });
                    nodes.insert(id.clone(), GraphNode::new(BATCH_CLASS, inputs, "join frames"));
                    (id, 0)
                }
                alone => alone[0].clone(),
            })
            .collect();
    }
    level.pop()
}
