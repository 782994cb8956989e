//! A workflow: graph and manifest, checked against each other.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    error::WorkflowError, graph::Graph, manifest::Load, manifest::Manifest, parameters::ParameterTexts,
};

/// Names a workflow by its content: two texts that differ anywhere have different ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkflowId(pub String);

impl fmt::Display for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A checked workflow with the texts it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    id: WorkflowId,
    name: String,
    manifest: Manifest,
    graph: Graph,
    manifest_text: String,
    graph_text: String,
}

/// The classes and models that a ComfyUI must offer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// Node classes, sorted.
    pub classes: Vec<String>,
    /// Model files, as `folder/file`.
    pub models: Vec<String>,
}

impl Workflow {
    /// Reads and checks both texts. `name` is the folder's name; messages name `name/hearth.toml` and
    /// `name/graph.json`.
    pub fn parse(name: &str, manifest: &str, graph: &str) -> Result<Self, WorkflowError> {
        let manifest_file = format!("{name}/{}", crate::library::MANIFEST_FILE);
        let graph_file = format!("{name}/{}", crate::library::GRAPH_FILE);
        let parsed_graph = Graph::parse(&graph_file, graph)?;
        let parsed_manifest = Manifest::parse(&manifest_file, manifest)?;
        parsed_manifest.check(&manifest_file, &parsed_graph)?;
        let mut hash = blake3::Hasher::new();
        for text in [name, manifest, graph] {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        let id = hash.finalize().to_hex()[..16].to_owned();
        Ok(Self {
            id: WorkflowId(id),
            name: name.to_owned(),
            manifest: parsed_manifest,
            graph: parsed_graph,
            manifest_text: manifest.to_owned(),
            graph_text: graph.to_owned(),
        })
    }

    pub fn id(&self) -> &WorkflowId {
        &self.id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn manifest_text(&self) -> &str {
        &self.manifest_text
    }

    pub fn graph_text(&self) -> &str {
        &self.graph_text
    }

    /// Every model file, as `folder/file`, that a ComfyUI must have to run it with these parameters, of which those
    /// not given have their defaults.
    pub fn needed_models(&self, parameters: &ParameterTexts) -> Vec<String> {
        let of_parameters = self.manifest.parameters.iter().filter_map(|(name, parameter)| {
            let folder = parameter.model.as_ref()?;
            let text = parameters.get(name).cloned().unwrap_or_else(|| parameter.default_text());
            let value = serde_json::Value::String(text.trim().to_owned());
            let file = parameter.bound(&value);
            (!parameter.is_off(&value)).then(|| format!("{folder}/{}", file.as_str().unwrap_or_default()))
        });
        self.manifest.needs.models.iter().cloned().chain(of_parameters).collect()
    }

    /// Whether a pass is saved to a path, of which ComfyUI's history says nothing.
    pub fn saves_to_paths(&self) -> bool {
        self.manifest.passes.iter().any(|pass| pass.save == crate::manifest::Save::Frames)
    }

    /// Everything that a ComfyUI must offer to run it with these parameters. What they switch off is not needed.
    pub fn requirements(&self, parameters: &ParameterTexts) -> Requirements {
        let used = crate::bind::used_classes(self, parameters);
        let classes = match used {
            Some(used) => {
                let unused: BTreeSet<String> = self
                    .graph
                    .classes()
                    .into_iter()
                    .map(str::to_owned)
                    .filter(|it| !used.contains(it))
                    .collect();
                self.needed_classes()
                    .into_iter()
                    .map(str::to_owned)
                    .filter(|it| !unused.contains(it))
                    .collect()
            }
            // Parameters that do not fit are refused elsewhere.
            None => self.needed_classes().into_iter().map(str::to_owned).collect(),
        };
        Requirements { classes, models: self.needed_models(parameters) }
    }

    /// Every node class that a ComfyUI must offer to run it with any parameters.
    pub fn needed_classes(&self) -> BTreeSet<&str> {
        let mut classes = self.graph.classes();
        classes.extend(self.manifest.needs.classes.iter().map(String::as_str));
        if self.manifest.clip.as_ref().is_some_and(|clip| clip.load == Load::Image) {
            classes.insert(crate::bind::BATCH_CLASS);
        }
        if !self.manifest.each.is_empty() {
            classes.extend([crate::bind::BATCH_CLASS, crate::bind::PICK_CLASS]);
        }
        classes
    }
}
