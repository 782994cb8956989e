//! The graphs of a file in the editor's format: the outermost one, and one for each instance of a subgraph, however deep.

use std::collections::BTreeMap;

use serde_json::Value;

/// Instances of subgraphs in a file, and how deep they may lie in each other.
const MOST_INSTANCES: usize = 10_000;
const DEEPEST: usize = 64;

/// A link as the file has it.
#[derive(Debug)]
pub(super) struct LinkEntry {
    pub(super) from: String,
    pub(super) slot: i64,
    pub(super) to: String,
    pub(super) to_slot: i64,
}

/// One graph.
#[derive(Debug)]
pub(super) struct Level<'a> {
    pub(super) nodes: BTreeMap<String, &'a Value>,
    pub(super) links: BTreeMap<i64, LinkEntry>,
    /// Ids of the instances that it lies in, each with a colon behind it.
    prefix: String,
    /// The graph that its instance stands in, and the instance.
    pub(super) host: Option<(usize, &'a Value)>,
    /// Null for the outermost graph.
    pub(super) definition: &'a Value,
    /// The instance's values, by input of the subgraph.
    pub(super) values: BTreeMap<String, Value>,
    /// Values for nodes inside, by node and widget.
    pub(super) inner_values: BTreeMap<(String, String), Value>,
    instances: BTreeMap<String, usize>,
}

impl Level<'_> {
    /// Nodes that stand for a subgraph's inputs and outputs.
    pub(super) const INPUTS: &'static str = "-10";
    pub(super) const OUTPUTS: &'static str = "-20";

    /// The node's id in the prompt.
    pub(super) fn full_id(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }
}

/// All graphs of a file; the outermost is the first.
#[derive(Debug)]
pub(super) struct Levels<'a> {
    pub(super) all: Vec<Level<'a>>,
    definitions: BTreeMap<&'a str, &'a Value>,
}

pub(super) fn id_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|id| id.to_string()))
}

impl<'a> Levels<'a> {
    pub(super) fn read(value: &'a Value) -> Result<Self, String> {
        let subgraphs = value["definitions"]["subgraphs"].as_array().into_iter().flatten();
        let definitions = subgraphs.filter_map(|definition| Some((definition["id"].as_str()?, definition)));
        let mut levels = Self { all: Vec::new(), definitions: definitions.collect() };
        levels.expand(value, &Value::Null, String::new(), None, 0)?;
        Ok(levels)
    }

    /// True when the node stands for a subgraph.
    pub(super) fn is_instance(&self, node: &Value) -> bool {
        node["type"].as_str().is_some_and(|class| self.definitions.contains_key(class))
    }

    /// The graph behind an instance.
    pub(super) fn inside(&self, at: usize, id: &str) -> Option<usize> {
        self.all[at].instances.get(id).copied()
    }

    fn expand(
        &mut self,
        graph: &'a Value,
        definition: &'a Value,
        prefix: String,
        host: Option<(usize, &'a Value)>,
        depth: usize,
    ) -> Result<usize, String> {
        if depth > DEEPEST || self.all.len() > MOST_INSTANCES {
            return Err("its subgraphs lie too deep in each other, or in themselves".to_owned());
        }
        let mut nodes = BTreeMap::new();
        for node in graph["nodes"].as_array().into_iter().flatten() {
            let class = node["type"].as_str().unwrap_or("");
            if class.starts_with("workflow/") || class.starts_with("workflow>") {
                return Err(format!(
                    "{class} is a group node of an older editor; make it a subgraph in ComfyUI"
                ));
            }
            nodes.insert(id_of(&node["id"]).ok_or("a node has no id")?, node);
        }
        let level = Level {
            nodes,
            links: links(graph)?,
            prefix: prefix.clone(),
            host,
            definition,
            values: BTreeMap::new(),
            inner_values: BTreeMap::new(),
            instances: BTreeMap::new(),
        };
        let at = self.all.len();
        self.all.push(level);
        if let Some((_, host)) = host {
            self.take_values(at, host);
        }
        let instances: Vec<(String, &'a Value, &'a Value)> = self.all[at]
            .nodes
            .iter()
            .filter_map(|(id, node)| {
                Some((id.clone(), *node, *self.definitions.get(node["type"].as_str()?)?))
            })
            .collect();
        for (id, node, definition) in instances {
            let inside =
                self.expand(definition, definition, format!("{prefix}{id}:"), Some((at, node)), depth + 1)?;
            // What the outer instance sets of an inner one.
            let outer: Vec<(String, Value)> = self.all[at]
                .inner_values
                .iter()
                .filter(|((inner, _), _)| *inner == id)
                .map(|((_, widget), value)| (widget.clone(), value.clone()))
                .collect();
            self.all[inside].values.extend(outer);
            self.all[at].instances.insert(id, inside);
        }
        Ok(at)
    }

    /// An instance's values: a list in the order of its `proxyWidgets`, or of the inputs that were promoted.
    fn take_values(&mut self, at: usize, host: &'a Value) {
        if let Value::Object(named) = &host["widgets_values"] {
            self.all[at].values.extend(named.iter().map(|(name, value)| (name.clone(), value.clone())));
            return;
        }
        let given: Vec<&Value> = host["widgets_values"].as_array().into_iter().flatten().collect();
        let proxies: Vec<&Value> =
            host["properties"]["proxyWidgets"].as_array().into_iter().flatten().collect();
        if proxies.is_empty() {
            let promoted = self.promoted(self.all[at].definition, 0);
            let values = promoted.into_iter().zip(given).filter(|(_, value)| !value.is_null());
            let values: Vec<_> = values.map(|(name, value)| (name, value.clone())).collect();
            self.all[at].values.extend(values);
            return;
        }
        for (proxy, value) in proxies.iter().zip(given).filter(|(_, value)| !value.is_null()) {
            let (Some(node), Some(widget)) = (id_of(&proxy[0]), proxy[1].as_str()) else { continue };
            // Of the editor only.
            if widget.starts_with("$$") || widget.contains("control_after_generate") {
                continue;
            }
            if node == "-1" {
                self.all[at].values.insert(widget.to_owned(), value.clone());
            } else {
                self.all[at].inner_values.insert((node, widget.to_owned()), value.clone());
            }
        }
    }

    /// The inputs of a subgraph that feed a widget inside, in their order.
    fn promoted(&self, definition: &Value, depth: usize) -> Vec<String> {
        let links = links(definition).unwrap_or_default();
        let nodes: BTreeMap<String, &Value> = definition["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|node| Some((id_of(&node["id"])?, node)))
            .collect();
        let feeds_widget = |number: i64| -> bool {
            let Some(node) = links.get(&number).and_then(|link| nodes.get(&link.to)) else { return false };
            let mut inputs = node["inputs"].as_array().into_iter().flatten();
            let Some(input) = inputs.find(|input| input["link"] == number) else { return false };
            if input["widget"].is_object() {
                return true;
            }
            let inner = node["type"].as_str().and_then(|class| self.definitions.get(class));
            inner.filter(|_| depth < DEEPEST).is_some_and(|inner| {
                self.promoted(inner, depth + 1).iter().any(|name| input["name"] == name.as_str())
            })
        };
        let inputs = definition["inputs"].as_array().into_iter().flatten();
        let promoted = inputs.filter(|input| {
            let mut numbers = input["linkIds"].as_array().into_iter().flatten().filter_map(Value::as_i64);
            numbers.any(feeds_widget)
        });
        promoted.filter_map(|input| input["name"].as_str().map(str::to_owned)).collect()
    }
}

/// Lists in the outermost graph, objects in subgraphs.
fn links(graph: &Value) -> Result<BTreeMap<i64, LinkEntry>, String> {
    let mut links = BTreeMap::new();
    for entry in graph["links"].as_array().into_iter().flatten() {
        let part = |name: &str, place: usize| if entry.is_object() { &entry[name] } else { &entry[place] };
        let read = || {
            let link = LinkEntry {
                from: id_of(part("origin_id", 1))?,
                slot: part("origin_slot", 2).as_i64()?,
                to: id_of(part("target_id", 3))?,
                to_slot: part("target_slot", 4).as_i64().unwrap_or(0),
            };
            Some((part("id", 0).as_i64()?, link))
        };
        let (number, link) = read().ok_or("a link cannot be read")?;
        links.insert(number, link);
    }
    Ok(links)
}
