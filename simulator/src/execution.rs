//! One prompt being run: which nodes, in which order, from cache or not, and what is told about it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use crate::{
    config::Config,
    engine::{Engine, Item, now_ms},
    faults::{self, Fault},
    graph::{self, Prompt, id_order},
    nodes::{self, Class, Data, Done, NodeError, Run},
    pixels::Frame,
    sockets::Message,
};

/// How often a sleeping node looks whether it is interrupted.
const POLL: Duration = Duration::from_millis(10);

/// Bytes of GPU memory for a value of a picture: input, output and what a node needs between.
const BYTES_PER_VALUE: u64 = 4 * 6;

/// Longest side of a preview picture.
const PREVIEW_SIDE: u32 = 512;

/// One prompt being run.
pub(crate) struct Execution<'a> {
    engine: &'a Engine,
    item: &'a Item,
    fault: Fault,
    cache: &'a mut HashMap<u64, Done>,
    prompt: Prompt,
    keys: BTreeMap<String, u64>,
    /// The nodes' states as `progress_state` tells them.
    states: Map<String, Value>,
    outputs: Map<String, Value>,
    meta: Map<String, Value>,
    messages: Vec<Value>,
    executed: Vec<String>,
    struck: bool,
}

impl<'a> Execution<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        item: &'a Item,
        fault: Fault,
        cache: &'a mut HashMap<u64, Done>,
    ) -> Self {
        let prompt = graph::parse(&item.prompt);
        let mut keys = BTreeMap::new();
        for id in prompt.keys() {
            key_of(&engine.config, &prompt, id, &mut keys);
        }
        Self {
            engine,
            item,
            fault,
            cache,
            prompt,
            keys,
            states: Map::new(),
            outputs: Map::new(),
            meta: Map::new(),
            messages: Vec::new(),
            executed: Vec::new(),
            struck: false,
        }
    }

    /// Runs the prompt; its entry in the history. `None`: the worker is dead.
    pub(crate) fn run(mut self) -> Option<Value> {
        let id = self.item.prompt_id.clone();
        self.note("execution_start", json!({ "prompt_id": id }), false);
        let needed = self.needed();
        let mut cached: Vec<&String> =
            needed.iter().filter(|node| self.cache.contains_key(&self.keys[*node])).collect();
        cached.sort_by_key(|node| id_order(node));
        let cached: Vec<String> = cached.into_iter().cloned().collect();
        self.note("execution_cached", json!({ "nodes": cached, "prompt_id": id }), false);

        for output in self.item.outputs.clone() {
            if let Some(done) = self.cache.get(&self.keys[&output]).cloned() {
                self.show_cached(&output, &done);
            }
        }
        let mut failed: Option<(String, NodeError)> = None;
        let mut open = self.open();
        while let Some(id) = self.next(&open) {
            open.remove(&id);
            if let Err(error) = self.execute(&id) {
                failed = Some((id, error));
                break;
            }
        }
        if self.engine.dead.load(Ordering::SeqCst) {
            return None;
        }
        if self.fault == Fault::WorkerDeath {
            return None;
        }
        let keys: Vec<u64> = self.keys.values().copied().collect();
        self.cache.retain(|key, _| keys.contains(key));
        let (status, completed) = match failed {
            None => {
                self.note("execution_success", json!({ "prompt_id": id }), false);
                ("success", true)
            }
            Some((node, error)) => {
                self.tell_failure(&node, &error);
                ("error", false)
            }
        };
        Some(json!({
            "prompt": self.item.to_value(),
            "outputs": self.outputs,
            "status": { "status_str": status, "completed": completed, "messages": self.messages },
            "meta": self.meta,
        }))
    }

    /// Every node behind the outputs.
    fn needed(&self) -> Vec<String> {
        let mut open = self.item.outputs.clone();
        let mut needed: Vec<String> = Vec::new();
        while let Some(id) = open.pop() {
            if needed.contains(&id) || !self.prompt.contains_key(&id) {
                continue;
            }
            let sources = self.prompt[&id].inputs.values().filter_map(graph::link);
            open.extend(sources.map(|(source, _)| source.to_owned()));
            needed.push(id);
        }
        needed
    }

    /// The nodes that must run, each with those that wait for it.
    fn open(&self) -> BTreeMap<String, Vec<String>> {
        let is_cached = |id: &str| self.cache.contains_key(&self.keys[id]);
        let mut waiting: Vec<String> =
            self.item.outputs.iter().filter(|id| !is_cached(id)).cloned().collect();
        let mut open: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            open.entry(id.clone()).or_default();
            for (source, _) in self.prompt[&id].inputs.values().filter_map(graph::link) {
                if !is_cached(source) {
                    open.entry(source.to_owned()).or_default().push(id.clone());
                    waiting.push(source.to_owned());
                }
            }
        }
        open
    }

    /// The node to run next, in ComfyUI's order of preference: an output, then what an output waits for
    /// directly, then what that waits for, then any.
    fn next(&self, open: &BTreeMap<String, Vec<String>>) -> Option<String> {
        let is_ready = |id: &&String| {
            let mut sources = self.prompt[*id].inputs.values().filter_map(graph::link);
            sources.all(|(source, _)| self.cache.contains_key(&self.keys[source]))
        };
        let is_output = |id: &String| self.item.outputs.contains(id);
        let feeds = |id: &String, wanted: &dyn Fn(&String) -> bool| {
            open.get(id).is_some_and(|targets| targets.iter().any(wanted))
        };
        let preference = |id: &&String| {
            if is_output(id) {
                0
            } else if feeds(id, &is_output) {
                1
            } else if feeds(id, &|target| feeds(target, &is_output)) {
                2
            } else {
                3
            }
        };
        open.keys().filter(is_ready).min_by_key(|id| (preference(id), id_order(id))).cloned()
    }

    fn execute(&mut self, id: &str) -> Result<(), NodeError> {
        let node = self.prompt[id].clone();
        let Some(class) = nodes::find(&self.engine.config, &node.class_type) else {
            return Err(NodeError::raised("KeyError", format!("'{}'", node.class_type)));
        };
        self.poll()?;
        self.engine.runs(id);
        self.state(id, json!(0.0), json!(1.0), "running");
        self.tell("executing", json!({ "node": id, "display_node": id, "prompt_id": self.item.prompt_id }));
        self.strike(class)?;
        let mut linked = BTreeMap::new();
        for (input, value) in &node.inputs {
            if let Some((source, slot)) = graph::link(value) {
                let data = self.cache.get(&self.keys[source]).and_then(|done| done.outputs.get(slot));
                let data = data
                    .cloned()
                    .ok_or_else(|| NodeError::raised("IndexError", "list index out of range"))?;
                linked.insert(input.clone(), data);
            }
        }
        faults::taste(self.engine.config.poison, linked.values())?;
        let started = Instant::now();
        let done = self.run_class(id, class, &node.inputs, &linked)?;
        self.pass_time(id, class, &done, started)?;
        if let Some(shown) = &done.shown {
            self.show(id, shown);
        }
        if class.name == "KSampler" {
            let steps = node.inputs.get("steps").cloned().unwrap_or(json!(1));
            self.state(id, steps.clone(), steps, "finished");
        } else {
            self.state(id, json!(1.0), json!(1.0), "finished");
        }
        self.executed.push(id.to_owned());
        self.cache.insert(self.keys[id], done);
        Ok(())
    }

    fn run_class(
        &mut self,
        id: &str,
        class: &Class,
        inputs: &Map<String, Value>,
        linked: &BTreeMap<String, Data>,
    ) -> Result<Done, NodeError> {
        let (engine, fault) = (self.engine, self.fault);
        let mut written: Vec<PathBuf> = Vec::new();
        let mut write = |path: &Path, bytes: &[u8]| {
            written.push(path.to_owned());
            std::fs::write(path, bytes)
        };
        let mut progress = |step: u64, steps: u64, picture: Option<&Frame>| {
            self.sleep(self.engine.config.seconds_per_frame)?;
            self.step(id, (step, steps), picture);
            self.poll()
        };
        let mut run =
            Run { config: &engine.config, inputs, linked, progress: &mut progress, write: &mut write };
        let done = (class.run)(&mut run)?;
        if class.is_output {
            let struck = fault.strike(&written);
            struck.map_err(|error| NodeError::raised("OSError", error.to_string()))?;
        }
        Ok(done)
    }

    /// Spends the time that a GPU would have taken, and runs out of its memory.
    fn pass_time(&mut self, id: &str, class: &Class, done: &Done, started: Instant) -> Result<(), NodeError> {
        let Some(Data::Image(batch)) = done.outputs.first() else { return Ok(()) };
        if class.weight == 0.0 {
            return Ok(());
        }
        let values: u64 = batch.iter().map(|frame| frame.data.len() as u64).sum();
        if values * BYTES_PER_VALUE > self.engine.config.vram_bytes {
            return Err(NodeError::out_of_memory());
        }
        let slow = if self.fault == Fault::Slow { 10.0 } else { 1.0 };
        let each = class.weight * self.engine.config.seconds_per_frame * slow;
        if each <= 0.0 {
            return Ok(());
        }
        for (index, frame) in batch.iter().enumerate() {
            // What the CPU took already counts.
            let due = each * (index + 1) as f64;
            self.sleep(due - started.elapsed().as_secs_f64())?;
            let picture = self.engine.config.previews.then_some(frame.as_ref());
            self.step(id, (index as u64 + 1, batch.len() as u64), picture);
            self.poll()?;
        }
        Ok(())
    }

    fn sleep(&self, seconds: f64) -> Result<(), NodeError> {
        let until = Instant::now() + Duration::from_secs_f64(seconds.max(0.0));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.poll()?;
            thread::sleep(left.min(POLL));
        }
    }

    fn poll(&self) -> Result<(), NodeError> {
        let stop = self.engine.dead.load(Ordering::SeqCst);
        if stop || self.engine.interrupted.swap(false, Ordering::SeqCst) {
            return Err(NodeError::Interrupted);
        }
        Ok(())
    }

    /// The fault of this prompt, at its first node that is more than loading.
    fn strike(&mut self, class: &Class) -> Result<(), NodeError> {
        // Joining frames is part of loading them.
        let loads = class.outputs.contains(&"MASK") || class.name == "ImageBatch";
        if self.struck || loads {
            return Ok(());
        }
        self.struck = true;
        match self.fault {
            Fault::OutOfMemory => Err(NodeError::out_of_memory()),
            Fault::Error => Err(NodeError::raised("RuntimeError", "simulated failure of a node")),
            Fault::Hang => loop {
                self.sleep(1.0)?;
            },
            Fault::WorkerDeath => Err(NodeError::raised("SystemExit", "1")),
            Fault::Die => {
                self.engine.dead.store(true, Ordering::SeqCst);
                (self.engine.die)();
                Err(NodeError::Interrupted)
            }
            Fault::DropSockets => {
                self.engine.sockets.drop_all();
                Ok(())
            }
            Fault::None
            | Fault::Refuse
            | Fault::SlowReply
            | Fault::Slow
            | Fault::TruncateOutput
            | Fault::LoseOutput
            | Fault::EmptyOutput
            | Fault::ShrinkOutput
            | Fault::ShrinkAllOutput
            | Fault::GreyOutput
            | Fault::NanOutput => Ok(()),
        }
    }

    /// One step of a node, with a picture or without.
    fn step(&mut self, id: &str, (step, steps): (u64, u64), picture: Option<&Frame>) {
        self.state(id, json!(step), json!(steps), "running");
        let client = self.item.client();
        let metadata = client.is_some_and(|client| self.engine.sockets.has_metadata(client));
        let preview = picture
            .filter(|_| self.engine.config.previews)
            .and_then(|frame| frame.preview(PREVIEW_SIDE))
            .map(|jpeg| self.preview(id, &jpeg, metadata));
        let progress = json!({ "value": step, "max": steps, "prompt_id": self.item.prompt_id, "node": id });
        let tell = |preview: &Message| match client {
            Some(client) => self.engine.sockets.send(client, preview),
            None => self.engine.sockets.send_all(preview),
        };
        // With metadata the picture comes first, without it the number: as recorded.
        if let (Some(preview), true) = (&preview, metadata) {
            tell(preview);
        }
        self.engine.sockets.tell_owner_or_all(client, "progress", &progress);
        if let (Some(preview), false) = (&preview, metadata) {
            tell(preview);
        }
    }

    fn preview(&self, id: &str, jpeg: &[u8], metadata: bool) -> Message {
        let mut bytes = Vec::with_capacity(jpeg.len() + 256);
        if metadata {
            let about = json!({
                "node_id": id, "prompt_id": self.item.prompt_id, "display_node_id": id,
                "parent_node_id": null, "real_node_id": id, "image_type": "image/jpeg",
            })
            .to_string();
            bytes.extend(4_u32.to_be_bytes());
            bytes.extend((about.len() as u32).to_be_bytes());
            bytes.extend(about.as_bytes());
        } else {
            bytes.extend(1_u32.to_be_bytes());
            bytes.extend(1_u32.to_be_bytes());
        }
        bytes.extend(jpeg);
        Message::Binary(bytes)
    }

    fn state(&mut self, id: &str, value: Value, max: Value, state: &str) {
        let entry = json!({
            "value": value, "max": max, "state": state, "node_id": id, "prompt_id": self.item.prompt_id,
            "display_node_id": id, "parent_node_id": null, "real_node_id": id,
        });
        self.states.insert(id.to_owned(), entry);
        let data = json!({ "prompt_id": self.item.prompt_id, "nodes": self.states });
        self.engine.sockets.tell_owner_or_all(self.item.client(), "progress_state", &data);
    }

    /// A saver from the cache names its old files and writes nothing; without an owner older releases say nothing.
    fn show_cached(&mut self, id: &str, done: &Done) {
        if self.item.client().is_none() && !self.engine.config.version.keeps_cached_outputs() {
            return;
        }
        if let Some(shown) = &done.shown {
            self.show(id, shown);
        }
        self.state(id, json!(1), json!(1), "finished");
    }

    fn show(&mut self, id: &str, shown: &Value) {
        self.outputs.insert(id.to_owned(), shown.clone());
        let meta = json!({ "node_id": id, "display_node": id, "parent_node": null, "real_node_id": id });
        self.meta.insert(id.to_owned(), meta);
        let prompt_id = &self.item.prompt_id;
        self.tell(
            "executed",
            json!({ "node": id, "display_node": id, "output": shown, "prompt_id": prompt_id }),
        );
    }

    fn tell_failure(&mut self, node: &str, error: &NodeError) {
        let prompt_id = self.item.prompt_id.clone();
        let class = self.prompt[node].class_type.clone();
        let executed = self.executed.clone();
        match error {
            NodeError::Interrupted => {
                let data = json!({
                    "prompt_id": prompt_id, "node_id": node, "node_type": class, "executed": executed,
                });
                self.note("execution_interrupted", data, true);
            }
            NodeError::Raised { kind, message } => {
                let data = json!({
                    "prompt_id": prompt_id,
                    "node_id": node,
                    "node_type": class,
                    "executed": executed,
                    "exception_message": message,
                    "exception_type": kind,
                    "traceback": [format!("  File \"/simulator/{class}.py\", line 1, in run\n")],
                    "current_inputs": {},
                    "current_outputs": self.outputs.keys().collect::<Vec<_>>(),
                });
                self.note("execution_error", data, false);
            }
        }
    }

    /// Tells the owner and notes it for the history; `or_all`: everybody, when nobody owns the prompt.
    fn note(&mut self, kind: &str, mut data: Value, or_all: bool) {
        data["timestamp"] = json!(now_ms());
        self.messages.push(json!([kind, data]));
        match (self.item.client(), or_all) {
            (None, false) => {}
            (client, _) => self.engine.sockets.tell_owner_or_all(client, kind, &data),
        }
    }

    fn tell(&self, kind: &str, data: Value) {
        if let Some(client) = self.item.client() {
            self.engine.sockets.tell(client, kind, &data);
        }
    }
}

/// What a node's result depends on: class, change stamp, literals (undeclared ones too) and all ancestors.
/// In post-order, without recursion: a chain of nodes can be long.
fn key_of(config: &Config, prompt: &Prompt, id: &str, keys: &mut BTreeMap<String, u64>) {
    enum Visit {
        Enter(String),
        Leave(String),
    }
    let mut entered = BTreeSet::new();
    let mut visits = vec![Visit::Enter(id.to_owned())];
    while let Some(visit) = visits.pop() {
        match visit {
            Visit::Enter(id) => {
                let Some(node) = prompt.get(&id) else { continue };
                if keys.contains_key(&id) || !entered.insert(id.clone()) {
                    continue;
                }
                visits.push(Visit::Leave(id));
                let sources = node.inputs.values().filter_map(graph::link);
                visits.extend(sources.map(|(source, _)| Visit::Enter(source.to_owned())));
            }
            Visit::Leave(id) => {
                let node = &prompt[&id];
                let mut hash = DefaultHasher::new();
                node.class_type.hash(&mut hash);
                let class = nodes::find(config, &node.class_type);
                if let Some(is_changed) = class.and_then(|class| class.is_changed) {
                    is_changed(config, &node.inputs).hash(&mut hash);
                }
                for (input, value) in &node.inputs {
                    input.hash(&mut hash);
                    match graph::link(value) {
                        Some((source, slot)) => (keys.get(source), slot).hash(&mut hash),
                        None => value.to_string().hash(&mut hash),
                    }
                }
                keys.insert(id, hash.finish());
            }
        }
    }
}
