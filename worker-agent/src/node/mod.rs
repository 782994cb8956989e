//! One node: a ComfyUI server and what the agent does for it. The only owner of what the node holds.
//!
//! Everything arrives here as a message: the link, the attempts, the server's health. A result is told until
//! it is acknowledged, on every new stream again.

mod health;
mod recovery;
mod work;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use hearth_proto::{
    REMEMBERED_JOBS, trace,
    v1::{
        self, FailureKind, assignment::Work, attach_request::Message as Say,
        attach_response::Message as Order, attempt_result::Outcome,
    },
};
use hearth_storage::Calls;
use hearth_telemetry::chain;
use hearth_workflows::Workflow;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info, info_span, warn};

use crate::{
    chunk::{Darkroom, Ending, Failure, Told, Workbench, is_plain},
    comfy::{Client, Health, Offer, PromptId, Socket, mismatches, watch_health},
    config::{Config, NodeConfig},
    delivery::Encoder,
    link::{Heard, keep_linked},
    outbox::{KeptChunk, Outbox},
    telemetry::{Meters, NodeLabel, OutcomeLabel},
};
use work::{Brief, perform};

/// Messages that wait for the node.
const QUEUE: usize = 1_024;

/// Between heartbeats until the coordinator says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A ComfyUI that is away for so long is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(60);

/// A ComfyUI is restarted at most so often.
const RESTART_EVERY: Duration = Duration::from_secs(60);

/// Largest preview that is passed on, in bytes.
const MAX_PREVIEW: usize = 1024 * 1024;

/// A chunk over which the agent has died so often is not taken up again.
const MOST_DEATHS: u32 = 2;

/// What happens to a node.
enum Event {
    Heard(Heard),
    Health(Health),
    Told {
        attempt: String,
        told: Told,
    },
    Ended {
        attempt: String,
        ending: Ending,
    },
    /// ComfyUI has not let go of a prompt of ours that hangs.
    Stuck {
        prompt: PromptId,
    },
    /// A prompt that hung has ended.
    Unstuck {
        prompt: PromptId,
    },
}

/// An attempt in hand.
struct Held {
    job_id: u64,
    frames: String,
    cancel: CancellationToken,
}

struct Node {
    config: NodeConfig,
    host: String,
    /// Which start of the agent this is.
    instance: String,
    slots: u32,
    bench: Arc<Workbench>,
    outbox: Outbox,
    meters: Arc<Meters>,
    events: mpsc::Sender<Event>,
    stream: Option<mpsc::Sender<v1::AttachRequest>>,
    held: HashMap<String, Held>,
    results: BTreeMap<String, v1::AttemptResult>,
    /// Those of the present stream: each new one sends them again.
    workflows: HashMap<String, Arc<Workflow>>,
    jobs: HashMap<u64, Arc<v1::JobDefinition>>,
    /// What its ComfyUI offered when it last came up.
    offer: Option<Box<Offer>>,
    /// Why it cannot take work; `None`: it can.
    unready: Option<String>,
    /// Why it does not work at this time; `None`: it does.
    off: Option<String>,
    /// Since when its ComfyUI is away.
    down_since: Option<Instant>,
    /// Prompts that hold its worker and do not go on.
    stuck: HashSet<PromptId>,
    /// Its ComfyUI is asked at once what it offers.
    refresh: Arc<Notify>,
    restarted: Option<Instant>,
    /// Its ComfyUI is asked about one workflow at a time.
    checking: Arc<Semaphore>,
}

/// Runs a node until `stop`.
pub(crate) async fn run(
    config: NodeConfig,
    agent: &Config,
    http: reqwest::Client,
    meters: Arc<Meters>,
    (darkroom, encoder, calls): (Darkroom, Encoder, Calls),
    stop: CancellationToken,
) -> std::io::Result<()> {
    let client = Client::new(&config.comfyui, http, agent.dead());
    let (socket, connection) = Socket::open(client.clone());
    let bench = Arc::new(Workbench {
        node: config.name.clone(),
        client: client.clone(),
        socket,
        roots: Arc::new(agent.roots.clone()),
        calls,
        transfer: config.transfer.unwrap_or_default(),
        input: config.input.clone(),
        output: config.output.clone(),
        stage: agent.stage_dir(),
        darkroom,
        encoder,
        stall: agent.stall(),
        dead: agent.dead(),
    });
    let outbox = Outbox::open(&agent.state, &config.name)?;
    let coordinators = agent.coordinators()?;
    let (events, mut inbox) = mpsc::channel(QUEUE);
    let refresh = Arc::new(Notify::new());
    let (reconnecting, asking) = (bench.socket.clone(), refresh.clone());
    let span = info_span!("node", node = %config.name);
    let mut node = Node {
        host: agent.host_name(),
        instance: format!("{:016x}", rand::random::<u64>()),
        slots: config.slots.unwrap_or(agent.slots).max(1),
        bench,
        meters,
        events: events.clone(),
        stream: None,
        held: HashMap::new(),
        results: outbox.results().into_iter().map(|result| (result.attempt_id.clone(), result)).collect(),
        workflows: HashMap::new(),
        jobs: HashMap::new(),
        offer: None,
        unready: Some(format!("ComfyUI at {} has not answered yet", config.comfyui)),
        off: None,
        down_since: Some(Instant::now()),
        stuck: HashSet::new(),
        refresh: refresh.clone(),
        restarted: None,
        checking: Arc::new(Semaphore::new(1)),
        outbox,
        config,
    };
    let work = async {
        let (heard, hearing) = mpsc::channel(QUEUE);
        let (health, healths) = mpsc::channel(16);
        tokio::select! {
            () = connection => {}
            // A ComfyUI that restarts quickly is never seen away, and may have other models, or another GPU.
            () = reconnecting.watch_reconnections(|| asking.notify_one()) => {}
            () = watch_health(client, refresh, health) => {}
            () = forward(healths, events.clone(), Event::Health) => {}
            () = keep_linked(coordinators, heard) => {}
            () = forward(hearing, events, Event::Heard) => {}
            () = node.live(&mut inbox) => {}
            () = stop.cancelled() => {}
        }
    };
    Box::pin(work.instrument(span)).await;
    node.outbox.close();
    Ok(())
}

async fn forward<T>(mut from: mpsc::Receiver<T>, to: mpsc::Sender<Event>, wrap: impl Fn(T) -> Event) {
    while let Some(message) = from.recv().await {
        if to.send(wrap(message)).await.is_err() {
            return;
        }
    }
}

impl Node {
    async fn live(&mut self, inbox: &mut mpsc::Receiver<Event>) {
        self.look_at_the_clock();
        self.take_up();
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = inbox.recv() => event,
                _ = beat.tick() => {
                    self.beat();
                    continue;
                }
            };
            match event {
                None => return,
                Some(Event::Heard(Heard::Opened(stream))) => self.opened(stream),
                Some(Event::Heard(Heard::Closed)) => self.stream = None,
                Some(Event::Heard(Heard::Message(message))) => match *message {
                    Order::Welcome(v1::Welcome { heartbeat_ms }) => {
                        beat = interval(Duration::from_millis(u64::from(heartbeat_ms.max(100))));
                        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                    order => self.order(order),
                },
                Some(Event::Health(health)) => self.health(health),
                Some(Event::Told { attempt, told }) => self.told(attempt, told),
                Some(Event::Ended { attempt, ending }) => self.ended(&attempt, ending),
                Some(Event::Stuck { prompt }) => {
                    warn!(%prompt, "ComfyUI does not let go of a prompt that hangs");
                    self.restart();
                }
                Some(Event::Unstuck { prompt }) => {
                    self.stuck.remove(&prompt);
                    self.tell_readiness(None);
                }
            }
        }
    }

    /// Takes up what an earlier life of the agent was at: ComfyUI may still run it. What has ended several lives is
    /// given back, so that the farm looks for the frame that does it.
    fn take_up(&mut self) {
        for KeptChunk { assignment, source, job } in self.outbox.chunks() {
            let deaths = self.outbox.count_deaths(&assignment.attempt_id);
            if deaths >= MOST_DEATHS {
                self.give_back(&assignment, deaths);
                continue;
            }
            match Workflow::parse(&source.name, &source.manifest, &source.graph) {
                Ok(workflow) => {
                    info!(attempt = assignment.attempt_id, "taken up again");
                    let brief = Brief { workflow: Some(Arc::new(workflow)), job: Some(Arc::new(job)) };
                    self.begin(assignment, brief, true);
                }
                Err(_) => self.outbox.drop_chunk(&assignment.attempt_id),
            }
        }
    }

    fn give_back(&mut self, assignment: &v1::Assignment, deaths: u32) {
        let message = format!(
            "the agent has died {deaths} times while it had this chunk in hand; a frame may take more memory than its host has, its log and the system's say more"
        );
        warn!(attempt = assignment.attempt_id, deaths, "not taken up again");
        let frames = match &assignment.work {
            Some(Work::Chunk(chunk)) => chunk.frames.clone(),
            _ => String::new(),
        };
        self.keep_result(v1::AttemptResult {
            attempt_id: assignment.attempt_id.clone(),
            job_id: assignment.job_id,
            frames,
            outcome: Some(Outcome::Failed(v1::Failed {
                kind: FailureKind::Internal.into(),
                message,
                frames: String::new(),
            })),
        });
    }

    /// Until a coordinator has taken it.
    fn keep_result(&mut self, result: v1::AttemptResult) {
        self.outbox.keep_result(&result);
        self.results.insert(result.attempt_id.clone(), result.clone());
        self.meters.unreported.get_or_create(&self.label()).set(self.results.len() as i64);
        self.say(Say::Result(result));
    }

    /// A new stream: who we are, what we hold, what nobody has taken yet.
    fn opened(&mut self, stream: mpsc::Sender<v1::AttachRequest>) {
        self.stream = Some(stream);
        self.workflows.clear();
        self.jobs.clear();
        let held = self.held.iter().map(|(attempt, held)| v1::HeldAttempt {
            attempt_id: attempt.clone(),
            job_id: held.job_id,
            frames: held.frames.clone(),
        });
        let reported = self.results.values().map(|result| v1::HeldAttempt {
            attempt_id: result.attempt_id.clone(),
            job_id: result.job_id,
            frames: result.frames.clone(),
        });
        let hello = v1::Hello {
            node: self.config.name.clone(),
            host: self.host.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            capabilities: self.offer.as_ref().map(|offer| offer.capabilities.clone()),
            readiness: Some(self.readiness(None)),
            held: held.chain(reported).collect(),
        };
        self.say(Say::Hello(hello));
        for result in self.results.values().cloned().collect::<Vec<_>>() {
            self.say(Say::Result(result));
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Workflow(v1::WorkflowDefinition { workflow_id, source }) => {
                let Some(source) = source else { return };
                match Workflow::parse(&source.name, &source.manifest, &source.graph) {
                    Ok(workflow) => {
                        self.workflows.insert(workflow_id, Arc::new(workflow));
                    }
                    // The chunks that need it fail, and say why.
                    Err(error) => warn!(workflow = source.name, error = %chain(&error), "unusable workflow"),
                }
            }
            Order::Assignment(assignment) => {
                let job = self.jobs.get(&assignment.job_id).cloned();
                let workflow = job.as_ref().and_then(|job| self.workflows.get(&job.workflow_id)).cloned();
                self.begin(assignment, Brief { workflow, job }, false);
            }
            Order::Job(job) => {
                // The coordinator does the same, at the same message.
                if self.jobs.len() >= REMEMBERED_JOBS {
                    self.jobs.clear();
                }
                self.jobs.insert(job.job_id, Arc::new(job));
            }
            Order::Cancel(v1::CancelAttempt { attempt_id, reason }) if is_plain(&attempt_id) => {
                info!(attempt = attempt_id, reason, "stopped");
                if let Some(held) = self.held.remove(&attempt_id) {
                    held.cancel.cancel();
                }
                self.outbox.drop_chunk(&attempt_id);
                self.forget_result(&attempt_id);
            }
            Order::ResultAck(v1::ResultAck { attempt_id }) => self.forget_result(&attempt_id),
            Order::WantNames(v1::WantNames { digests }) => {
                let offered = |digest| self.offer.as_ref().and_then(|offer| offer.names.get(digest)).cloned();
                for names in digests.iter().filter_map(offered).collect::<Vec<_>>() {
                    self.say(Say::Names(v1::Names { names }));
                }
            }
            Order::Check(asked) => self.check(asked),
            Order::Refresh(v1::Refresh {}) => self.refresh.notify_one(),
            Order::Cancel(_) | Order::Welcome(_) => {}
        }
    }

    /// Holds a workflow against what the ComfyUI's node classes take, on a task of its own: it is asked anew, since its
    /// lists follow its folders.
    fn check(&self, asked: v1::CheckWorkflow) {
        let Some(stream) = self.stream.clone() else { return };
        let (client, turn) = (self.bench.client.clone(), self.checking.clone());
        tokio::spawn(async move {
            // One after the other: what the ComfyUI says is megabytes.
            let Ok(_turn) = turn.acquire().await else { return };
            let wrong = mismatches(&client, &asked).await;
            let say = Say::Checked(v1::Checked { check_id: asked.check_id, wrong });
            // A stream that is gone takes the question with it.
            let _ = stream.send(v1::AttachRequest { message: Some(say) }).await;
        });
    }

    /// Starts the work of an assignment on a task of its own.
    fn begin(&mut self, assignment: v1::Assignment, brief: Brief, adopt: bool) {
        let attempt = assignment.attempt_id.clone();
        if self.held.contains_key(&attempt) || self.results.contains_key(&attempt) {
            return;
        }
        let Some(work) = assignment.work.clone() else { return };
        // It names folders and files.
        if !is_plain(&attempt) {
            warn!(attempt, "an attempt with an impossible name is ignored");
            return;
        }
        let frames = match &work {
            Work::Chunk(chunk) => chunk.frames.clone(),
            Work::Assembly(_) | Work::Deliver(_) | Work::CleanUp(_) => String::new(),
        };
        let span = info_span!(
            parent: None, "attempt", attempt, job = assignment.job_id, node = %self.config.name, frames,
        );
        trace::set_parent(&span, &assignment.traceparent);
        if !adopt {
            info!(attempt, frames, "begun");
        }
        let cancel = CancellationToken::new();
        let held = Held { job_id: assignment.job_id, frames, cancel: cancel.clone() };
        self.held.insert(attempt.clone(), held);
        self.meters.held.get_or_create(&self.label()).set(self.held.len() as i64);

        // Of a chunk it was told with its job.
        let of_job = brief.job.iter().flat_map(|job| &job.storage);
        let storage = of_job.chain(&assignment.storage).map(|(root, id)| (root.clone(), id.clone().into()));
        let bench = self.bench.on_storage(storage.collect());
        let (events, name) = (self.events.clone(), attempt.clone());
        if let (Work::Chunk(_), Some(workflow), Some(job), false) =
            (&work, &brief.workflow, &brief.job, adopt)
        {
            let source = v1::WorkflowSource {
                name: workflow.name().to_owned(),
                manifest: workflow.manifest_text().to_owned(),
                graph: workflow.graph_text().to_owned(),
            };
            let job = v1::JobDefinition::clone(job);
            self.outbox.keep_chunk(&KeptChunk { assignment, source, job });
        }
        let task = async move {
            let ending = perform(&bench, &attempt, work, brief, adopt, &events, &cancel).await;
            if let Ending::Failed(failure) = &ending {
                trace::fail(&Span::current(), &failure.message);
            }
            // The node is gone only when the agent ends.
            let _ = events.send(Event::Ended { attempt, ending }).await;
        };
        let events = self.events.clone();
        let task = tokio::spawn(task.instrument(span));
        tokio::spawn(async move {
            // Without this a mistake of ours would keep the attempt, and its lease, for ever.
            if task.await.is_err() {
                let message = "the agent made a mistake; its log says more, please report it";
                let ending = Ending::Failed(Failure::new(FailureKind::Internal, message));
                let _ = events.send(Event::Ended { attempt: name, ending }).await;
            }
        });
    }

    fn told(&mut self, attempt: String, told: Told) {
        if !self.held.contains_key(&attempt) {
            return;
        }
        match told {
            Told::Progress(progress) => {
                self.say(Say::Progress(v1::Progress { attempt_id: attempt, progress: Some(progress) }));
            }
            Told::Preview(picture) if picture.bytes.len() <= MAX_PREVIEW => {
                self.say(Say::Preview(v1::Preview {
                    attempt_id: attempt,
                    node: self.config.name.clone(),
                    media_type: picture.media_type.to_owned(),
                    image: picture.bytes.to_vec(),
                }));
            }
            Told::Preview(_) => {}
        }
    }

    fn ended(&mut self, attempt: &str, ending: Ending) {
        let held = self.held.remove(attempt);
        self.meters.held.get_or_create(&self.label()).set(self.held.len() as i64);
        let outcome = ending.name();
        let node = self.config.name.clone();
        self.meters.attempts.get_or_create(&OutcomeLabel { node, outcome }).inc();
        let outcome = match ending {
            Ending::Cancelled { let_go } => {
                if !let_go {
                    self.hangs(PromptId::of_attempt(attempt));
                }
                self.outbox.drop_chunk(attempt);
                return;
            }
            Ending::Done { seconds, published } => {
                let frames = held.as_ref().map_or("", |held| held.frames.as_str());
                info!(attempt, frames, seconds, "done");
                if seconds > 0.0 {
                    self.meters.chunk_seconds.get_or_create(&self.label()).observe(seconds);
                }
                let manifest_blake3 = published.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default();
                Outcome::Succeeded(v1::Succeeded { seconds, manifest_blake3 })
            }
            Ending::Failed(failure) => {
                warn!(attempt, kind = failure.kind.as_str_name(), reason = failure.message, "failed");
                if failure.kind == FailureKind::Missing {
                    // The file may have come since ComfyUI was last asked.
                    self.refresh.notify_one();
                }
                if let Some(prompt) = failure.blocked_by {
                    self.hangs(prompt);
                }
                Outcome::Failed(v1::Failed {
                    kind: failure.kind.into(),
                    message: failure.message,
                    frames: failure.frames.to_string(),
                })
            }
        };
        // Cancelled in the meantime: nobody wants to hear of it.
        let Some(held) = held else { return };
        self.keep_result(v1::AttemptResult {
            attempt_id: attempt.to_owned(),
            job_id: held.job_id,
            frames: held.frames,
            outcome: Some(outcome),
        });
    }

    fn forget_result(&mut self, attempt: &str) {
        if self.results.remove(attempt).is_some() {
            self.outbox.drop_result(attempt);
            self.meters.unreported.get_or_create(&self.label()).set(self.results.len() as i64);
        }
    }

    fn beat(&mut self) {
        self.look_at_the_clock();
        // A ComfyUI that is only starting gets its time.
        if self.down_since.is_some_and(|since| since.elapsed() > RESTART_AFTER) {
            self.restart();
        }
        let attempt_ids = self.held.keys().chain(self.results.keys()).cloned().collect();
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let sent_unix_ms = since.as_millis().try_into().unwrap_or(i64::MAX);
        self.say(Say::Heartbeat(v1::Heartbeat { attempt_ids, sent_unix_ms }));
    }

    /// Progress that does not fit into the stream is lost, and told again.
    fn say(&mut self, message: Say) {
        let Some(stream) = &self.stream else { return };
        let vital = matches!(message, Say::Result(_) | Say::Readiness(_) | Say::Hello(_) | Say::Names(_));
        let request = v1::AttachRequest { message: Some(message) };
        if stream.try_send(request).is_err() && vital {
            // Without its sender the stream ends; the next one says everything again.
            warn!("the link to the coordinator does not keep up; it is made anew");
            self.stream = None;
        }
    }

    fn label(&self) -> NodeLabel {
        NodeLabel { node: self.config.name.clone() }
    }
}
