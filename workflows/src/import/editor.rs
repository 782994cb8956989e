//! ComfyUI's editor format (`nodes`, `links`, `widgets_values`, subgraphs) as API format, by the rules of its frontend:
//! subgraphs are expanded, what only the editor knows is resolved or dropped, muted nodes go with what hangs behind them,
//! bypassed ones pass on by type.
//!
//! Where a value could be another one, the graph is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    knowledge,
    level::{Level, Levels, id_of},
    widgets,
};
use crate::{graph::link, signatures::Signatures};

/// Modes of a node in the editor.
const MUTED: i64 = 2;
const BYPASSED: i64 = 4;

/// Nodes and reroutes that a link may pass: more run in a circle.
const LONGEST_WAY: usize = 1_000;

/// A graph in API format.
#[derive(Debug, Default)]
pub(super) struct Api {
    pub(super) graph: Map<String, Value>,
    pub(super) notes: Vec<String>,
    /// Classes that the ComfyUI lacks, and the package that brings each, where the file says so.
    pub(super) missing: BTreeMap<String, Option<String>>,
}

/// Where a link comes from.
enum Source {
    Output(String, i64),
    Value(Value),
    /// The input's own value stands.
    Own,
    /// What would give it is switched off.
    Nothing,
}

/// The graph in API format, or why that cannot be said for sure. What classes the ComfyUI lacks does not stop it as long
/// as the file itself says how their values are called.
pub(super) fn to_api(value: &Value, signatures: Option<&Signatures>) -> Result<Api, String> {
    let signatures = signatures.ok_or("only a ComfyUI knows its nodes' inputs: name one with --node")?;
    let levels = Levels::read(value)?;
    let mut api = Api::default();
    let mut unreadable = BTreeSet::new();
    for (at, level) in levels.all.iter().enumerate() {
        for (id, node) in &level.nodes {
            let class = class_of(node);
            if levels.is_instance(node) || knowledge::is_editors_own(class) || levels.is_off(at, node) {
                continue;
            }
            let name = level.full_id(id);
            let values = match signatures.get(class) {
                Some(signature) => {
                    let read = widgets::read(class, node, signature);
                    let values =
                        read.map_err(|why| format!("node {name} ({class}): {why}{}", of_version(node)))?;
                    api.notes
                        .extend(values.notes.iter().map(|note| format!("node {name} ({class}): {note}")));
                    values.by_name
                }
                None => {
                    api.missing.insert(class.to_owned(), package_of(node));
                    widgets::undeclared(node).unwrap_or_else(|| {
                        unreadable.insert(class.to_owned());
                        Map::new()
                    })
                }
            };
            let inputs = levels.inputs(at, id, node, values)?;
            let title = node["title"].as_str().unwrap_or(class);
            let entry = json!({ "class_type": class, "inputs": inputs, "_meta": { "title": title } });
            api.graph.insert(name, entry);
        }
    }
    levels.link_everywhere(value, &mut api.graph)?;
    drop_dangling(&mut api.graph);
    if !unreadable.is_empty() {
        return Err(missing_text(&api.missing));
    }
    Ok(api)
}

/// The packages to install, one a line with its classes.
pub(super) fn missing_text(missing: &BTreeMap<String, Option<String>>) -> String {
    let mut packages: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (class, package) in missing {
        packages.entry(package.as_deref().unwrap_or("")).or_default().push(class);
    }
    let told = packages.into_iter().map(|(package, classes)| match package {
        "" => format!("what brings {} (the file does not say; ComfyUI's manager knows)", classes.join(", ")),
        "comfy-core" => format!("a newer ComfyUI, for {}", classes.join(", ")),
        package => format!("{package}, for {}", classes.join(", ")),
    });
    format!("that ComfyUI lacks node classes of it: install {}", told.collect::<Vec<_>>().join("; "))
}

pub(super) fn class_of(node: &Value) -> &str {
    node["type"].as_str().unwrap_or("")
}

fn mode_of(node: &Value) -> i64 {
    node["mode"].as_i64().unwrap_or(0)
}

/// The package that brings a node, as the editor has noted it.
fn package_of(node: &Value) -> Option<String> {
    let properties = &node["properties"];
    let named = [&properties["aux_id"], &properties["cnr_id"]].into_iter().find_map(Value::as_str);
    named.map(|name| name.trim_end_matches('/').to_owned()).filter(|name| !name.is_empty())
}

fn of_version(node: &Value) -> String {
    match (package_of(node), node["properties"]["ver"].as_str()) {
        (Some(package), Some(version)) => format!(" ({package} {version})"),
        (Some(package), None) => format!(" ({package})"),
        _ => String::new(),
    }
}

/// An input that a node which is not there any more would feed is not there either.
fn drop_dangling(graph: &mut Map<String, Value>) {
    let ids: BTreeSet<String> = graph.keys().cloned().collect();
    for node in graph.values_mut() {
        let Some(inputs) = node["inputs"].as_object_mut() else { continue };
        inputs.retain(|_, value| match crate::graph::link_of(value) {
            Some(link) => ids.contains(link.node),
            None => true,
        });
    }
}

/// True when sockets of the two types can be connected.
fn fit(one: &Value, other: &Value) -> bool {
    let types = |value: &Value| -> Option<BTreeSet<String>> {
        let text = value.as_str().filter(|text| !text.is_empty() && *text != "*")?;
        Some(text.split(',').map(|part| part.trim().to_lowercase()).collect())
    };
    match (types(one), types(other)) {
        (Some(one), Some(other)) => one.intersection(&other).next().is_some(),
        _ => true,
    }
}

fn sockets<'a>(node: &'a Value, side: &str) -> impl Iterator<Item = &'a Value> {
    node[side].as_array().into_iter().flatten()
}

impl<'a> Levels<'a> {
    /// Whether a node, or the subgraph that it stands in, is muted or bypassed.
    fn is_off(&self, at: usize, node: &Value) -> bool {
        let mut off = matches!(mode_of(node), MUTED | BYPASSED);
        let mut level = &self.all[at];
        while let (false, Some((parent, host))) = (off, &level.host) {
            off = matches!(mode_of(host), MUTED | BYPASSED);
            level = &self.all[*parent];
        }
        off
    }

    /// All inputs of a node: its values, and what comes over links.
    fn inputs(
        &self,
        at: usize,
        id: &str,
        node: &'a Value,
        mut inputs: Map<String, Value>,
    ) -> Result<Map<String, Value>, String> {
        let level = &self.all[at];
        for ((inner, widget), value) in &level.inner_values {
            if inner == id {
                inputs.insert(widget.clone(), value.clone());
            }
        }
        for slot in sockets(node, "inputs") {
            let Some(name) = slot["name"].as_str().filter(|_| !slot["link"].is_null()) else { continue };
            match self.into_input(at, slot, &slot["type"], 0)? {
                Source::Output(node, slot) => drop(inputs.insert(name.to_owned(), link(&node, slot))),
                Source::Value(value) => drop(inputs.insert(name.to_owned(), value)),
                Source::Own => {}
                // A value that can be linked stands when nothing comes.
                Source::Nothing if slot["widget"].is_object() => {}
                Source::Nothing => drop(inputs.remove(name)),
            }
        }
        for value in inputs.values_mut() {
            let is_list = value.is_array() && crate::graph::link_of(value).is_none();
            if is_list {
                *value = json!({ "__value__": value });
            }
        }
        Ok(inputs)
    }

    /// The source of an input.
    fn into_input(
        &self,
        at: usize,
        input: &'a Value,
        wanted: &'a Value,
        way: usize,
    ) -> Result<Source, String> {
        if way > LONGEST_WAY {
            return Err("its links run in a circle".to_owned());
        }
        let level = &self.all[at];
        let Some(number) = input["link"].as_i64() else { return Ok(Source::Nothing) };
        // Some packages leave links behind that they had added for a moment.
        let Some(found) = level.links.get(&number) else { return Ok(Source::Nothing) };
        if found.from == Level::INPUTS {
            return self.from_outside(at, found.slot, wanted, way);
        }
        let node = level.nodes.get(&found.from).ok_or("a link comes from nowhere")?;
        self.from_output(at, &found.from, node, found.slot, wanted, way + 1)
    }

    /// What comes into a subgraph's input: over a link of its instance, or as a value of it.
    fn from_outside(&self, at: usize, slot: i64, wanted: &'a Value, way: usize) -> Result<Source, String> {
        let level = &self.all[at];
        let Some((parent, host)) = level.host else { return Ok(Source::Nothing) };
        let declared = usize::try_from(slot).ok().and_then(|slot| level.definition["inputs"].get(slot));
        let Some(name) = declared.and_then(|input| input["name"].as_str()) else {
            return Ok(Source::Nothing);
        };
        let outer = sockets(host, "inputs").find(|input| input["name"] == name);
        match outer.filter(|input| !input["link"].is_null()) {
            Some(input) => self.into_input(parent, input, wanted, way + 1),
            None => Ok(level.values.get(name).cloned().map_or(Source::Own, Source::Value)),
        }
    }

    /// Where an output's value comes from, through nodes that only pass on.
    fn from_output(
        &self,
        at: usize,
        id: &str,
        node: &'a Value,
        slot: i64,
        wanted: &'a Value,
        way: usize,
    ) -> Result<Source, String> {
        let place = usize::try_from(slot).unwrap_or(0);
        let first = |level: usize, node: &'a Value| match sockets(node, "inputs").next() {
            Some(input) => self.into_input(level, input, wanted, way + 1),
            None => Ok(Source::Nothing),
        };
        let class = class_of(node);
        if mode_of(node) == MUTED {
            return Ok(Source::Nothing);
        }
        if mode_of(node) == BYPASSED && !knowledge::is_editors_own(class) {
            let passed = self.passed_on(at, node, place, wanted, way)?;
            return Ok(if matches!(passed, Source::Own) { Source::Nothing } else { passed });
        }
        if let Some(inside) = self.inside(at, id) {
            return self.out_of_subgraph(inside, place, wanted, way);
        }
        match class {
            "PrimitiveNode" => {
                Ok(node["widgets_values"].get(0).cloned().map_or(Source::Nothing, Source::Value))
            }
            "Reroute" | "Reroute (rgthree)" | "SetNode" => first(at, node),
            "GetNode" => match self.set_node(at, &node["widgets_values"][0]) {
                Some((level, set)) => first(level, set),
                None => Err(format!(
                    "node {} gets {}, which no node sets",
                    self.all[at].full_id(id),
                    node["widgets_values"][0]
                )),
            },
            _ if knowledge::is_editors_own(class) => Ok(Source::Nothing),
            _ => Ok(Source::Output(self.all[at].full_id(id), slot)),
        }
    }

    /// As the frontend does: the input at the output's own place, if it fits both ends, else the first of the wanted type,
    /// else the first that fits.
    fn passed_on(
        &self,
        at: usize,
        node: &'a Value,
        place: usize,
        wanted: &'a Value,
        way: usize,
    ) -> Result<Source, String> {
        let inputs: Vec<&Value> = sockets(node, "inputs").collect();
        let given = &node["outputs"][place]["type"];
        let is_any = wanted.as_str().is_none_or(|wanted| wanted.is_empty() || wanted == "*");
        let picked = if is_any {
            inputs.get(place).or(inputs.first())
        } else {
            let fits = |input: &&&Value| fit(&input["type"], given) && fit(&input["type"], wanted);
            let own = inputs.get(place).filter(fits);
            own.or_else(|| inputs.iter().find(|input| input["type"] == *wanted))
                .or_else(|| inputs.iter().find(fits))
        };
        match picked {
            Some(input) => self.into_input(at, input, &input["type"], way + 1),
            None => Ok(Source::Nothing),
        }
    }

    fn out_of_subgraph(
        &self,
        inside: usize,
        place: usize,
        wanted: &'a Value,
        way: usize,
    ) -> Result<Source, String> {
        let level = &self.all[inside];
        let feeds = level.links.values().find(|it| it.to == Level::OUTPUTS && it.to_slot == place as i64);
        let Some(found) = feeds else { return Ok(Source::Nothing) };
        if found.from == Level::INPUTS {
            return self.from_outside(inside, found.slot, wanted, way + 1);
        }
        let node = level.nodes.get(&found.from).ok_or("a link comes from nowhere")?;
        self.from_output(inside, &found.from, node, found.slot, wanted, way + 1)
    }

    /// The node that sets a name, in this graph or one around it.
    fn set_node(&self, at: usize, name: &Value) -> Option<(usize, &'a Value)> {
        let mut here = Some(at);
        while let Some(at) = here {
            let level = &self.all[at];
            let mut nodes = level.nodes.values();
            let set = nodes.find(|node| class_of(node) == "SetNode" && node["widgets_values"][0] == *name);
            if let Some(set) = set {
                return Some((at, set));
            }
            here = level.host.map(|(parent, _)| parent);
        }
        None
    }

    /// Links that cg-use-everywhere has sent to inputs without one.
    fn link_everywhere(&self, value: &'a Value, graph: &mut Map<String, Value>) -> Result<(), String> {
        let root = &self.all[0];
        for sent in value["extra"]["ue_links"].as_array().into_iter().flatten() {
            let (Some(to), Some(from)) = (id_of(&sent["downstream"]), id_of(&sent["upstream"])) else {
                continue;
            };
            let (Some(taker), Some(giver)) = (root.nodes.get(&to), root.nodes.get(&from)) else { continue };
            let Some(entry) = graph.get_mut(&to) else { continue };
            let inputs: Vec<&Value> = sockets(taker, "inputs").collect();
            let place = sent["downstream_slot"].as_u64().and_then(|slot| usize::try_from(slot).ok());
            let own =
                place.and_then(|place| inputs.get(place)).filter(|input| fit(&input["type"], &sent["type"]));
            let free = || inputs.iter().find(|it| it["type"] == sent["type"] && it["link"].is_null());
            let Some(name) = own.or_else(free).and_then(|input| input["name"].as_str()) else { continue };
            if entry["inputs"][name].is_array() {
                continue;
            }
            let slot = sent["upstream_slot"].as_i64().unwrap_or(0);
            if let Source::Output(node, slot) = self.from_output(0, &from, giver, slot, &sent["type"], 0)? {
                entry["inputs"][name] = link(&node, slot);
            }
        }
        Ok(())
    }
}
