//! Queue, worker, history, interrupt: one prompt at a time, on a thread of its own.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use crate::{
    config::Config,
    execution::Execution,
    faults::Fault,
    nodes::Done,
    sockets::Sockets,
    validate::{self, Accepted},
};

/// Entries of the history; the oldest go first.
const HISTORY: usize = 10_000;

/// Pauses remembered.
const GAPS: usize = 10_000;

/// A prompt in the queue.
#[derive(Debug, Clone)]
pub struct Item {
    pub number: Value,
    pub prompt_id: String,
    pub prompt: Map<String, Value>,
    pub extra_data: Map<String, Value>,
    pub outputs: Vec<String>,
}

impl Item {
    fn order(&self) -> f64 {
        self.number.as_f64().unwrap_or(0.0)
    }

    pub(crate) fn client(&self) -> Option<&str> {
        self.extra_data.get("client_id").and_then(Value::as_str)
    }

    /// As in `/queue` and `/history`.
    pub fn to_value(&self) -> Value {
        json!([self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs])
    }
}

#[derive(Debug, Default)]
struct Queue {
    counter: i64,
    pending: Vec<Item>,
    running: Option<Item>,
    /// The node that runs, for a socket that comes back.
    at_node: Option<String>,
    history: VecDeque<(String, Value)>,
    faults: VecDeque<Fault>,
    /// Pauses of the worker between two prompts, the latest last.
    gaps: VecDeque<Duration>,
    ended: Option<Instant>,
    stopped: bool,
}

/// What an engine was asked and answered.
#[derive(Debug)]
pub enum Queued {
    Accepted { body: Value, slow: bool },
    Refused(Value),
    Broken,
}

/// The part of a ComfyUI behind its routes.
pub struct Engine {
    pub config: Config,
    pub sockets: Sockets,
    queue: Mutex<Queue>,
    woken: Condvar,
    pub(crate) interrupted: AtomicBool,
    pub(crate) dead: AtomicBool,
    pub(crate) die: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the worker. `die` is called when a fault kills the process.
    pub fn start(config: Config, die: impl Fn() + Send + Sync + 'static) -> io::Result<Arc<Self>> {
        for folder in [config.input(), config.output(), config.temp()] {
            std::fs::create_dir_all(folder)?;
        }
        let faults = config.faults.iter().copied().collect();
        let engine = Arc::new(Self {
            config,
            sockets: Sockets::default(),
            queue: Mutex::new(Queue { faults, ..Queue::default() }),
            woken: Condvar::new(),
            interrupted: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            die: Box::new(die),
        });
        let worker = engine.clone();
        thread::Builder::new().name("prompt-worker".to_owned()).spawn(move || worker.work())?;
        Ok(engine)
    }

    /// Ends the worker after at most one poll.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.dead.store(true, Ordering::SeqCst);
        self.woken.notify_all();
    }

    pub fn add_fault(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// `POST /prompt`.
    pub fn submit(&self, body: &Value) -> Queued {
        let mut queue = self.lock();
        let refuse = queue.faults.front() == Some(&Fault::Refuse);
        if refuse {
            queue.faults.pop_front();
            return Queued::Broken;
        }
        let slow = queue.faults.front() == Some(&Fault::SlowReply);
        if slow {
            queue.faults.pop_front();
        }
        if body.is_null() {
            return Queued::Broken;
        }
        let nothing = Map::new();
        // Python finds no key in a list or a text either.
        let body = body.as_object().unwrap_or(&nothing);
        // The counter advances even for what is refused.
        let counter = queue.counter;
        let number = match body.get("number") {
            Some(number) => match number.as_f64() {
                Some(number) => json!(number),
                None => return Queued::Broken,
            },
            None => {
                queue.counter += 1;
                let front = body.get("front").and_then(Value::as_bool).unwrap_or(false);
                json!(if front { -counter } else { counter })
            }
        };
        drop(queue);
        let prompt = match body.get("prompt") {
            Some(Value::Object(prompt)) if prompt.values().all(Value::is_object) => Some(prompt),
            Some(_) => return Queued::Broken,
            None => None,
        };
        let Some(prompt) = prompt else {
            let text = "No prompt provided";
            return Queued::Refused(validate::refusal("no_prompt", text, text, json!({}), json!({})));
        };
        let prompt_id = match body.get("prompt_id") {
            None => uuid::Uuid::new_v4().to_string(),
            Some(Value::Null) if self.config.version.wants_uuids() => uuid::Uuid::new_v4().to_string(),
            Some(Value::Null) => "None".to_owned(),
            Some(Value::String(id)) => id.clone(),
            Some(other) => other.to_string(),
        };
        if self.config.version.wants_uuids() && !is_canonical(&prompt_id) {
            return Queued::Refused(validate::refusal(
                "invalid_prompt_id",
                "prompt_id must be a valid UUID",
                "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one",
                json!({}),
                json!({}),
            ));
        }
        let targets = body.get("partial_execution_targets").and_then(Value::as_array).map(Vec::as_slice);
        let Accepted { outputs, node_errors } = match validate::validate(&self.config, prompt, targets) {
            Ok(accepted) => accepted,
            Err(refused) => return Queued::Refused(refused),
        };
        let mut extra_data = match body.get("extra_data") {
            None => Map::new(),
            Some(Value::Object(extra)) => extra.clone(),
            Some(_) => return Queued::Broken,
        };
        if let Some(client) = body.get("client_id") {
            extra_data.insert("client_id".to_owned(), client.clone());
        }
        extra_data.insert("create_time".to_owned(), json!(now_ms()));
        let body = json!({ "prompt_id": prompt_id, "number": number, "node_errors": node_errors });
        let mut queue = self.lock();
        queue.pending.push(Item { number, prompt_id, prompt: prompt.clone(), extra_data, outputs });
        let left = remaining(&queue);
        drop(queue);
        self.tell_status(left);
        self.woken.notify_one();
        Queued::Accepted { body, slow }
    }

    /// `GET /queue`: pending in no particular order.
    pub fn queue(&self) -> Value {
        let queue = self.lock();
        let running: Vec<Value> = queue.running.iter().map(Item::to_value).collect();
        let pending: Vec<Value> = queue.pending.iter().map(Item::to_value).collect();
        json!({ "queue_running": running, "queue_pending": pending })
    }

    pub fn remaining(&self) -> usize {
        remaining(&self.lock())
    }

    /// `POST /queue`.
    pub fn edit_queue(&self, body: &Value) {
        let mut queue = self.lock();
        if body.get("clear").and_then(Value::as_bool) == Some(true) {
            queue.pending.clear();
        }
        for id in body.get("delete").and_then(Value::as_array).into_iter().flatten() {
            if let Some(at) =
                queue.pending.iter().position(|item| Some(item.prompt_id.as_str()) == id.as_str())
            {
                queue.pending.remove(at);
            }
        }
        let left = remaining(&queue);
        drop(queue);
        self.tell_status(left);
    }

    /// `GET /history` and `GET /history/{id}`.
    pub fn history(&self, id: Option<&str>, newest: Option<usize>) -> Value {
        let queue = self.lock();
        let skip = newest.map_or(0, |count| queue.history.len().saturating_sub(count));
        let entries = queue.history.iter().skip(skip).filter(|(known, _)| id.is_none_or(|id| id == known));
        Value::Object(entries.cloned().collect())
    }

    /// `POST /history`.
    pub fn edit_history(&self, body: &Value) {
        let mut queue = self.lock();
        if body.get("clear").and_then(Value::as_bool) == Some(true) {
            queue.history.clear();
        }
        for id in body.get("delete").and_then(Value::as_array).into_iter().flatten() {
            queue.history.retain(|(known, _)| Some(known.as_str()) != id.as_str());
        }
    }

    /// `POST /interrupt`: the running prompt, or only if it is `id`.
    pub fn interrupt(&self, id: Option<&str>) {
        let queue = self.lock();
        let hit = match (id, &queue.running) {
            (None, _) => true,
            (Some(id), Some(running)) => running.prompt_id == id,
            (Some(_), None) => false,
        };
        if hit {
            self.interrupted.store(true, Ordering::SeqCst);
        }
    }

    /// `POST /api/jobs/{id}/cancel`: takes the prompt out of the queue, or interrupts it if it runs. False for one that
    /// does neither.
    pub fn cancel(&self, id: &str) -> bool {
        let mut queue = self.lock();
        if queue.running.as_ref().is_some_and(|running| running.prompt_id == id) {
            self.interrupted.store(true, Ordering::SeqCst);
            return true;
        }
        let Some(at) = queue.pending.iter().position(|item| item.prompt_id == id) else { return false };
        queue.pending.remove(at);
        let left = remaining(&queue);
        drop(queue);
        self.tell_status(left);
        true
    }

    /// How long the worker had nothing to do between two prompts, for the latest of them.
    pub fn gaps(&self) -> Vec<Duration> {
        self.lock().gaps.iter().copied().collect()
    }

    /// What the client's prompt is doing, for a socket that comes back.
    pub fn at_node(&self, client: &str) -> Option<String> {
        let queue = self.lock();
        let owned = queue.running.as_ref().is_some_and(|item| item.client() == Some(client));
        queue.at_node.clone().filter(|_| owned)
    }

    /// The worker is at this node.
    pub(crate) fn runs(&self, node: &str) {
        self.lock().at_node = Some(node.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The worker changes the queue in single steps: a panic in a node leaves it whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_status(&self, remaining: usize) {
        let status = json!({ "status": { "exec_info": { "queue_remaining": remaining } } });
        self.sockets.tell_all("status", &status);
    }

    fn work(&self) {
        // Results of the latest prompt's nodes, by what they were made from.
        let mut cache: HashMap<u64, Done> = HashMap::new();
        loop {
            let mut queue = self.lock();
            while queue.pending.is_empty() && !queue.stopped {
                queue = self.woken.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.stopped {
                return;
            }
            let lowest =
                queue.pending.iter().enumerate().min_by(|(_, a), (_, b)| a.order().total_cmp(&b.order()));
            let Some(at) = lowest.map(|(at, _)| at) else { continue };
            let item = queue.pending.remove(at);
            queue.running = Some(item.clone());
            if let Some(gap) = queue.ended.take().map(|ended| ended.elapsed()) {
                queue.gaps.push_back(gap);
                if queue.gaps.len() > GAPS {
                    queue.gaps.pop_front();
                }
            }
            let fault = queue.faults.pop_front().unwrap_or(self.config.always);
            let left = remaining(&queue);
            drop(queue);
            self.tell_status(left);
            self.interrupted.store(false, Ordering::SeqCst);

            let execution = Execution::new(self, &item, fault, &mut cache);
            let Some(entry) = execution.run() else { return };
            let mut queue = self.lock();
            if queue.stopped {
                return;
            }
            queue.running = None;
            queue.at_node = None;
            queue.ended = Some(Instant::now());
            queue.history.retain(|(id, _)| *id != item.prompt_id);
            queue.history.push_back((item.prompt_id.clone(), entry));
            if queue.history.len() > HISTORY {
                queue.history.pop_front();
            }
            let left = remaining(&queue);
            drop(queue);
            self.tell_status(left);
            if let Some(client) = item.client() {
                let end = json!({ "node": null, "prompt_id": item.prompt_id });
                self.sockets.tell(client, "executing", &end);
            }
        }
    }
}

/// Lower case, with hyphens, and nothing else.
pub(crate) fn is_canonical(id: &str) -> bool {
    uuid::Uuid::try_parse(id).is_ok_and(|uuid| uuid.hyphenated().to_string() == id)
}

fn remaining(queue: &Queue) -> usize {
    queue.pending.len() + usize::from(queue.running.is_some())
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
