//! `hearth.toml`: what a graph alone does not say. See `docs/workflows.md` for the format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::WorkflowError,
    graph::Graph,
    parameters::{InputRef, Parameter, ParameterType},
    split::Split,
};

/// The most frames a chunk may load when the manifest names no limit and the clip comes in one file a
/// node: a graph of thousands of loaders is slow to validate.
pub const DEFAULT_MAX_CHUNK_FRAMES: u32 = 128;

/// A manifest, as written.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub workflow: About,
    pub clip: ClipInput,
    pub split: Split,
    #[serde(default)]
    pub chunk: ChunkLimits,
    #[serde(default)]
    pub needs: Needs,
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Facts of a chunk that node inputs take.
    #[serde(default, rename = "fact")]
    pub facts: Vec<Fact>,
    #[serde(rename = "pass")]
    pub passes: Vec<Pass>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub title: String,
    pub purpose: String,
    #[serde(default)]
    pub category: String,
}

/// Where the frames come in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClipInput {
    /// The node that loads.
    pub node: String,
    pub load: Load,
    /// Picture formats it reads right.
    #[serde(default = "png8")]
    pub formats: Vec<PictureFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// The node loads one picture (`image`); it is repeated for every frame and the pictures are batched.
    Image,
    /// The node loads a folder (`directory`), which holds exactly the chunk's frames.
    Directory,
}

impl Load {
    /// The input that takes file or folder.
    pub fn input(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Directory => "directory",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PictureFormat {
    Png8,
    Png16,
}

impl PictureFormat {
    pub fn extension(self) -> &'static str {
        "png"
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Png8 => "8-bit PNG",
            Self::Png16 => "16-bit PNG",
        }
    }
}

fn png8() -> Vec<PictureFormat> {
    vec![PictureFormat::Png8]
}

/// What a node must have.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Node classes beside those in the graph.
    pub classes: Vec<String>,
    /// Model files as `folder/file`.
    pub models: Vec<String>,
    pub vram_gib: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkLimits {
    /// Most frames that one prompt may load, handles included.
    pub max_frames: Option<u32>,
}

/// A number of the chunk that node inputs take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    pub value: FactValue,
    pub sets: Vec<InputRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactValue {
    /// Frames loaded, handles included.
    Loaded,
    /// Number of the first loaded frame, e.g. to seed by frame.
    FirstLoaded,
    /// Handles before the first kept frame.
    Head,
}

/// One output of the workflow. The node must give one picture for every loaded frame, in order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    pub name: String,
    /// The node that saves it.
    pub node: String,
    #[serde(default = "png8_format")]
    pub format: PictureFormat,
    /// The input that takes the file prefix.
    #[serde(default = "filename_prefix")]
    pub prefix_input: String,
}

fn png8_format() -> PictureFormat {
    PictureFormat::Png8
}

fn filename_prefix() -> String {
    "filename_prefix".to_owned()
}

impl Manifest {
    pub fn parse(file: &str, text: &str) -> Result<Self, WorkflowError> {
        toml::from_str(text).map_err(|error| WorkflowError::Manifest {
            file: file.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    /// The most frames that one prompt may load.
    pub fn max_loaded(&self) -> u64 {
        match (self.split, self.chunk.max_frames, self.clip.load) {
            (Split::Whole, _, _) | (_, None, Load::Directory) => u64::MAX,
            (_, Some(max), _) => u64::from(max.max(1)),
            (_, None, Load::Image) => u64::from(DEFAULT_MAX_CHUNK_FRAMES),
        }
    }

    /// The most frames that a chunk may answer for.
    pub fn max_own(&self) -> u64 {
        let handles = match self.split {
            Split::Handles { head, tail } => u64::from(head) + u64::from(tail),
            Split::PerFrame | Split::Whole => 0,
        };
        self.max_loaded().saturating_sub(handles).max(1)
    }

    /// Holds the manifest against its graph. `file` names the manifest.
    pub(crate) fn check(&self, file: &str, graph: &Graph) -> Result<(), WorkflowError> {
        self.check_clip(file, graph)?;
        let wrong = |message: String| WorkflowError::Manifest { file: file.to_owned(), message };
        if let (Split::Handles { head, tail }, Some(max)) = (self.split, self.chunk.max_frames)
            && u64::from(head) + u64::from(tail) >= u64::from(max)
        {
            return Err(wrong(format!(
                "[chunk] max_frames = {max} leaves no room beside handles of {head} and {tail}"
            )));
        }
        if self.passes.is_empty() {
            return Err(wrong("no [[pass]]; name the node whose pictures are the result".to_owned()));
        }
        for (index, pass) in self.passes.iter().enumerate() {
            let what = format!("pass {}", pass.name);
            let plain = !pass.name.is_empty()
                && pass.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            if !plain {
                return Err(wrong(format!(
                    "pass name '{}' becomes a folder; use letters, digits, '-' and '_'",
                    pass.name
                )));
            }
            let twin = |other: &Pass| other.name == pass.name || other.node == pass.node;
            if self.passes[..index].iter().any(twin) {
                return Err(wrong(format!("{what}: its name or its node stands twice")));
            }
            let target = InputRef { node: pass.node.clone(), input: pass.prefix_input.clone() };
            check_target(file, graph, &what, &target)?;
        }
        for (name, parameter) in &self.parameters {
            let what = format!("parameter {name}");
            if parameter.kind == ParameterType::Choice && parameter.choices.is_empty() {
                return Err(wrong(format!("{what}: type choice without choices")));
            }
            parameter
                .read(&self.workflow.title, name, &parameter.default_text())
                .map_err(|error| wrong(format!("{what}: its own default does not fit: {error}")))?;
            for target in &parameter.sets {
                check_target(file, graph, &what, target)?;
            }
        }
        for fact in &self.facts {
            for target in &fact.sets {
                check_target(file, graph, "fact", target)?;
            }
        }
        Ok(())
    }

    fn check_clip(&self, file: &str, graph: &Graph) -> Result<(), WorkflowError> {
        let id = &self.clip.node;
        let loader = find_node(file, graph, "[clip]", id)?;
        let input = self.clip.load.input();
        if !loader.inputs.contains_key(input) {
            return Err(WorkflowError::WrongLoader {
                file: file.to_owned(),
                node: id.clone(),
                class: loader.class_type.clone(),
                load: input,
                wants: match self.clip.load {
                    Load::Image => "a node with the input 'image', e.g. LoadImage",
                    Load::Directory => "a node with the input 'directory', e.g. VHS_LoadImagesPath",
                },
            });
        }
        let target = InputRef { node: id.clone(), input: input.to_owned() };
        check_target(file, graph, "[clip]", &target)?;
        if self.clip.load == Load::Image {
            for (node, entry) in graph.nodes() {
                for (input, link) in entry.links() {
                    if link.node == id && link.slot != 0 {
                        return Err(WorkflowError::LoaderSlot {
                            file: file.to_owned(),
                            node: node.clone(),
                            input: input.to_owned(),
                            slot: link.slot,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

fn find_node<'a>(
    file: &str,
    graph: &'a Graph,
    what: &str,
    id: &str,
) -> Result<&'a crate::graph::GraphNode, WorkflowError> {
    graph.get(id).ok_or_else(|| WorkflowError::MissingNode {
        file: file.to_owned(),
        what: what.to_owned(),
        node: id.to_owned(),
        known: graph.ids(),
    })
}

/// A value can be put into `target`: the node exists and the input is no link.
fn check_target(file: &str, graph: &Graph, what: &str, target: &InputRef) -> Result<(), WorkflowError> {
    let node = find_node(file, graph, what, &target.node)?;
    if node.links().any(|(input, _)| input == target.input) {
        return Err(WorkflowError::SetsLink {
            file: file.to_owned(),
            what: what.to_owned(),
            node: target.node.clone(),
            input: target.input.clone(),
            class: node.class_type.clone(),
        });
    }
    Ok(())
}
