//! The `Agents` service: one stream a node.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use hearth_proto::{REMEMBERED_JOBS, v1};
use hearth_storage::manifest::ManifestDigest;
use hearth_telemetry::chain;
use hearth_workflows::{Workflow, WorkflowId};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, info, info_span, warn};

use super::{
    Proof, SharedNames, convert, door,
    questions::{Call, Question, Questions},
    unavailable,
};
use crate::{
    driver::{Driver, DriverError, Opened, ToNode},
    farm::{
        AssignedWork, Assignment, AttemptId, Capabilities, Command, FarmTag, Held, JobId, NodeAbout,
        NodeName, Outcome, Refusal, Session, Timestamp,
    },
};

/// Previews for whoever watches; never stored, lost when nobody keeps up.
#[derive(Debug, Clone)]
pub struct Previews(broadcast::Sender<(JobId, v1::Preview)>);

impl Default for Previews {
    fn default() -> Self {
        Self(broadcast::channel(64).0)
    }
}

impl Previews {
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<(JobId, v1::Preview)> {
        self.0.subscribe()
    }
}

/// Questions of a node that wait for its answer.
const QUESTIONS: usize = 16;

/// Results of a node's chores that are looked for at a time.
const LOOKS: usize = 4;

/// Chunks that a node may hold, whatever it says.
const MAX_SLOTS: u32 = 64;

/// The service.
#[derive(Debug, Clone)]
pub struct AgentsService {
    pub driver: Driver,
    pub proof: Proof,
    pub heartbeat_ms: u32,
    pub previews: Previews,
    pub names: SharedNames,
    pub questions: Questions,
    pub sessions: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl v1::agents_server::Agents for AgentsService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.next().await.transpose()?.and_then(|request| request.message);
        let Some(v1::attach_request::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("an agent speaks first, with hello"));
        };
        if hello.node.is_empty() {
            return Err(Status::invalid_argument("the node has no name"));
        }
        if hello.node.len() > door::NAME {
            let told = format!("the node's name has {} bytes, more than {}", hello.node.len(), door::NAME);
            return Err(Status::invalid_argument(told));
        }
        if hello.node.chars().any(char::is_control) {
            return Err(Status::invalid_argument("the node's name has control characters"));
        }
        let session = Session(self.sessions.fetch_add(1, Ordering::Relaxed) + 1);
        let name: NodeName = hello.node.as_str().into();
        let span = info_span!("node", node = %name, session = session.0);
        let Opened { tag, messages, sender } =
            self.driver.open(session).await.map_err(|error| unavailable(&error))?;
        let stream = ToAgent::new(tag.clone(), messages, self.heartbeat_ms);
        let mut connection = Connection {
            driver: self.driver.clone(),
            proof: self.proof.clone(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            previews: self.previews.clone(),
            names: self.names.clone(),
            tag,
            session,
            name,
            sender,
            awaited: None,
            asked: BTreeMap::new(),
            last_asked: 0,
        };
        let questions = self.questions.subscribe();
        let hello = connection.hello(door::hello(hello));
        // On a task of its own: a caller that hangs up just now ends this one, and a node that nobody reads from would be
        // there for ever.
        let (answer, answered) = oneshot::channel();
        let serve = async move {
            let taken = connection.driver.command(hello).await;
            let is_taken = taken.is_ok();
            // The caller may have hung up; then reading ends at once, and the node is gone.
            let _ = answer.send(taken);
            if is_taken {
                info!("connected");
                connection.read(incoming, questions).await;
            } else {
                connection.gone().await;
            }
        };
        tokio::spawn(serve.instrument(span));
        // It is refused where another agent works under this name.
        let taken = answered.await.unwrap_or(Err(DriverError::Stopped));
        taken.map_err(|error| match error {
            DriverError::Refused(refusal @ Refusal::TooManyNodes { .. }) => {
                Status::resource_exhausted(chain(&refusal))
            }
            DriverError::Refused(refusal) => Status::already_exists(chain(&refusal)),
            error => unavailable(&error),
        })?;
        Ok(Response::new(Box::pin(stream)))
    }
}

/// The chunks that the farm may give it.
fn room(slots: u32) -> usize {
    slots.min(MAX_SLOTS) as usize
}

/// One node's stream.
struct Connection {
    driver: Driver,
    proof: Proof,
    /// Chores of the node whose result is looked for at a time.
    looks: Arc<Semaphore>,
    previews: Previews,
    names: SharedNames,
    tag: FarmTag,
    session: Session,
    name: NodeName,
    sender: mpsc::WeakSender<ToNode>,
    awaited: Option<Awaited>,
    /// Whoever waits for the answer to a question, by its number.
    asked: BTreeMap<u64, mpsc::Sender<(NodeName, Vec<String>)>>,
    last_asked: u64,
}

/// What the node said of itself, in part by names that nobody has told yet.
struct Awaited {
    slots: u32,
    reason: String,
    capabilities: Capabilities,
    classes_digest: String,
    models_digest: String,
    missing: Vec<String>,
}

/// Shown as long as something of a node is [`Awaited`].
const AWAITED: &str = "it is telling the names of its node classes and models";

/// From the farm to the node. Each workflow and each job is described once, before the first chunk that needs it.
struct ToAgent {
    tag: FarmTag,
    messages: mpsc::Receiver<ToNode>,
    /// Said next, in this order.
    next: VecDeque<v1::attach_response::Message>,
    workflows: HashSet<WorkflowId>,
    jobs: HashSet<JobId>,
    ended: bool,
}

impl ToAgent {
    fn new(tag: FarmTag, messages: mpsc::Receiver<ToNode>, heartbeat_ms: u32) -> Self {
        let welcome = v1::attach_response::Message::Welcome(v1::Welcome { heartbeat_ms });
        let (workflows, jobs) = (HashSet::new(), HashSet::new());
        Self { tag, messages, next: [welcome].into(), workflows, jobs, ended: false }
    }

    fn say(&mut self, message: ToNode) {
        use v1::attach_response::Message;
        let message = match message {
            ToNode::Assign(assignment) => {
                if let (AssignedWork::Chunk(_), Some(workflow)) = (&assignment.work, &assignment.workflow) {
                    self.describe(&assignment, workflow);
                }
                Message::Assignment(convert::assignment(&self.tag, &assignment))
            }
            ToNode::Cancel { attempt, reason } => Message::Cancel(v1::CancelAttempt {
                attempt_id: self.tag.attempt_name(attempt),
                reason: reason.to_owned(),
            }),
            ToNode::Acknowledge(attempt) => {
                Message::ResultAck(v1::ResultAck { attempt_id: self.tag.attempt_name(attempt) })
            }
            ToNode::WantNames(digests) => Message::WantNames(v1::WantNames { digests }),
            ToNode::Refresh => Message::Refresh(v1::Refresh {}),
            ToNode::Check { id, workflow, settings } => Message::Check(v1::CheckWorkflow {
                check_id: id,
                source: Some(convert::source(&workflow)),
                settings: settings
                    .into_iter()
                    .map(|parameters| v1::Settings { parameters: parameters.into_iter().collect() })
                    .collect(),
            }),
        };
        self.next.push_back(message);
    }

    fn describe(&mut self, assignment: &Assignment, workflow: &Workflow) {
        use v1::attach_response::Message;
        let job = assignment.attempt.job;
        if !self.workflows.contains(workflow.id()) {
            self.workflows.insert(workflow.id().clone());
            self.next.push_back(Message::Workflow(v1::WorkflowDefinition {
                workflow_id: workflow.id().to_string(),
                source: Some(convert::source(workflow)),
            }));
        }
        if !self.jobs.contains(&job) {
            // The agent does the same, at the same message.
            if self.jobs.len() >= REMEMBERED_JOBS {
                self.jobs.clear();
            }
            self.jobs.insert(job);
            let definition = convert::job_definition(&self.tag, job, &assignment.spec, workflow);
            self.next.extend(definition.map(Message::Job));
        }
    }
}

impl Stream for ToAgent {
    type Item = Result<v1::AttachResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.next.pop_front() {
                // Thousands of streams, each with room for its largest messages, would fill the memory.
                if self.next.is_empty() {
                    self.next = VecDeque::new();
                }
                return Poll::Ready(Some(Ok(v1::AttachResponse { message: Some(message) })));
            }
            match self.messages.poll_recv(context) {
                Poll::Ready(Some(message)) => self.say(message),
                Poll::Ready(None) if self.ended => return Poll::Ready(None),
                // The driver has let go of the session: the agent connects anew.
                Poll::Ready(None) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(Status::unavailable("the coordinator closed the session"))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Connection {
    /// Lets go of the session.
    async fn gone(self) {
        // A coordinator that stops has no nodes any more.
        let _ = self.driver.tell(Command::Gone { session: self.session, node: self.name }).await;
    }

    /// From the node to the farm, until the stream ends.
    async fn read(
        mut self,
        mut incoming: Streaming<v1::AttachRequest>,
        mut calls: broadcast::Receiver<Call>,
    ) {
        let why = loop {
            let message = tokio::select! {
                message = incoming.next() => message,
                // One that was missed in a crowd is not answered.
                Ok(call) = calls.recv() => {
                    match call {
                        Call::Ask(question) => self.ask(&question),
                        Call::Refresh(node) => self.refresh(node.as_ref()),
                    }
                    continue;
                }
            };
            match message {
                Some(Ok(v1::AttachRequest { message: Some(message) })) => {
                    if self.message(message).await.is_err() {
                        return;
                    }
                }
                Some(Ok(v1::AttachRequest { message: None })) => {}
                Some(Err(status)) => break status.message().to_owned(),
                None => break "closed by the agent".to_owned(),
            }
        };
        info!(why, "disconnected");
        self.gone().await;
    }

    fn hello(&mut self, hello: v1::Hello) -> Command {
        let held = hello
            .held
            .iter()
            .filter_map(|held| {
                // Another farm's attempt is none of ours to judge.
                let attempt = self.tag.attempt_of(&held.attempt_id)?;
                let frames = convert::frames_from(&held.frames).ok()?;
                Some(Held { attempt, frames })
            })
            .collect();
        let v1::NodeReadiness { slots, reason, .. } = hello.readiness.unwrap_or_default();
        let (slots, reason, capabilities) =
            self.understand(slots, reason, hello.capabilities.unwrap_or_default());
        Command::Hello {
            session: self.session,
            about: Box::new(NodeAbout {
                name: self.name.clone(),
                host: hello.host,
                agent_version: hello.agent_version,
                instance: hello.instance,
            }),
            capabilities: Box::new(capabilities),
            slots,
            reason,
            held,
        }
    }

    /// Has the node's ComfyUI asked what it offers, if this node is meant.
    fn refresh(&self, node: Option<&NodeName>) {
        if node.is_none_or(|node| *node == self.name) {
            let _ = self.sender.upgrade().map(|sender| sender.try_send(ToNode::Refresh));
        }
    }

    /// Passes a question on to the node, if it is one of those that are meant.
    fn ask(&mut self, question: &Question) {
        if !question.nodes.contains(&self.name) {
            return;
        }
        self.last_asked += 1;
        let id = self.last_asked;
        self.asked.insert(id, question.answers.clone());
        // Those who have waited longest have given up.
        while self.asked.len() > QUESTIONS {
            self.asked.pop_first();
        }
        let (workflow, settings) = (question.workflow.clone(), question.settings.clone());
        let check = ToNode::Check { id, workflow, settings };
        let _ = self.sender.upgrade().map(|sender| sender.try_send(check));
    }

    /// What the farm is told of a node. It gets no work before all that it says is understood.
    fn understand(
        &mut self,
        slots: u32,
        reason: String,
        told: v1::Capabilities,
    ) -> (usize, String, Capabilities) {
        let digests = (told.node_classes_digest.clone(), told.models_digest.clone());
        let (capabilities, missing) = convert::capabilities_from(told, &self.names);
        if missing.is_empty() {
            self.awaited = None;
            return (room(slots), reason, capabilities);
        }
        // A connection that takes no more is cut off by the driver, and says everything again on the next.
        let _ = self.sender.upgrade().map(|sender| sender.try_send(ToNode::WantNames(missing.clone())));
        let (classes_digest, models_digest) = digests;
        self.awaited = Some(Awaited {
            slots,
            reason,
            capabilities: capabilities.clone(),
            classes_digest,
            models_digest,
            missing,
        });
        (0, AWAITED.to_owned(), capabilities)
    }

    /// Names that the node was asked for; its readiness, once none is missing.
    fn told(&mut self, names: Vec<String>) -> Option<Command> {
        let awaited = self.awaited.as_mut()?;
        let (digest, names) = self.names.keep(names);
        if digest == awaited.classes_digest {
            awaited.capabilities.classes = names.clone();
        }
        if digest == awaited.models_digest {
            awaited.capabilities.models = names;
        }
        awaited.missing.retain(|missing| *missing != digest);
        let Awaited { slots, reason, capabilities, .. } =
            self.awaited.take_if(|awaited| awaited.missing.is_empty())?;
        Some(Command::Readiness {
            session: self.session,
            node: self.name.clone(),
            slots: room(slots),
            reason,
            capabilities: Some(Box::new(capabilities)),
        })
    }

    fn readiness(&mut self, told: v1::NodeReadiness) -> Option<Command> {
        let v1::NodeReadiness { slots, reason, capabilities } = told;
        let (slots, reason, capabilities) = match (capabilities, &mut self.awaited) {
            (Some(capabilities), _) => {
                let (slots, reason, capabilities) = self.understand(slots, reason, capabilities);
                (slots, reason, Some(Box::new(capabilities)))
            }
            (None, Some(awaited)) => {
                (awaited.slots, awaited.reason) = (slots, reason);
                return None;
            }
            (None, None) => (room(slots), reason, None),
        };
        let (session, node) = (self.session, self.name.clone());
        Some(Command::Readiness { session, node, slots, reason, capabilities })
    }

    async fn message(&mut self, message: v1::attach_request::Message) -> Result<(), DriverError> {
        use v1::attach_request::Message;
        let (session, node) = (self.session, self.name.clone());
        let command = match message {
            Message::Hello(_) => {
                warn!("a second hello on one stream");
                return Ok(());
            }
            Message::Heartbeat(v1::Heartbeat { attempt_ids, sent_unix_ms }) => {
                let attempts = attempt_ids.iter().filter_map(|id| self.tag.attempt_of(id)).collect();
                let clock = u64::try_from(sent_unix_ms).ok().filter(|sent| *sent > 0).map(Timestamp);
                Command::Heartbeat { session, node, attempts, clock }
            }
            Message::Readiness(readiness) => match self.readiness(door::readiness(readiness)) {
                Some(command) => command,
                None => return Ok(()),
            },
            Message::Checked(v1::Checked { check_id, wrong }) => {
                // Nobody may wait for it any more.
                let _ = self.asked.remove(&check_id).map(|asker| asker.try_send((node, wrong)));
                return Ok(());
            }
            Message::Names(v1::Names { names }) => match self.told(names) {
                Some(command) => command,
                None => return Ok(()),
            },
            Message::Progress(v1::Progress { attempt_id, progress }) => {
                let (Some(attempt), Some(progress)) = (self.tag.attempt_of(&attempt_id), progress) else {
                    return Ok(());
                };
                let progress = convert::progress_from(door::progress(progress));
                Command::Progress { session, node, attempt, progress }
            }
            Message::Preview(preview) => {
                if let Some(AttemptId { job, .. }) = self.tag.attempt_of(&preview.attempt_id)
                    && let Some(preview) = door::preview(preview, node.as_str())
                {
                    // Nobody may be watching.
                    let _ = self.previews.0.send((job, preview));
                }
                return Ok(());
            }
            Message::Result(result) => match self.result(session, node, result) {
                Some(Command::Result {
                    frames,
                    outcome: outcome @ Outcome::Succeeded { .. },
                    attempt,
                    ..
                }) if frames.is_empty() => {
                    // Heartbeats do not wait for storage, unless a node tells of more chores than it can have had.
                    let Ok(place) = self.looks.clone().acquire_owned().await else { return Ok(()) };
                    let (session, node) = (self.session, self.name.clone());
                    let result = Command::Result { session, node, attempt, frames, outcome };
                    let telling = self.proof.clone().tell(self.tag.clone(), result);
                    tokio::spawn(async move {
                        // It is told again over the next connection.
                        let _ = telling.await;
                        drop(place);
                    });
                    return Ok(());
                }
                Some(command) => command,
                None => return Ok(()),
            },
        };
        self.driver.tell(command).await
    }

    fn result(&self, session: Session, node: NodeName, result: v1::AttemptResult) -> Option<Command> {
        use v1::attempt_result::Outcome as Told;
        let attempt = self.tag.attempt_of(&result.attempt_id)?;
        let read = |text: &str| match convert::frames_from(text) {
            Ok(frames) => Some(frames),
            Err(error) => {
                warn!(attempt = %attempt, error = %chain(&error), "a result with unreadable frames");
                None
            }
        };
        let outcome = match result.outcome? {
            Told::Succeeded(v1::Succeeded { seconds, manifest_blake3 }) => Outcome::Succeeded {
                seconds: door::seconds(seconds),
                published: ManifestDigest::from_bytes(&manifest_blake3),
            },
            Told::Failed(failed) => Outcome::Failed {
                kind: convert::failure_kind_from(failed.kind()),
                frames: read(&failed.frames)?,
                message: door::sentence(failed.message),
            },
        };
        Some(Command::Result { session, node, attempt, frames: read(&result.frames)?, outcome })
    }
}
