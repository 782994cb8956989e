//! Workflow folders: those that ship with Hearth and those a facility keeps.
//!
//! The only part of this crate that reads files.

use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

use crate::{error::WorkflowError, workflow::Workflow};

pub const MANIFEST_FILE: &str = "hearth.toml";
pub const GRAPH_FILE: &str = "graph.json";

/// A workflow that ships with Hearth.
struct Shipped {
    name: &'static str,
    manifest: &'static str,
    graph: &'static str,
    readme: &'static str,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(Shipped {
            name: $name,
            manifest: include_str!(concat!("../library/", $name, "/hearth.toml")),
            graph: include_str!(concat!("../library/", $name, "/graph.json")),
            readme: include_str!(concat!("../library/", $name, "/README.md")),
        }),*]
    };
}

static SHIPPED: [Shipped; 16] = shipped![
    "3d-maps",
    "background-plate",
    "background-replacement",
    "chroma-key",
    "cosmos-video",
    "cosmos1-video",
    "face-restoration",
    "film-look",
    "flux-upscale",
    "multi-format-export",
    "resize-sharpen",
    "rife-interpolation",
    "style-transfer",
    "temporal-coherence",
    "temporal-smooth",
    "temporal-super-resolution",
];

/// Read once: they do not change while a process lives. A test holds that all of them can be read.
static READ: LazyLock<BTreeMap<String, Workflow>> = LazyLock::new(|| {
    let read = |shipped: &Shipped| Workflow::parse(shipped.name, shipped.manifest, shipped.graph).ok();
    SHIPPED.iter().filter_map(read).map(|workflow| (workflow.name().to_owned(), workflow)).collect()
});

/// What the workflow `name` that ships with Hearth says of itself, in Markdown.
pub fn readme(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|shipped| shipped.name == name).map(|shipped| shipped.readme)
}

/// Workflows by name, and what was wrong with those that could not be read.
#[derive(Debug, Default)]
pub struct Library {
    pub workflows: BTreeMap<String, Workflow>,
    pub errors: Vec<WorkflowError>,
}

impl Library {
    /// The shipped workflows and those in `folders`; a facility's own hides a shipped one of its name.
    pub fn read<P: AsRef<Path>>(folders: &[P]) -> Self {
        let mut library = Self::default();
        library.workflows.clone_from(&READ);
        for folder in folders {
            library.read_all(folder.as_ref());
        }
        library
    }

    /// The workflow `name`.
    pub fn get(&self, name: &str) -> Result<&Workflow, WorkflowError> {
        self.workflows.get(name).ok_or_else(|| WorkflowError::UnknownWorkflow {
            name: name.to_owned(),
            known: self.workflows.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }

    fn read_all(&mut self, folder: &Path) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(source) => {
                self.errors.push(WorkflowError::Read { file: folder.display().to_string(), source });
                return;
            }
        };
        let mut folders: Vec<_> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join(MANIFEST_FILE).is_file())
            .collect();
        folders.sort();
        for path in folders {
            self.add(read_folder(&path));
        }
    }

    fn add(&mut self, workflow: Result<Workflow, WorkflowError>) {
        match workflow {
            Ok(workflow) => {
                self.workflows.insert(workflow.name().to_owned(), workflow);
            }
            Err(error) => self.errors.push(error),
        }
    }
}

/// Reads the workflow in `folder`, named for the folder.
pub fn read_folder(folder: &Path) -> Result<Workflow, WorkflowError> {
    let read = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file)
            .map_err(|source| WorkflowError::Read { file: file.display().to_string(), source })
    };
    let name = folder
        .file_name()
        .map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned());
    Workflow::parse(&name, &read(MANIFEST_FILE)?, &read(GRAPH_FILE)?)
}
