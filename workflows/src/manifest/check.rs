//! A manifest held against its graph, before anything is submitted with it.

use super::{Load, Manifest, Pass, SplitRule, ratio};
use crate::{
    error::WorkflowError,
    graph::Graph,
    parameters::{Bypass, InputRef, ParameterTexts, ParameterType, check_names},
    split::Split,
};

impl Manifest {
    /// Holds the manifest against its graph. `file` names the manifest.
    pub(crate) fn check(&self, file: &str, graph: &Graph) -> Result<(), WorkflowError> {
        self.check_clip(file, graph)?;
        let wrong = |message: String| WorkflowError::Manifest { file: file.to_owned(), message };
        self.check_chunks().map_err(wrong)?;
        if let SplitRule::Interpolate { factor, sets } = &self.split {
            self.split(&ParameterTexts::new())
                .map_err(|error| wrong(format!("[split] factor = \"{factor}\": {error}")))?;
            for choice in self.parameters.get(factor).into_iter().flat_map(|parameter| &parameter.choices) {
                ratio(choice).map_err(|error| wrong(format!("parameter {factor}: {error}")))?;
            }
            for target in sets {
                check_target(file, graph, "[split]", target)?;
            }
        }
        if let SplitRule::Generate { frames, sets, seed } = &self.split {
            self.split(&ParameterTexts::new())
                .map_err(|error| wrong(format!("[split] frames = \"{frames}\": {error}")))?;
            let is_int = |name: &String| {
                self.parameters.get(name).is_some_and(|parameter| parameter.kind == ParameterType::Int)
            };
            if let Some(seed) = seed.as_ref().filter(|seed| !is_int(seed)) {
                return Err(wrong(format!("[split] seed = \"{seed}\" names no parameter of type int")));
            }
            for target in sets {
                check_target(file, graph, "[split]", target)?;
            }
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
            let target = InputRef { node: pass.node.clone(), input: pass.target().to_owned() };
            check_target(file, graph, &what, &target)?;
            for (key, name) in [("when", &pass.when), ("multiplied_when", &pass.multiplied_when)] {
                if let Some(name) = name.as_ref().filter(|name| !self.parameters.contains_key(*name)) {
                    return Err(wrong(format!("{what}: {key} = \"{name}\" names no parameter")));
                }
            }
        }
        if self.passes.iter().all(|pass| pass.when.is_some()) {
            return Err(wrong("every [[pass]] has a 'when'; one must always be made".to_owned()));
        }
        for (name, parameter) in &self.parameters {
            let what = format!("parameter {name}");
            // It becomes the name of a file where it is a picture.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(is_plain) {
                return Err(wrong(format!("parameter name '{name}': use letters, digits, '-' and '_'")));
            }
            if parameter.kind == ParameterType::Choice && parameter.choices.is_empty() {
                return Err(wrong(format!("{what}: type choice without choices")));
            }
            match parameter.read(&self.workflow.title, name, &parameter.default_text()) {
                // What everybody must give.
                Ok(_) | Err(WorkflowError::PlaceNeeded { .. }) => {}
                Err(error) => return Err(wrong(format!("{what}: its own default does not fit: {error}"))),
            }
            if parameter.kind != ParameterType::File && !parameter.extensions.is_empty() {
                return Err(wrong(format!("{what}: extensions are for parameters of type file")));
            }
            if let Some(value) = parameter.values.keys().find(|value| !parameter.choices.contains(value)) {
                return Err(wrong(format!("{what}: a value for '{value}', which is none of its choices")));
            }
            for target in &parameter.sets {
                check_target(file, graph, &what, target)?;
            }
            for Bypass { node, input } in &parameter.bypass {
                let inputs = &find_node(file, graph, &what, node)?.inputs;
                if let Some(input) = input.as_ref().filter(|input| !inputs.contains_key(*input)) {
                    return Err(wrong(format!(
                        "{what}: node {node} has no input {input} to stand in for it"
                    )));
                }
            }
            check_stand_ins(graph, &parameter.bypass)
                .map_err(|message| wrong(format!("{what}: {message}")))?;
        }
        for fact in &self.facts {
            for target in &fact.sets {
                check_target(file, graph, "fact", target)?;
            }
        }
        self.check_each(file, graph)?;
        self.check_deliveries().map_err(wrong)?;
        for (name, preset) in &self.presets {
            let place = format!("{}, preset {name}", self.workflow.title);
            check_names(&place, &self.parameters, &preset.parameters)
                .map_err(|error| wrong(error.to_string()))?;
            for (name, text) in &preset.parameters {
                self.parameters[name].read(&place, name, text).map_err(|error| wrong(error.to_string()))?;
            }
        }
        Ok(())
    }

    fn check_each(&self, file: &str, graph: &Graph) -> Result<(), WorkflowError> {
        let wrong = |message: &str| WorkflowError::Manifest {
            file: file.to_owned(),
            message: format!("[[each]]: {message}"),
        };
        for each in &self.each {
            if self.clip.is_none() {
                return Err(wrong("there are no frames to repeat nodes for, since no clip comes in"));
            }
            for id in each.nodes.iter().chain(&each.of) {
                find_node(file, graph, "[[each]]", id)?;
            }
            if each.of.iter().any(|id| each.nodes.contains(id)) {
                return Err(wrong("a node cannot be repeated and give the batch"));
            }
            for seed in &each.seeds {
                if !each.nodes.contains(&seed.node) {
                    return Err(wrong("a seed is of a node that is not repeated"));
                }
                check_target(file, graph, "[[each]]", seed)?;
            }
            let savers = self.passes.iter().map(|pass| &pass.node);
            if savers.chain(self.clip.iter().map(|clip| &clip.node)).any(|id| each.nodes.contains(id)) {
                return Err(wrong("what loads the clip or saves a pass is not repeated"));
            }
        }
        Ok(())
    }

    fn check_deliveries(&self) -> Result<(), String> {
        for delivery in &self.deliveries {
            let Some(pass) = self.passes.iter().find(|pass| pass.name == delivery.pass) else {
                return Err(format!("[[delivery]] names pass {}, which is not there", delivery.pass));
            };
            if pass.when.is_some() {
                return Err(format!("[[delivery]] names pass {}, which is not always made", delivery.pass));
            }
        }
        Ok(())
    }

    fn check_chunks(&self) -> Result<(), String> {
        let (head, tail) = self.split(&ParameterTexts::new()).unwrap_or(Split::PerFrame).handles();
        let handles = u64::from(head) + u64::from(tail);
        let shape = self.shape();
        let Some(most) = shape.at_most(shape.max) else {
            return Err(format!(
                "[chunk] no number of frames is {}n + {}, {} or more and {} or fewer",
                shape.multiple, shape.plus, shape.min, shape.max
            ));
        };
        if handles >= most {
            return Err(format!(
                "[chunk] max_frames = {} leaves no room beside handles of {head} and {tail}",
                shape.max
            ));
        }
        if let Some(pass) = self.passes.iter().find(|pass| !pass.format.is_writable()) {
            return Err(format!("pass {}: {} is read, but not written", pass.name, pass.format.name()));
        }
        Ok(())
    }

    fn check_clip(&self, file: &str, graph: &Graph) -> Result<(), WorkflowError> {
        let generates = matches!(self.split, SplitRule::Generate { .. });
        let clip = match &self.clip {
            Some(clip) if !generates => clip,
            None if generates => return Ok(()),
            clip => {
                let message = if clip.is_some() {
                    "[clip] and [split] kind = \"generate\" exclude each other: no clip comes in"
                } else {
                    "no [clip]; name the node that loads the frames, or say [split] kind = \"generate\""
                };
                return Err(WorkflowError::Manifest { file: file.to_owned(), message: message.to_owned() });
            }
        };
        let id = &clip.node;
        let loader = find_node(file, graph, "[clip]", id)?;
        let input = clip.load.input();
        if !loader.inputs.contains_key(input) {
            return Err(WorkflowError::WrongLoader {
                file: file.to_owned(),
                node: id.clone(),
                class: loader.class_type.clone(),
                load: input,
                wants: match clip.load {
                    Load::Image => "a node with the input 'image', e.g. LoadImage",
                    Load::Directory => "a node with the input 'directory', e.g. VHS_LoadImagesPath",
                    Load::Frames => "a node with the input 'filepath', e.g. LoadEXRFrames",
                },
            });
        }
        let target = InputRef { node: id.clone(), input: input.to_owned() };
        check_target(file, graph, "[clip]", &target)?;
        if clip.load == Load::Image {
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

/// A bypassed node has an input for each of its outputs that is used, or for none.
fn check_stand_ins(graph: &Graph, bypasses: &[Bypass]) -> Result<(), String> {
    // What a bypassed node takes goes with it, unless it stands in for it.
    let is_used = |id: &str, input: &str| {
        let mut own = bypasses.iter().filter(|bypass| bypass.node == id).peekable();
        own.peek().is_none() || own.any(|bypass| bypass.input.as_deref() == Some(input))
    };
    let links = || {
        let all = graph.nodes().iter().flat_map(|(id, node)| node.links().map(move |link| (id, link)));
        all.filter(|(id, (input, _))| is_used(id, input)).map(|(_, (_, link))| link)
    };
    for Bypass { node, input } in bypasses {
        let inputs = bypasses.iter().filter(|other| other.node == *node && other.input.is_some()).count();
        let used = links().filter(|link| link.node == node).map(|link| link.slot).max();
        if let Some(slot) = used.filter(|slot| input.is_some() && *slot >= inputs as i64) {
            return Err(format!(
                "nothing stands in for output {slot} of node {node}, which is used; name an input for each output, in their order"
            ));
        }
    }
    Ok(())
}
