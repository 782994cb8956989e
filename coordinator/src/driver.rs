//! The only owner of a farm. Drains the commands that are waiting, applies them as one group, commits their
//! changes in one round trip, and only then releases effects and answers.
//!
//! A commit that fails makes it reload the farm from the store: memory never runs ahead of it for long.
//! Holds no rule of the farm.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{error, info, warn};

use crate::{
    farm::{
        Answer, Assignment, AttemptId, Command, Effect, Farm, FarmConfig, FarmTag, JobEvent, JobId, Key,
        Refusal, Session, Step, Timestamp,
    },
    store::{Epoch, Store, StoreError},
    telemetry::Meters,
};

/// Commands that wait for the driver; those who send more wait themselves.
const QUEUE: usize = 8_192;

/// Commands applied before a commit.
const GROUP: usize = 1_024;

/// Messages that wait for a node's connection. More means that it does not read: it is cut off.
const SESSION_QUEUE: usize = 1_024;

/// Events remembered for watchers that come back.
const REMEMBERED_EVENTS: usize = 4_096;

/// How often time is told to the farm.
const TICK: Duration = Duration::from_millis(500);

/// How long to wait before the store is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the farm could not be written to its store; nothing was changed, try again")]
    NotDurable,
    #[error("the coordinator is stopping; try again")]
    Stopped,
}

/// A message for a node.
#[derive(Debug, Clone)]
pub enum ToNode {
    Assign(Box<Assignment>),
    Cancel { attempt: AttemptId, reason: &'static str },
    Acknowledge(AttemptId),
}

/// Something that happened to a job; cursors only grow, also across restarts.
#[derive(Debug, Clone)]
pub struct Happened {
    pub cursor: u64,
    pub job: JobId,
    pub event: JobEvent,
}

type Reading = Box<dyn FnOnce(&Farm) + Send>;

enum Message {
    Command(Command, Option<oneshot::Sender<Result<Answer, DriverError>>>),
    Read(Reading),
    Watch(oneshot::Sender<Watch>),
    Open(Session, mpsc::Sender<ToNode>),
    Stop,
}

/// Events from now on, and those remembered from before.
#[derive(Debug)]
pub struct Watch {
    pub past: Vec<Happened>,
    /// The cursor of the latest event.
    pub cursor: u64,
    pub events: broadcast::Receiver<Happened>,
}

/// Talks to the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Driver {
    messages: mpsc::Sender<Message>,
}

impl Driver {
    /// Carries out a command; resolves once it is durable.
    pub async fn command(&self, command: Command) -> Result<Answer, DriverError> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Command(command, Some(answer))).await?;
        answered.await.map_err(|_| DriverError::Stopped)?
    }

    /// Carries out a command whose answer nobody waits for.
    pub async fn tell(&self, command: Command) -> Result<(), DriverError> {
        self.send(Message::Command(command, None)).await
    }

    /// Looks at the farm, between two groups of commands: what is seen is durable.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Farm) -> T + Send + 'static,
    ) -> Result<T, DriverError> {
        let (seen, seeing) = oneshot::channel();
        // Whoever asked may have gone away.
        let reading: Reading = Box::new(move |farm| drop(seen.send(look(farm))));
        self.send(Message::Read(reading)).await?;
        seeing.await.map_err(|_| DriverError::Stopped)
    }

    pub async fn watch(&self) -> Result<Watch, DriverError> {
        let (sender, receiver) = oneshot::channel();
        self.send(Message::Watch(sender)).await?;
        receiver.await.map_err(|_| DriverError::Stopped)
    }

    /// A node's connection: what the farm sends under this session comes out here. Ends when the driver
    /// stops, reloads, or finds that the connection does not keep up.
    pub async fn open(&self, session: Session) -> Result<mpsc::Receiver<ToNode>, DriverError> {
        let (sender, receiver) = mpsc::channel(SESSION_QUEUE);
        self.send(Message::Open(session, sender)).await?;
        Ok(receiver)
    }

    /// Commits what is waiting and ends.
    pub async fn stop(&self) {
        // It has stopped already when this fails.
        let _ = self.send(Message::Stop).await;
    }

    async fn send(&self, message: Message) -> Result<(), DriverError> {
        self.messages.send(message).await.map_err(|_| DriverError::Stopped)
    }
}

/// Loads the farm (or makes a new one, named `tag`) and drives it until stopped.
pub async fn start<S: Store>(
    mut store: S,
    config: FarmConfig,
    tag: FarmTag,
    meters: Arc<Meters>,
) -> Result<(Driver, impl Future<Output = ()> + Send), StoreError> {
    let epoch = store.lead().await?;
    let farm = load(&mut store, epoch, &config, &tag).await?;
    info!(farm = %farm.tag().0, epoch = epoch.0, jobs = farm.jobs(&crate::farm::JobFilter::default()).1, "the farm is loaded");
    let (messages, inbox) = mpsc::channel(QUEUE);
    let (events, _) = broadcast::channel(REMEMBERED_EVENTS);
    let engine = Engine {
        store,
        epoch,
        config,
        tag,
        farm,
        meters,
        sessions: HashMap::new(),
        events,
        past: VecDeque::new(),
        // Events are not durable. Starting from the time keeps cursors growing across restarts, as long as
        // fewer than a million events a millisecond happen.
        cursor: now().0 << 20,
    };
    Ok((Driver { messages }, engine.run(inbox)))
}

async fn load<S: Store>(
    store: &mut S,
    epoch: Epoch,
    config: &FarmConfig,
    tag: &FarmTag,
) -> Result<Farm, StoreError> {
    let records = store.load().await?;
    if let Some(farm) = Farm::restore(now(), config.clone(), &records)? {
        return Ok(farm);
    }
    let farm = Farm::new(config.clone(), tag.clone());
    let changes = farm.keys().into_iter().map(|key| (key.clone(), farm.record(&key))).collect();
    store.commit(epoch, changes).await?;
    Ok(farm)
}

/// The present time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

struct Engine<S> {
    store: S,
    epoch: Epoch,
    config: FarmConfig,
    tag: FarmTag,
    farm: Farm,
    meters: Arc<Meters>,
    sessions: HashMap<Session, mpsc::Sender<ToNode>>,
    events: broadcast::Sender<Happened>,
    past: VecDeque<Happened>,
    cursor: u64,
}

/// What waits for its group to be durable.
#[derive(Default)]
struct Pending {
    changes: BTreeSet<Key>,
    effects: Vec<Effect>,
    answers: Vec<(oneshot::Sender<Result<Answer, DriverError>>, Result<Answer, Refusal>)>,
}

impl<S: Store> Engine<S> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiting = Vec::with_capacity(GROUP);
        loop {
            let ticked = tokio::select! {
                _ = ticks.tick() => true,
                got = inbox.recv_many(&mut waiting, GROUP) => {
                    if got == 0 {
                        return;
                    }
                    false
                }
            };
            let mut group = Pending::default();
            let mut stop = false;
            let mut readings = Vec::new();
            if ticked {
                // Time is told last: a heartbeat that waits here already must not come too late.
                while waiting.len() < GROUP
                    && let Ok(message) = inbox.try_recv()
                {
                    waiting.push(message);
                }
            }
            for message in waiting.drain(..) {
                match message {
                    Message::Command(command, answer) => self.apply(command, answer, &mut group),
                    // Readings and watches see the group's end: by then it is durable.
                    other @ (Message::Read(_) | Message::Watch(_)) => readings.push(other),
                    Message::Open(session, sender) => {
                        self.sessions.insert(session, sender);
                    }
                    Message::Stop => stop = true,
                }
            }
            if ticked {
                self.apply(Command::Tick, None, &mut group);
            }
            self.commit(group).await;
            for reading in readings {
                match reading {
                    Message::Read(look) => look(&self.farm),
                    Message::Watch(sender) => {
                        let past = self.past.iter().cloned().collect();
                        let watch = Watch { past, cursor: self.cursor, events: self.events.subscribe() };
                        // Whoever asked may have gone away.
                        let _ = sender.send(watch);
                    }
                    Message::Command(..) | Message::Open(..) | Message::Stop => {}
                }
            }
            if ticked {
                self.meters.observe(&self.farm);
            }
            if stop {
                info!("the farm is at rest in its store");
                return;
            }
        }
    }

    fn apply(
        &mut self,
        command: Command,
        answer: Option<oneshot::Sender<Result<Answer, DriverError>>>,
        group: &mut Pending,
    ) {
        if let Command::Gone { session, .. } = &command {
            self.sessions.remove(session);
        }
        let Step { changes, effects, answer: told } = self.farm.apply(now(), command);
        group.changes.extend(changes);
        group.effects.extend(effects);
        if let Some(answer) = answer {
            group.answers.push((answer, told));
        }
    }

    async fn commit(&mut self, group: Pending) {
        if !group.changes.is_empty() {
            let changes = group
                .changes
                .into_iter()
                .map(|key| {
                    let record = self.farm.record(&key);
                    (key, record)
                })
                .collect();
            let started = Instant::now();
            let committed = self.store.commit(self.epoch, changes).await;
            self.meters.commit_seconds.observe(started.elapsed().as_secs_f64());
            if let Err(failure) = committed {
                error!(error = %hearth_telemetry::chain(&failure), "the store refused a commit");
                self.meters.commits_failed.inc();
                for (answer, _) in group.answers {
                    let _ = answer.send(Err(DriverError::NotDurable));
                }
                return self.reload().await;
            }
        }
        for (answer, told) in group.answers {
            let _ = answer.send(told.map_err(DriverError::Refused));
        }
        for effect in group.effects {
            self.release(effect);
        }
    }

    /// What is in memory did not become durable: start again from what did. Every node connects anew.
    async fn reload(&mut self) {
        self.sessions.clear();
        loop {
            match load(&mut self.store, self.epoch, &self.config, &self.tag).await {
                Ok(farm) => {
                    self.farm = farm;
                    warn!("the farm was loaded again from its store");
                    return;
                }
                Err(failure) => {
                    error!(error = %hearth_telemetry::chain(&failure), "the store cannot be read");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        }
    }

    fn release(&mut self, effect: Effect) {
        let (session, message) = match effect {
            Effect::Assign { session, assignment } => {
                self.meters.assigned.inc();
                (session, ToNode::Assign(assignment))
            }
            Effect::Cancel { session, attempt, reason } => (session, ToNode::Cancel { attempt, reason }),
            Effect::Acknowledge { session, attempt } => (session, ToNode::Acknowledge(attempt)),
            Effect::Job { job, event } => return self.publish(job, event),
        };
        let full = self.sessions.get(&session).is_some_and(|sender| sender.try_send(message).is_err());
        if full {
            // Dropping the sender ends the connection; its attempts live on their leases.
            self.sessions.remove(&session);
            warn!(session = session.0, "a node does not read what it is sent: cut off");
        }
    }

    fn publish(&mut self, job: JobId, event: JobEvent) {
        self.cursor += 1;
        let happened = Happened { cursor: self.cursor, job, event };
        match &happened.event {
            JobEvent::Changed => {}
            JobEvent::ChunkFinished { seconds, frames, .. } => {
                self.meters.finished(*seconds, frames.len());
                self.remember(happened.clone());
            }
            JobEvent::ChunkFailed(failure) => {
                self.meters.failed(failure.kind);
                self.remember(happened.clone());
            }
        }
        // Nobody watching is no mistake.
        let _ = self.events.send(happened);
    }

    fn remember(&mut self, happened: Happened) {
        self.past.push_back(happened);
        if self.past.len() > REMEMBERED_EVENTS {
            self.past.pop_front();
        }
    }
}
