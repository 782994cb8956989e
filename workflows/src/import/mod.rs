//! From a graph that somebody exported from ComfyUI to a workflow: what loads the clip, what saves a pass, what a person
//! would turn, and how it may be split are guessed. Guesses are said, so that a person can finish the manifest.
//!
//! Must never guess in silence that a clip may be cut: what is not known is said.

mod draft;
mod editor;
mod knowledge;

use crate::{error::WorkflowError, graph::Graph, signatures::Signatures, workflow::Workflow};

/// A workflow to finish by hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub workflow: Workflow,
    /// What was guessed, and what a person must look at.
    pub notes: Vec<String>,
}

/// Why a graph cannot become a workflow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    #[error(transparent)]
    Graph(#[from] WorkflowError),
    #[error(
        "{file}: saved in ComfyUI's editor format, and {why}; use Export (API) in ComfyUI and hand in that file"
    )]
    Editor { file: String, why: String },
    #[error("{file}: nothing in it saves pictures; add a SaveImage or SaveEXRFrames node. {ignored}")]
    NoPass { file: String, ignored: String },
    #[error(
        "{file}: nothing in it loads a clip or says how many frames to make; add a VHS_LoadImagesPath or LoadImage node"
    )]
    NoFrames { file: String },
}

/// Makes a workflow called `name` of the graph in `text`, in API format or, where the node classes are known, in the
/// editor's. `file` is for messages.
pub fn import(
    name: &str,
    file: &str,
    text: &str,
    signatures: Option<&Signatures>,
) -> Result<Draft, ImportError> {
    let graph = match Graph::parse(file, text) {
        Err(WorkflowError::EditorFormat { .. }) => {
            let api = editor::to_api(text, signatures)
                .map_err(|why| ImportError::Editor { file: file.to_owned(), why })?;
            Graph::parse(file, &api.to_string())?
        }
        parsed => parsed?,
    };
    draft::draft(name, file, &graph, signatures)
}
