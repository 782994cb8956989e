//! Driving: commands in groups, durable before anybody hears of them.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use hearth_telemetry::chain;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};

use super::{
    DriverError, DriverOptions, Message, Opened, REMEMBERED_EVENTS, Reading, SESSION_QUEUE, Standing, ToNode,
    Watch, now, standing::Role,
};
use crate::{
    farm::{Answer, Command, Effect, Farm, JobEvent, JobId, Key, Refusal, Session, Step},
    store::{Epoch, Group, Happened, Store, StoreError},
};

/// Commands applied before a commit.
const GROUP: usize = 1_024;

/// How often one who follows looks for news, and one who leads at its lease.
const BEAT: Duration = Duration::from_millis(100);

/// How often time is told to the farm.
const TICK: Duration = Duration::from_millis(500);

/// How long a commit is tried again before those who wait for it are told that the store is away.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Between two tries of a commit.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Engine<S> {
    pub(super) store: S,
    pub(super) options: DriverOptions,
    pub(super) role: Role,
    /// One who leads has the farm, one who follows a copy; `None` before anything could be loaded.
    pub(super) farm: Option<Farm>,
    /// What could not be written when the store went away.
    pub(super) held: Option<Held>,
    /// Whether the store is known to have everything.
    pub(super) settled: bool,
    /// When the store last confirmed that this coordinator leads.
    pub(super) confirmed: Instant,
    pub(super) ticked: Instant,
    pub(super) sessions: HashMap<Session, mpsc::Sender<ToNode>>,
    pub(super) events: broadcast::Sender<Happened>,
    pub(super) past: VecDeque<Happened>,
    pub(super) cursor: u64,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) messages: mpsc::WeakSender<Message>,
}

type Waiting = (oneshot::Sender<Result<Answer, DriverError>>, Result<Answer, Refusal>);

/// What waits for its group to be durable.
#[derive(Default)]
struct Pending {
    changes: BTreeSet<Key>,
    effects: Vec<Effect>,
    answers: Vec<Waiting>,
}

/// A group that is not written yet, though memory has it.
pub(super) struct Held {
    pub(super) group: Arc<Group>,
}

impl<S: Store> Engine<S> {
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::with_capacity(GROUP);
        loop {
            let beaten = tokio::select! {
                _ = beat.tick() => true,
                got = inbox.recv_many(&mut waiting, GROUP) => {
                    if got == 0 {
                        return;
                    }
                    false
                }
            };
            if beaten {
                // Time is told last: a heartbeat that waits here already must not come too late.
                while waiting.len() < GROUP
                    && let Ok(message) = inbox.try_recv()
                {
                    waiting.push(message);
                }
            }
            let stop = waiting.iter().any(|message| matches!(message, Message::Stop));
            if matches!(self.role, Role::Leading { .. }) {
                self.lead(&mut waiting, beaten).await;
            } else {
                waiting.drain(..).for_each(|message| self.answer(message));
                if beaten {
                    self.seek().await;
                }
            }
            if stop {
                self.end().await;
                return;
            }
        }
    }

    /// One round of a leader.
    async fn lead(&mut self, waiting: &mut Vec<Message>, beaten: bool) {
        let silent = self.confirmed.elapsed();
        // After a pause of this process somebody else may lead by now: nobody is told anything before that is
        // known.
        if silent >= self.options.lease || (beaten && silent >= self.options.lease / 3) {
            self.keep().await;
        }
        let Role::Leading { epoch } = self.role else {
            waiting.drain(..).for_each(|message| self.answer(message));
            return;
        };
        let mut group = Pending::default();
        let mut readings = Vec::new();
        for message in waiting.drain(..) {
            match message {
                Message::Command(command, answer) => self.apply(command, answer, &mut group),
                Message::Open(session, sender) => self.open(session, sender),
                // Readings and watches see the group's end: by then it is durable.
                other => readings.push(other),
            }
        }
        let ticked = beaten && self.ticked.elapsed() >= TICK;
        if ticked {
            self.ticked = Instant::now();
            self.apply(Command::Tick, None, &mut group);
        }
        self.commit(epoch, group).await;
        readings.into_iter().for_each(|message| self.answer(message));
        if ticked && let Some(farm) = &self.farm {
            self.options.meters.observe(farm);
        }
    }

    /// Commits commands of the driver's own, as one group.
    pub(super) async fn carry_out<const N: usize>(&mut self, epoch: Epoch, commands: [Command; N]) {
        let mut group = Pending::default();
        commands.into_iter().for_each(|command| self.apply(command, None, &mut group));
        self.commit(epoch, group).await;
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
        let Some(farm) = &mut self.farm else { return };
        let Step { changes, effects, answer: told } = farm.apply(now(), command);
        group.changes.extend(changes);
        group.effects.extend(effects);
        if let Some(answer) = answer {
            group.answers.push((answer, told));
        }
    }

    /// Answers one who only looks; refuses everything else, since this coordinator does not lead.
    fn answer(&mut self, message: Message) {
        match message {
            Message::Read(look) => self.look(look),
            Message::Watch(sender) => {
                let watch = self.readable().map(|_| Watch {
                    past: self.past.iter().cloned().collect(),
                    cursor: self.cursor,
                    events: self.events.subscribe(),
                });
                // Whoever asked may have gone away.
                let _ = sender.send(watch);
            }
            Message::Command(_, Some(answer)) => {
                let _ = answer.send(Err(self.role.refusal()));
            }
            Message::Open(_, sender) => {
                let _ = sender.send(Err(self.role.refusal()));
            }
            Message::Command(_, None) | Message::Stop => {}
        }
    }

    fn look(&self, look: Reading) {
        look(self.readable());
    }

    /// The farm, as far as it is durable.
    fn readable(&self) -> Result<&Farm, DriverError> {
        // While the store is away, memory is ahead of it, or behind: another coordinator may know better.
        match (&self.farm, &self.role) {
            (Some(farm), Role::Leading { .. } | Role::Following { .. }) => Ok(farm),
            _ => Err(self.role.refusal()),
        }
    }

    fn open(&mut self, session: Session, sender: oneshot::Sender<Result<Opened, DriverError>>) {
        let Some(farm) = &self.farm else { return };
        let (messages, receiver) = mpsc::channel(SESSION_QUEUE);
        let opened = Opened { tag: farm.tag().clone(), messages: receiver };
        if sender.send(Ok(opened)).is_ok() {
            self.sessions.insert(session, messages);
        }
    }

    /// Writes a group and releases what waited for it; or holds it, when it cannot be written.
    async fn commit(&mut self, epoch: Epoch, pending: Pending) {
        let Some(farm) = &self.farm else { return };
        let Pending { changes, effects, answers } = pending;
        let mut events = Vec::new();
        for effect in &effects {
            let Effect::Job { job, event } = effect else { continue };
            if !matches!(event, JobEvent::Changed) {
                self.cursor += 1;
                events.push(Happened { cursor: self.cursor, job: *job, event: event.clone() });
            }
        }
        if !changes.is_empty() {
            let changes = changes
                .into_iter()
                .map(|key| {
                    let record = farm.record(&key);
                    (key, record)
                })
                .collect();
            let group = Arc::new(Group { changes, events: events.clone() });
            let (written, unsure) = self.write(epoch, &group).await;
            if let Err(failure) = written {
                self.options.meters.commits_failed.inc();
                self.not_written(failure, epoch, group);
                for (answer, _) in answers {
                    let _ = answer.send(Err(self.role.failed(unsure)));
                }
                return;
            }
        }
        for (answer, told) in answers {
            let _ = answer.send(told.map_err(DriverError::Refused));
        }
        let mut events = events.into_iter();
        for effect in effects {
            match effect {
                Effect::Job { job, event: JobEvent::Changed } => self.changed(job),
                Effect::Job { .. } => {
                    if let Some(happened) = events.next() {
                        self.publish(happened);
                    }
                }
                Effect::Assign { session, assignment } => {
                    self.options.meters.assigned.inc();
                    self.send(session, ToNode::Assign(assignment));
                }
                Effect::Cancel { session, attempt, reason } => {
                    self.send(session, ToNode::Cancel { attempt, reason });
                }
                Effect::Acknowledge { session, attempt } => {
                    self.send(session, ToNode::Acknowledge(attempt));
                }
            }
        }
    }

    /// Writes a group, for as long as those who wait can be made to wait. After a failure also whether it may
    /// have been written nevertheless.
    async fn write(&mut self, epoch: Epoch, group: &Arc<Group>) -> (Result<(), StoreError>, bool) {
        let started = Instant::now();
        let mut unsure = false;
        loop {
            let tried = Instant::now();
            let written = self.store.commit(epoch, group.clone()).await;
            self.options.meters.commit_seconds.observe(tried.elapsed().as_secs_f64());
            match written {
                Ok(()) => {
                    self.confirmed = tried;
                    return (Ok(()), false);
                }
                Err(failure @ (StoreError::Deposed | StoreError::Behind)) => return (Err(failure), unsure),
                Err(failure) if started.elapsed() >= PATIENCE => {
                    let may_be = unsure || failure.may_have_been_written();
                    return (Err(failure), may_be);
                }
                Err(failure) => {
                    unsure |= failure.may_have_been_written();
                    warn!(error = %chain(&failure), "a commit failed; trying again");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn send(&mut self, session: Session, message: ToNode) {
        let full = self.sessions.get(&session).is_some_and(|sender| sender.try_send(message).is_err());
        if full {
            // Dropping the sender ends the connection; its attempts live on their leases.
            self.sessions.remove(&session);
            warn!(session = session.0, "a node does not read what it is sent: cut off");
        }
    }

    /// Tells watchers to look at the job again.
    pub(super) fn changed(&mut self, job: JobId) {
        let event = JobEvent::Changed;
        // Nobody watching is no mistake.
        let _ = self.events.send(Happened { cursor: self.cursor, job, event });
    }

    pub(super) fn publish(&mut self, happened: Happened) {
        if matches!(self.role, Role::Leading { .. }) {
            match &happened.event {
                JobEvent::Changed => {}
                JobEvent::ChunkFinished { seconds, frames, .. } => {
                    self.options.meters.finished(*seconds, frames.len());
                }
                JobEvent::ChunkFailed(failure) => self.options.meters.failed(failure.kind),
            }
        }
        self.past.push_back(happened.clone());
        if self.past.len() > REMEMBERED_EVENTS {
            self.past.pop_front();
        }
        let _ = self.events.send(happened);
    }

    async fn end(&mut self) {
        if let Role::Leading { epoch } = self.role {
            match self.store.resign(epoch).await {
                Ok(()) => info!("the farm is at rest in its store"),
                Err(failure) => error!(error = %chain(&failure), "the next leader has to wait for the lease"),
            }
        }
    }
}
