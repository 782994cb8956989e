//! The guesses, and the manifest that they become.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::{Map, Value};

use super::{
    Draft, ImportError,
    knowledge::{self, Reach},
};
use crate::{
    graph::{Graph, GraphNode, Link},
    manifest::{Load, Save},
    signatures::{InputKind, Signatures},
    workflow::Workflow,
};

pub(super) fn draft(
    name: &str,
    file: &str,
    graph: &Graph,
    signatures: Option<&Signatures>,
) -> Result<Draft, ImportError> {
    let mut guess = Guess { graph, signatures, notes: Vec::new() };
    let loader = guess.loader();
    let passes = guess.passes(file)?;
    let mut text = String::new();
    section(
        &mut text,
        &format!(
            "# Guessed by `hearth workflow import` from {}: look at every line.\n\n[workflow]\ntitle = {}\npurpose = \"\"\ncategory = \"\"\n",
            file_name(file),
            quoted(&readable(name)),
        ),
    );
    if let Some((node, load)) = &loader {
        let (load, formats, colour) = match load {
            Load::Directory => ("directory", "\"png8\"", "\ncolour = \"srgb\""),
            Load::Image => ("image", "\"png8\"", ""),
            Load::Frames => ("frames", "\"exr-float\", \"exr-half\"", ""),
        };
        section(
            &mut text,
            &format!("[clip]\nnode = {}\nload = \"{load}\"\nformats = [{formats}]{colour}\n", quoted(node)),
        );
    }
    let split = guess.split(file, loader.as_ref().map(|(node, _)| node.as_str()))?;
    section(&mut text, &split.text);
    section(&mut text, &guess.frame_rule());
    guess.needs(&mut text);
    for parameter in guess.parameters(loader.as_ref().map(|(node, _)| node.as_str()), &split.taken) {
        section(&mut text, &parameter);
    }
    section(&mut text, &split.parameters);
    section(&mut text, &split.each);
    for pass in passes {
        section(&mut text, &pass);
    }
    let text = format!("{}\n", text.trim_end());
    let nodes: Map<String, Value> =
        graph.nodes().iter().map(|(id, node)| (id.clone(), node.to_value())).collect();
    let graph = format!("{:#}\n", Value::Object(nodes));
    Ok(Draft { workflow: Workflow::parse(name, &text, &graph)?, notes: guess.notes })
}

fn section(text: &mut String, section: &str) {
    if !section.is_empty() {
        text.push_str(section);
        text.push('\n');
    }
}

fn file_name(file: &str) -> &str {
    file.rsplit(['/', '\\']).next().unwrap_or(file)
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// `my_film-look` as `My film look`.
fn readable(name: &str) -> String {
    let spaced = name.replace(['-', '_'], " ");
    let mut letters = spaced.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Letters, digits and `_`; for names of parameters and passes.
fn plain(text: &str) -> String {
    let plain: String =
        text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    plain.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

struct Guess<'a> {
    graph: &'a Graph,
    signatures: Option<&'a Signatures>,
    notes: Vec<String>,
}

/// How the clip may be split, as text of the manifest.
#[derive(Default)]
struct Cut {
    text: String,
    parameters: String,
    each: String,
    /// Node inputs that the split sets.
    taken: BTreeSet<(String, String)>,
}

impl Guess<'_> {
    fn nodes(&self) -> impl Iterator<Item = (&String, &GraphNode)> {
        self.graph.nodes().iter()
    }

    /// The node that loads the clip: one that loads many frames, else the first that loads a picture.
    fn loader(&mut self) -> Option<(String, Load)> {
        let mut loaders: Vec<(String, Load)> = self
            .nodes()
            .filter_map(|(id, node)| Some((id.clone(), knowledge::loader(&node.class_type)?)))
            .collect();
        let likeness = |id: &str| self.graph.get(id).map_or(0, |node| knowledge::clip_likeness(&node.title));
        loaders.sort_by_key(|(id, load)| (*load == Load::Image, std::cmp::Reverse(likeness(id))));
        let (node, load) = loaders.first()?.clone();
        if load == Load::Image && self.length().is_some() {
            self.notes.push(format!(
                "node {node} loads one picture, and another node says how many frames are made: taken for a picture that starts a shot, not for a clip"
            ));
            return None;
        }
        let class = &self.graph.get(&node)?.class_type;
        self.notes.push(format!("the clip comes in through node {node} ({class})"));
        Some((node, load))
    }

    /// The input that says how many frames a model makes out of nothing.
    fn length(&self) -> Option<(String, String)> {
        self.nodes().find_map(|(id, node)| {
            let makes = node.class_type.contains("Latent") && !node.class_type.contains("Batch");
            let input = knowledge::LENGTHS
                .iter()
                .find(|input| node.inputs.get(**input).is_some_and(Value::is_u64))?;
            makes.then(|| (id.clone(), (*input).to_owned()))
        })
    }

    fn passes(&mut self, file: &str) -> Result<Vec<String>, ImportError> {
        let mut used = BTreeSet::new();
        let mut passes = Vec::new();
        let mut ignored = Vec::new();
        for (id, node) in self.graph.nodes() {
            let Some(save) = knowledge::saver(&node.class_type) else {
                let shows = self.signatures.and_then(|known| known.get(&node.class_type));
                if shows.is_some_and(|signature| signature.is_output) {
                    ignored.push(format!("node {id} ({}) is no pass", node.class_type));
                }
                continue;
            };
            let wanted = match save {
                Save::Images => node.inputs.get("filename_prefix").and_then(Value::as_str).unwrap_or(""),
                Save::Frames => "",
            };
            let title = Self::pass_title(node);
            let wanted = match plain(file_name(wanted)).as_str() {
                "" | "comfyui" if !title.is_empty() => title,
                "" | "comfyui" if used.is_empty() => "beauty".to_owned(),
                "" | "comfyui" => format!("pass{}", used.len() + 1),
                wanted => wanted.to_owned(),
            };
            let name = if used.contains(&wanted) { format!("{wanted}{}", used.len() + 1) } else { wanted };
            let format = match save {
                Save::Images => "",
                Save::Frames => "format = \"exr-float\"\nsave = \"frames\"\n",
            };
            passes.push(format!("[[pass]]\nname = {}\nnode = {}\n{format}", quoted(&name), quoted(id)));
            used.insert(name);
        }
        if passes.is_empty() {
            return Err(ImportError::NoPass { file: file.to_owned(), ignored: ignored.join("; ") });
        }
        if !ignored.is_empty() {
            self.notes
                .push(format!("{}; movies are made with `hearth submit --deliver`", ignored.join("; ")));
        }
        Ok(passes)
    }

    /// What a saver's title says of its pass: nothing as long as nobody has changed it.
    fn pass_title(node: &GraphNode) -> String {
        let told = plain(&node.title);
        let usual =
            ["save", "image", "images", "video", "frames", "preview", "output", "combine", "final", "vhs"];
        let is_usual = node.title == node.class_type
            || told.split('_').all(|word| usual.contains(&word) || word.is_empty());
        let words = told.split('_').filter(|word| !usual.contains(word));
        if is_usual { String::new() } else { words.collect::<Vec<_>>().join("_") }
    }

    /// How many frames a model makes, where it does not make any number.
    fn frame_rule(&mut self) -> String {
        let rules = self
            .graph
            .nodes()
            .iter()
            .find_map(|(id, node)| Some((id, knowledge::frame_rule(&node.class_type)?)));
        let Some((id, (multiple, plus))) = rules else { return String::new() };
        self.notes.push(format!("node {id} makes {multiple}n + {plus} frames; look whether that is so"));
        format!("[chunk]\nmultiple = {multiple}\nplus = {plus}\n")
    }

    fn split(&mut self, file: &str, loader: Option<&str>) -> Result<Cut, ImportError> {
        let reaches: Vec<(&String, &GraphNode, Reach)> = self
            .graph
            .nodes()
            .iter()
            .filter_map(|(id, node)| Some((id, node, knowledge::reach(&node.class_type)?)))
            .collect();
        let of = |reach: Reach| reaches.iter().find(|(.., of)| *of == reach);
        let Some(loader) = loader else {
            let Some((node, input)) = self.length() else {
                return Err(ImportError::NoFrames { file: file.to_owned() });
            };
            return Ok(self.generate(&node, &input));
        };
        if let Some((id, node, _)) = of(Reach::Interpolates) {
            self.notes.push(format!("node {id} ({}) puts pictures between frames", node.class_type));
            let factor = node.inputs.get("multiplier").and_then(Value::as_i64).unwrap_or(2);
            return Ok(Cut {
                text: format!(
                    "[split]\nkind = \"interpolate\"\nfactor = \"factor\"\nsets = [{}]\n",
                    quoted(&format!("{id}.multiplier"))
                ),
                parameters: format!(
                    "[parameters.factor]\ntype = \"text\"\ndefault = \"{factor}\"\nhelp = \"Frames for each frame: 2, 4, 5/2\"\n"
                ),
                taken: [((*id).clone(), "multiplier".to_owned())].into(),
                ..Cut::default()
            });
        }
        if let Some((id, node, _)) = of(Reach::Whole) {
            self.notes.push(format!(
                "node {id} ({}) looks at the whole batch: the clip is never split",
                node.class_type
            ));
            return Ok(Cut { text: "[split]\nkind = \"whole\"\n".to_owned(), ..Cut::default() });
        }
        if let Some((id, node, _)) = of(Reach::Neighbours) {
            self.notes.push(format!(
                "node {id} ({}) looks at neighbours: chunks share 8 frames, which are cross-faded",
                node.class_type
            ));
            return Ok(Cut {
                text: "[split]\nkind = \"overlap\"\nframes = 8\nhandles = 4\n".to_owned(),
                ..Cut::default()
            });
        }
        let draws: BTreeSet<&str> =
            reaches.iter().filter(|(.., reach)| *reach == Reach::Draws).map(|(id, ..)| id.as_str()).collect();
        let (each, note) = self.each(loader, &draws).unwrap_or_default();
        let notes: Vec<String> = Some(note).filter(|note| !note.is_empty()).into_iter().collect();
        let unknown: BTreeSet<String> = self
            .nodes()
            .filter(|(_, node)| {
                let known = self.signatures.and_then(|known| known.get(&node.class_type));
                known.is_none_or(|signature| signature.package().is_some())
                    && knowledge::reach(&node.class_type).is_none()
                    && knowledge::loader(&node.class_type).is_none()
                    && knowledge::saver(&node.class_type).is_none()
            })
            .map(|(_, node)| node.class_type.clone())
            .collect();
        self.notes.extend(notes);
        if !unknown.is_empty() {
            let unknown: Vec<String> = unknown.into_iter().collect();
            self.notes.push(format!(
                "split frame by frame; that is wrong if one of these looks at neighbouring frames: {}. Render a clip with and without --chunk-frames and compare",
                unknown.join(", ")
            ));
        }
        Ok(Cut { text: "[split]\nkind = \"per-frame\"\n".to_owned(), each, ..Cut::default() })
    }

    fn generate(&mut self, node: &str, input: &str) -> Cut {
        let default = self.graph.get(node).and_then(|node| node.inputs[input].as_u64()).unwrap_or(1);
        self.notes.push(format!("no clip comes in: node {node} says how many frames are made"));
        let seed = self.nodes().any(|(_, node)| node.inputs.get("seed").is_some_and(Value::is_number));
        Cut {
            text: format!(
                "[split]\nkind = \"generate\"\nframes = \"frames\"\nsets = [{}]\n{}",
                quoted(&format!("{node}.{input}")),
                if seed { "seed = \"seed\"\n" } else { "" }
            ),
            parameters: format!(
                "[parameters.frames]\ntype = \"int\"\ndefault = {default}\nmin = 1\nhelp = \"Frames to make\"\n"
            ),
            taken: [(node.to_owned(), input.to_owned())].into(),
            ..Cut::default()
        }
    }

    /// Nodes that draw noise by the place in the batch get one frame at a time, and with them what lies between them
    /// and the pictures: everything that depends on the clip and is neither loaded nor saved as pictures.
    fn each(&self, loader: &str, draws: &BTreeSet<&str>) -> Option<(String, String)> {
        let behind = self.behind(loader);
        let drawing: BTreeSet<&str> = draws.intersection(&behind).copied().collect();
        if drawing.is_empty() {
            return None;
        }
        // From pictures to latents and back, and all conditioning on the way: what is taken apart and joined again
        // must be pictures.
        let mut nodes = drawing.clone();
        loop {
            let mut wider = nodes.clone();
            for (taker, node) in self.nodes() {
                for (_, link) in node.links().filter(|(_, link)| !self.carries_pictures(link)) {
                    if nodes.contains(link.node) {
                        wider.insert(taker);
                    }
                    if nodes.contains(taker.as_str()) && behind.contains(link.node) && link.node != loader {
                        wider.insert(link.node);
                    }
                }
            }
            if wider == nodes {
                break;
            }
            nodes = wider;
        }
        let of: BTreeSet<&str> = nodes
            .iter()
            .flat_map(|id| self.sources(id))
            .filter(|id| behind.contains(id) && !nodes.contains(id))
            .collect();
        let list = |ids: &BTreeSet<&str>| ids.iter().map(|id| quoted(id)).collect::<Vec<_>>().join(", ");
        let note = format!(
            "nodes {} draw noise by the place in the batch: they get one frame at a time. Add seeds = [\"node.seed\"] to [[each]] for noise that differs from frame to frame",
            drawing.into_iter().collect::<Vec<_>>().join(", ")
        );
        Some((format!("[[each]]\nnodes = [{}]\nof = [{}]\n", list(&nodes), list(&of)), note))
    }

    /// Whether pictures come over the link; by the name of its class where nobody says what that gives.
    fn carries_pictures(&self, link: &Link<'_>) -> bool {
        let class = self.graph.get(link.node).map_or("", |node| &node.class_type);
        let outputs = self.signatures.and_then(|known| Some(&known.get(class)?.outputs));
        let given = outputs.zip(usize::try_from(link.slot).ok()).and_then(|(all, slot)| all.get(slot));
        // Of what gives back what it was given, the declaration says nothing.
        let declared = given.filter(|given| *given != "*" && !given.starts_with("COMFY_"));
        declared.map_or_else(|| knowledge::gives_pictures(class), |given| given == "IMAGE")
    }

    fn takers(&self, id: &str) -> BTreeSet<&str> {
        let takes = |node: &GraphNode| node.links().any(|(_, link)| link.node == id);
        self.nodes().filter(|(_, node)| takes(node)).map(|(taker, _)| taker.as_str()).collect()
    }

    fn sources(&self, id: &str) -> BTreeSet<&str> {
        self.graph.get(id).into_iter().flat_map(GraphNode::links).map(|(_, link)| link.node).collect()
    }

    /// `from` and all that takes something from it, near or far.
    fn behind<'b>(&'b self, from: &'b str) -> BTreeSet<&'b str> {
        let mut open = vec![from];
        let mut found: BTreeSet<&str> = [from].into();
        while let Some(id) = open.pop() {
            open.extend(self.takers(id).into_iter().filter(|id| found.insert(id)));
        }
        found
    }

    fn needs(&self, text: &mut String) {
        let mut models = BTreeSet::new();
        let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (_, node) in self.nodes() {
            for (input, value) in &node.inputs {
                let file = value.as_str().filter(|value| knowledge::is_model(value));
                if let Some((file, folder)) = file.zip(knowledge::model_folder(&node.class_type, input)) {
                    models.insert(format!("{folder}/{file}"));
                }
            }
            let signature = self.signatures.and_then(|known| known.get(&node.class_type));
            if let Some(package) = signature.and_then(|signature| signature.package()) {
                packages.entry(package).or_default().insert(&node.class_type);
            }
        }
        if !models.is_empty() {
            let list: Vec<String> = models.iter().map(|model| format!("    {},\n", quoted(model))).collect();
            section(text, &format!("[needs]\nmodels = [\n{}]\n", list.concat()));
        }
        if !packages.is_empty() {
            let mut lines = "[needs.packages]\n".to_owned();
            for (package, classes) in packages {
                let classes: Vec<String> = classes.into_iter().map(quoted).collect();
                // Writing to a text cannot fail.
                let _ = writeln!(lines, "{} = [{}]", quoted(package), classes.join(", "));
            }
            section(text, &lines);
        }
    }

    fn parameters(&self, loader: Option<&str>, taken: &BTreeSet<(String, String)>) -> Vec<String> {
        let mut made = Vec::new();
        let mut used: BTreeSet<String> = ["factor".to_owned(), "frames".to_owned()].into();
        for (id, node) in self.nodes().filter(|(id, _)| Some(id.as_str()) != loader) {
            let is_picture = knowledge::loader(&node.class_type) == Some(Load::Image);
            for (input, value) in &node.inputs {
                let turned = knowledge::TURNED.contains(&input.as_str()) || is_picture && input == "image";
                if !turned || value.is_array() || taken.contains(&(id.clone(), input.clone())) {
                    continue;
                }
                let wanted = if input == "text" || is_picture { self.role(id, node) } else { input.clone() };
                let name = Self::name(wanted, input, (id, node), &used);
                let kind = if is_picture { Some(picture()) } else { self.kind(node, input, value) };
                let Some(kind) = kind else { continue };
                let sets = quoted(&format!("{id}.{input}"));
                let help = quoted(&format!("{} of {}", readable(input), node.title));
                made.push(format!("[parameters.{name}]\n{kind}help = {help}\nsets = [{sets}]\n"));
                used.insert(name);
            }
        }
        made
    }

    /// What a text or a picture is for, by who takes it.
    fn role(&self, id: &str, node: &GraphNode) -> String {
        let input_of = |wanted: &str| {
            self.nodes()
                .flat_map(|(_, node)| node.links())
                .any(|(input, link)| link.node == id && input == wanted)
        };
        match () {
            () if input_of("negative") => "negative".to_owned(),
            () if input_of("positive") => "prompt".to_owned(),
            () => plain(&node.title),
        }
    }

    /// A name that is not used: `wanted`, or made of the node's title and number. Titles may have no letter that a name
    /// may have.
    fn name(wanted: String, input: &str, (id, node): (&str, &GraphNode), used: &BTreeSet<String>) -> String {
        let joined = |parts: &[&str]| plain(&parts.join("_"));
        let names =
            [wanted, joined(&[&node.title, input]), joined(&[&node.title, input, id]), joined(&[input, id])];
        let free = names.into_iter().find(|name| !name.is_empty() && !used.contains(name));
        // Never the same twice: no two inputs have the same number and name.
        free.unwrap_or_else(|| format!("parameter{}", used.len()))
    }

    /// Type, default, range and choices.
    fn kind(&self, node: &GraphNode, input: &str, value: &Value) -> Option<String> {
        let declared = self.signatures.and_then(|known| known.get(&node.class_type)?.inputs.get(input));
        let default = match value {
            Value::String(text) => quoted(text),
            value => value.to_string(),
        };
        let bounds = |min: f64, max: f64| {
            // Beyond this a text cannot say the number exactly.
            let told = |name: &str, bound: f64| {
                if bound.is_finite() && bound.abs() < 1e15 {
                    format!("{name} = {bound}\n")
                } else {
                    String::new()
                }
            };
            format!("{}{}", told("min", min), told("max", max))
        };
        Some(match (declared.map(|input| &input.kind), value) {
            (Some(InputKind::Choice(choices)), Value::String(_)) => {
                let choices: Vec<String> = choices.iter().filter_map(Value::as_str).map(quoted).collect();
                format!("type = \"choice\"\ndefault = {default}\nchoices = [{}]\n", choices.join(", "))
            }
            (Some(InputKind::Float { min, max }), Value::Number(_)) => {
                format!("type = \"float\"\ndefault = {default}\n{}", bounds(*min, *max))
            }
            (Some(InputKind::Int { min, max }), Value::Number(_)) => {
                format!("type = \"int\"\ndefault = {default}\n{}", bounds(*min, *max))
            }
            (_, Value::Number(number)) if number.is_i64() => format!("type = \"int\"\ndefault = {default}\n"),
            (_, Value::Number(number)) if number.is_f64() => {
                format!("type = \"float\"\ndefault = {default}\n")
            }
            (_, Value::Bool(_)) => format!("type = \"bool\"\ndefault = {default}\n"),
            (_, Value::String(_)) => format!("type = \"text\"\ndefault = {default}\n"),
            _ => return None,
        })
    }
}

fn picture() -> String {
    "type = \"picture\"\ndefault = \"\"\n".to_owned()
}
