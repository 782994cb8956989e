//! What can be wrong with a workflow, each case by its own name, with file, node and input.

use crate::{frames::FramesError, path::PathError};

/// Why a workflow, its parameters or its binding cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    #[error("cannot read {file}: {source}")]
    Read { file: String, source: std::io::Error },
    #[error("{file}: not valid JSON; export the graph again in API format")]
    Json { file: String, source: serde_json::Error },
    #[error("{file}: saved in ComfyUI's editor format; use Export (API) in ComfyUI and hand in that file")]
    EditorFormat { file: String },
    #[error("{file}: the graph has no nodes")]
    EmptyGraph { file: String },
    #[error("{file}: node {node} has no {missing}; export the graph again in API format")]
    BrokenNode { file: String, node: String, missing: &'static str },
    #[error("{file}: node {node}, input {input}: links to node {target}, which is not in the graph")]
    DanglingLink { file: String, node: String, input: String, target: String },
    #[error(
        "{file}: node {node}, input {input}: a list of length 2 that is no link; wrap literal lists as {{\"__value__\": …}}"
    )]
    BrokenLink { file: String, node: String, input: String },
    #[error("{file}: nodes {cycle} feed each other in a circle")]
    Cycle { file: String, cycle: String },
    #[error(
        "{file}: node {node} is {class}, which queues work by itself inside ComfyUI and cannot be split safely; load the frames with VHS_LoadImagesPath or LoadImage"
    )]
    UnsafeClass { file: String, node: String, class: String },
    #[error("{file}: {message}")]
    Manifest { file: String, message: String },
    #[error("{file}: {what} names node {node}, which is not in the graph; the graph has {known}")]
    MissingNode { file: String, what: String, node: String, known: String },
    #[error(
        "{file}: {what} sets input {input} of node {node} ({class}), which is a link there; name an input that holds a value"
    )]
    SetsLink { file: String, what: String, node: String, input: String, class: String },
    #[error("{file}: the clip comes in through node {node} ({class}); 'load = \"{load}\"' wants {wants}")]
    WrongLoader { file: String, node: String, class: String, load: &'static str, wants: &'static str },
    #[error(
        "{file}: node {node}, input {input}: takes output {slot} of the clip's loader, but only its picture (output 0) can be loaded for many frames"
    )]
    LoaderSlot { file: String, node: String, input: String, slot: i64 },
    #[error("workflow {workflow} has no parameter '{name}'; it has {known}")]
    UnknownParameter { workflow: String, name: String, known: String },
    #[error("workflow {workflow}, parameter {name}: '{value}' is no {expected}")]
    WrongType { workflow: String, name: String, value: String, expected: &'static str },
    #[error("workflow {workflow}, parameter {name}: {value} is out of range; give {range}")]
    OutOfRange { workflow: String, name: String, value: String, range: String },
    #[error("workflow {workflow}, parameter {name}: '{value}' is not one of {choices}")]
    NotAChoice { workflow: String, name: String, value: String, choices: String },
    #[error("workflow {workflow}, parameter {name}: give a {kind}, as its place on storage")]
    PlaceNeeded { workflow: String, name: String, kind: &'static str },
    #[error(
        "workflow {workflow}, parameter {name}: {value} does not end in .{extensions}, which is what the node reads"
    )]
    WrongExtension { workflow: String, name: String, value: String, extensions: String },
    #[error("workflow {workflow}, parameter {name}")]
    Place { workflow: String, name: String, source: PathError },
    #[error("no workflow '{name}'; the library has {known}")]
    UnknownWorkflow { name: String, known: String },
    #[error(transparent)]
    Frames(#[from] FramesError),
    #[error(transparent)]
    Path(#[from] PathError),
}
