//! From a graph that somebody exported from ComfyUI to a workflow: what loads the clip, what saves a pass, what a person
//! would turn, and how it may be split are guessed. Guesses are said, so that a person can finish the manifest.
//!
//! Must never guess in silence that a clip may be cut: what is not known is said.

mod draft;
mod editor;
mod knowledge;
mod level;
mod movies;
mod widgets;

use serde_json::Value;

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
        "{file}: saved in ComfyUI's editor format, and {why}. If that cannot be mended, use Export (API) in ComfyUI and hand in that file"
    )]
    Editor { file: String, why: String },
    #[error("{file}: nothing in it saves pictures; add a SaveImage or SaveEXRFrames node. {ignored}")]
    NoPass { file: String, ignored: String },
    #[error(
        "{file}: nothing in it loads a clip or says how many frames to make; add a VHS_LoadImagesPath or LoadImage node"
    )]
    NoFrames { file: String },
}

impl ImportError {
    /// With what was changed before: it may be the reason.
    fn after(self, notes: &[String]) -> Self {
        let gone = notes.iter().filter(|note| note.contains(movies::GOES)).cloned();
        match self {
            Self::NoPass { file, ignored } => {
                let told: Vec<String> =
                    Some(ignored).into_iter().filter(|it| !it.is_empty()).chain(gone).collect();
                Self::NoPass { file, ignored: told.join("; ") }
            }
            other => other,
        }
    }
}

/// Makes a workflow called `name` of the graph in `text`, in API format or, where the node classes are known, in the
/// editor's. Movies that it loads and saves become frames. `file` is for messages.
pub fn import(
    name: &str,
    file: &str,
    text: &str,
    signatures: Option<&Signatures>,
) -> Result<Draft, ImportError> {
    let whole: Value =
        serde_json::from_str(text).map_err(|source| WorkflowError::Json { file: file.to_owned(), source })?;
    let value = unwrapped(&whole);
    let (mut graph, mut notes) = if value["nodes"].is_array() {
        let api = editor::to_api(value, signatures)
            .map_err(|why| ImportError::Editor { file: file.to_owned(), why })?;
        let missing = (!api.missing.is_empty()).then(|| editor::missing_text(&api.missing));
        (api.graph, api.notes.into_iter().chain(missing).collect())
    } else {
        (value.as_object().cloned().unwrap_or_default(), Vec::new())
    };
    // What is no node of a graph is refused below, by name.
    if graph.values().all(|node| node["class_type"].is_string()) {
        notes.extend(movies::to_frames(&mut graph, signatures));
    }
    let graph = Graph::parse(file, &Value::Object(graph).to_string())?;
    let mut draft = draft::draft(name, file, &graph, signatures).map_err(|error| error.after(&notes))?;
    draft.notes.splice(0..0, notes);
    Ok(draft)
}

/// Services wrap a graph: `{"input": {"workflow": …}}`, `{"prompt": …}`.
fn unwrapped(value: &Value) -> &Value {
    for path in ["/input/workflow", "/input/prompt", "/workflow", "/prompt"] {
        if let Some(inner @ Value::Object(_)) = value.pointer(path).filter(|_| !value["nodes"].is_array()) {
            return inner;
        }
    }
    value
}
